"""`Mixture`: several datasets with weights, one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from wam.contracts import Batch, expected
from wam.data.windows import WindowDataset


class Mixture:
    """Datasets as (dataset, weight, name); a weight is the share of windows drawn from it, whatever its size.

    A batch over datasets that differ has the widest state and action, zeros beyond a dataset's own; an action-free
    dataset has zero actions with action_mask False, one without state a zero state with state_mask False. `source` says
    whose a row is, and `window` which of its windows.
    """

    def __init__(self, parts: Sequence[tuple[WindowDataset, float, str]]) -> None:
        if not parts or any(not np.isfinite(weight) or weight <= 0 for _, weight, _ in parts):
            raise expected("datasets with weights above 0", got=[w for _, w, _ in parts], do="drop those of weight 0")
        self.datasets = [dataset for dataset, _, _ in parts]
        self.weights = [float(weight) for _, weight, _ in parts]
        self.names = [name for _, _, name in parts]
        if len(set(self.names)) != len(self.names):
            raise expected("a name for each dataset of its own", got=self.names, do="rename the repeated one")
        spec = self.datasets[0].spec
        for dataset, name in zip(self.datasets, self.names, strict=True):
            own = dataset.spec
            times = [(s.history, s.history_stride, s.future, s.chunk) for s in (own, spec)]
            if times[0] != times[1] or dataset.image_shape != self.datasets[0].image_shape:
                raise expected(
                    f"one window spec and image size, {spec}", got=f"{own} of {name!r}", do="use one for all"
                )
            if len(dataset.cameras) != len(self.datasets[0].cameras):
                raise expected(
                    f"the views {list(self.datasets[0].cameras)}",
                    got=f"{list(dataset.cameras)} of {name!r}",
                    do="name the same cameras in every spec; those that a dataset lacks are masked",
                )

    @property
    def sizes(self) -> list[int]:
        """Windows of each dataset."""
        return [len(dataset) for dataset in self.datasets]

    def batch(self, draws: np.ndarray) -> Batch:
        """draws (B, 2) of (dataset, window) -> one batch, in their order."""
        draws = np.asarray(draws, np.int64)
        sources = np.unique(draws[:, 0])
        if len(sources) == 1:
            found = self.datasets[sources[0]].batch(draws[:, 1])
            return self._placed(self._widened(found), draws)
        parts = [self.datasets[source].arrays(draws[draws[:, 0] == source, 1]) for source in sources]
        rows = [np.flatnonzero(draws[:, 0] == source) for source in sources]
        fields: dict[str, Any] = {}
        for name in dict.fromkeys(name for part in parts for name in part if name != "instruction"):
            example = next(part[name] for part in parts if name in part)
            width = max(part[name].shape[-1] for part in parts if name in part) if name in ("state", "action") else None
            shape = (len(draws), *example.shape[1:-1], width) if width else (len(draws), *example.shape[1:])
            fill = name == "view_mask"  # a dataset without this mask has every view
            whole = np.full(shape, fill, example.dtype)
            for part, at in zip(parts, rows, strict=True):
                if name in part:
                    whole[(at, ..., slice(part[name].shape[-1])) if width else at] = part[name]
            fields[name] = torch.from_numpy(whole)
        sentences = [""] * len(draws)
        for part, at in zip(parts, rows, strict=True):
            for row, sentence in zip(at, part["instruction"], strict=True):
                sentences[row] = sentence
        found = Batch(**fields, instruction=tuple(sentences))
        return self._placed(self._widened(found), draws)

    def _widened(self, batch: Batch) -> Batch:
        """Every batch of the mixture has the same fields and widths, whichever datasets it drew from."""
        changes: dict[str, Any] = {}
        for name, dims in (("state", "state_dim"), ("action", "action_dim")):
            width = max((getattr(dataset, dims) or 0 for dataset in self.datasets), default=0)
            present = getattr(batch, name)
            if width and present is None:
                middle = (self.datasets[0].spec.chunk,) if name == "action" else ()
                changes[name] = torch.zeros(batch.size, *middle, width)
                if name == "action":
                    changes["action_mask"] = torch.zeros(batch.size, *middle, dtype=torch.bool)
            elif width and present.shape[-1] < width:
                changes[name] = torch.nn.functional.pad(present, (0, width - present.shape[-1]))
        if batch.view_mask is None and any(not dataset.has_every_view for dataset in self.datasets):
            changes["view_mask"] = torch.ones(batch.size, batch.images.shape[1], dtype=torch.bool)
        return batch.replace(**changes) if changes else batch

    def _placed(self, batch: Batch, draws: np.ndarray) -> Batch:
        source, window = torch.from_numpy(draws.copy()).unbind(1)
        mask = None
        known = [dataset.known_states if dataset.state_dim else False for dataset in self.datasets]
        if batch.state is not None and any(one is not None for one in known):
            each = [torch.as_tensor(True if one is None else one).expand(batch.state.shape[1]) for one in known]
            mask = torch.stack(each)[source]
        return batch.replace(source=source, window=window, state_mask=mask)
