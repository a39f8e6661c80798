"""The surface of what is filled: what has a free face or looks out of the grid, and nothing inside."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, generate_binary_structure

from wam.geometry.surface import exposed, surface_only


@given(st.integers(0, 2**31 - 1), st.floats(0.1, 0.98))
def test_what_erosion_takes_away_is_the_surface(seed: int, share: float) -> None:
    filled = np.random.default_rng(seed).random((2, 5, 4, 6)) < share
    faces = generate_binary_structure(3, 1)
    inside = np.stack([binary_erosion(grid, faces) for grid in filled])  # beyond the edge counts as free there too
    assert (exposed(filled) == (filled & ~inside)).all()


def test_a_block_keeps_its_shell_and_loses_its_middle() -> None:
    painted = np.zeros((5, 5, 5, 4), np.uint8)
    painted[1:4, 1:4, 1:4] = (7, 8, 9, 255)
    shell = surface_only(painted)
    assert (shell[2, 2, 2] == 0).all()
    assert (shell[..., 3] > 0).sum() == 26
    assert (shell[1, 1, 1] == (7, 8, 9, 255)).all()
