"""One episode's arrays: checked against the dataset's features, then turned into rows of its data file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from wam.contracts import ActionSpace, WamError, expected
from wam.data.episodes import Episode
from wam.data.features import ACTION, DEPTH_SUFFIX, FRAME_FEATURES, IMAGE_PREFIXES, Feature


def check_episode(
    features: Mapping[str, Feature],
    images: Mapping[str, np.ndarray],
    columns: Mapping[str, np.ndarray],
    depth: Mapping[str, np.ndarray],
    *,
    action_space: ActionSpace | None,
) -> int:
    """Every feature there, of its shape, finite, and all of one length, which is returned."""
    wanted, given = {k for k in features if k not in FRAME_FEATURES}, {*images, *columns, *depth}
    if wanted != given:
        raise expected(f"the features {sorted(wanted)}", got=sorted(given), do="give every episode the same features")
    for key, frames in images.items():
        if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[1:] != tuple(features[key].shape):
            raise wrong_images(key, frames, tuple(features[key].shape))
    for key, metres in depth.items():
        shape = tuple(features[key].shape[:2])
        if metres.dtype.kind != "f" or metres.shape[1:] != shape:
            got = f"{metres.dtype} of shape {metres.shape}"
            raise expected(f"{key!r} as metres of shape {('T', *shape)}", got=got, do="convert it")
    for name, values in columns.items():
        if values.dtype.kind not in "fiub":
            raise expected(f"numbers in {name!r}", got=f"dtype {values.dtype}", do="convert the column")
        shape = tuple(features[name].shape)
        if values.shape[1:] != shape and not (values.ndim == 1 and shape == (1,)):
            raise expected(f"{name!r} of shape (T, {', '.join(map(str, shape))})", got=values.shape, do="reshape it")
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))[0])
            raise expected(f"finite values in {name!r}", got=f"NaN or infinity at frame {row}", do="repair or drop it")
    if action_space and ACTION in columns and columns[ACTION].shape[1:] != (action_space.dim,):
        raise expected(
            f"actions of {action_space.dim} dimensions ({', '.join(action_space.names)})",
            got=columns[ACTION].shape[1:],
            do="give the action space of these actions",
        )
    lengths = {name: len(values) for name, values in {**images, **columns, **depth}.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise expected(
            "one length above 0 for all features", got=lengths, do="trim the episode to its shortest feature"
        )
    return next(iter(lengths.values()))


def frames_table(
    features: Mapping[str, Feature], columns: Mapping[str, np.ndarray], episode: Episode, *, fps: float, task_index: int
) -> pa.Table:
    rows = np.arange(episode.length)
    full = {
        **columns,
        "timestamp": rows / fps,
        "frame_index": rows,
        "episode_index": np.full(episode.length, episode.index),
        "index": rows + episode.start,
        "task_index": np.full(episode.length, task_index),
    }
    return pa.table({name: _to_arrow(full[name], features[name]) for name in features if name in full})


def _to_arrow(values: np.ndarray, feature: Feature) -> pa.Array:
    """(T, ...) -> a column; (T,) and (T, 1) are plain numbers, as LeRobot has them."""
    values = np.ascontiguousarray(values.astype(feature.dtype, copy=False))
    array = pa.array(values.reshape(-1))
    if tuple(feature.shape) not in ((), (1,)):
        for size in reversed(feature.shape):
            array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def image_key(camera: str) -> str:
    return camera if camera.startswith(IMAGE_PREFIXES) else IMAGE_PREFIXES[0] + camera


def depth_key(camera: str) -> str:
    return image_key(camera) + DEPTH_SUFFIX


def plain_scalars(extra: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in extra.items()}
    for key, value in plain.items():
        if not isinstance(value, (bool, int, float, str)) or "/" in key:
            raise expected(f"a truth value, number or text for extra {key!r}", got=repr(value), do="convert or drop it")
    return plain


def wrong_images(key: str, frames: np.ndarray, shape: tuple[int, ...] | None = None) -> WamError:
    wanted = f"(T, {', '.join(map(str, shape or ('H', 'W', '3')))})"
    return expected(
        f"{key!r} as uint8 of shape {wanted}", got=f"{frames.dtype} of shape {frames.shape}", do="convert it"
    )
