"""Everything measured of a trained run: the gates, success in closed loop, film strips, what-if pictures, tables.

`evaluate` writes what it finds under the run's `evaluation/` folder, resumes where it stopped, and returns the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wam.contracts import ActionSpace, Batch, expected
from wam.control.wam_policy import load_policy
from wam.data.poses import camera_poses
from wam.data.splits import split_episodes
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset
from wam.evaluation import artefacts, pictures
from wam.evaluation.closed_loop import ClosedLoopResult, evaluate_policy, evaluate_wrong_text
from wam.evaluation.gates import GateResult
from wam.evaluation.rollout import LoopSettings
from wam.evaluation.runners import Conditionals, GateSettings, evaluate_gates, gate_figures
from wam.evaluation.truth import simulate
from wam.files import sha256
from wam.model.wam import WorldActionModel
from wam.progress import Progress
from wam.simulation.cameras import VIEWS, Camera
from wam.simulation.environment import Environment, make_environment
from wam.simulation.instructions import sentences
from wam.training.config import TrainConfig
from wam.training.data import window_spec
from wam.training.state import newest_checkpoint, trained_config

FIRST_START = 0
"""Evaluation starts are seeds from here on; collection's begin at `wam.simulation.record.FIRST_SEED`, a million."""

CONDITIONALS = Conditionals(
    forward=("observation", "state", "velocity", "text", "action"), inverse=("observation", "state", "text", "future")
)


@dataclass(kw_only=True)
class EvaluateConfig:
    """environments: closed-loop tasks. pairs: tasks that share a scene, for the wrong-instruction gate. starts: unseen
    starts each. held_out_sentences: tell the policy paraphrases that training never saw, in turns; else the canonical
    sentence. execute: actions carried out of each chunk. max_steps: of an episode (None: as many as the task allows, 250 in
    Meta-World; 200 are five seconds there). conditional: `policy`, or `joint` with futures imagined along, whose clock stops at
    future_stop while the action comes clean. policy_steps, gate_steps: sampling steps. windows: held-out windows per gate.
    targets: of gates, where not the demo's. episodes, gates: whether there is a closed loop, and the world model's gates.
    moved: in the closed loop, Meta-World's cameras stand so many centimetres and degrees from where they stood in training;
    what is found then is kept apart, see `place_of`."""

    environments: list[str] = field(default_factory=list)
    pairs: list[list[str]] = field(default_factory=list)
    starts: int = 20
    first_start: int = FIRST_START
    held_out_sentences: bool = True
    execute: int = 6
    max_steps: int | None = 200
    policy_steps: int = 4
    conditional: str = "policy"
    future_stop: float = 0.0
    gate_steps: list[int] = field(default_factory=lambda: [1, 3])
    windows: int = 256
    processes: int = 1
    threads: int = 1
    record: int = 1
    seed: int = 0
    targets: dict[str, float] = field(default_factory=dict)
    episodes: bool = True
    gates: bool = True
    moved: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """figures by name; gates; closed loop by variant. seed: of the training."""

    seed: int
    figures: dict[str, float]
    gates: list[GateResult]
    success: dict[str, ClosedLoopResult]
    n: dict[str, int]


def held_out_datasets(config: TrainConfig, *, play: bool) -> list[WindowDataset]:
    """The held-out episodes of one kind, of every dataset of the run that has some."""
    found = []
    for part in config.data.parts:
        store = EpisodeStore(part.root)
        _, aside = split_episodes(store, held_out_share=config.data.held_out, seed=config.data.split_seed)
        chosen = [i for i in aside if store.episodes[i].play == play]
        if chosen:
            found.append(WindowDataset(store, window_spec(config), episodes=chosen))
    if not found:
        kind = "play" if play else "expert"
        raise expected(
            f"held-out {kind} episodes", got="none", do=f"collect more {kind} episodes or raise data.held_out"
        )
    return found


