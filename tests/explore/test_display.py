"""What answers look like, and the files they become."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.explore.test_explorer import with_simulator
from wam.contracts import WamError
from wam.data.video import read_frames
from wam.explore import display
from wam.explore.explorer import Explorer
from wam.explore.futures import Futures
from wam.geometry.grid import VoxelConfig
from wam.visualization.labelled import captioned, labelled
from wam.visualization.recording import _boxes


@pytest.fixture(scope="module")
def seeds(model: Explorer) -> Futures:
    return model.imagine(model.start(0.3), seeds=2, steps=1)


def test_the_strip_holds_what_came_each_future_and_where_they_differ(seeds: Futures) -> None:
    rows = [line.name for line in display._lines(seeds)]
    assert rows == ["what came", "seed 0", "difference", "seed 1", "difference", "where they differ"]
    strip = Image.open(io.BytesIO(seeds._repr_png_()))
    assert strip.height > 6 * display.SIDE
    assert "seed 1" in seeds._repr_html_()


def test_futures_of_many_actions_are_a_table_of_actions(model: Explorer) -> None:
    start, _ = with_simulator(model.start(0.3))
    found = model.imagine(start, actions="pushes", steps=1)
    wide, high = Image.open(io.BytesIO(found._repr_png_())).size
    assert wide > 6 * display.SIDE  # now, still and four pushes
    assert high > 6 * display.SIDE  # imagined, simulated and moved, of two views


def test_a_long_rollout_is_thinned_in_the_strip_and_whole_in_the_animation(model: Explorer) -> None:
    found = model.imagine(model.start(0.0), chunks=6, steps=1)
    assert len(found.offsets) == 12
    assert display.moving(found).shape[0] == 13
    assert Image.open(io.BytesIO(found._repr_png_())).width < 9 * (display.SIDE + 8) + 150


@pytest.mark.parametrize("ending", ["png", "gif", "webp"])
def test_it_saves_as_pictures(seeds: Futures, ending: str, tmp_path: Path) -> None:
    path = seeds.save(tmp_path / f"a.{ending}")
    with Image.open(path) as picture:
        assert picture.format == ending.upper()
        assert (getattr(picture, "n_frames", 1) > 1) == (ending != "png")  # WebP joins frames that are alike


def test_it_saves_as_a_video_that_lasts_three_seconds(seeds: Futures, tmp_path: Path) -> None:
    frames = read_frames(seeds.save(tmp_path / "a.mp4"))
    assert len(frames) == 3
    assert frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    assert display._pace(seeds) == pytest.approx(1.0)


def test_another_ending_is_a_sentence(seeds: Futures, tmp_path: Path) -> None:
    with pytest.raises(WamError, match=r"\.mp4"):
        seeds.save(tmp_path / "a.avi")


def test_grids_show_true_cells_above_imagined_ones(voxel_model: Explorer) -> None:
    found = voxel_model.imagine(voxel_model.start(0.3), steps=1)
    picture = display.grids(found, size=40)
    assert picture.shape[0] > 2 * 40
    assert "nobody" not in found._repr_html_()


def test_cells_are_shown_in_the_colours_that_the_model_and_the_labels_say(painted_model: Explorer) -> None:
    found = painted_model.imagine(painted_model.start(0.3), steps=1)
    assert found.voxels is not None
    assert found.colours is not None
    assert found.colours.shape == (*found.voxels.shape, 3)
    truth = found.truth
    assert truth is not None
    assert truth.colours is not None
    assert truth.filled is not None
    assert ((truth.colours[..., 3] > 0) == truth.filled).all()
    found = replace(found, voxels=truth.filled.astype(np.float32))  # nothing is wrong, which would be red
    own, imagined_plain, true_plain = (
        display.grids(one, size=40) for one in (found, replace(found, colours=None), known_as(found, colours=None))
    )
    assert (own != imagined_plain).any()
    assert (own != true_plain).any()
    assert not ((own != imagined_plain) & (own != true_plain)).any()  # each row by itself


def known_as(found: Futures, **changes: object) -> Futures:
    """The same futures beside another truth."""
    truth = found.truth
    assert truth is not None
    other = replace(found)
    other.__dict__["_known"] = replace(truth, **changes)  # type: ignore[arg-type]
    return other


def test_names_stand_beside_rows_and_over_columns() -> None:
    dark = np.zeros((20, 30, 3), np.uint8)
    picture = labelled([[dark, None], [dark, dark]], rows=["one", "two words that are long"], heads=["a", "b"])
    assert picture[:10].min() < 200  # words over the columns
    assert (picture[30:44, -30:] == 255).all()  # the empty cell stays white
    with_words = captioned(dark, "far too long a name for so narrow a picture")
    assert with_words.shape == (38, 30, 3)
    assert (with_words[18:] == 0).all()


class TestRerun:
    def test_a_recording_holds_frames_actions_and_voxels_of_both_lanes(
        self, voxel_model: Explorer, tmp_path: Path
    ) -> None:
        pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install 'wam[viz]'")
        from rerun.chunk import RrdReader

        found = voxel_model.forward_dynamics(voxel_model.start(0.3), steps=1)
        path = found.save(tmp_path / "a.rrd")
        assert list(tmp_path.iterdir()) == [path]
        rows: dict[str, int] = {}
        for chunk in RrdReader(str(path)).stream():
            rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
        for camera in ("a", "b"):
            assert rows[f"/recorded/{camera}"] == rows[f"/recorded_actions/{camera}"] == 3
        assert rows["/recorded/world/voxels"] == rows["/recorded_actions/world/voxels"] == 3
        assert rows["/recorded_actions/action/x"] == 8
        assert "/recorded/action/x" not in rows

    def test_without_rerun_it_says_what_to_install(
        self, seeds: Futures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "rerun", None)
        with pytest.raises(WamError, match="rerun-sdk"):
            seeds.save(tmp_path / "a.rrd")
        assert list(tmp_path.iterdir()) == []

    def test_boxes_have_the_colours_of_their_voxels(self) -> None:
        rr = pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install 'wam[viz]'")
        filled = np.zeros((2, 2, 2), bool)
        filled[1, 0, 1] = True
        boxes = _boxes(rr, filled, np.full((2, 2, 2, 3), (20, 220, 30), np.uint8), VoxelConfig(shape=[2, 2, 2]))
        assert boxes.colors.as_arrow_array().to_pylist() == [0x14DC1EFF]
