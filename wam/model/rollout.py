"""Rollout: a world model let run, chunk by chunk, each imagined from the frames that were imagined before it.

    rollout(model, batch, actions)             # (B, V, T, H, W, C): what would come of these actions
    rollout(model, batch, chunks=8)            # what the model expects to happen

    world = Rollout(model, batch)              # the same by hand, with the robot's own frames in between
    imagined = world.imagine(actions)
    world.correct(seen)                        # real frames take the place of the imagined ones
    world.imagine(more_actions)

Where observed frames read only earlier frames and text (`visibility: causal`), imagined frames join a cache of the
newest `window` frames: a frame costs the same however many came before it, and correcting refills the cache. Source:
DreamZero (block-causal denoising on a cache that real frames refill), Self Forcing (Huang et al. 2025: a rolling cache).
Under any other table the context is computed anew from the newest `window` frames.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wam.contracts import Batch, expected
from wam.model.context import Context
from wam.model.wam import CONTEXT, WorldActionModel

SEED_STEP = 104_729
"""Seeds of consecutive chunks lie this far apart, so that no two streams of one rollout draw the same noise."""


class Rollout:
    """The state of one rollout of a batch. time: index of the present, in dataset frames since the start.

    steps: denoising steps per chunk. window: observed frames, real or imagined, that the model looks back over; by
    default as many as it was trained with. The state is known at the start and after a correction that gives it.
    same_noise: every row meets the same noise, so that rows differ by what they are given alone.
    """

    def __init__(
        self,
        model: WorldActionModel,
        batch: Batch,
        *,
        steps: int = 4,
        window: int | None = None,
        seed: int = 0,
        same_noise: bool = False,
    ) -> None:
        if "future" not in model.config.streams:
            raise expected("a model with a future stream", got="none", do="train one that imagines frames")
        given = batch.images.shape[2]
        self.window = max(model.config.history, given) if window is None else window
        if self.window < given:
            raise expected(f"a window of at least the {given} frames given", got=window, do="widen it")
        self.model, self.steps, self.seed, self.same_noise = model, steps, seed, same_noise
        self.cached = model.network.extendable
        self.time, self.chunks = 0, 0
        self._batch = batch.without("future", "future_mask", "action", "action_mask")
        self._context = model.context(self._batch)
        self._newest: Tensor | None = None  # frames that are not in the context yet
        self._state: Tensor | None = None

    @torch.no_grad()
    def imagine(self, actions: Tensor | None = None) -> Tensor:
        """The next frames (B, V, T, H, W, C) in [0, 1]; actions (B, K, A) in raw units, or None to imagine without."""
        if self._newest is not None:
            self._context = self._advance(self._newest, self._state)
        given = CONTEXT if actions is None else (*CONTEXT, "action")
        sample = self.model.sample(
            self._batch.replace(action=actions),
            given=given,
            want=("future",),
            steps=self.steps,
            seed=self.seed + SEED_STEP * self.chunks,
            context=self._context,
            same_noise=self.same_noise,
        )
        assert sample.future is not None
        self._newest, self._state = sample.future, None
        self.chunks, self.time = self.chunks + 1, self.time + self.model.config.future[-1]
        return sample.future

    def correct(self, frames: Tensor, *, state: Tensor | None = None) -> None:
        """Put the frames that really came, (B, V, T, H, W, C) uint8 or float, in place of those imagined last.

        state: (B, S) raw, at the last of them.
        """
        if self._newest is None:
            raise expected("a chunk that was imagined before it is corrected", got="none", do="call imagine first")
        if frames.shape != self._newest.shape:
            raise expected(
                f"frames of shape {tuple(self._newest.shape)}",
                got=tuple(frames.shape),
                do=f"give the frames at offsets {self.model.config.future}",
            )
        self._newest, self._state = _unit(frames), state

    def _advance(self, frames: Tensor, state: Tensor | None) -> Context:
        """The context with the newest frames as its last ones."""
        if self.cached:
            if state is not None:
                state = self.model.normalizer("state").normalize(state)
            start = self.time - self.model.config.future[-1]
            times = [start + offset for offset in self.model.config.future]
            return self.model.network.extend_context(self._context, frames, times, window=self.window, state=state)
        seen = torch.cat([_unit(self._batch.images), frames], dim=2)[:, :, -self.window :]
        self._batch = self._batch.replace(images=seen, state=state)
        return self.model.context(self._batch)


def rollout(
    model: WorldActionModel,
    batch: Batch,
    actions: Tensor | None = None,
    *,
    chunks: int | None = None,
    steps: int = 4,
    window: int | None = None,
    seed: int = 0,
    same_noise: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Frames (B, V, chunks * T, H, W, C) in [0, 1], `chunks` times the model's future.

    actions: (B, L, A) raw, one per dataset frame: a chunk takes K of them and the next starts where the last imagined
    frame lies, so K * chunks in all where K is the last offset of the future. Without actions the model imagines
    what it expects, and `chunks` says for how long. same_noise: as in `Rollout`. progress: called with (done, total) chunks.
    """
    K, stride = model.config.chunk, model.config.future[-1]
    if actions is not None:
        if stride > K:
            raise expected(
                f"a model whose chunk reaches its last future frame, {stride}", got=f"{K} actions", do="imagine without"
            )
        length = actions.shape[1]
        if chunks is None:
            chunks = (length - K) // stride + 1
        if chunks < 1 or length != K + (chunks - 1) * stride:
            raise expected(
                f"actions of length {K} + {stride} n, for n + 1 chunks",
                got=length,
                do=f"cut or pad them, to {K + max(0, chunks - 1) * stride} say",
            )
    if chunks is None or chunks < 1:
        raise expected("actions, or a number of chunks of at least 1", got=chunks, do="give one of them")
    world = Rollout(model, batch, steps=steps, window=window, seed=seed, same_noise=same_noise)
    frames = []
    for chunk in range(chunks):
        frames.append(world.imagine(None if actions is None else actions[:, chunk * stride : chunk * stride + K]))
        if progress is not None:
            progress(chunk + 1, chunks)
    return torch.cat(frames, dim=2)


def _unit(frames: Tensor) -> Tensor:
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()
