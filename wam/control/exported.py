"""An exported student as a policy: numpy and onnxruntime, no torch. One that was trained with prefixes goes on from settled
actions, as real-time chunking wants it.

What an instruction says is computed once and kept. The graph runs on one thread unless more are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import ActionSpace, Observation, expected
from wam.control.continuation import Continuation, require_continuable, stacked
from wam.control.past import Past
from wam.control.policy import stack
from wam.files import sha256
from wam.tokenizers.words import pad_ids, word_ids

ABOUT, GRAPH, TEXT = "export.json", "student.onnx", "text.onnx"


class ExportedPolicy:
    """A folder that `wam export --format onnx` wrote. chunk: K. about: what export.json says.

    Raises WamError for a folder that is incomplete, changed since, or of another format.
    """

    def __init__(self, folder: str | Path, *, threads: int = 1) -> None:
        self.folder = Path(folder)
        self.about = read_export(self.folder)
        if self.about["format"] != "onnx":
            raise expected(
                f"an ONNX export in {self.folder}", got=self.about["format"], do="export it with --format onnx"
            )
        config = self.about["student"]
        self.chunk: int = config["chunk"]
        self.cameras = tuple(self.about["cameras"])
        space = self.about["action_space"]
        self.action_space = ActionSpace.from_dict(space) if space else None
        self.past = Past(config["history"])
        self._shape = (config["views"], config["history"], config["image_size"], config["image_size"], 3)
        self._state_dim, self._words = config["state_dim"], config["text"]
        self._prefix, self._dim = config.get("prefix", 0), config["action_dim"]
        self._graph, self._text = (session(self.folder / name, threads) for name in (GRAPH, TEXT))
        self._told: dict[str, np.ndarray] = {}

    def reset(self, index: int | None = None) -> None:
        """Forget the frames that slot `index`, or every slot, was shown."""
        self.past.reset(index)

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        """(B, K, A) actions, clipped to the action space's limits where it is known."""
        return self._act(observations, [None] * len(observations), slots)

    def continue_from(self, observations: Sequence[Observation], left: Sequence[Continuation | None]) -> np.ndarray:
        """(B, K, A) actions that go on from what each slot is carrying out, by `prefix`; as `act` for a slot that carries out
        nothing. Raises WamError for another method, relative actions, and more settled than training knew."""
        require_continuable(self.action_space)
        if len(left) != len(observations):
            raise expected(f"what {len(observations)} slots carry out", got=len(left), do="give None for an idle slot")
        told = [one for one in left if one is not None]
        if told and (any(one.method != "prefix" for one in told) or max(one.delay for one in told) > self._prefix):
            raise expected(
                f"up to {self._prefix} settled actions, continued by `prefix`",
                got=f"{max(one.delay for one in told)}, by {', '.join(sorted({one.method for one in told}))}",
                do="continue by `blend`, or distill with a longer student.prefix and export that",
            )
        return self._act(observations, left)

    def _act(
        self,
        observations: Sequence[Observation],
        left: Sequence[Continuation | None],
        slots: Sequence[int] | None = None,
    ) -> np.ndarray:
        images, state = stack(observations, self.cameras)
        images = self.past.extend(images, slots)
        if images.shape[1:] != self._shape or state is None or state.shape[1] != self._state_dim:
            raise expected(
                f"images of {self._shape} and a state of {self._state_dim} numbers",
                got=f"{images.shape[1:]} and {None if state is None else state.shape[1]}",
                do="give what the student was trained with",
            )
        told = np.concatenate([self._read(o.instruction) for o in observations])
        feed = {"images": images, "state": state, "told": told}
        if self._prefix:
            before, weights = stacked(left, chunk=self._prefix, dim=self._dim)
            feed |= {"before": before, "settled": weights == 1}
        actions = self._graph.run(None, feed)[0]
        return actions if self.action_space is None else np.clip(actions, self.action_space.low, self.action_space.high)

    def _read(self, sentence: str) -> np.ndarray:
        """(1, D), computed when a sentence is first told."""
        if sentence not in self._told:
            if len(self._told) > 65536:
                self._told.clear()
            longest = self._words["max_words"]
            ids = pad_ids([word_ids(sentence, self._words["vocabulary"], longest)], longest)
            self._told[sentence] = self._text.run(None, {"ids": np.array(ids, np.int64)})[0]
        return self._told[sentence]


def read_export(folder: Path) -> dict[str, Any]:
    """What export.json says, its files checked against their sha256."""
    path = folder / ABOUT
    if not path.is_file():
        raise expected(f"an exported student with {ABOUT} in {folder}", got="none", do="export one: wam export RUN")
    try:
        about = json.loads(path.read_text())
        recorded = dict(about["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise expected(f"{path} to list a sha256 for each file", got=str(error), do="export it again") from error
    for name, digest in recorded.items():
        actual = sha256(folder / name) if (folder / name).is_file() else "no file"
        if actual != digest:
            raise expected(
                f"{folder / name} with sha256 {digest[:12]}",
                got=actual[:12],
                do="the file was damaged or changed; export it again",
            )
    return about


def session(path: Path, threads: int) -> Any:
    """An onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
