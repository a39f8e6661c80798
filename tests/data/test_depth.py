"""Depth beside colours: what the file gives back is what was put in, but for the step between two codes."""

from __future__ import annotations

import io
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.toy_episodes import SPACE, episode_arrays, frame_numbers
from wam.contracts import WamError
from wam.data.checks.depth import check_depth
from wam.data.checks.finding import Finding
from wam.data.checks.static import check_store
from wam.data.depth import LAST, DepthEncoding
from wam.data.info import describe
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec, nearest
from wam.data.writer import EpisodeWriter

LENGTHS = (9, 14)
SCALES = st.one_of(
    st.just(DepthEncoding()),
    st.builds(
        DepthEncoding,
        nearest=st.floats(0.01, 0.5),
        farthest=st.floats(1.0, 20.0),
        shift=st.one_of(st.none(), st.floats(0.0, 4.0)),
    ),
)


def metres(seed: int, length: int) -> np.ndarray:
    """(T, 64, 64) of a sloped wall that comes nearer, with a hole where nothing is measured."""
    slope = np.linspace(0.4, 2.5, 64)[None, :, None] + np.zeros((1, 1, 64))
    depth = slope + 0.05 * seed - 0.01 * np.arange(length)[:, None, None]
    depth[:, 10:20, 30:40] = 0
    return depth.astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deep") / "data"
    with EpisodeWriter(folder, fps=10, action_space=SPACE) as writer:
        for seed, length in enumerate(LENGTHS):
            writer.add_episode(**episode_arrays(seed, length), task="look", depth={"top": metres(seed, length)})
    return folder


