"""Batches taken to an accelerator ahead of time, on a stream of their own, while it works on the batch before."""

from __future__ import annotations

import torch

from wam.contracts import Batch


class Courier:
    """`fetch` in a loader's thread, `deliver` where the batch is used. On a CPU a batch stays where it is."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def fetch(self, batch: Batch) -> Batch:
        """The batch on the device, once it is there; only the calling thread waits."""
        if self._stream is None:
            return batch.to(self.device)
        with torch.cuda.device(self._stream.device), torch.cuda.stream(self._stream):
            pinned = batch.replace(**{name: value.pin_memory() for name, value in batch.tensors().items()})
            moved = pinned.to(self.device, non_blocking=True)
            self._stream.synchronize()
        return moved

    def deliver(self, batch: Batch) -> None:
        """Tell the allocator that the current stream uses the batch, so that its memory is not taken for the next one."""
        if self._stream is not None:
            for value in batch.tensors().values():
                value.record_stream(torch.cuda.current_stream(self.device))
