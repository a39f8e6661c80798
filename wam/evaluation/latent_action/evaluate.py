"""Everything that is measured about a latent-action tokenizer, in one call: figures and pictures of a run or a saved folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wam.contracts import WamError, expected
from wam.data.features import STATE
from wam.data.store import EpisodeStore
from wam.evaluation.figures import Measured
from wam.evaluation.latent_action import probes
from wam.evaluation.latent_action.config import LatentActionEvaluateConfig
from wam.evaluation.latent_action.driving import Foresight, foresight, jitter_response, swapped
from wam.evaluation.latent_action.pictures import Strip, foresight_strip, latent_walk, swap_strip, transfer_strip
from wam.evaluation.latent_action.readings import Readings, episodes_of, read
from wam.evaluation.latent_action.transfer import aligned_pairs, transfer
from wam.tokenizers.latent_action import LatentActionTokenizer
from wam.tokenizers.latent_action.features import make_features
from wam.tokenizers.quantizers import code_health
from wam.training.state import newest_checkpoint

BASELINE = 1500
"""Windows the baseline is fitted on: frozen encoders are slow, and wide features need few."""
STILL = 0.02
"""Metres: a hand that moves less has no direction to compare."""


@dataclass(kw_only=True)
class LatentActionEvaluation(Measured):
    """strips: pictures to draw; notes: what a reader of the figures has to know. used (codebooks, size): how often each code
    was used in all windows read."""

    strips: list[Strip] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    used: Tensor | None = None
    windows: int = 0

    def count(self, tokenizer: LatentActionTokenizer, windows: Readings) -> None:
        """Remember which codes these windows use."""
        if windows.codes is not None:
            found = tokenizer.quantizer.counts(torch.from_numpy(windows.codes))
            self.used = found if self.used is None else self.used + found
            self.windows += len(windows)


def evaluate(path: Path, config: LatentActionEvaluateConfig) -> LatentActionEvaluation:
    """Measure the tokenizer at `path`, a run or a saved folder, on what the config and the run name.

    Raises WamError where nothing can be measured."""
    if config.threads:
        torch.set_num_threads(config.threads)
    tokenizer = LatentActionTokenizer.from_pretrained(newest_checkpoint(path))
    found = LatentActionEvaluation()
    found.notes |= {
        "random_weights": bool(tokenizer.provenance.get("random", True)),
        "step": tokenizer.provenance.get("step"),
    }
    trained: Mapping[str, Any] = tokenizer.provenance.get("config", {}).get("data", {})
    simulator = _simulator(config, trained)
    if simulator is None:
        found.unmeasured.append("probes, code use: no dataset with states; set `data`")
    else:
        _measure_simulator(tokenizer, simulator, config, trained, found)
    if config.human:
        _measure_human(tokenizer, config, trained, found)
    else:
        found.unmeasured.append("code_sensitivity: no held-out human clips; set `human`")
    if config.pairs.human and config.pairs.robot:
        _measure_transfer(tokenizer, config, found)
    else:
        found.unmeasured.append("transfer_gain: no aligned clips; set `pairs.human` and `pairs.robot`")
    if found.used is not None:
        found.add("dead_codes", code_health(found.used).dead, found.windows)
    if not found.figures:
        raise expected("something to measure on", got="; ".join(found.unmeasured), do="name at least one of these")
    return found


def _simulator(config: LatentActionEvaluateConfig, trained: Mapping[str, Any]) -> EpisodeStore | None:
    roots = [config.data] if config.data else [part["root"] for part in trained.get("parts", [])]
    for root in roots:
        try:
            store = EpisodeStore(root)
        except WamError:
            if config.data:
                raise
            continue  # a run's other data may lie on another machine
        if STATE in store.info.features:
            return store
    return None


def _measure_simulator(
    tokenizer: LatentActionTokenizer,
    store: EpisodeStore,
    config: LatentActionEvaluateConfig,
    trained: Mapping[str, Any],
    found: LatentActionEvaluation,
) -> None:
    held_out = trained.get("held_out", 0.1) if config.held_out is None else config.held_out
    seed = trained.get("split_seed", 0) if config.split_seed is None else config.split_seed
    train, aside = episodes_of(store, held_out=held_out, seed=seed)
    if not train or not aside:
        raise expected("episodes on both sides of the split", got=f"{len(train)} and {len(aside)}", do="set `held_out`")
    axes = tuple(config.axes)
    known = read(tokenizer, store, train, limit=config.windows, seed=config.seed, axes=axes)
    asked = read(tokenizer, store, aside, limit=config.windows, seed=config.seed + 1, axes=axes)
    found.notes["axes"] = list(asked.names)
    _measure_codes(tokenizer, known, asked, found)
    play = known[known.play], asked[asked.play]
    if min(map(len, play)) >= 50:
        _measure_probes(*play, config, found)
        _measure_swap(tokenizer, *play, config, found)
    else:
        found.unmeasured.append(f"probes: fewer than 50 windows of play in {store.root}")
    demonstrations = known[~known.play], asked[~asked.play]
    if min(map(len, demonstrations)) >= 50:
        fit, test = demonstrations
        assert fit.motion is not None
        assert test.motion is not None
        read_out = probes.linear_probe(fit.latents, fit.motion, test.latents)
        found.add("probe_r2_demonstrations", _mean(probes.r2(read_out, test.motion)), len(test))
        by_task = probes.lookup_probe(fit.task, fit.motion, test.task)
        found.add("probe_r2_task_demonstrations", _mean(probes.r2(by_task, test.motion)), len(test))
    _add_foresight(foresight(tokenizer, asked, seed=config.seed), ("simulator_sensitivity", "simulator_gain_db"), found)
    found.add("jitter_response", jitter_response(tokenizer, asked, shake=config.jitter, seed=config.seed), len(asked))
    shown = play[1] if len(play[1]) else asked
    found.strips.append(foresight_strip(tokenizer, shown, "simulator", columns=config.pictures, seed=config.seed))
    found.strips.append(latent_walk(tokenizer, shown, "simulator-walk"))


def _measure_codes(
    tokenizer: LatentActionTokenizer, known: Readings, asked: Readings, found: LatentActionEvaluation
) -> None:
    if asked.codes is None or known.codes is None:
        spread = asked.latents.var(axis=0)
        found.unmeasured.append(f"code use: latents are continuous, {int((spread > 0.01).sum())} of {len(spread)} vary")
        return
    health = code_health(tokenizer.quantizer.counts(torch.from_numpy(asked.codes)))
    found.add("perplexity_share", health.share, len(asked))
    found.add("codes", health.size, len(asked))
    found.notes |= {"perplexity": health.perplexity, "latents_per_pair": tokenizer.config.tokens}
    for windows in (known, asked):
        found.count(tokenizer, windows)


def _measure_probes(
    known: Readings, asked: Readings, config: LatentActionEvaluateConfig, found: LatentActionEvaluation
) -> None:
    assert known.motion is not None
    assert asked.motion is not None
    n, true = len(asked), asked.motion

    def score(predicted: np.ndarray) -> np.ndarray:
        return probes.r2(predicted, true)

    linear = score(probes.linear_probe(known.latents, known.motion, asked.latents))
    found.add("probe_r2", _mean(linear), n)
    found.add("probe_r2_worst_axis", float(np.nanmin(linear)), n)
    for axis, value in zip(asked.names, linear, strict=True):
        found.add(f"probe_r2_{axis}", value, n)
    shuffled = probes.linear_probe(known.latents, known.motion, asked.latents, seed=config.seed)
    found.add("probe_r2_shuffled", _mean(score(shuffled)), n)
    found.add("probe_r2_task", _mean(score(probes.lookup_probe(known.task, known.motion, asked.task))), n)
    found.add("probe_r2_mlp", _mean(score(probes.mlp_probe(known.latents, known.motion, asked.latents))), n)
    if known.codes is not None and asked.codes is not None:
        codes = np.concatenate([known.codes, asked.codes]).reshape(len(known) + n, -1)
        places = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
        lookup = probes.lookup_probe(places[: len(known)], known.motion, places[len(known) :])
        found.add("probe_r2_lookup", _mean(score(lookup)), n)
    if known.action is not None and asked.action is not None:
        found.add("probe_r2_action", _mean(score(probes.linear_probe(known.action, known.motion, asked.action))), n)
    part = known[np.arange(min(len(known), BASELINE))]
    assert part.motion is not None
    fit, test = (_features(windows, config) for windows in (part, asked))
    ridge = probes.chosen_ridge(fit, part.motion, part.episode, seed=config.seed)
    found.add("probe_r2_features", _mean(score(probes.linear_probe(fit, part.motion, test, ridge=ridge))), n)
    own = config.features
    found.notes["features"] = f"{own.kind} {Path(own.name).name}" if own.name else "pictures of 16 x 16 pixels"
    cosine, random, moving = probes.retrieval_cosine(asked.latents, true, asked.task, still=STILL, seed=config.seed)
    found.add("retrieval_cosine", cosine, moving)
    found.add("retrieval_cosine_random", random, moving)


def _measure_swap(
    tokenizer: LatentActionTokenizer,
    known: Readings,
    asked: Readings,
    config: LatentActionEvaluateConfig,
    found: LatentActionEvaluation,
) -> None:
    """Latents of a window drive one of another scene; the motion read from the frames that this gives is compared with that of
    the window the latents came from."""
    driven, frames, again = swapped(tokenizer, asked, seed=config.seed)
    assert known.motion is not None
    assert asked.motion is not None
    read_out = probes.linear_probe(known.latents, known.motion, again)
    found.add("swap_r2", _mean(probes.r2(read_out, asked.motion)), len(asked))
    found.strips.append(swap_strip(asked, driven, frames, columns=config.pictures))


def _features(windows: Readings, config: LatentActionEvaluateConfig) -> np.ndarray:
    """The baseline: what a frozen encoder says about the present and how that changes, (N, D)."""
    encoder = make_features(config.features) if config.features.name else None
    found = []
    for start in range(0, len(windows), 64):
        frames = torch.from_numpy(windows.frames[start : start + 64][:, windows.there])
        pictures = frames.permute(0, 1, 2, 5, 3, 4).flatten(0, 2).float() / 127.5 - 1
        values = F.adaptive_avg_pool2d(encoder(pictures), 4) if encoder else F.adaptive_avg_pool2d(pictures, 16)
        pair = values.reshape(len(frames), -1, 2, values[0].numel())
        found.append(torch.cat([pair[:, :, 0], pair[:, :, 1] - pair[:, :, 0]], dim=-1).flatten(1))
    return torch.cat(found).numpy().astype(float)


def _measure_human(
    tokenizer: LatentActionTokenizer,
    config: LatentActionEvaluateConfig,
    trained: Mapping[str, Any],
    found: LatentActionEvaluation,
) -> None:
    if Path(config.human).resolve() in [Path(part["root"]).resolve() for part in trained.get("parts", [])]:
        raise expected(
            "human clips that training did not see", got=f"{config.human}, which it saw", do="name the held-out dataset"
        )
    store = EpisodeStore(config.human)
    windows = read(
        tokenizer, store, list(range(len(store))), limit=config.windows, seed=config.seed, moving=config.moving
    )
    _add_foresight(foresight(tokenizer, windows, seed=config.seed), ("code_sensitivity", "human_gain_db"), found)
    found.count(tokenizer, windows)
    if windows.codes is not None:
        health = code_health(tokenizer.quantizer.counts(torch.from_numpy(windows.codes)))
        found.add("perplexity_share_human", health.share, len(windows))
    shake = jitter_response(tokenizer, windows, shake=config.jitter, seed=config.seed)
    found.add("jitter_response_human", shake, len(windows))
    found.notes["human_clips"] = len(np.unique(windows.episode))
    found.strips.append(foresight_strip(tokenizer, windows, "human", columns=config.pictures, seed=config.seed))
    found.strips.append(latent_walk(tokenizer, windows, "human-walk"))


def _measure_transfer(
    tokenizer: LatentActionTokenizer, config: LatentActionEvaluateConfig, found: LatentActionEvaluation
) -> None:
    camera = config.camera or tokenizer.cameras[-1]
    if camera not in tokenizer.cameras:
        raise expected(f"a camera among {list(tokenizer.cameras)}", got=repr(camera), do="set `camera` to one of them")
    seconds = tokenizer.provenance.get("gap_seconds")
    if not seconds:
        raise expected("a tokenizer that says how long its gap is", got="none", do="train it again with this version")
    pairs = aligned_pairs(config.pairs, seconds=float(seconds), size=tokenizer.config.image_size)
    moved = transfer(tokenizer, pairs, slot=tokenizer.cameras.index(camera))
    found.add("transfer_gain", moved.gain, len(pairs))
    found.add("transfer_gain_shuffled", moved.shuffled, len(pairs))
    found.add("transfer_gain_own", moved.own, len(pairs))
    found.notes["pairs"] = sorted(set(pairs.clip.tolist()))
    found.strips.append(transfer_strip(pairs, moved, columns=config.pictures))


def _add_foresight(errors: Foresight, names: tuple[str, str], found: LatentActionEvaluation) -> None:
    found.add(names[0], errors.sensitivity, errors.n)
    found.add(names[1], errors.gain_db, errors.n)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
