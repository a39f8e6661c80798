"""HDF5 demonstrations as robomimic and LIBERO lay them out: data/demo_N/{actions, states, rewards, dones, obs/...}."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wam.contracts import WamError, expected
from wam.data.convert.source import SourceEpisode

HDF5_ENDINGS = (".hdf5", ".h5")
# hand position, hand orientation and gripper, in the names of LIBERO and of robomimic
_STATE_PARTS = (
    ("ee_pos", "ee_ori", "gripper_states"),
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
)
_AXES = {3: ("x", "y", "z"), 4: ("x", "y", "z", "w")}


def find_files(path: Path) -> list[Path]:
    """The HDF5 files of a folder (at any depth), or the one file given."""
    if path.is_file():
        return [path] if path.suffix in HDF5_ENDINGS else []
    return sorted(p for p in path.rglob("*") if p.suffix in HDF5_ENDINGS and p.is_file())


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise expected("the package h5py to read HDF5", got="none", do="pip install 'wam[formats]'") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise expected(f"a whole HDF5 file at {path}", got=str(error), do="fetch the file again") from error


class Hdf5Source:
    """The demonstrations of all files, in the order of file and number.

    Every entry of `obs` is kept: images (T, H, W, 3) uint8 as cameras (without the ending _rgb or _image), the rest as
    `observation.<key>`; hand position, orientation and gripper together make `observation.state`. The simulator's flat
    `states` become `sim.state`. The rate comes from the file's `env_args` or from `fps`.
    """

    def __init__(self, path: Path, *, fps: float | None, task: str | None = None) -> None:
        files = find_files(path)
        if not files:
            raise expected(f"files *.hdf5 or *.h5 at {path}", got="none", do="give such a file or their folder")
        self._demos: list[tuple[Path, str]] = []
        self._tasks: dict[Path, str] = {}
        rate, self.robot_type = fps, "unknown"
        for file in files:
            with _open(file) as root:
                data = _data_group(root, file)
                names = sorted(data, key=lambda n: int(re.sub(r"\D", "", n) or 0))
                self._demos += [(file, name) for name in names if "actions" in data[name] and "obs" in data[name]]
                attributes = {**dict(root.attrs), **dict(data.attrs)}
                settings = _json_attribute(attributes, "env_args", file)
                inner = settings.get("env_kwargs", settings)
                rate = rate or inner.get("control_freq")
                robots = inner.get("robots") or settings.get("robots")
                self.robot_type = str(robots[0] if isinstance(robots, list) else robots or self.robot_type)
                self._tasks[file] = task or _sentence(attributes, settings, file)
        if not self._demos:
            raise _wrong_layout(files[0], "groups without `actions` and `obs`")
        if rate is None:
            raise expected(
                f"a control rate in {files[0]}", got="no control_freq in its env_args", do="add fps=N, e.g. fps=20"
            )
        self.fps = float(rate)
        first = self[0]
        parts = _state_parts(first.columns)
        names_of = [_names(key, first.columns[f"observation.{key}"].shape[1]) for key in parts]
        self.names: Mapping[str, tuple[str, ...]] = (
            {"observation.state": tuple(n for group in names_of for n in group)} if parts else {}
        )
        self.notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._demos)

    def __getitem__(self, index: int) -> SourceEpisode:
        file, name = self._demos[index]
        with _open(file) as root:
            demo = root["data"][name]
            try:
                images, columns, notes = _read_demo(demo, f"data/{name} of {file}")
            except OSError as error:
                raise expected(f"data/{name} of {file} whole", got=str(error), do="fetch the file again") from error
        if parts := _state_parts(columns):
            state = [np.asarray(columns[f"observation.{p}"], np.float32) for p in parts]
            columns["observation.state"] = np.concatenate(state, axis=1)
        extra: dict[str, bool] = {}
        if "next.reward" in columns or "next.done" in columns:
            flags = [columns[k] for k in ("next.reward", "next.done") if k in columns]
            extra["success"] = bool(any(np.asarray(f).any() for f in flags))
        return SourceEpisode(images=images, columns=columns, task=self._tasks[file], extra=extra, notes=notes)


def _data_group(root: Any, file: Path) -> Any:
    if "data" not in root or not hasattr(root["data"], "keys") or not len(root["data"]):
        raise _wrong_layout(file, ", ".join(list(root)[:6]) or "an empty file")
    return root["data"]


def _wrong_layout(file: Path, got: str) -> WamError:
    return expected(
        f"data/demo_N/{{actions, obs}} in {file} (robomimic or LIBERO)", got=got,
        do="convert it to one of these layouts, or read it by your own Source",
    )  # fmt: skip


def _read_demo(demo: Any, where: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple[str, ...]]:
    actions = np.asarray(demo["actions"], np.float32)
    images: dict[str, np.ndarray] = {}
    columns: dict[str, np.ndarray] = {"action": actions}
    notes: list[str] = []
    sources = {f"observation.{k}": demo["obs"][k] for k in demo["obs"]}
    renamed = {"robot_states": "observation.robot_states", "states": "sim.state"}
    renamed |= {"rewards": "next.reward", "dones": "next.done"}
    sources |= {new: demo[old] for old, new in renamed.items() if old in demo}
    for key, dataset in sources.items():
        if len(dataset) != len(actions):
            raise expected(f"{key} of {where} with {len(actions)} rows like its actions", got=len(dataset),
                           do="the demonstration is damaged: drop it")  # fmt: skip
        if dataset.dtype == np.uint8 and dataset.ndim == 4 and dataset.shape[-1] == 3:
            images[re.sub(r"_(rgb|image)$", "", key.removeprefix("observation."))] = np.asarray(dataset)
        elif dataset.ndim <= 2 and dataset.dtype.kind in "fiub":
            value = np.asarray(dataset)
            if key == "next.done":
                value = value.astype(bool)
            columns[key] = value.reshape(len(actions), -1) if key.startswith("observation") else value
        else:
            notes.append(f"left out {key} of shape {tuple(dataset.shape)} ({dataset.dtype})")
    return images, columns, tuple(notes)


def _state_parts(columns: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    for parts in _STATE_PARTS:
        if all(f"observation.{part}" in columns for part in parts):
            return parts
    return ()


def _names(key: str, size: int) -> tuple[str, ...]:
    if key.endswith(("_pos", "_ori", "_quat")):
        kind = {"pos": "", "ori": "axis_angle_", "quat": "quat_"}[key.rsplit("_", 1)[1]]
        return tuple(f"{kind}{axis}" for axis in _AXES[size])
    return tuple(f"gripper_{i}" for i in range(size))


def _json_attribute(attributes: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    text = attributes.get(name, "{}")
    try:
        return json.loads(text)
    except (TypeError, json.JSONDecodeError) as error:
        raise expected(f"JSON in the attribute {name} of {file}", got=str(error), do="write the file again") from error


def _sentence(attributes: Mapping[str, Any], settings: Mapping[str, Any], file: Path) -> str:
    """The instruction: LIBERO's problem_info, else robomimic's environment, else the file's name."""
    spoken = _json_attribute(attributes, "problem_info", file).get("language_instruction")
    if isinstance(spoken, list):
        spoken = "".join(spoken)
    if spoken:
        return str(spoken).strip().strip('"')
    name = settings.get("env_name") or re.sub(r"_demo$", "", file.stem)
    return str(name).replace("_", " ")
