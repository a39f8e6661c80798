"""The world-action model: one network, five conditionals, all thin presets over `sample(given=..., want=...)`.

| method             | given                    | wanted         |
|--------------------|--------------------------|----------------|
| `policy`           | observation, state, text | action (the future is dropped, not computed) |
| `imagine`          | observation, text        | future         |
| `forward_dynamics` | observation, action      | future         |
| `inverse_dynamics` | observation, future      | action         |
| `joint`            | observation, state, text | future, action |

Text and state ride along where the batch has them; of a state that is split, inverse dynamics is not given the velocity,
which tells much of what will be done without a look at the frames. Source of the idea: UWM (Zhu et al. 2025), Motus, Cosmos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from wam.contracts import ActionSpace, Batch, expected
from wam.diffusion.clocks import decoupled_clocks, sampling_clocks
from wam.diffusion.flow import SMALLEST_CLOCK, to_clean, to_velocity
from wam.diffusion.guidance import guide
from wam.diffusion.reuse import Reusing
from wam.diffusion.samplers import AfterStep, Signals, initial_noise, integrate, integrate_with_schedulers
from wam.geometry.cameras import Cameras
from wam.model.backbones.bases import leave_out
from wam.model.backbones.load import AnyBackbone
from wam.model.backbones.streams import load_backbones
from wam.model.config import ConditionalConfig, ModelConfig
from wam.model.context import Context
from wam.model.inpainting import Inpainting, inpaint, settled_prefix
from wam.model.network import JointNetwork
from wam.model.normalize import Normalizer
from wam.model.occupancy import Drawn
from wam.model.parts import chunk_shape
from wam.model.steering import Steering, descend
from wam.tokenizers.action_codes import ActionCodes
from wam.tokenizers.text import TextEncoder, make_text_encoder
from wam.tokenizers.video import VideoTokenizer, make_video_tokenizer

CONTEXT = ("observation", "text", "state", "velocity")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was wanted. future (B, V, T, H, W, C) in [0, 1]; action (B, K, A) in the action space's units; occupancy
    (B, 1 + T, X, Y, Z), how likely each voxel is filled, at the present and then at each frame of the future; of a model that
    was taught them, occupancy_colour (B, 1 + T, X, Y, Z, 3) in [0, 1], which means something where it is filled, and
    occupancy_distance (B, 1 + T, X, Y, Z), metres to the nearest filled voxel, up to the reach of the model's config."""

    future: Tensor | None = None
    action: Tensor | None = None
    latent_action: Tensor | None = None
    value: Tensor | None = None
    occupancy: Tensor | None = None
    occupancy_colour: Tensor | None = None
    occupancy_distance: Tensor | None = None
    clocks: dict[str, float] = field(default_factory=dict)


