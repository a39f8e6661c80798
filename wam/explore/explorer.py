"""A trained model to ask questions of: `wam.load(run)`.

    model = wam.load("runs/demo")
    start = model.start(0.1)                                  # a frame of an episode that training never saw
    model.imagine(start, seeds=4)                             # what may come
    model.imagine(start, actions="pushes")                    # the same start under different actions
    model.imagine(start, actions={"left": model.push(start, x=-0.5)}, chunks=4).save("left.mp4")
    model.policy(start) | model.inverse_dynamics(start)       # which actions, beside those that were recorded

Every answer displays itself in a notebook, with what really came beside it where that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wam.contracts import Batch, Observation, expected
from wam.data.windows import WindowDataset
from wam.evaluation.pictures import to_uint8
from wam.explore import asking
from wam.explore.chunks import Chunks
from wam.explore.episodes import Episodes
from wam.explore.futures import Futures
from wam.explore.starts import Simulators, Start, from_observation, from_simulator, from_window
from wam.model.pretrained import from_pretrained
from wam.model.rollout import rollout
from wam.model.wam import CONTEXT, WorldActionModel
from wam.settings import build
from wam.training.config import TrainConfig
from wam.training.state import newest_checkpoint
from wam.visualization.markup import Markup, definitions

Actions = np.ndarray | Mapping[str, np.ndarray] | str | None
"""(L, A) actions; several by name; `recorded`; `policy`: what the model itself would do; `pushes`; None: none are given."""


def load(run: str | Path, *, data: str | Path | None = None) -> Explorer:
    """The model of a run or checkpoint folder, and the data it may start from: `data`, else what it was trained on.

    Raises WamError if there is no world-action model.
    """
    return Explorer(from_pretrained(newest_checkpoint(Path(run))), name=str(run), data=data)


class Explorer:
    """model: a `WorldActionModel`, for what is not found here."""

    def __init__(self, model: WorldActionModel, *, name: str = "a model", data: str | Path | None = None) -> None:
        self.model, self.name = model, name
        self.simulators = Simulators()
        trained = model.provenance.get("config")
        self.trained: TrainConfig | None = build(TrainConfig, trained) if trained else None
        self.episodes = Episodes(model, self.trained, data)

    # starts -----------------------------------------------------------------------------------------------------

    def start(
        self,
        place: float = 0.0,
        *,
        play: bool = False,
        episode: int | None = None,
        frame: int = 0,
        environment: str | None = None,
        seed: int = 0,
        observation: Observation | None = None,
        instruction: str | None = None,
    ) -> Start:
        """A start: by its place among the held-out frames (0 the first, 1 the last; play: of random play), by episode and frame
        of the data, from a seed of an environment, or from what a robot sees. instruction: another sentence."""
        if observation is not None:
            start = from_observation(self.model, observation)
        elif environment is not None:
            start = from_simulator(self.model, environment, seed, self.simulators)
        elif episode is not None:
            start = from_window(*self.episodes.of(episode, frame), self.simulators)
        else:
            start = from_window(*self.episodes.at(place, play=play), self.simulators)
        return start if instruction is None else start.told(instruction)

    def starts(self, count: int, *, play: bool = False) -> list[Start]:
        """Held-out starts spread evenly, chosen by place and not by how well they go."""
        return [self.start(float(place), play=play) for place in np.linspace(0, 1, count + 2)[1:-1]]

    def held_out(self, *, play: bool = False) -> list[WindowDataset]:
        """Windows of the held-out episodes, demonstrations or play; of another dataset than the run's, of all its episodes."""
        return self.episodes.held_out(play=play)

    def instructions(self) -> list[str]:
        """Every sentence of the held-out demonstrations."""
        return sorted({sentence for windows in self.held_out() for sentence in windows.sentences})

    # actions ----------------------------------------------------------------------------------------------------

    def length(self, chunks: int = 1) -> int:
        """How many actions so many imagined chunks take."""
        return self.model.config.chunk + (chunks - 1) * self.model.config.future[-1]

    def push(self, start: Start, *, chunks: int = 1, **moves: float) -> np.ndarray:
        """(L, A): one action held, `x=0.5, gripper=1`, in the units of the action space; what is not named stays still."""
        return asking.push(self.model, start, self.length(chunks), moves)

    def pushes(self, start: Start, *, chunks: int = 1, strength: float = asking.STRENGTH) -> dict[str, np.ndarray]:
        """Standing still, and a push along each axis both ways, as a share of the strongest known actions."""
        return asking.pushes(self.model, start, self.length(chunks), strength=strength)

    def _actions(self, start: Start, actions: Actions, chunks: int) -> dict[str, np.ndarray] | None:
        length = self.length(chunks)
        if actions is None:
            return None
        if isinstance(actions, Mapping):
            return {name: asking.checked(self.model, chunk, length) for name, chunk in actions.items()}
        if not isinstance(actions, str):
            return {"as told": asking.checked(self.model, actions, length)}
        if actions == "pushes":
            return self.pushes(start, chunks=chunks)
        if actions == "policy":
            return {"policy": asking.checked(self.model, self.policy(start).actions[0], length)}
        if actions != "recorded":
            raise expected("actions recorded, policy or pushes", got=repr(actions), do="name one, or give an array")
        recorded = start.actions(length)
        if recorded is None:
            raise expected("a start with recorded actions", got="none", do="give actions, or none at all")
        return {"recorded actions": recorded}

    # the five conditionals --------------------------------------------------------------------------------------

    def imagine(
        self,
        start: Start,
        *,
        actions: Actions = None,
        instruction: str | Sequence[str] | None = None,
        seeds: int | Sequence[int] = 1,
        steps: int = 3,
        chunks: int = 1,
        voxels: bool | None = None,
    ) -> Futures:
        """What may come: p(future | observation, text), or with actions p(future | observation, action).

        A row for each of the actions, the sentences and the seeds (a number of them, or which). Rows of one seed start from the
        same noise, so they differ by what they are told alone. steps: of sampling. chunks: imagine on from what was imagined.
        voxels: also of the grid; None: where the model has one, knows its cameras and imagines one chunk.
        """
        self._must_imagine(chunks)
        chosen = self._actions(start, actions, chunks)
        told = [instruction] if isinstance(instruction, str) else list(instruction or [start.instruction])
        drawn = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
        if not drawn or not told or chosen == {}:
            raise expected("at least one seed, sentence and action", got="none", do="leave out what is not to vary")
        rows = [(name, sentence) for name in list(chosen or [""]) for sentence in told]
        batch = _repeated(start.batch, len(rows)).replace(instruction=tuple(sentence for _, sentence in rows))
        given = None if chosen is None else torch.from_numpy(np.stack([chosen[name] for name, _ in rows]))
        shown = self._has_voxels(start, chunks) if voxels is None else voxels
        if shown and not self._has_voxels(start, chunks):
            raise expected("a model with voxels, its cameras, and one chunk", got="others", do="leave out voxels")
        every = [self._sampled(batch, given, steps=steps, seed=seed, chunks=chunks, voxels=shown) for seed in drawn]
        many = (chosen is not None and len(chosen) > 1, len(told) > 1, len(drawn) > 1)
        names = [_name(name, sentence, seed, many) for seed in drawn for name, sentence in rows]
        return Futures(
            start=start,
            title="What may come" if chosen is None else "What comes of these actions",
            names=tuple(names),
            frames=np.concatenate([one[0] for one in every]),
            offsets=self._offsets(chunks),
            instructions=tuple(sentence for _ in drawn for _, sentence in rows),
            steps=steps,
            actions=None if given is None else np.concatenate([given.numpy()] * len(drawn)),
            space=self.model.action_space,
            voxels=_joined([one[1] for one in every]),
            colours=_joined([one[2] for one in every]),
            grid=self.model.config.occupancy.grid if shown else None,
        )

    def forward_dynamics(self, start: Start, actions: Actions = "recorded", **options: Any) -> Futures:
        """p(future | observation, action): `imagine` with actions."""
        if actions is None:
            raise expected("actions", got="none", do="give some, or use `imagine`")
        return self.imagine(start, actions=actions, **options)

    def joint(self, start: Start, *, seeds: int | Sequence[int] = 1, steps: int = 4) -> Futures:
        """p(future, action | observation, state, text): what the model would do, and what it expects of that."""
        self._must_imagine(1)
        space, drawn = asking.space_of(self.model), list(range(seeds)) if isinstance(seeds, int) else list(seeds)
        found = [self.model.joint(start.batch, steps=steps, seed=seed) for seed in drawn]
        actions = torch.cat([_wanted(one.action) for one in found]).numpy()
        return Futures(
            start=start,
            title="What the model would do, and expects of it",
            names=tuple(f"seed {seed}" if len(drawn) > 1 else "imagined" for seed in drawn),
            frames=torch.cat([_wanted(one.future) for one in found]).clamp(0, 1).numpy(),
            offsets=self._offsets(1),
            instructions=(start.instruction,) * len(drawn),
            steps=steps,
            actions=np.clip(actions, space.low, space.high).astype(np.float32),
            space=space,
        )

    def policy(self, start: Start, *, seeds: int | Sequence[int] = 1, steps: int = 4) -> Chunks:
        """p(action | observation, state, text): what the model would do; no future is computed."""
        drawn = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
        found = [_wanted(self.model.policy(start.batch, steps=steps, seed=s).action)[0] for s in drawn]
        return self._chunks(start, "policy", drawn, found, "What the model would do")

    def inverse_dynamics(
        self, start: Start, future: np.ndarray | None = None, *, seeds: int | Sequence[int] = 1, steps: int = 4
    ) -> Chunks:
        """p(action | observation, future): the actions that lead to a future (V, T, H, W, C), uint8 or in [0, 1]; by default
        the one that was recorded."""
        drawn = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
        if future is None:
            future = start.recorded(self.model.config.future)
            if future is None:
                raise expected("a future to read actions off", got="none recorded", do="give one, (V, T, H, W, C)")
        shown = torch.from_numpy(np.array(future))[None]
        batch = start.batch.without("future_mask").replace(future=shown)
        found = [_wanted(self.model.inverse_dynamics(batch, steps=steps, seed=s).action)[0] for s in drawn]
        return self._chunks(start, "inverse dynamics", drawn, found, "The actions that lead to this future")

    # parts ------------------------------------------------------------------------------------------------------

    def _chunks(
        self, start: Start, name: str, seeds: Sequence[int], found: Sequence[torch.Tensor], title: str
    ) -> Chunks:
        space = asking.space_of(self.model)
        return Chunks(
            names=tuple(name if len(seeds) == 1 else f"{name}, seed {seed}" for seed in seeds),
            actions=np.clip(torch.stack(list(found)).numpy(), space.low, space.high).astype(np.float32),
            space=space,
            title=f"{title}, told “{start.instruction}”",
            recorded=start.actions(self.model.config.chunk),
        )

    def _sampled(
        self, batch: Batch, actions: torch.Tensor | None, *, steps: int, seed: int, chunks: int, voxels: bool
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Frames (B, V, T, H, W, C) in [0, 1], voxels (B, 1 + T, X, Y, Z), and their colours (B, 1 + T, X, Y, Z, 3) uint8."""
        plain = batch.without("future", "future_mask", "action", "action_mask")
        if chunks > 1:
            frames = rollout(self.model, plain, actions, chunks=chunks, steps=steps, seed=seed, same_noise=True)
            return frames.clamp(0, 1).numpy(), None, None
        sample = self.model.sample(
            plain if actions is None else plain.replace(action=actions),
            given=CONTEXT if actions is None else (*CONTEXT, "action"),
            want=("future", "occupancy") if voxels else ("future",),
            steps=steps,
            seed=seed,
            same_noise=True,
        )
        cells = None if sample.occupancy is None else sample.occupancy.numpy()
        paint = None if sample.occupancy_colour is None else to_uint8(sample.occupancy_colour.numpy())
        return _wanted(sample.future).clamp(0, 1).numpy(), cells, paint

    def _offsets(self, chunks: int) -> tuple[int, ...]:
        future = self.model.config.future
        return tuple(chunk * future[-1] + offset for chunk in range(chunks) for offset in future)

    def _must_imagine(self, chunks: int) -> None:
        if "future" not in self.model.config.streams:
            raise expected("a model that imagines", got="one without a future", do="ask it for its policy")
        if chunks < 1:
            raise expected("at least one chunk", got=chunks, do="correct chunks")

    def _has_voxels(self, start: Start, chunks: int) -> bool:
        posed = start.batch.intrinsics is not None and start.batch.extrinsics is not None
        return self.model.network.occupancy is not None and posed and chunks == 1

    def _repr_html_(self) -> str:
        made, space = self.model.provenance, self.model.action_space
        weights = Markup("<b>random, never trained</b>") if made.get("random", True) else "trained"
        return definitions(
            {
                "model": self.name,
                "weights": weights,
                "parameters": f"{sum(p.numel() for p in self.model.parameters()) / 1e6:.1f} million",
                "step": made.get("step", "not recorded"),
                "streams": ", ".join(self.model.config.streams),
                "cameras": ", ".join(self.model.cameras),
                "actions": "none" if space is None else f"{', '.join(space.names)} at {space.rate_hz:g} Hz",
                "looks ahead": f"frames +{', +'.join(map(str, self.model.config.future))}, {self.model.config.chunk} actions",
            }
        )

    def __repr__(self) -> str:
        return f"Explorer({self.name!r}, streams {', '.join(self.model.config.streams)})"


def _repeated(batch: Batch, count: int) -> Batch:
    """The same row so many times."""
    return batch[[0] * count]


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """One after the other along the first axis, or nothing where there is nothing."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def _wanted(found: torch.Tensor | None) -> torch.Tensor:
    assert found is not None  # it was asked for
    return found.float().cpu()


def _name(action: str, sentence: str, seed: int, many: tuple[bool, bool, bool]) -> str:
    """What tells a row apart from the others; one alone is named by its action, or is simply imagined."""
    parts = (action, f"“{sentence}”", f"seed {seed}")
    return ", ".join(part for part, varies in zip(parts, many, strict=True) if varies) or action or "imagined"
