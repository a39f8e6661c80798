"""Writers of foreign formats, as small as the formats allow, to read back."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wam.data.video import encode_video


def slow_masked_crc32c(data: bytes) -> int:
    """The checksum bit by bit, as its definition reads."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def example(features: Mapping[str, Any]) -> bytes:
    """A serialized tf.train.Example of byte, float32 and int64 lists."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, list):
            feature = field(1, b"".join(field(1, item) for item in value))
        elif value.dtype.kind == "f":
            feature = field(2, field(1, value.astype("<f4").tobytes()))
        else:
            feature = field(3, field(1, b"".join(varint(int(v)) for v in value)))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def write_tfrecord(path: Path, messages: Sequence[bytes]) -> Path:
    with path.open("wb") as file:
        for message in messages:
            length = struct.pack("<Q", len(message))
            for part in (length, message):
                file.write(part + struct.pack("<I", slow_masked_crc32c(part)))
    return path


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def moving_square(length: int, *, size: int = 32, start: int = 0) -> np.ndarray:
    """(T, size, size, 3) uint8: a square that moves right and down, brighter at the left."""
    frames = (
        np.zeros((length, size, size, 3), np.uint8) + np.linspace(90, 20, size).astype(np.uint8)[None, None, :, None]
    )
    for t in range(length):
        at = 2 + (start + t) % (size - 10)
        frames[t, at : at + 8, at : at + 8] = (250, 200, 40)
    return frames


def rlds_episode(length: int, *, seed: int = 0, dictionary: bool = False) -> tuple[bytes, dict[str, np.ndarray]]:
    """(message, what it holds)."""
    rng = np.random.default_rng(seed)
    truth = {
        "image": moving_square(length, start=seed),
        "state": rng.normal(size=(length, 7)).astype(np.float32),
        "action": rng.normal(size=(length, 4)).astype(np.float32),
    }
    action: dict[str, Any] = {"steps/action": truth["action"].ravel()}
    if dictionary:
        action = {
            "steps/action/rotation": truth["action"][:, :3].ravel(),
            "steps/action/stop": truth["action"][:, 3],
        }
    flags = np.arange(length)
    features = {
        "steps/observation/image": [png(i) for i in truth["image"]],
        "steps/observation/state": truth["state"].ravel(),
        "steps/observation/depth": [b"\x89PNG..."] * length,
        **action,
        "steps/reward": (flags == length - 1).astype(np.float32),
        "steps/is_first": (flags == 0).astype(np.int64),
        "steps/is_last": (flags == length - 1).astype(np.int64),
        "steps/language_instruction": [b"push the square"] * length,
        "steps/language_embedding": rng.normal(size=512 * length).astype(np.float32),
        "episode_metadata/episode_id": np.array([seed - 1]),
    }
    return example(features), truth


def write_lerobot_v2(root: Path, lengths: Sequence[int], *, version: str = "v2.1", extra_frames: int = 0) -> Path:
    """Episodes with one video each; `extra_frames` more in the video of the last one."""
    key = "observation.images.front"
    (root / "meta").mkdir(parents=True)
    info: dict[str, Any] = {
        "codebase_version": version,
        "robot_type": "toy",
        "fps": 10,
        "chunks_size": 2,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            key: {"dtype": "video", "shape": [32, 32, 3], "names": ["height", "width", "channel"]},
            "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": ["a", "b", "c"]}},
            "action": {"dtype": "float32", "shape": [2], "names": ["left", "right"]},
            "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        },
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    rows = [{"episode_index": i, "tasks": [f"task {i}"], "length": n} for i, n in enumerate(lengths)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tasks = [{"task_index": i, "task": f"task {i}"} for i in range(len(lengths))]
    (root / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    for i, length in enumerate(lengths):
        data = root / info["data_path"].format(episode_chunk=i // 2, episode_index=i)
        video = root / info["video_path"].format(episode_chunk=i // 2, episode_index=i, video_key=key)
        for path in (data, video):
            path.parent.mkdir(parents=True, exist_ok=True)
        frames = moving_square(length + (extra_frames if i == len(lengths) - 1 else 0), start=i)
        video.write_bytes(encode_video(frames, fps=10))
        rng = np.random.default_rng(i)
        table = {
            "observation.state": rng.normal(size=(length, 3)).astype(np.float32).tolist(),
            "action": rng.normal(size=(length, 2)).astype(np.float32).tolist(),
            "next.reward": np.zeros(length, np.float32),
            "timestamp": np.arange(length, dtype=np.float32) / 10,
            "frame_index": np.arange(length),
            "episode_index": np.full(length, i),
            "index": np.arange(length),
            "task_index": np.full(length, i),
        }
        pq.write_table(pa.table(table), data)
    return root