def held_out_windows(config: TrainConfig, *, play: bool, count: int) -> Batch:
    """`count` windows spread evenly over the held-out episodes of one kind."""
    datasets = held_out_datasets(config, play=play)
    batches = [windows.batch(spread_rows(len(windows), count // len(datasets))) for windows in datasets]
    return batches[0] if len(batches) == 1 else concatenate(batches)


def spread_rows(size: int, count: int) -> list[int]:
    """Up to `count` rows spread evenly: chosen by place, not by how well they went."""
    return np.unique(np.linspace(0, size - 1, count).astype(int)).tolist()


def concatenate(batches: list[Batch]) -> Batch:
    """Batches with the same fields, one after the other."""
    names = batches[0].tensors()
    fields: dict[str, Any] = {name: torch.cat([b.tensors()[name] for b in batches]) for name in names}
    return Batch(**fields, instruction=tuple(s for b in batches for s in b.instruction))


def sentences_for(names: list[str], *, held_out: bool) -> dict[str, str | list[str]]:
    """What the policy is told in each environment."""
    found = {name: sentences(name) for name in names}
    return {name: list(aside) if held_out and aside else train[0] for name, (train, aside) in found.items()}


def place_of(run: Path, config: EvaluateConfig) -> Path:
    """Whose `evaluation` and summary.json are written: the run's, and a folder in it for cameras that were moved."""
    return run / f"moved-{config.moved:g}" if config.moved else run


def evaluate(run: Path, config: EvaluateConfig, *, say: Callable[[str], None] = print) -> Evaluation:
    """Measure the newest checkpoint of a run; closed-loop episodes already on record are not run again."""
    checkpoint = newest_checkpoint(run)
    trained = trained_config(run)
    if config.threads:
        torch.set_num_threads(config.threads)
    model = load_policy(checkpoint).model
    gates: list[GateResult] = []
    success: dict[str, ClosedLoopResult] = {}
    n: dict[str, int] = {}
    if isinstance(model, WorldActionModel) and "action" not in model.config.streams:
        raise expected(
            f"a model that acts in {run}",
            got=f"one of {', '.join(model.config.streams)}",
            do="post-train it on episodes with actions (stage=posttrain) and evaluate that",
        )
    if config.gates and isinstance(model, WorldActionModel) and "future" in model.config.streams:
        gates += _measure_gates(place_of(run, config), model, trained, config, n, say)
    if config.episodes and config.environments:
        success, wrong = _measure_success(place_of(run, config), checkpoint, config, n, say, trained=trained)
        gates += wrong
    artefacts.save_gates(place_of(run, config), gates)
    figures = gate_figures(gates)
    if seconds := model.provenance.get("train_seconds"):
        figures["train_minutes"] = seconds / 60
    if "policy" in success:
        figures |= success["policy"].figures()
    return Evaluation(seed=trained.seed, figures=figures, gates=gates, success=success, n=n)


def _measure_gates(
    place: Path,
    model: WorldActionModel,
    trained: TrainConfig,
    config: EvaluateConfig,
    n: dict[str, int],
    say: Callable[[str], None],
) -> list[GateResult]:
    play = held_out_windows(trained, play=True, count=config.windows)
    expert = held_out_windows(trained, play=False, count=config.windows)
    n |= {"play_windows": play.size, "expert_windows": expert.size}
    space = _space(model)
    settings = GateSettings(
        steps=tuple(config.gate_steps), seed=config.seed, targets=config.targets or None, conditionals=CONDITIONALS
    )
    futures: dict[Any, np.ndarray] = {}
    results = evaluate_gates(
        model, play=play, expert=expert, space=space, settings=settings, progress=say, futures=futures
    )
    artefacts.save_video_table(place, pictures.video_table(futures, play=play, expert=expert))
    few = max(config.gate_steps)
    windows = held_out_datasets(trained, play=True)[0]
    seconds = [offset / windows.store.info.fps for offset in trained.model.future]
    strips = [
        pictures.film_strips(
            model,
            spread(batch, 5),
            kind=kind,
            steps=few,
            seed=config.seed,
            seconds=seconds,
            conditionals=CONDITIONALS,
        )
        for kind, batch in (("forward", play), ("imagine", expert))
    ]
    artefacts.save_film_strips(place, strips[0] + strips[1])
    rows = spread_rows(len(windows), 48)
    rows = [*rows[4::11][:4], *rows]  # the first four are the starts, the rest tell how strong an action is
    batch = with_poses(windows.batch(rows), windows)
    what_if = pictures.what_if(model, batch, space, steps=few, seed=config.seed, conditionals=CONDITIONALS)
    chunks = np.stack(list(pictures.probe_actions(batch, space).values()))
    artefacts.save_what_if(place, replace(what_if, truth=simulate(windows, rows[:4], chunks)))
    return results


def _measure_success(
    place: Path,
    checkpoint: Path,
    config: EvaluateConfig,
    n: dict[str, int],
    say: Callable[[str], None],
    *,
    trained: TrainConfig,
) -> tuple[dict[str, ClosedLoopResult], list[GateResult]]:
    told = sentences_for(config.environments, held_out=config.held_out_sentences)
    seeds = range(config.first_start, config.first_start + config.starts)
    options: dict[str, Any] = {
        "settings": LoopSettings(execute=config.execute, max_steps=config.max_steps),
        "processes": config.processes,
        "resume": place / "evaluation" / "episodes.jsonl",
        "identity": {
            "checkpoint": sha256(checkpoint / "model.safetensors"),
            "conditional": config.conditional,
            "steps": config.policy_steps,
            "held_out_sentences": config.held_out_sentences,
            **({"moved": config.moved} if config.moved else {}),
            **({"future_stop": config.future_stop} if config.future_stop else {}),
        },
        "make_environment": seen_as_in(trained, moved=config.moved),
    }
    factory = partial(
        load_policy,
        checkpoint,
        steps=config.policy_steps,
        conditional=config.conditional,
        future_stop=config.future_stop,
        threads=config.threads,
    )
    say(f"closed loop: {len(config.environments)} tasks x {config.starts} unseen starts")
    with Progress("episodes", len(config.environments) * config.starts) as bar:
        result = evaluate_policy(
            factory,
            config.environments,
            seeds=seeds,
            instructions=told,
            record=config.record,
            progress=lambda done, total, episode: bar.update(done),
            **options,
        )
    success, wrong = {"policy": result}, []
    n["starts_per_task"] = config.starts
    if config.pairs:
        say("closed loop with the partner task's sentence")
        pairs = [(a, b) for a, b in config.pairs]
        paired = {name: told.get(name) or sentences(name)[0][0] for pair in pairs for name in pair}
        gate, success["wrong_text"] = evaluate_wrong_text(
            factory, pairs, paired, seeds=seeds, target=config.targets.get("wrong_text_success"), **options
        )
        wrong.append(gate)
        n["wrong_text_episodes"] = gate.n
    artefacts.save_success(place, success)
    artefacts.save_rollouts(place, [r for found in success.values() for r in found.rollouts])
    return success, wrong


def seen_as_in(trained: TrainConfig, *, moved: float = 0.0) -> Callable[..., Environment]:
    """`make_environment` with the cameras and the size of pictures of that training."""
    names = trained.data.cameras
    there: list[str] | list[Camera] = list(names)
    if moved:
        there = [VIEWS[name].moved(metres=moved / 100, degrees=moved) for name in names if name in VIEWS]
        if len(there) < len(names):
            raise expected(f"cameras to move among {', '.join(VIEWS)}", got=list(names), do="leave `moved` out")
    return partial(make_environment, cameras=there or None, image_size=trained.model.image_size)


def with_poses(batch: Batch, windows: WindowDataset) -> Batch:
    """The batch with the cameras' recorded poses, if the dataset has one for every view."""
    poses = camera_poses(windows.store)
    if any(camera not in poses for camera in windows.cameras):
        return batch
    extrinsics = torch.from_numpy(np.stack([poses[c].extrinsics for c in windows.cameras]).astype(np.float32))
    return batch.replace(extrinsics=extrinsics.expand(batch.size, -1, -1, -1))


def spread(batch: Batch, count: int) -> Batch:
    return batch[spread_rows(batch.size, count)]


def _space(model: WorldActionModel) -> ActionSpace:
    if model.action_space is None:
        raise expected("a checkpoint with an action space", got="none", do="train on data that has actions")
    return model.action_space
