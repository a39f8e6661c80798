"""How well a model's voxels agree with the true ones, on held-out episodes: at the present, and at frames to come.

Baselines beside it: the voxels that are usually filled, the true present copied, and true depth of the same cameras
fused without any learning, which knows the surfaces that the cameras see and nothing behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wam.contracts import Batch, expected
from wam.control.wam_policy import load_policy
from wam.data.labels import VoxelLabels
from wam.data.splits import split_episodes
from wam.data.windows import WindowDataset
from wam.evaluation.evaluate import held_out_datasets, spread_rows
from wam.evaluation.figures import Measured
from wam.evaluation.replay import environment_of
from wam.evaluation.truth import SIM_STATE
from wam.evaluation.voxel_colour import UsualColours, add_colours, add_kinds
from wam.evaluation.voxel_metrics import changed, distances, iou
from wam.geometry.grid import OCCUPIED, UNKNOWN
from wam.geometry.voxels import fuse_depth
from wam.model.wam import CONTEXT, WorldActionModel
from wam.simulation.environment import Environment, make_environment
from wam.training.config import TrainConfig
from wam.training.state import newest_checkpoint, trained_config

WITHIN = (0.01, 0.02, 0.05)
USUAL_EPISODES = 40


@dataclass(kw_only=True)
class OccupancyEvaluateConfig:
    """windows: at most, of each kind (demonstrations and play), whose last frame to come is real. steps: of sampling.
    lifted: of them, how many are rendered anew for the depth baseline; 0: none. output: empty: evaluation/occupancy of the run.
    """

    windows: int = 192
    steps: int = 1
    lifted: int = 48
    batch_size: int = 32
    threads: int = 1
    seed: int = 0
    output: str = ""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One window's grids (T, X, Y, Z) bool, the present first, and its pictures (V, T, H, W, 3) uint8; the colours
    (T, X, Y, Z, 4) uint8 of the true grids and (T, X, Y, Z, 3) of the predicted, of a model that paints them."""

    truth: np.ndarray
    predicted: np.ndarray
    pictures: np.ndarray
    task: str
    true_colour: np.ndarray | None = None
    predicted_colour: np.ndarray | None = None


@dataclass(kw_only=True)
class OccupancyEvaluation(Measured):
    """side: of a voxel, metres; seconds: of each frame to come."""

    side: float
    seconds: list[float]
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Grids:
    """Of N windows, (N, 1 + T, X, Y, Z) bool; known is False where the truth is not. paint (N, 1 + T, X, Y, Z, 4) and painted
    (N, 1 + T, X, Y, Z, 3) uint8: true colours, and those told the actions; none of a model that says none."""

    truth: Tensor
    known: Tensor
    acted: Tensor
    imagined: Tensor
    paint: Tensor | None = None
    painted: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[_Grids]) -> _Grids:
        every = {f.name: [getattr(part, f.name) for part in parts] for f in fields(cls)}
        return cls(**{name: torch.cat(own) for name, own in every.items() if own[0] is not None})


