"""Where an imagined future starts: a frame of a dataset, a state of a simulator, or what a robot sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from wam.contracts import Batch, Observation, expected
from wam.control.wam_policy import to_batch
from wam.data.features import ACTION
from wam.data.labels import OCCUPANCY, has_colours, has_labels
from wam.data.poses import camera_poses
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec, resize
from wam.evaluation.evaluate import with_poses
from wam.evaluation.replay import environment_of, open_environment
from wam.evaluation.truth import SIM_STATE, Branches, branch
from wam.geometry.cameras import resized
from wam.geometry.grid import VoxelConfig
from wam.model.wam import WorldActionModel
from wam.simulation.environment import Environment, make_environment
from wam.visualization.images import data_uri, enlarge, png
from wam.visualization.labelled import labelled
from wam.visualization.markup import escape


@dataclass(frozen=True, kw_only=True)
class Start:
    """One present, and what is known of what came of it.

    batch: one row with the fields that its source knows. rate_hz: frames, and actions, a second. windows, row: of a dataset,
    the window it is. state, environment: what a simulator returns to, and how it is opened.
    """

    batch: Batch
    cameras: tuple[str, ...]
    rate_hz: float
    title: str
    windows: WindowDataset | None = None
    row: int = 0
    state: np.ndarray | None = None
    environment: Callable[[], Environment] | None = None

    @property
    def present(self) -> np.ndarray:
        """(V, H, W, 3) uint8."""
        return self.batch.images[0, :, -1].numpy()

    @property
    def instruction(self) -> str:
        return self.batch.instruction[0] if self.batch.instruction else ""

    def told(self, instruction: str) -> Start:
        """The same start under another sentence."""
        return replace(self, batch=self.batch.replace(instruction=(instruction,)))

    def actions(self, length: int) -> np.ndarray | None:
        """(L, A) float32: the recorded actions from here on, the last one repeated past the episode's end; None where there
        are none."""
        if self.windows is None or ACTION not in self.windows.store.info.features:
            return None
        episode, frame = self.windows.episode_of(self.row)
        column = self.windows.store.column(ACTION, episode)
        taken = np.minimum(np.arange(frame, frame + length), len(column) - 1)
        return column[taken].reshape(length, -1).astype(np.float32)

    def recorded(self, offsets: Sequence[int]) -> np.ndarray | None:
        """(V, T, H, W, 3) uint8: the frames that came; None where nothing was recorded for so long."""
        if self.windows is None:
            return None
        episode, frame = self.windows.episode_of(self.row)
        if frame + max(offsets) >= episode.length or not self.windows.has_every_view:
            return None
        height, width = self.present.shape[1:3]
        at = [frame + offset for offset in offsets]
        return np.stack([resize(self.windows.store.frames(c, episode, at), height, width) for c in self.cameras])

    def simulated(
        self, actions: np.ndarray, offsets: Sequence[int], *, grid: VoxelConfig | None = None, colour: bool = False
    ) -> Branches | None:
        """What the simulator makes of action sequences (M, L, A) from here; None where there is no state to return to. grid: of
        voxels too, colour: with their colours.

        Raises WamError where the simulator is not installed.
        """
        if self.environment is None or self.state is None:
            return None
        found = branch(
            self.environment(), self.state, actions, offsets=offsets, cameras=self.cameras, grid=grid, colour=colour
        )
        height, width = self.present.shape[1:3]
        sized = [np.stack([resize(view, height, width) for view in frames]) for frames in found.frames]
        return replace(found, frames=np.stack(sized))

    def __repr__(self) -> str:
        return f"Start({self.instruction!r}, {self.title})"

    def _repr_png_(self) -> bytes:
        scale = max(1, round(128 / self.present.shape[1]))
        return png(labelled([[enlarge(view, scale) for view in self.present]], heads=self.cameras))

    def _repr_html_(self) -> str:
        picture = data_uri(self._repr_png_(), "png")
        return f"<p><b>“{escape(self.instruction)}”</b> · {escape(self.title)}</p><img src='{picture}' alt='the start'>"


class Simulators:
    """Environments by name, opened when they are first needed and kept."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, ...], Environment] = {}

    def of_dataset(self, store: EpisodeStore, name: str) -> Environment:
        """With the dataset's cameras, size of pictures and rate."""
        return self._kept((str(store.root), name), lambda: open_environment(store, name))

    def by_name(self, name: str, cameras: Sequence[str], size: int) -> Environment:
        # a start may be looked at for longer than an episode of the task lasts
        return self._kept(
            (name, *cameras, str(size)),
            lambda: make_environment(name, cameras=cameras, image_size=size, max_steps=1_000_000_000),
        )

    def close(self) -> None:
        for environment in self._open.values():
            environment.close()
        self._open.clear()

    def _kept(self, key: tuple[str, ...], make: Callable[[], Environment]) -> Environment:
        if key not in self._open:
            self._open[key] = make()
            self._open[key].reset(0)  # some can return to a state only once they have begun
        return self._open[key]


