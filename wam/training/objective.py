"""The joint objective: one context per window, then one draw per group of conditionals, each with its own clocks.

Conditionals that keep the same streams run together, every row of the batch with its own rules; conditionals that drop
a stream (the policy drops the future) run as a group of their own, without computing what they drop. So a training step
costs one context, one short pass for the policy and one for everything that has a future.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wam.contracts import Batch, expected
from wam.diffusion.clocks import draw_clocks
from wam.diffusion.flow import add_noise, clock_weight, masked_mean, target
from wam.geometry.cameras import Cameras
from wam.model.action_tokens import token_loss
from wam.model.config import ConditionalConfig, ModelConfig, OccupancyConfig
from wam.model.context import Context
from wam.model.occupancy import Drawn, colour_loss, distance_loss, occupancy_loss
from wam.model.wam import WorldActionModel
from wam.tokenizers.words import UNKNOWN_WORD
from wam.training.prefixes import draw_prefixes, pushed_aside, require_displacements

VOXEL_WEIGHTS: dict[str, Callable[[OccupancyConfig], float]] = {
    "occupancy": lambda config: config.loss_weight,
    "occupancy_colour": lambda config: config.colour_weight,
    "occupancy_distance": lambda config: config.distance_weight,
}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Conditionals over the same present streams."""

    streams: tuple[str, ...]
    rows: tuple[ConditionalConfig, ...]

    def weights(self, play: Tensor) -> Tensor:
        """(B, rows): how often each row is drawn, by whether the window is of random play."""
        plain = torch.tensor([row.weight for row in self.rows])
        random = torch.tensor([row.weight if row.play is None else row.play for row in self.rows])
        return torch.where(play[:, None], random, plain)


def group_conditionals(rows: Sequence[ConditionalConfig], streams: Sequence[str]) -> list[Group]:
    """Rows grouped by the streams they keep; streams the batch lacks are dropped, and rows left with nothing to draw."""
    groups: dict[tuple[str, ...], list[ConditionalConfig]] = {}
    for row in rows:
        kept = tuple(s for s in streams if row.clocks.get(s, "dropped") != "dropped")
        if any(row.clocks[s] in ("draw", "shared") for s in kept):
            groups.setdefault(kept, []).append(row)
    return [Group(streams=kept, rows=tuple(found)) for kept, found in groups.items()]