@settings(max_examples=60, deadline=None)
@given(scale=SCALES, share=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_depth_comes_back_to_less_than_half_a_step(scale: DepthEncoding, share: list[float]) -> None:
    depth = scale.nearest + np.array(share) * (scale.farthest - scale.nearest)
    depth = np.maximum(depth, scale.metres(np.array([1])))  # the code below means that nothing was measured
    codes = scale.codes(depth)
    steps = np.diff(scale.metres(np.arange(1, LAST + 1)))
    assert (np.abs(scale.metres(codes) - depth) <= 0.5 * steps.max() + 1e-5).all()
    assert (scale.codes(scale.metres(codes)) == codes).all()


def test_the_codes_are_those_of_the_format() -> None:
    low, high = math.log(0.01 + 3.5), math.log(10 + 3.5)
    wanted = [round((math.log(z + 3.5) - low) / (high - low) * 4095) for z in (0.2, 1.0, 3.3, 10.0)]
    assert DepthEncoding().codes(np.array([0.2, 1.0, 3.3, 10.0])).tolist() == wanted
    assert DepthEncoding().codes(np.array([0.0, np.nan, np.inf, -1.0])).tolist() == [0, 0, 0, 0]
    assert DepthEncoding().metres(np.array([0])).tolist() == [0.0]


def test_a_dataset_gives_back_its_depth_through_packed_files(root: Path) -> None:
    store = pickle.loads(pickle.dumps(EpisodeStore(root)))
    scale = DepthEncoding()
    for seed, length in enumerate(LENGTHS):
        truth = metres(seed, length)
        assert (store.depth("top", seed) == scale.metres(scale.codes(truth))).all()
        some = store.depth("top", seed, [7, 2, 2])
        assert (some == scale.metres(scale.codes(truth[[7, 2, 2]]))).all()
        assert np.abs(store.depth("top", seed) - truth).max() < 1e-3
        assert (store.depth("top", seed)[truth == 0] == 0).all()
    assert len(list((root / "videos/observation.images.top_depth").rglob("*.mp4"))) == 1


def test_a_depth_map_is_no_camera(root: Path) -> None:
    store = EpisodeStore(root)
    assert store.cameras == ("side", "top")
    assert dict(store.info.depth_keys) == {"top": "observation.images.top_depth"}
    assert describe(root)["cameras"]["top"]["depth"]
    assert not describe(root)["cameras"]["side"]["depth"]
    feature = store.info.features["observation.images.top_depth"]
    assert feature.shape == (64, 64, 1)
    assert feature.info is not None
    assert feature.info["video.pix_fmt"] == "gray12le"
    found = store.statistics["observation.images.top_depth"]
    assert found.mean.shape == (1, 1, 1)
    assert 0.3 < float(found.min.item()) < float(found.mean.item()) < float(found.max.item()) < 2.7


def test_windows_give_depth_of_the_frames_they_show(root: Path) -> None:
    spec = WindowSpec(history=2, future=(1,), chunk=2, cameras=("top",), image_size=32, depth=True)
    windows = WindowDataset(EpisodeStore(root), spec)
    batch = windows.batch([0, 5, LENGTHS[0] + 3])
    assert batch.depth is not None
    assert batch.depth.shape == (3, 1, 2, 32, 32)
    scale = DepthEncoding()
    truth = scale.metres(scale.codes(metres(0, LENGTHS[0])[[4, 5]]))
    assert (batch.depth[1, 0].numpy() == truth[:, 1::2, 1::2]).all()
    assert frame_numbers(windows.batch([5]).images[0, 0].numpy()) == [504, 505]


def test_a_smaller_depth_map_holds_only_depths_that_were_there() -> None:
    depth = np.random.default_rng(0).uniform(1, 2, (3, 48, 64)).astype(np.float32)
    small = nearest(depth, 16, 32)
    assert small.shape == (3, 16, 32)
    assert np.isin(small, depth).all()
    assert (nearest(depth, 48, 64) == depth).all()


def test_depth_of_a_camera_without_it_or_of_another_shape_is_one_sentence(root: Path, tmp_path: Path) -> None:
    with pytest.raises(WamError, match=r"side_depth.*top"):
        EpisodeStore(root).depth("side", 0)
    with pytest.raises(WamError, match="frame numbers from 0 to 8"):
        EpisodeStore(root).depth("top", 0, [9])
    with (
        EpisodeWriter(tmp_path / "other", fps=10, action_space=SPACE) as writer,
        pytest.raises(WamError, match="one length"),
    ):
        writer.add_episode(**episode_arrays(0, 9), task="look", depth={"top": metres(0, 8)})
    with EpisodeWriter(tmp_path / "third", fps=10, action_space=SPACE) as writer:
        writer.add_episode(**episode_arrays(0, 9), task="look", depth={"top": metres(0, 9)})
        with pytest.raises(WamError, match="the same features"):
            writer.add_episode(**episode_arrays(1, 9), task="look")
        with pytest.raises(WamError, match="metres of shape"):
            writer.add_episode(**episode_arrays(1, 9), task="look", depth={"top": metres(0, 9)[:, :32]})


def test_a_damaged_depth_video_is_one_sentence(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in root.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(root)).write_bytes(path.read_bytes())
    (video,) = (folder / "videos/observation.images.top_depth").rglob("*.mp4")
    data = bytearray(video.read_bytes())
    data[len(data) // 2] ^= 0xFF
    video.write_bytes(data)
    with pytest.raises(WamError, match="restore the file"):
        EpisodeStore(folder).depth("top", 0)


def test_depth_kept_as_tiff_in_the_data_file_is_read_in_its_own_unit(tmp_path: Path) -> None:
    """LeRobot's dtype "image" for depth: 16-bit millimetres, or 32-bit metres, in the parquet file."""
    truth = metres(0, 5)
    for unit, kind in (("mm", np.uint16), ("m", np.float32)):
        folder = tmp_path / unit
        with EpisodeWriter(folder, fps=10, action_space=SPACE) as writer:
            writer.add_episode(**episode_arrays(0, 5), task="look")
        info = json.loads((folder / "meta/info.json").read_text())
        info["features"]["observation.images.top_depth"] = {
            "dtype": "image",
            "shape": [64, 64, 1],
            "names": ["height", "width", "channels"],
            "info": {"is_depth_map": True, "depth_unit": unit},
        }
        (folder / "meta/info.json").write_text(json.dumps(info))
        rows = []
        for frame in truth * (1000 if unit == "mm" else 1):
            buffer = io.BytesIO()
            Image.fromarray(np.rint(frame).astype(kind) if unit == "mm" else frame).save(buffer, "TIFF")
            rows.append({"bytes": buffer.getvalue(), "path": None})
        path = next((folder / "data").rglob("*.parquet"))
        pq.write_table(pq.read_table(path).append_column("observation.images.top_depth", pa.array(rows)), path)
        found = EpisodeStore(folder).depth("top", 0, [3, 1])
        assert found.dtype == np.float32
        assert np.abs(found - truth[[3, 1]]).max() <= (0.00051 if unit == "mm" else 0)


def planted(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> list[Finding]:
    """What is found where `change` is done to the depth of the second of three episodes."""
    with EpisodeWriter(folder, fps=10, action_space=SPACE) as writer:
        for seed in range(3):
            depth = metres(seed, 12)
            writer.add_episode(
                **episode_arrays(seed, 12), task="look", depth={"top": change(depth) if seed == 1 else depth}
            )
    return check_depth(EpisodeStore(folder), "top", [0, 1, 2])


@pytest.mark.parametrize(
    ("check", "severity", "change"),
    [
        ("depth_unmeasured", "error", lambda depth: depth * 0),
        ("depth_unmeasured", "warning", lambda depth: depth * (np.arange(64) < 20)),
        ("depth_flat", "error", lambda depth: depth * 1000),  # millimetres: past the end of the scale
        ("depth_unit", "error", lambda depth: depth / 200),
    ],
)
def test_the_doctor_finds_broken_depth_where_it_is(
    tmp_path: Path, check: str, severity: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    assert [(f.check, f.severity, f.episodes) for f in planted(tmp_path / "data", change)] == [(check, severity, (1,))]


def test_the_doctor_passes_sound_depth_and_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert planted(tmp_path / "data", lambda depth: depth) == []
    video = next((tmp_path / "data/videos/observation.images.top_depth").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 3])
    found = check_store(EpisodeStore(tmp_path / "data"))
    assert {(f.check, f.feature) for f in found if f.severity == "error"} >= {
        ("decodable", "observation.images.top_depth")
    }
