"""The policy as one recorded sequence of kernels: a CUDA graph, which spares Python and the driver every launch.

At batch 1 an action chunk is a few thousand small kernels, and launching them takes longer than running them. Recorded once,
they are replayed on inputs that are copied to where the recording reads: the context, which changes with every observation,
and the noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from wam.contracts import expected
from wam.diffusion.samplers import Signals, integrate
from wam.model.context import Context
from wam.model.wam import CONTEXT, WorldActionModel

WARM_UP = 3
"""Runs before the recording, in which kernels are chosen and libraries take their memory."""


class PolicyGraph:
    """Chunks of `model.policy` for contexts shaped like `example`, by Euler, without guidance.

    On a CPU there is nothing to record: the same steps run on the same copied inputs, so that tests can hold them equal.
    half: compute in bfloat16, as training does.
    """

    def __init__(self, model: WorldActionModel, example: Context, *, steps: int = 4, half: bool = False) -> None:
        self.model, self.half = model, half
        self.device = example.present.device
        self.want = model.drawn_by_policy
        self._context = _copied(example)
        self._clocks = {s: model.sampling_clocks(s, steps).to(self.device) for s in self.want}
        self._beside = {s: torch.ones((), device=self.device) for s in model.unsaid(CONTEXT, self.want)}
        streams = (*self.want, *self._beside)
        self._noise = {s: torch.zeros(model.signal_shape(s, example.size), device=self.device) for s in streams}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._drawn: Signals = {}
        if self.device.type == "cuda":
            self._record()

    @torch.no_grad()
    def __call__(self, context: Context, *, seed: int = 0, same_noise: bool = False) -> Tensor:
        """(B, K, A) actions in the action space's units: what `model.policy` draws of this context and seed."""
        _copy(context, self._context)
        noise = self.model.initial_noise(context.size, seed=seed, same=same_noise, device=self.device)
        for s, kept in self._noise.items():
            kept.copy_(noise[s])
        if self._graph is None:
            self._drawn = self._draw()
        else:
            self._graph.replay()
        return self.model.normalizer("action").restore(self._drawn["action"]).clone()

    def _record(self) -> None:
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.no_grad(), torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._draw()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            self._drawn = self._draw()
        self._graph = graph

    def _draw(self) -> Signals:
        unsaid = {s: self._noise[s] for s in self._beside}

        def velocity(signals: Signals, now: Mapping[str, Tensor]) -> Signals:
            return self.model.velocity(self._context, {**signals, **unsaid}, {**now, **self._beside}, self.want)

        # whatever the network makes on the way is made on the device: a copy from the host cannot be recorded
        with torch.device(self.device), torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return integrate(velocity, {s: self._noise[s] for s in self.want}, self._clocks)


def _tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside dataclasses, mappings and sequences, with where it is."""
    if isinstance(value, Tensor):
        yield path, value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _tensors(part, f"{path}.{name}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, part in enumerate(value):
            yield from _tensors(part, f"{path}.{number}")


def _copied(value: Any) -> Any:
    """The same structure with tensors of its own."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: _copied(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(part) for part in value)
    return value


def _copy(source: Context, target: Context) -> None:
    """Values into the tensors that are already there. Raises WamError for a context of another shape or another time."""
    given, kept = dict(_tensors(source)), dict(_tensors(target))
    shapes = {name: tuple(x.shape) for name, x in given.items()}
    if shapes != {name: tuple(x.shape) for name, x in kept.items()} or source.time != target.time:
        raise expected(
            f"a context like the recorded one, of {target.size} row(s) at time {target.time}",
            got=f"{source.size} row(s) at time {source.time}, or other streams",
            do="record another graph for it",
        )
    for name, x in given.items():
        kept[name].copy_(x)