class WorldActionModel(nn.Module):
    """A joint distribution over future frames and action chunks, given what is seen and asked."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        action_space: ActionSpace | None = None,
        text: TextEncoder | None = None,
        video: VideoTokenizer | None = None,
        backbones: Mapping[str, AnyBackbone] | None = None,
    ) -> None:
        """text, video, backbones (by stream): in place of those that the config names."""
        super().__init__()
        self.config, self.action_space = config, action_space
        self.cameras: tuple[str, ...] = ()
        self.provenance: dict[str, Any] = {"random": True}
        self.statistics: dict[str, Any] = {}
        self.network = JointNetwork(
            config,
            text=text or make_text_encoder(config.text),
            video=video or make_video_tokenizer(config.video),
            backbones=load_backbones(config, backbones or {}),
        )
        self.normalizers = nn.ModuleDict(
            {"action": Normalizer(config.action_dim), "state": Normalizer(config.state_dim)}
        )
        self.action_codes = ActionCodes(config.action_tokens, chunk=config.chunk, dim=config.action_dim)
        leave_out(self)

    def borrowed(self) -> set[str]:
        """Names of weights that stay as their pretrained base has them and are no part of `state_dict()`: a checkpoint says
        which base, and loading fetches them there."""
        return {f"network.{name}" for name in self.network.borrowed()}

    def normalizer(self, name: str) -> Normalizer:
        """Of `action` or `state`."""
        return cast(Normalizer, self.normalizers[name])

    # signals ----------------------------------------------------------------------------------------------------

    def normalized(self, batch: Batch) -> Batch:
        changes: dict[str, Any] = {}
        for name in ("state", "action"):
            value = getattr(batch, name)
            if value is not None:
                normalizer = self.normalizer(name)
                if value.shape[-1] != normalizer.center.shape[0]:
                    raise expected(
                        f"{name} of {normalizer.center.shape[0]} dimensions",
                        got=value.shape[-1],
                        do=f"use data of the embodiment the model was made for, or set model.{name}_dim",
                    )
                changes[name] = normalizer.normalize(value)
        return batch.replace(**changes)

    def available(self, batch: Batch) -> tuple[str, ...]:
        """The noisy streams that the batch has a signal of."""
        return tuple(s for s in self.config.noisy if getattr(batch, s, None) is not None)

    def signals(self, batch: Batch, streams: Sequence[str] | None = None) -> Signals:
        """The clean signals of these noisy streams, or of every one that the (normalised) batch has."""
        found: Signals = {}
        for name in self.available(batch) if streams is None else streams:
            value = getattr(batch, name)
            if name == "future":
                found[name] = self.network.foreseen(batch)
            else:
                found[name] = value[:, None, None] if name == "value" else value
        return found

    def signal_shape(self, stream: str, size: int) -> tuple[int, ...]:
        c, video = self.config, self.network.video_tokenizer
        if c.streams[stream].kind == "video":
            side = c.image_size // video.spatial
            return size, c.views, len(c.future) // video.temporal, side, side, video.channels
        dim, length = chunk_shape(c, stream)
        return size, length, dim

    def initial_noise(self, size: int, *, seed: int, same: bool, device: torch.device) -> Signals:
        """Of every noisy stream; same: every row starts from the same."""
        return {
            s: initial_noise(self.signal_shape(s, 1 if same else size), seed=seed + 7919 * i, device=device).expand(
                self.signal_shape(s, size)
            )
            for i, s in enumerate(self.config.noisy)
        }

    # sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def context(self, batch: Batch, *, given: Sequence[str] = CONTEXT) -> Context:
        """The cache of an observation, for repeated `sample(context=...)` calls."""
        told = batch if "text" in given else batch.without("instruction")
        kept_away = torch.ones(batch.size, dtype=torch.bool, device=batch.images.device)
        hide = {s: kept_away for s in self.config.vectors if s not in given}
        return self.network.context(self.normalized(told), hide=hide)

    @torch.no_grad()
    def sample(
        self,
        batch: Batch,
        *,
        given: Sequence[str] = CONTEXT,
        want: Sequence[str] = ("future", "action"),
        steps: int = 4,
        sampler: str = "euler",
        guidance: float = 1.0,
        seed: int = 0,
        context: Context | None = None,
        clocks: Mapping[str, Tensor] | None = None,
        schedulers: Mapping[str, Any] | None = None,
        cached: bool = True,
        same_noise: bool = False,
        steering: Steering | None = None,
        inpainting: Inpainting | None = None,
        path: list[Signals] | None = None,
        after_step: AfterStep | None = None,
        reuse: float | None = None,
    ) -> Sample:
        """Draw the wanted streams given the given ones.

        steps: denoising steps. guidance: scale on text, 1 is none. clocks: (steps + 1,) falling noise levels by wanted
        stream, where they differ (decoupled denoising). schedulers: diffusers schedulers by wanted stream, in place of
        `sampler`. cached=False recomputes the context at every step; the result is the same (slow, for tests).
        same_noise: every row starts from the same noise, so that a row's sample does not depend on its batch. steering: a
        cost that the wanted action is kept clear of. inpainting: a chunk that the wanted action is to agree with; its method
        `prefix` is that of the training where this conditional was trained with one. path: takes the wanted signals,
        normalised, at every clock on the way; after_step: is shown them after every step and may give others to go on from.
        reuse: cosine of the last two velocities from which the last is taken again in place of a network call; None: never.

        `occupancy` may be wanted where the model has voxels and the batch its cameras: read off the future that is drawn or
        given, or of the present alone where there is neither.
        """
        voxels, want = "occupancy" in want, tuple(s for s in want if s != "occupancy")
        if (steering is not None or inpainting is not None) and "action" not in want:
            raise expected("a wanted action to steer or inpaint", got=want, do="want it, or leave both out")
        if inpainting is not None and schedulers is not None:
            raise expected("one of the samplers by name to inpaint with", got="schedulers", do="leave `schedulers` out")
        if steering is not None and steering.imagine and "future" not in self.config.streams:
            raise expected("a model with a future to imagine", got="one without", do="set imagine=False")
        if unknown := (set(want) - set(self.config.noisy)) | (set(given) - {*self.config.streams, *CONTEXT}):
            raise expected(f"streams among {', '.join(self.config.streams)}", got=sorted(unknown), do="rename them")
        device = batch.images.device
        plain = self.normalized(batch)
        clean = self.signals(plain.without(*(s for s in ("future", "action", "latent_action") if s not in given)))
        if missing := [s for s in given if s in self.config.noisy and s not in clean]:
            raise expected(f"a batch with {', '.join(missing)}", got="none", do="give what the conditional is given")
        context = context or self.context(batch, given=given)
        bare = self.context(batch.without("instruction"), given=given) if guidance != 1.0 else None
        noise = self.initial_noise(batch.size, seed=seed, same=same_noise, device=device)
        start = {s: noise[s] for s in want}
        settled: Tensor | None = None
        if inpainting is not None and inpainting.method == "prefix" and self._continues(given, want):
            known_chunk = self.normalizer("action").normalize(inpainting.chunk.to(device))
            settled = settled_prefix(inpainting, like=start["action"], longest=self.config.longest_prefix)
            start["action"] = torch.where(settled[..., None], known_chunk, start["action"])
        fixed = {s: clean[s] for s in given if s in clean}
        fixed |= {s: noise[s] for s in self.unsaid(given, want)}
        fixed_clocks = {s: torch.full((), 0.0 if s in clean and s in given else 1.0, device=device) for s in fixed}

        drawn: dict[str, Drawn] = {}

        def guided(known: Context, signals: Signals, now: Mapping[str, Tensor]) -> Signals:
            every, clock = {**signals, **fixed}, {**now, **fixed_clocks}
            slopes = self.velocity(known, every, clock, want, settled=settled, drawn=drawn)
            if bare is None:
                return slopes
            return guide(slopes, self.velocity(bare, every, clock, want, settled=settled), guidance)

        def velocity(signals: Signals, now: Mapping[str, Tensor]) -> Signals:
            known = context if cached else self.context(batch, given=given)
            if inpainting is None or settled is not None:
                slopes = guided(known, signals, now)
            else:
                slopes = inpaint(
                    lambda action: guided(known, {**signals, "action": action}, now),
                    signals["action"],
                    now["action"],
                    known=self.normalizer("action").normalize(inpainting.chunk.to(device)),
                    inpainting=inpainting,
                    largest_step=float((laid["action"][:-1] - laid["action"][1:]).max()),
                )
            if steering is not None:
                clock = now["action"].clamp_min(SMALLEST_CLOCK)
                clean = signals["action"] - clock * slopes["action"]
                clean = descend(
                    clean, lambda chunk: self._foresee(known, chunk, batch, seed, steering.imagine), steering
                )
                slopes = {**slopes, "action": (signals["action"] - clean) / clock}
            if settled is not None:  # what is settled stays where it is
                slopes = {**slopes, "action": slopes["action"].masked_fill(settled[..., None], 0.0)}
            return slopes

        field = velocity if reuse is None or not want else Reusing(velocity, least=reuse)
        laid = {s: self.sampling_clocks(s, steps).to(device) for s in want} | dict(clocks or {})
        if not want:
            final, ends = {}, {}
            if "future" in fixed:
                velocity({}, {})
        elif schedulers is not None:
            if path is not None:
                raise expected("a sampler of our own where the path is wanted", got="schedulers", do="leave them out")
            final = integrate_with_schedulers(field, start, schedulers, after=after_step)
            ends = dict.fromkeys(want, 0.0)
        else:
            final = integrate(field, start, laid, sampler=sampler, path=path, after=after_step)
            ends = {s: float(laid[s][-1]) for s in want}
        found = self._finish(final, ends, context.present)
        if voxels:
            found = replace(found, **self._voxels(context, batch, drawn.get("future")))
        return found

    def sampling_clocks(self, stream: str, steps: int) -> Tensor:
        """(steps + 1,) falling clocks, laid by the stream's own shift."""
        clock = self.config.streams[stream].clock
        return sampling_clocks(steps, shift=clock.sampling_shift or clock.shift)

    def velocity(
        self,
        context: Context,
        signals: Signals,
        clocks: Mapping[str, Tensor],
        want: Sequence[str],
        settled: Tensor | None = None,
        drawn: dict[str, Drawn] | None = None,
    ) -> Signals:
        """Of each wanted stream, at these clocks (scalars) by stream; settled, drawn: as `denoise` has them."""
        ordered = {s: signals[s] for s in self.config.noisy if s in signals}
        rows = {s: clocks[s].to(context.present.device).float().expand(context.size) for s in ordered}
        predictions = self.network.denoise(context, ordered, rows, settled=settled, drawn=drawn)
        return {
            s: to_velocity(predictions[s].float(), ordered[s], rows[s], self.config.streams[s].predicts) for s in want
        }

    def _foresee(self, context: Context, chunk: Tensor, batch: Batch, seed: int, imagine: bool) -> Sample:
        """What a normalised chunk (B, K, A) is, and if asked the future and the voxels that follow it, with gradients."""
        action = self.normalizer("action").restore(chunk)
        if not imagine:
            return Sample(action=action)
        noise = initial_noise(self.signal_shape("future", context.size), seed=seed, device=chunk.device)
        clocks = {"future": torch.ones(context.size, device=chunk.device)}
        clocks["action"] = torch.zeros_like(clocks["future"])
        drawn: dict[str, Drawn] = {}
        found = self.network.denoise(context, {"future": noise, "action": chunk}, clocks, drawn=drawn)["future"]
        clean = to_clean(found.float(), noise, clocks["future"], self.config.streams["future"].predicts)
        posed = self.network.occupancy is not None and batch.intrinsics is not None
        voxels = self._voxels(context, batch, drawn["future"]) if posed else {}
        return Sample(action=action, future=self.network.decode_future(context.present, clean), **voxels)

    def _voxels(self, context: Context, batch: Batch, future: Drawn | None) -> dict[str, Any]:
        """The fields of a Sample that speak of voxels."""
        said = self.network.voxels(context, Cameras.of(batch), future=future)
        found: dict[str, Any] = {"occupancy": said.filled.sigmoid()}
        if said.colour is not None:
            found["occupancy_colour"] = said.colour.sigmoid()
        if said.distance is not None:
            found["occupancy_distance"] = said.distance.sigmoid() * self.config.occupancy.distance_reach
        return found

    def _continues(self, given: Sequence[str], want: Sequence[str]) -> bool:
        """Whether training gave this very conditional settled actions to go on from."""
        config, told = self.config, set(given) & set(self.config.noisy)
        rows = [row for row in config.conditionals if config.continues(row) and row.of("clean") == told]
        return config.longest_prefix > 0 and any(row.of("draw", "shared") == set(want) for row in rows)

    def unsaid(self, given: Sequence[str], want: Sequence[str]) -> list[str]:
        """Streams neither given nor wanted that stay in, as pure noise: those the matching training conditional kept."""
        row = matching_conditional(self.config.conditionals, given, want)
        return [s for s, rule in row.clocks.items() if rule == "noise"] if row else []

    def _finish(self, final: Signals, ends: dict[str, float], present: Tensor) -> Sample:
        fields: dict[str, Any] = {"clocks": ends}
        for s, signal in final.items():
            if s == "future":
                fields[s] = self.network.decode_future(present, signal)
            elif s == "action":
                fields[s] = self.normalizer("action").restore(signal)
            else:
                fields[s] = signal.flatten() if s == "value" else signal
        return Sample(**fields)

    def policy(self, batch: Batch, *, steps: int = 4, **options: Any) -> Sample:
        """p(action | observation, state, text); the future is dropped, so it costs nothing.

        What else the training row named `policy` draws is drawn along: GO-1 plans in latent actions, and acts on them.
        """
        return self.sample(batch, want=self.drawn_by_policy, steps=steps, **options)

    @property
    def drawn_by_policy(self) -> tuple[str, ...]:
        """The streams that `policy` wants: the action, and what training drew with it."""
        row = next((row for row in self.config.conditionals if row.name == "policy"), None)
        drawn = [s for s in self.config.noisy if s != "future" and row and row.clocks.get(s) in ("draw", "shared")]
        return tuple(drawn) if "action" in drawn else ("action",)

    def imagine(self, batch: Batch, *, steps: int = 4, **options: Any) -> Sample:
        """p(future | observation, text)."""
        return self.sample(batch, want=("future",), steps=steps, **options)

    def forward_dynamics(self, batch: Batch, *, steps: int = 4, **options: Any) -> Sample:
        """p(future | observation, action)."""
        return self.sample(batch, given=(*CONTEXT, "action"), want=("future",), steps=steps, **options)

    def inverse_dynamics(self, batch: Batch, *, steps: int = 4, **options: Any) -> Sample:
        """p(action | observation, state, text, future), without the velocity."""
        given = ("observation", "text", "state", "future")
        return self.sample(batch, given=given, want=("action",), steps=steps, **options)

    def joint(self, batch: Batch, *, steps: int = 4, future_stop: float = 0.0, **options: Any) -> Sample:
        """p(future, action | observation, state, text). future_stop: the clock at which the future stops while the action comes
        clean, where few steps are to do for the action (decoupled denoising); 0 denoises both."""
        if future_stop:
            clock = self.config.streams["future"].clock
            laid = decoupled_clocks(steps, shift=clock.sampling_shift or clock.shift, stop=future_stop)
            options["clocks"] = {"future": laid.to(batch.images.device), **options.get("clocks", {})}
        return self.sample(batch, want=("future", "action"), steps=steps, **options)


def matching_conditional(
    rows: Sequence[ConditionalConfig], given: Sequence[str], want: Sequence[str]
) -> ConditionalConfig | None:
    """The training row that draws what is wanted and gives what is given, if there is one."""
    for row in rows:
        if row.of("draw", "shared") == set(want) and row.of("clean") <= set(given):
            return row
    return None
