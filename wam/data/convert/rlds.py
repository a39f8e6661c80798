"""RLDS episodes (TensorFlow datasets on disk): one `tf.train.Example` per episode, its steps as flat lists."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wam.contracts import expected
from wam.data.convert.frames import decode_still
from wam.data.convert.source import SourceEpisode
from wam.data.convert.tfrecord import FeatureValue, parse_example, read_record, record_offsets

_OBSERVATION = "steps/observation/"
_FLAGS = ("steps/is_first", "steps/is_last", "steps/is_terminal", "steps/discount")
_SENTENCES = ("steps/language_instruction", "steps/observation/natural_language_instruction")


def find_shards(path: Path) -> list[Path]:
    """The TFRecord files of a dataset folder (at any depth), or the one file given."""
    if path.is_file():
        return [path] if ".tfrecord" in path.name else []
    return sorted(p for p in path.rglob("*.tfrecord*") if p.is_file() and not p.name.startswith("."))


class RldsSource:
    """The episodes of all shards, in the order of shard and record.

    Steps' observations become `observation.<key>` (images: cameras), the action `action` (a dictionary of parts is
    joined in alphabetical order), the reward `next.reward` and the last step `next.done`. The format records no frame
    rate, so `fps` must be given.
    """

    robot_type = "unknown"

    def __init__(self, path: Path, *, fps: float | None) -> None:
        shards = find_shards(path)
        if not shards:
            raise expected(
                f"TFRecord files under {path}", got="none", do="give the folder that holds *.tfrecord* files"
            )
        if fps is None:
            raise expected(
                "the frame rate of an RLDS dataset", got="none (the format records none)", do="add fps=N, e.g. fps=5"
            )
        self.fps = fps
        self._records = [(shard, i, *span) for shard in shards for i, span in enumerate(record_offsets(shard))]
        if not self._records:
            raise expected(f"at least one episode under {path}", got="empty TFRecord files", do="fetch the data again")
        self.robot_type = _dataset_name(shards[0])
        first = self._example(0)
        steps = _step_count(first, str(shards[0]))
        actions = _actions(first, steps)
        parts = [(name, value.shape[1]) for name, value in actions.items()]
        self.names: Mapping[str, tuple[str, ...]] = {}
        if len(parts) > 1:
            self.names = {"action": tuple(f"{n}_{i}" if d > 1 else n for n, d in parts for i in range(d))}
        left = sorted(k for k, v in first.items() if _left_out(k, v, steps))
        self.notes: tuple[str, ...] = (f"left out of every episode: {', '.join(left)}",) if left else ()

    def __len__(self) -> int:
        return len(self._records)

    def _example(self, index: int) -> dict[str, FeatureValue]:
        shard, record, offset, length = self._records[index]
        return parse_example(read_record(shard, offset, length, index=record))

    def __getitem__(self, index: int) -> SourceEpisode:
        shard, record, *_ = self._records[index]
        where = f"record {record} of {shard}"
        example = self._example(index)
        steps = _step_count(example, where)
        images: dict[str, np.ndarray] = {}
        columns: dict[str, np.ndarray] = {}
        for key, value in sorted(example.items()):
            if not key.startswith(_OBSERVATION) or _left_out(key, value, steps):
                continue
            name = key.removeprefix(_OBSERVATION).replace("/", "_")
            if isinstance(value, list):
                images[name] = np.stack([decode_still(v, where=f"{key} of {where}") for v in value])
            else:
                columns[f"observation.{name}"] = _rows(value, steps, f"{key} of {where}")
        if actions := _actions(example, steps, where):
            columns["action"] = np.concatenate(list(actions.values()), axis=1)
        reward, last = example.get("steps/reward"), example.get("steps/is_last")
        if isinstance(reward, np.ndarray) and len(reward) == steps:
            columns["next.reward"] = reward.astype(np.float32)
        if isinstance(last, np.ndarray) and len(last) == steps:
            columns["next.done"] = last.astype(bool)
        return SourceEpisode(images=images, columns=columns, task=_sentence(example))


def _step_count(example: Mapping[str, FeatureValue], where: str) -> int:
    for key in _FLAGS:
        if len(example.get(key, [])):
            return len(example[key])
    raise expected(
        f"one of {', '.join(_FLAGS)} in {where}", got=f"keys {', '.join(sorted(example)[:6])}",
        do="give RLDS episodes: one record per episode with its steps",
    )  # fmt: skip


def _actions(example: Mapping[str, FeatureValue], steps: int, where: str = "the first record") -> dict[str, np.ndarray]:
    """The action's parts, (T, d) each; the plain `steps/action` is one part."""
    found = {}
    for key in sorted(example):
        value = example[key]
        if (key == "steps/action" or key.startswith("steps/action/")) and isinstance(value, np.ndarray) and value.size:
            name = key.removeprefix("steps/action").strip("/").replace("/", "_") or "action"
            found[name] = _rows(value, steps, f"{key} of {where}").astype(np.float32)
    return found


def _rows(value: np.ndarray, steps: int, what: str) -> np.ndarray:
    if len(value) % steps:
        raise expected(
            f"{what} with a multiple of {steps} values", got=len(value), do="the episode is damaged: drop it"
        )
    return value.reshape(steps, -1)


def _left_out(key: str, value: FeatureValue, steps: int) -> bool:
    """Step features that have no place in a LeRobot dataset: embeddings, depth, strings, ragged lists."""
    if not key.startswith("steps/") or key in (*_FLAGS, *_SENTENCES, "steps/reward") or key.startswith("steps/action"):
        return False
    if not key.startswith(_OBSERVATION) or "embedding" in key or "depth" in key:
        return True
    if isinstance(value, list):
        return len(value) != steps or not value[0].startswith((b"\xff\xd8", b"\x89PNG"))
    return value.size == 0


def _sentence(example: Mapping[str, FeatureValue]) -> str:
    for key in _SENTENCES:
        value = example.get(key)
        if isinstance(value, list) and value:
            return value[0].decode(errors="replace").strip()
    return ""


def _dataset_name(shard: Path) -> str:
    info = shard.parent / "dataset_info.json"
    if info.is_file():
        return str(json.loads(info.read_text()).get("name", "unknown"))
    return re.split(r"[-.]", shard.name)[0] or "unknown"
