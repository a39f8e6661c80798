"""A model with voxels from data to figures: labels and cameras are read, the loss is there, and what lacks is named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import (
    ABOVE,
    VOXELS,
    toy_config,
    voxel_config,
    write_toy,
    write_voxels,
)
from wam.cli.main import main
from wam.contracts import WamError
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec
from wam.evaluation.occupancy import OccupancyEvaluateConfig, evaluate
from wam.training.trainer import train
from wam.visualization.report import write_report
from wam.visualization.run_files import ANGLES
from wam.visualization.voxels import draw_voxels, drawn, voxel_colours


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_voxels(write_toy(tmp_path / "toy"))


def test_windows_give_cameras_in_pixels_of_their_own_pictures(data: Path) -> None:
    store = EpisodeStore(data)
    batch = WindowDataset(store, WindowSpec(image_size=16, geometry=True)).batch([0, 3])
    assert batch.intrinsics is not None
    assert batch.extrinsics is not None
    assert batch.intrinsics.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(batch.intrinsics[0, 0], [[75, 0, 7.5], [0, 75, 7.5], [0, 0, 1]])
    np.testing.assert_allclose(batch.extrinsics[1, 1], ABOVE)


def test_a_camera_without_a_pose_is_named(data: Path) -> None:
    info = json.loads((data / "meta" / "info.json").read_text())
    del info["wam"]["cameras"]["b"]
    (data / "meta" / "info.json").write_text(json.dumps(info))
    with pytest.raises(WamError, match="pose of camera 'b'"):
        WindowDataset(EpisodeStore(data), WindowSpec(geometry=True))


def test_swapped_matrices_are_refused(data: Path) -> None:
    info = json.loads((data / "meta" / "info.json").read_text())
    info["wam"]["cameras"]["b"]["extrinsics"] = ABOVE.T.tolist()
    (data / "meta" / "info.json").write_text(json.dumps(info))
    with pytest.raises(WamError, match="transpose"):
        WindowDataset(EpisodeStore(data), WindowSpec(geometry=True))


def test_voxels_are_trained_measured_and_drawn(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(voxel_config(data, tmp_path / "run", steps=3))
    assert result.losses["occupancy"] > 0
    found = evaluate(tmp_path / "run", OccupancyEvaluateConfig(windows=6))
    assert {"iou_present", "future_gain", "iou_future_copied", "chamfer_future"} <= set(found.values)
    assert 0 <= found.values["iou_future_copied"] < 0.9  # the block moves
    assert found.unmeasured == ["iou_present_lifted: the dataset has no simulator to render depth in"]
    status = main(["eval", "occupancy", str(tmp_path / "run"), "windows=6", "--json", str(tmp_path / "found.json")])
    assert status == (0 if found.passed else 1)
    assert "future_gain" in capsys.readouterr().out
    assert "iou_present" in json.loads((tmp_path / "found.json").read_text())["figures"]
    assert len(list((tmp_path / "run" / "evaluation" / "occupancy").glob("*.png"))) == 4
    page = write_report(tmp_path / "run").read_text()
    assert page.count('class="turntable"') == 2
    assert page.count('type="radio"') == 2 * ANGLES
    assert page.count("background-position-y") == ANGLES  # a rule of the style for each side
    assert "<script" not in page


def test_colours_are_trained_measured_and_drawn(tmp_path: Path) -> None:
    data = write_voxels(write_toy(tmp_path / "toy"), colour=True)
    config = voxel_config(data, tmp_path / "run", steps=3)
    config.model.occupancy.colour_weight = config.model.occupancy.distance_weight = 1.0
    result = train(config)
    assert result.losses["occupancy_colour"] > 0
    assert result.losses["occupancy_distance"] > 0
    found = evaluate(tmp_path / "run", OccupancyEvaluateConfig(windows=6))
    assert 0 < found.values["colour_error_present"] < 1
    assert found.values["colour_error_present_mean"] < 0.3  # red alone differs
    assert found.values["colour_error_changed_copied"] > 0.01  # the block moves
    example = found.examples[0]
    assert example.true_colour is not None
    assert example.predicted_colour is not None
    true, predicted = drawn(example, size=64)
    assert (
        np.abs(true[0].astype(int) - draw_voxels(example.truth[0], size=64)) > 20
    ).any()  # not the colours of height
    assert predicted.shape == true.shape


def test_colours_that_were_never_labelled_say_how_to_make_them(data: Path, tmp_path: Path) -> None:
    config = voxel_config(data, tmp_path / "run", steps=1)
    config.model.occupancy.colour_weight = 1.0
    with pytest.raises(WamError, match=r"made without; delete .* --colour"):
        train(config)


def test_the_grid_is_the_labels_own(data: Path, tmp_path: Path) -> None:
    config = voxel_config(data, tmp_path / "run", steps=1)
    train(config)
    assert config.model.occupancy.grid.shape == VOXELS["shape"]
    assert config.model.occupancy.grid.side == VOXELS["side"]


def test_data_without_labels_says_how_to_make_them(tmp_path: Path) -> None:
    root = write_toy(tmp_path / "plain")
    with pytest.raises(WamError, match="wam data label"):
        train(voxel_config(root, tmp_path / "run"))


def test_a_run_without_voxels_cannot_be_measured_for_them(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(toy_config(toy, tmp_path / "run", steps=1))
    assert main(["eval", "occupancy", str(tmp_path / "run")]) == 2
    assert "a model with voxels" in capsys.readouterr().err


def test_a_picture_of_voxels_shows_the_nearer_ones_and_what_is_wrong() -> None:
    grid = np.zeros((4, 4, 4), bool)
    assert (draw_voxels(grid) == 255).all()
    grid[0, 3, 0] = True
    behind = draw_voxels(grid)
    assert 0 < (behind != 255).any(-1).mean() < 0.2
    grid[:] = True
    full, red = draw_voxels(grid), draw_voxels(grid, wrong=grid)
    assert (full != 255).any(-1).mean() > 0.4
    assert math.isclose((red != 255).any(-1).mean(), (full != 255).any(-1).mean(), abs_tol=1e-3)
    seen = red[(red != 255).any(-1)].astype(int)
    assert (seen[:, 0] > seen[:, 2]).mean() > 0.95


def test_voxels_are_drawn_in_their_own_colours_and_by_height_where_they_have_none() -> None:
    grid = np.zeros((4, 4, 4), bool)
    grid[1:3, 1:3, 1:3] = True
    paint = np.zeros((4, 4, 4, 4), np.uint8)
    paint[grid] = (20, 220, 30, 255)
    green = draw_voxels(grid, colours=paint)
    inside = green[(green != 255).any(-1)].astype(int)
    assert (inside[:, 1] > inside[:, 0] + 50).mean() > 0.9
    unknown = paint * np.array([1, 1, 1, 0], np.uint8)
    assert (draw_voxels(grid, colours=unknown) == draw_voxels(grid)).all()
    places = np.argwhere(grid)
    assert (voxel_colours(places, grid.shape, paint[..., :3]) == (20, 220, 30)).all()
    red = draw_voxels(grid, colours=paint, wrong=grid)
    seen = red[(red != 255).any(-1)].astype(int)
    assert (seen[:, 0] > seen[:, 1]).mean() > 0.9