def open_windows(model: WorldActionModel, root: Path | str, *, episodes: Sequence[int]) -> WindowDataset:
    """Windows of these episodes of a dataset as the model takes them, read from video when asked for. Voxels and cameras come
    with them where the dataset has them."""
    store, m = EpisodeStore(root), model.config
    posed = set(model.cameras or store.cameras) <= set(camera_poses(store))
    voxels = posed and model.network.occupancy is not None
    painted = voxels and model.config.occupancy.colour_weight > 0 and has_colours(store.root)
    spec = WindowSpec(
        history=m.history,
        history_stride=m.history_stride,
        future=tuple(m.future),
        chunk=m.chunk,
        cameras=model.cameras or None,
        image_size=m.image_size,
        occupancy=voxels and has_labels(store.root, OCCUPANCY),
        colour=painted,
        geometry=voxels,
    )
    return WindowDataset(store, spec, episodes=episodes, cache="none")


def from_window(windows: WindowDataset, row: int, simulators: Simulators) -> Start:
    """The start that is a window's present."""
    store = windows.store
    episode, frame = windows.episode_of(row)
    name = environment_of(store, store.episodes.index(episode)) if SIM_STATE in store.info.features else None
    state = store.column(SIM_STATE, episode)[frame].astype(np.float64) if name else None
    return Start(
        batch=with_poses(windows.batch([row]), windows),
        cameras=tuple(windows.cameras),
        rate_hz=store.info.fps,
        title=f"{Path(store.root).parent.name}/{Path(store.root).name}, episode {store.episodes.index(episode)}, frame {frame}",
        windows=windows,
        row=row,
        state=state,
        environment=partial(simulators.of_dataset, store, name) if name else None,
    )


def from_simulator(model: WorldActionModel, name: str, seed: int, simulators: Simulators) -> Start:
    """The start that a simulator draws from a seed."""
    environment = simulators.by_name(name, model.cameras, model.config.image_size)
    seen = environment.reset(seed)
    start = from_observation(model, seen, rate_hz=environment.action_space.rate_hz, title=f"{name}, start {seed}")
    return replace(
        start,
        state=environment.get_state(),
        environment=lambda: simulators.by_name(name, model.cameras, model.config.image_size),
    )


def from_observation(
    model: WorldActionModel, seen: Observation, *, rate_hz: float = 0.0, title: str = "an observation"
) -> Start:
    """The start that a robot sees now; to a model that looks back, as if it had stood there before."""
    size = model.config.image_size
    if missing := [camera for camera in model.cameras if camera not in seen.images]:
        raise expected(f"pictures of {', '.join(model.cameras)}", got=f"none of {', '.join(missing)}", do="add them")
    small = {c: resize(np.asarray(seen.images[c])[None], size, size)[0] for c in model.cameras}
    batch = to_batch([replace(seen, images=small)], model.cameras)
    batch = batch.replace(images=batch.images.repeat(1, 1, model.config.history, 1, 1, 1))
    if seen.intrinsics is not None and seen.extrinsics is not None:
        matrices = [
            resized(
                torch.as_tensor(np.asarray(seen.intrinsics[c], np.float64)),
                before=(seen.images[c].shape[0], seen.images[c].shape[1]),
                after=(size, size),
            )
            for c in model.cameras
        ]
        poses = np.stack([seen.extrinsics[c] for c in model.cameras]).astype(np.float32)
        batch = batch.replace(intrinsics=torch.stack(matrices).float()[None], extrinsics=torch.from_numpy(poses)[None])
    rate = rate_hz or (model.action_space.rate_hz if model.action_space else 1.0)
    return Start(batch=batch, cameras=model.cameras, rate_hz=rate, title=title)