def joint_losses(model: WorldActionModel, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
    """Losses by name; `loss` is their weighted sum. Every random draw comes from `generator` (on the CPU)."""
    config, device = model.config, batch.images.device
    size = batch.size
    play = torch.zeros(size, dtype=torch.bool) if batch.play is None else batch.play.cpu()
    silent = torch.rand(size, generator=generator) < config.text_dropout
    if batch.instruction:
        learned = "text" in config.streams and config.text.kind == "small"
        noise = config.word_noise if learned else 0.0
        spoken = [scrambled(sentence, noise, generator) for sentence in batch.instruction]
        batch = batch.replace(
            instruction=tuple("" if quiet else s for quiet, s in zip(silent.tolist(), spoken, strict=True))
        )
    batch = model.normalized(batch)
    groups = group_conditionals(config.conditionals, model.available(batch))
    if not groups:
        raise expected(
            f"a batch with something to denoise among {', '.join(config.noisy)}",
            got=f"only {', '.join(batch.tensors())}",
            do="check the dataset's features or `model.conditionals`",
        )
    passes = [_Pass.draw(model, group, play, alone=len(groups) == 1, generator=generator) for group in groups]
    hidden = torch.rand(size, generator=generator) < config.state_dropout
    hide = {s: hidden.clone() for s in config.vectors}
    for one in passes:
        for s, rows in one.hidden(config.vectors, size, generator).items():
            hide[s] |= rows
    context = model.network.context(batch, hide={s: rows.to(device) for s, rows in hide.items()})
    losses: dict[str, Tensor] = {}
    total = torch.zeros((), device=device)
    for one in passes:
        group = one.group
        label = "" if len(group.streams) > 1 or len(groups) == 1 else "_alone"
        if one.rows is None:
            found = _pass_losses(model, batch, context.expand(one.draws), one, generator)
        else:
            found = _pass_losses(model, batch[one.rows.tolist()], context.take(one.rows.to(device)), one, generator)
        for s, loss in found.items():
            losses[f"{s}{label}"] = loss
            weight = VOXEL_WEIGHTS[s](config.occupancy) if s in VOXEL_WEIGHTS else config.streams[s].loss_weight
            total = total + weight * loss
    if config.action_tokens.kind != "none" and batch.action is not None:
        losses["action_tokens"] = _token_loss(model, batch, context, play.to(device))
        total = total + config.action_tokens.loss_weight * losses["action_tokens"]
    return {"loss": total, **losses}


def _token_loss(model: WorldActionModel, batch: Batch, context: Context, play: Tensor) -> Tensor:
    """Of demonstrations alone: random play (B,) does not follow from what is seen."""
    assert batch.action is not None
    codes, known = model.action_codes.encode(batch.action, batch.action_mask)
    return token_loss(model.network, context, codes, known & ~play[:, None])


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """One denoising pass of a group. rows: of the batch, None for all; draws: of each; chosen (N,): each row's
    conditional; row_weight (N,)."""

    group: Group
    rows: Tensor | None
    draws: int
    chosen: Tensor
    row_weight: Tensor

    @classmethod
    def draw(
        cls, model: WorldActionModel, group: Group, play: Tensor, *, alone: bool, generator: torch.Generator
    ) -> _Pass:
        config = model.config
        rows, draws = None, config.draws
        if any(config.streams[s].kind == "video" for s in group.streams):
            rows, draws = video_rows(play, 1.0 if alone else config.video_share), 1
            play = play[rows]
        weights = group.weights(play.repeat_interleave(draws))
        chosen = torch.multinomial(weights.clamp_min(1e-9), 1, generator=generator)[:, 0]
        row_weight = weights.sum(1) / weights.sum(1).max()
        return cls(group=group, rows=rows, draws=draws, chosen=chosen, row_weight=row_weight)

    def hidden(self, streams: Sequence[str], size: int, generator: torch.Generator) -> dict[str, Tensor]:
        """(size,) bool by vector stream: windows whose conditional hides it. Several draws share a window and hide nothing."""
        found: dict[str, Tensor] = {}
        if self.draws > 1:
            return found
        luck = torch.rand(len(self.chosen), generator=generator)
        for s in streams:
            share = torch.tensor([row.hide.get(s, 0.0) for row in self.group.rows])[self.chosen]
            found[s] = torch.zeros(size, dtype=torch.bool)
            found[s][slice(None) if self.rows is None else self.rows] = luck < share
        return found


def scrambled(sentence: str, share: float, generator: torch.Generator) -> str:
    """The sentence with each word replaced, at this rate, by the unknown word; a sentence of one word stays."""
    words = sentence.split()
    if share <= 0 or len(words) < 2:
        return sentence
    hit = torch.rand(len(words), generator=generator) < share
    return " ".join(UNKNOWN_WORD if h else w for w, h in zip(words, hit.tolist(), strict=True))


def video_rows(play: Tensor, share: float) -> Tensor:
    """Indices (N,) of the windows that passes with video run on: `share` of the batch, play (B,) first, which teaches
    a policy nothing. The rest of the batch teaches the policy alone, at a fraction of the price."""
    count = max(1, round(share * len(play)))
    return play.to(torch.uint8).argsort(descending=True, stable=True)[:count].sort().values


def _pass_losses(
    model: WorldActionModel, batch: Batch, context: Context, one: _Pass, generator: torch.Generator
) -> dict[str, Tensor]:
    """One denoising pass over every row, each with its own conditional; `draws` rows of the context per window."""
    config, device = model.config, batch.images.device
    group, draws, chosen, row_weight = one.group, one.draws, one.chosen, one.row_weight
    size = len(chosen)
    drawn = [
        draw_clocks(
            {s: row.clocks[s] for s in group.streams},
            {s: config.streams[s].clock for s in group.streams},
            size,
            generator=generator,
        )
        for row in group.rows
    ]
    clean = model.signals(batch, group.streams)
    x = {s: clean[s] if draws == 1 else clean[s].repeat_interleave(draws, 0) for s in group.streams}
    clocks: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    for s in group.streams:
        clocks[s] = torch.stack([d[s] for d in drawn])[chosen, torch.arange(size)].to(device)
        wanted = torch.tensor([row.loss_scale * (row.clocks[s] in ("draw", "shared")) for row in group.rows])[chosen]
        counts[s] = (wanted * row_weight).to(device)
        known = getattr(batch, f"{s}_mask", None) if s in ("action", "latent_action") else None
        if known is not None:  # rows of a mixture that have no action say nothing
            unknown = ~known.any(1).repeat_interleave(draws)
            clocks[s], counts[s] = clocks[s].masked_fill(unknown, 1.0), counts[s].masked_fill(unknown, 0.0)
    noise = {s: torch.randn(x[s].shape, generator=generator).to(device) for s in group.streams}
    noisy = {s: add_noise(x[s], noise[s], clocks[s]) for s in x}
    settled = _settled(model.config, one, batch, generator)
    if settled is not None:
        settled = settled.to(device)
        if config.prefix.noise and "future" not in x:  # a push would lead to another future than the one that is known
            units = model.normalizer("action")
            space, noise_level = require_displacements(model.action_space), config.prefix.noise
            pushed = pushed_aside(units.restore(x["action"]), settled, space, noise=noise_level, generator=generator)
            x["action"] = units.normalize(pushed)
            noisy["action"] = add_noise(x["action"], noise["action"], clocks["action"])
        noisy["action"] = torch.where(settled[..., None], x["action"], noisy["action"])
    videos: dict[str, Drawn] = {}
    predictions = model.network.denoise(context, noisy, clocks, settled=settled, drawn=videos)
    losses = {}
    for s in group.streams:
        parametrisation = config.streams[s].predicts
        error = (predictions[s].float() - target(x[s], noise[s], parametrisation)).square()
        per_row = _per_row(s, error, batch, draws, settled=settled if s == "action" else None) * clock_weight(
            clocks[s], parametrisation
        )
        losses[s] = masked_mean(per_row * counts[s], (counts[s] > 0).float())
    if model.network.occupancy is not None and batch.occupancy is not None and "future" in videos:
        losses |= _voxel_losses(model, batch, context, videos["future"])
    return losses


def _voxel_losses(model: WorldActionModel, batch: Batch, context: Context, future: Drawn) -> dict[str, Tensor]:
    """Of the first rows alone, which are as random as any: a grid costs as much as its pictures."""
    assert batch.occupancy is not None
    config = model.config.occupancy
    rows = torch.arange(min(config.rows, batch.size), device=batch.images.device)
    truth = batch.occupancy[rows]
    said = model.network.voxels(context, Cameras.of(batch).take(rows), future=future, rows=rows)
    mask = None
    if batch.future_mask is not None:
        mask = torch.cat([torch.ones_like(batch.future_mask[rows, :1]), batch.future_mask[rows]], dim=1)
    losses = {"occupancy": occupancy_loss(said.filled, truth, mask=mask, filled_weight=config.filled_weight)}
    if said.colour is not None:
        if batch.occupancy_colour is None:
            raise expected(
                "a batch with colours of its voxels",
                got="one without",
                do="read it with `WindowSpec(colour=True)`, or set model.occupancy.colour_weight=0",
            )
        losses["occupancy_colour"] = colour_loss(said.colour, batch.occupancy_colour[rows], mask=mask)
    if said.distance is not None:
        losses["occupancy_distance"] = distance_loss(
            said.distance, truth, reach=config.distance_reach, side=config.grid.side, mask=mask
        )
    return losses


def _settled(config: ModelConfig, one: _Pass, batch: Batch, generator: torch.Generator) -> Tensor | None:
    """(N, K) bool: the actions of each row of a pass that are given clean; None where the model is taught no prefix."""
    continues = torch.tensor([config.continues(row) for row in one.group.rows])
    if not config.longest_prefix or not continues.any() or batch.action is None:
        return None
    lengths = draw_prefixes(len(one.chosen), config.prefix.share, config.longest_prefix, generator=generator)
    lengths = lengths * continues[one.chosen]
    if batch.action_mask is not None:  # what lies beyond an episode's end was never done
        lengths = torch.minimum(lengths, batch.action_mask.sum(1).cpu().repeat_interleave(one.draws))
    return torch.arange(batch.action.shape[1]) < lengths[:, None]


def _per_row(stream: str, error: Tensor, batch: Batch, draws: int, *, settled: Tensor | None = None) -> Tensor:
    """Mean squared error of each row over its real entries, without settled ones (B, K): (B,)."""
    mask = None
    if stream in ("action", "latent_action"):
        per_step, mask = error.mean(2), getattr(batch, f"{stream}_mask")
    elif stream == "future" and batch.future_mask is not None and error.shape[2] == batch.future_mask.shape[1]:
        per_step, mask = error.mean((1, 3, 4, 5)), batch.future_mask
    if mask is None and settled is None:
        return error.flatten(1).mean(1)
    weight = torch.ones_like(per_step) if mask is None else mask.float().repeat_interleave(draws, 0)
    if settled is not None:
        weight = weight * ~settled
    return (per_step * weight).sum(1) / weight.sum(1).clamp_min(1)