def evaluate(run: Path, config: OccupancyEvaluateConfig, *, say: Callable[[str], None] = print) -> OccupancyEvaluation:
    """Measure the newest checkpoint of a run whose model has voxels. Raises WamError for one that has none."""
    if config.threads:
        torch.set_num_threads(config.threads)
    trained = trained_config(run)
    model = load_policy(newest_checkpoint(run)).model
    if not isinstance(model, WorldActionModel) or model.network.occupancy is None:
        raise expected(
            f"a model with voxels in {run}",
            got="one without",
            do="train one: wam train configs/train/occupancy.yaml",
        )
    datasets = [d for play in (False, True) for d in held_out_datasets(trained, play=play)]
    chosen = [_whole_windows(d, config.windows * 2 // len(datasets)) for d in datasets]
    say(f"voxels of {sum(map(len, chosen))} held-out windows")
    parts = [_predict(model, d, rows, config) for d, rows in zip(datasets, chosen, strict=True)]
    grids = _Grids.joined(parts)
    fps = datasets[0].store.info.fps
    side = model.config.occupancy.grid.side
    found = OccupancyEvaluation(side=side, seconds=[offset / fps for offset in trained.model.future])
    labels = _training_labels(datasets[0], trained)
    _add_figures(found, grids, usual=_usual(labels))
    if grids.paint is not None and grids.painted is not None:
        add_colours(found, grids.paint, grids.painted, UsualColours.of(labels))
        add_kinds(found, grids.paint, grids.acted)
    _add_lifted(found, datasets, chosen, config, model)
    found.examples = [_example(d, rows, part) for d, rows, part in zip(datasets, chosen, parts, strict=True)]
    return found


def _whole_windows(dataset: WindowDataset, count: int) -> list[int]:
    """Windows spread evenly over those whose last frame to come is real."""
    last = max(dataset.spec.future, default=0)
    whole = [i for i in range(len(dataset)) if dataset.episode_of(i)[1] + last < dataset.episode_of(i)[0].length]
    if not whole:
        raise expected(f"episodes longer than {last} frames", got="none", do="use nearer frames to come")
    return [whole[row] for row in spread_rows(len(whole), count)]


def _predict(
    model: WorldActionModel, dataset: WindowDataset, rows: Sequence[int], config: OccupancyEvaluateConfig
) -> _Grids:
    truth: list[Tensor] = []
    known: list[Tensor] = []
    acted: list[Tensor] = []
    imagined: list[Tensor] = []
    paint: list[Tensor] = []
    painted: list[Tensor] = []
    want = ("future", "occupancy") if "future" in model.config.streams else ("occupancy",)
    for first in range(0, len(rows), config.batch_size):
        batch = dataset.batch(rows[first : first + config.batch_size])
        assert batch.occupancy is not None
        told = ((*CONTEXT, "action"), acted), (CONTEXT, imagined)
        for given, kept in told:
            found = model.sample(batch, given=given, want=want, steps=config.steps, seed=config.seed)
            assert found.occupancy is not None
            kept.append(found.occupancy > 0.5)
            if kept is acted and found.occupancy_colour is not None and batch.occupancy_colour is not None:
                paint.append(batch.occupancy_colour)
                painted.append((255 * found.occupancy_colour).round().to(torch.uint8))
        truth.append(batch.occupancy == OCCUPIED)
        known.append(batch.occupancy != UNKNOWN)
    return _Grids(
        truth=torch.cat(truth),
        known=torch.cat(known),
        acted=torch.cat(acted),
        imagined=torch.cat(imagined),
        paint=torch.cat(paint) if paint else None,
        painted=torch.cat(painted) if painted else None,
    )


def _add_figures(found: OccupancyEvaluation, grids: _Grids, *, usual: Tensor) -> None:
    n = len(grids.truth)
    now, seen, truth = grids.acted[:, 0], grids.known[:, 0], grids.truth[:, 0]
    found.add("iou_present", iou(now, truth, seen), n)
    found.add("iou_present_usual", iou(usual.expand_as(truth), truth, seen), n)
    _add_distances(found, "present", now, truth)
    for slot, seconds in enumerate(found.seconds, start=1):
        then, seen = grids.truth[:, slot], grids.known[:, slot]
        moved = changed(then, truth, seen & grids.known[:, 0])
        values = {
            "iou_future": iou(grids.acted[:, slot], then, seen),
            "iou_future_copied": iou(truth, then, seen),
            "iou_future_imagined": iou(grids.imagined[:, slot], then, seen),
            "iou_changed": iou(grids.acted[:, slot], then, moved),
            "iou_changed_copied": iou(truth, then, moved),
        }
        values["future_gain"] = values["iou_changed"] / max(values["iou_changed_copied"], 1e-9)
        last = slot == len(found.seconds)
        for name, value in values.items():
            found.add(name if last else f"{name}_{seconds:.2f}s", value, n)
        if last:
            _add_distances(found, "future", grids.acted[:, slot], then)


def _add_distances(found: OccupancyEvaluation, name: str, predicted: Tensor, truth: Tensor) -> None:
    apart = distances(predicted, truth, side=found.side, within=WITHIN)
    found.add(f"chamfer_{name}", apart.chamfer, apart.count)
    for within, score in apart.f_scores.items():
        found.add(f"f_{within * 100:.0f}cm_{name}", score, apart.count)


def _training_labels(dataset: WindowDataset, trained: TrainConfig) -> VoxelLabels:
    """Of some training episodes, read without their video."""
    store = dataset.store
    train, _ = split_episodes(store, held_out_share=trained.data.held_out, seed=trained.data.split_seed)
    some = [train[i] for i in spread_rows(len(train), USUAL_EPISODES)]
    return VoxelLabels(store.root, [store.episode(i) for i in some], colour=dataset.spec.colour)


def _usual(labels: VoxelLabels) -> Tensor:
    """(X, Y, Z) bool: filled in more than half of the frames."""
    grids = torch.from_numpy(labels.grids(np.arange(len(labels))))
    return (grids == OCCUPIED).float().mean(0) > 0.5


def _add_lifted(
    found: OccupancyEvaluation,
    datasets: Sequence[WindowDataset],
    chosen: Sequence[Sequence[int]],
    config: OccupancyEvaluateConfig,
    model: WorldActionModel,
) -> None:
    lifted, truth = [], []
    for dataset, rows in zip(datasets, chosen, strict=True):
        few = [rows[i] for i in spread_rows(len(rows), config.lifted // len(datasets))] if config.lifted else []
        grids = lift(dataset, few, model)
        if grids is None:
            found.unmeasured.append("iou_present_lifted: the dataset has no simulator to render depth in")
            return
        batch = dataset.batch(few)
        assert batch.occupancy is not None
        lifted.append(grids)
        truth.append(batch.occupancy[:, 0] == OCCUPIED)
    if sum(map(len, lifted)):
        found.add("iou_present_lifted", iou(torch.cat(lifted), torch.cat(truth)), sum(map(len, lifted)))


def lift(dataset: WindowDataset, rows: Sequence[int], model: WorldActionModel) -> Tensor | None:
    """(N, X, Y, Z) bool: voxels that hold a point of the depth which the dataset's cameras would see; None without a
    simulator to render it."""
    store, grids = dataset.store, []
    environments: dict[str, Environment] = {}
    for row in rows:
        episode, frame = dataset.episode_of(row)
        name = environment_of(store, store.episodes.index(episode))
        if name is None or SIM_STATE not in store.info.features:
            return None
        if name not in environments:
            environments[name] = make_environment(
                name, cameras=dataset.cameras, image_size=dataset.image_shape, depth=True
            )
        environment = environments[name]
        environment.set_state(store.column(SIM_STATE, episode)[frame].astype(np.float64))
        seen = environment.observe()
        if seen.depth is None or seen.intrinsics is None or seen.extrinsics is None:
            return None
        depth, intrinsics, extrinsics = (
            torch.from_numpy(np.stack([by_camera[c] for c in dataset.cameras])).float()
            for by_camera in (seen.depth, seen.intrinsics, seen.extrinsics)
        )
        grids.append(fuse_depth(depth, intrinsics, extrinsics, model.config.occupancy.grid) == OCCUPIED)
    for environment in environments.values():
        environment.close()
    return torch.stack(grids) if grids else torch.zeros(0, *model.config.occupancy.grid.shape, dtype=torch.bool)


def _example(dataset: WindowDataset, rows: Sequence[int], grids: _Grids) -> Example:
    """The window a third into those looked at: by its place, not by how well it went."""
    place = len(rows) // 3
    batch: Batch = dataset.batch([rows[place]])
    frames = [batch.images[0, :, -1:]] + ([batch.future[0]] if batch.future is not None else [])
    return Example(
        truth=grids.truth[place].numpy(),
        predicted=grids.acted[place].numpy(),
        pictures=torch.cat(frames, dim=1).numpy(),
        task=batch.instruction[0] if batch.instruction else "",
        true_colour=None if grids.paint is None else grids.paint[place].numpy(),
        predicted_colour=None if grids.painted is None else grids.painted[place].numpy(),
    )
