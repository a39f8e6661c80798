"""Answers to what a page asks: one model or two, from one start, with what really came beside them. Plain values, as JSON has.

Everything here runs in one thread, one question after another; models and simulators are touched by that thread alone.
"""

from __future__ import annotations

import base64
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wam.contracts import WamError, expected
from wam.explore import asking
from wam.explore.explorer import Explorer
from wam.explore.failures import Failures, Trace, recorded_failures
from wam.explore.futures import Futures
from wam.explore.starts import Start, from_window, open_windows
from wam.explore.viewer.questions import Imagine, Question, Retrace
from wam.visualization.images import data_uri, difference, heat, png

SHOWN_STARTS = 10
KEPT = 24
"""Starts, and failures that were retraced, that are kept for the next question."""
Part = dict[str, Any]


class Studio:
    """models: the one explored, and perhaps one to compare it with, which starts from the data of the first."""

    def __init__(self, models: Sequence[Explorer], *, run: Path | None = None) -> None:
        self.models = tuple(models)
        for model in self.models:
            if "future" not in model.model.config.streams:
                raise expected(
                    f"a model that imagines in {model.name}", got="one without a future", do="explore another"
                )
        self._starts: OrderedDict[tuple[int, float], Start] = OrderedDict()
        self._traces: OrderedDict[int, Trace] = OrderedDict()
        self.failures = Failures() if run is None else recorded_failures(run, models[0])

    # what a page is told first ------------------------------------------------------------------------------------

    def hello(self) -> Part:
        """Models, starts, sentences, actions and failures."""
        first = self.models[0]
        count = sum(map(len, first.held_out()))
        places = [float(place) for place in np.linspace(0, 1, SHOWN_STARTS + 2)[1:-1]]
        return {
            "models": [_about(model) for model in self.models],
            "cameras": list(first.model.cameras),
            "actions": _dimensions(first),
            "starts": [
                {"place": place, "told": start.instruction, "picture": _url(start.present[0])}
                for place in places
                for start in [self.start(0, place)]
            ],
            "frames": count,
            "ahead_s": first.model.config.future[-1] / first.held_out()[0].store.info.fps,
            "instructions": first.instructions(),
            "failures": [
                {
                    "environment": failure.environment,
                    "seed": failure.seed,
                    "told": failure.instruction,
                    "steps": failure.steps,
                    "variant": failure.variant,
                }
                for failure in self.failures.episodes
            ],
            "failures_why": self.failures.why,
        }

    def start(self, model: int, place: float) -> Start:
        """Of the first model, by its place; for the second, the same frame as that model takes it."""
        key = (model, place)
        if key not in self._starts:
            if model == 0:
                self._starts[key] = self.models[0].start(place)
            else:
                first, explorer = self.start(0, place), self.models[model]
                assert first.windows is not None
                episode, frame = first.windows.episode_of(first.row)
                number = first.windows.store.episodes.index(episode)
                windows = open_windows(explorer.model, first.windows.store.root, episodes=[number])
                self._starts[key] = from_window(windows, frame, explorer.simulators)
        self._starts.move_to_end(key)
        while len(self._starts) > KEPT * len(self.models):
            self._starts.popitem(last=False)
        return self._starts[key]

    # answers ------------------------------------------------------------------------------------------------------

    def answer(self, question: Question, say: Callable[[str], None] = lambda words: None) -> Iterator[Part]:
        """The parts of the answer, as soon as each is known: what is imagined, then what really comes of it. A caller that
        has a newer question need not ask for the rest. Raises WamError for what cannot be asked."""
        if isinstance(question, Retrace):
            yield self._retraced(question, say)
            return
        begun = time.perf_counter()
        found: list[Futures | None] = []
        told: list[Part] = []
        for number in range(len(self.models)):
            try:
                futures = self._imagined(question, number)
            except WamError as error:
                if number == 0:
                    raise
                found.append(None)
                told.append({"why": str(error)})
                continue
            found.append(futures)
            told.append(_imagined(futures))
        start = self.start(0, question.place)
        yield {
            "part": "imagined",
            "number": question.number,
            "title": start.title,
            "told": start.instruction if question.instruction is None else question.instruction,
            "present": {c: _url(view) for c, view in zip(start.cameras, start.present, strict=True)},
            "poses": _poses(start),
            "models": told,
            "ms": 1e3 * (time.perf_counter() - begun),
        }
        yield {
            "part": "truth",
            "number": question.number,
            "models": [None if futures is None else _truth(futures) for futures in found],
        }

    def _imagined(self, question: Imagine, number: int) -> Futures:
        explorer, start = self.models[number], self.start(number, question.place)
        if question.instruction is not None:
            start = start.told(question.instruction)
        if question.kind == "push":
            chunk = asking.push(explorer.model, start, explorer.length(question.chunks), question.push)
            actions: Any = {"push": chunk}
        else:
            actions = None if question.kind == "none" else question.kind
        return explorer.imagine(
            start, actions=actions, seeds=[question.seed], steps=question.steps, chunks=question.chunks
        )

    def _retraced(self, question: Retrace, say: Callable[[str], None]) -> Part:
        """One plan of a recorded failure: what was expected of it, and what came."""
        trace = self._trace(question.which, say)
        plan = min(question.plan, len(trace.plans) - 1)
        now = trace.plans[plan]
        cameras = self.models[0].model.cameras
        came = trace.came(plan)
        return {
            "part": "retraced",
            "number": question.number,
            "which": question.which,
            "plan": plan,
            "plans": [one / trace.rate_hz for one in trace.plans],
            "at": now / trace.rate_hz,
            "steps": trace.steps,
            "success": trace.success,
            "words": trace.words,
            "errors": [None if error is None else round(error, 5) for error in trace.errors],
            "moved": [None if moved is None else round(moved, 5) for moved in trace.moved],
            "seconds": list(trace.seconds),
            "present": {c: _url(view) for c, view in zip(cameras, trace.frames[now], strict=True)},
            "imagined": _urls(cameras, trace.imagined[plan]),
            "came": None if came is None else _urls(cameras, came),
            "difference": None if came is None else _urls(cameras, heat(difference(came, trace.imagined[plan]))),
            "planned": trace.chunks[plan].round(4).tolist(),
            "executed": trace.executed[now : now + len(trace.chunks[plan])].round(4).tolist(),
            "carried_out": trace.execute,
        }

    def _trace(self, which: int, say: Callable[[str], None]) -> Trace:
        if which not in self._traces:
            self._traces[which] = self.failures.retrace(which, self.models[0], say=say)
        self._traces.move_to_end(which)
        while len(self._traces) > KEPT:
            self._traces.popitem(last=False)
        return self._traces[which]

    def close(self) -> None:
        for model in self.models:
            model.simulators.close()


