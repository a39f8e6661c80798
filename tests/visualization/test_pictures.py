"""Pictures show what they say: sizes, differences, arrows, colours."""

import io

import numpy as np
import pytest
from PIL import Image

from wam.contracts import WamError
from wam.evaluation.gates import judge
from wam.evaluation.intervals import wilson
from wam.visualization import images, plots
from wam.visualization.animation import FAILURE, SUCCESS, animate
from wam.visualization.filmstrip import film_strip, project, what_if_picture, what_if_rows

V, T, S = 2, 3, 16
RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 255, (V, T, S, S, 3), np.uint8)
PRESENT = RNG.integers(0, 255, (V, S, S, 3), np.uint8)


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_film_strip_has_real_above_imagined_in_the_middle_and_no_difference_where_equal():
    imagined = REAL.copy()
    imagined[0, 1] = 255 - imagined[0, 1]
    strip = opened(film_strip(REAL, imagined, PRESENT, scale=1))
    pitch, gap = S + 2, 2
    assert strip.shape == (3 * S + 2 * gap, V * (1 + T) * pitch - gap + 2 * gap, 4)
    cell = lambda row, column: strip[row * pitch : row * pitch + S, column * pitch : column * pitch + S]  # noqa: E731
    np.testing.assert_array_equal(cell(0, 0)[..., :3], PRESENT[0])
    np.testing.assert_array_equal(cell(0, 2)[..., :3], REAL[0, 1])
    np.testing.assert_array_equal(cell(1, 2)[..., :3], imagined[0, 1])
    assert cell(2, 0)[..., 3].max() == 0  # nothing to compare in the present
    assert cell(2, 1)[..., :3].max() < 40
    assert cell(2, 2)[..., :3].mean() > 100


def test_floats_are_refused_instead_of_drawn_wrongly():
    with pytest.raises(WamError, match="8-bit RGB"):
        film_strip(REAL / 255.0, REAL, PRESENT)


def test_the_what_if_picture_has_the_rows_it_names():
    imagined = np.repeat(REAL[None], 5, 0)
    motion = np.eye(5, 3, dtype=np.float32)
    for truth in (None, imagined):
        picture = opened(what_if_picture(PRESENT, imagined, motion, truth=truth, scale=1))
        rows = what_if_rows(V, truth=truth is not None)
        assert picture.shape[0] == len(rows) * (S + 2) - 2


def test_arrows_point_where_the_camera_sees_the_push_go():
    above = np.diag([1.0, -1, -1, 1])  # looking down, the picture's up being the world's y
    assert project((0, 1, 0), above) == (0, -1)
    assert project((0, 0, 1), above) == (0, 0)
    assert project((1, 0, 0), None) == (1, 0)
    grey = np.full((60, 60, 3), 128, np.uint8)
    right, dot = images.arrow(grey, (1, 0)), images.arrow(grey, (0, 0))
    spread = [np.ptp(np.argwhere((image != 128).any(-1)), axis=0) for image in (right, dot)]
    assert spread[0][1] > spread[0][0] > 0
    assert 0 < spread[1].max() <= 8


def test_heat_grows_with_the_difference():
    levels = images.heat(np.linspace(0, 0.6, 20)).astype(int).sum(-1)
    assert (np.diff(levels) > 0).all()


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_a_long_rollout_is_thinned_and_ends_in_a_frame_that_says_how_it_went(kind):
    frames = np.repeat(np.arange(200, dtype=np.uint8)[:, None, None, None, None], 2, 1)
    frames = np.broadcast_to(frames, (200, 2, S, S, 3)).copy()
    for success, colour in ((True, SUCCESS), (False, FAILURE)):
        film = Image.open(io.BytesIO(animate(frames, kind=kind, success=success, longest=20)))
        assert film.n_frames == 20
        assert film.size == (4 * S, 2 * S)
        film.seek(19)
        corner = np.array(film.convert("RGB").getpixel((0, 0)), int)
        assert np.abs(corner - colour).max() < 30
        assert film.info["duration"] == 1000


def test_plots_are_pictures_with_a_see_through_ground():
    steps = list(range(50))
    rates = {"open": wilson(19, 20), "close": wilson(3, 20)}
    gates = [judge("forward_gain_db", 4, n=9, steps=1), judge("imagine_gain_db", float("nan"), n=9)]
    for theme in (plots.LIGHT, plots.DARK):
        drawn = (
            plots.curves(
                {"loss": (steps, [1 / (s + 1) for s in steps]), "few": ([0, 1], [1, 2])}, log=True, theme=theme
            ),
            plots.success_bars(rates, theme=theme),
            plots.gate_bars(gates, theme=theme),
        )
        for content in drawn:
            picture = opened(content)
            assert picture[0, 0, 3] == 0
            assert picture[..., 3].max() == 255


def test_failed_gates_are_red_and_passed_ones_green():
    red, green = (tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (plots.BAD, plots.GOOD))
    for value, wanted, other in ((4, green, red), (1, red, green)):
        picture = opened(plots.gate_bars([judge("forward_gain_db", value, n=9)]))[..., :3]
        assert (picture == wanted).all(-1).any()
        assert not (picture == other).all(-1).any()


def test_a_running_mean_keeps_length_and_level():
    assert plots.smooth([3.0] * 101) == pytest.approx(3)
    assert len(plots.smooth(range(57))) == 57