def _about(explorer: Explorer) -> Part:
    made, config = explorer.model.provenance, explorer.model.config
    return {
        "name": explorer.name,
        "random": bool(made.get("random", True)),
        "sha256": str(made.get("sha256", {}).get("model.safetensors", ""))[:12],
        "millions": round(sum(p.numel() for p in explorer.model.parameters()) / 1e6, 1),
        "chunk": config.chunk,
        "voxels": explorer.model.network.occupancy is not None,
    }


def _dimensions(explorer: Explorer) -> list[Part]:
    """Of the actions: names, units, what is known of them, and which move the hand along which axis."""
    space = explorer.model.action_space
    if space is None or "action" not in explorer.model.config.streams:
        return []
    low, high = asking.known_range(explorer.model)
    axes = asking.motion_of(space)
    return [
        {
            "name": name,
            "unit": space.units[dim],
            "low": float(low[dim]),
            "high": float(high[dim]),
            "axis": axes.index(dim) if dim in axes else None,
            "gripper": name == space.gripper,
            "closed_high": space.gripper_closed_high,
        }
        for dim, name in enumerate(space.names)
    ]


def _imagined(futures: Futures) -> Part:
    filled = futures.filled
    return {
        "frames": _urls(futures.start.cameras, futures.pictures[0]),
        "seconds": [round(second, 4) for second in futures.seconds],
        "actions": None if futures.actions is None else futures.actions[0].round(4).tolist(),
        "voxels": None if filled is None else _voxels(filled[0]),
    }


def _truth(futures: Futures) -> Part:
    truth, cameras = futures.truth, futures.start.cameras
    if truth is None:
        return {"why": futures.why_no_truth}
    errors = futures.errors
    assert errors is not None
    copied = np.abs(futures.start.present[:, None] / 255 - truth.frames[0] / 255).mean()
    return {
        "source": truth.source,
        "frames": _urls(cameras, truth.frames[0]),
        "difference": _urls(cameras, heat(difference(truth.frames[0], futures.pictures[0]))),
        "error": float(errors[0]),
        "copied": float(copied),
        "voxels": None if truth.filled is None else _voxels(truth.filled[0]),
    }


def _voxels(filled: np.ndarray) -> Part:
    """(T, X, Y, Z) bool: eight a byte, base64."""
    packed = [base64.b64encode(np.packbits(grid.reshape(-1)).tobytes()).decode() for grid in filled]
    return {"shape": list(filled.shape[1:]), "filled": packed}


def _poses(start: Start) -> dict[str, Any]:
    """By camera, the rotation (3, 3) from its axes to the world's, where it is known."""
    poses = start.batch.extrinsics
    if poses is None:
        return {}
    return {c: pose[:3, :3].tolist() for c, pose in zip(start.cameras, poses[0], strict=True)}


def _urls(cameras: Sequence[str], frames: np.ndarray) -> dict[str, list[str]]:
    """(V, T, H, W, 3) uint8, by camera."""
    return {camera: [_url(frame) for frame in view] for camera, view in zip(cameras, frames, strict=True)}


def _url(frame: np.ndarray) -> str:
    return data_uri(png(frame), "png")


def limit_threads(threads: int) -> None:
    """Of torch; 0 leaves its choice."""
    if threads:
        torch.set_num_threads(threads)
