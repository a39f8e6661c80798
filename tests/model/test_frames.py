"""The two ends of a video stream: views side by side or joined, copies that start as copies, copies that move."""

from __future__ import annotations

import pytest
import torch

from wam.model.config import StreamConfig
from wam.model.frames import VideoEnds, warped

VIEWS, FRAMES, SIZE, WIDTH = 2, 4, 32, 16


def make_ends(*, beside: bool = True, **changes: object) -> VideoEnds:
    torch.manual_seed(0)
    config = StreamConfig(
        kind="video",
        predicts="x0",
        tubelet=2,
        grid=4,
        stem_width=8,
        fold=2,
        **changes,  # type: ignore[arg-type]
    )
    return VideoEnds(
        config, size=SIZE, channels=3, views=VIEWS, width=WIDTH, condition_width=WIDTH, beside=beside, predicts=True
    )


def pictures(*, frames: int = FRAMES, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, VIEWS, frames, SIZE, SIZE, 3, generator=generator) * 2 - 1


def predict(ends: VideoEnds, present: torch.Tensor) -> torch.Tensor:
    condition = torch.zeros(3, 1, WIDTH)
    h, features = ends.embed(pictures(), condition, present=present)
    return ends.predict(h.flatten(1, 3), features, condition, present=present, times=FRAMES // 2)[0]


@pytest.mark.parametrize("stem", ["conv", "patch"])
@pytest.mark.parametrize(("joined", "groups"), [(False, VIEWS), (True, 1)])
def test_joined_views_share_their_tokens(stem: str, joined: bool, groups: int) -> None:
    ends = make_ends(stem=stem, join_views=joined)
    h, _ = ends.embed(pictures(), torch.zeros(3, 1, WIDTH), present=pictures(frames=1))
    assert h.shape == (3, FRAMES // 2, groups, 16, WIDTH)


@pytest.mark.parametrize("stem", ["conv", "patch"])
@pytest.mark.parametrize("warp", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_an_untrained_prediction_is_a_copy_of_the_present(stem: str, warp: bool, joined: bool) -> None:
    present = pictures(frames=1, seed=1)
    found = predict(make_ends(stem=stem, warp=warp, join_views=joined), present)
    torch.testing.assert_close(found, present.expand_as(found), atol=1e-5, rtol=0)


def test_views_and_frames_keep_their_places() -> None:
    """The head's channels are laid out as the stem's: a change planted for one view and frame lands there alone."""
    ends = make_ends(join_views=True, warp=True)
    bias = torch.zeros(VIEWS, 2, 3 + 2, 2, 2)  # view, frame of the tubelet, channel, and the four pixels of a fold
    bias[1, 0, 0] = 0.5
    ends.head.last[-1].bias.data = bias.flatten()  # type: ignore[union-attr, index]
    present = pictures(frames=1, seed=1)
    change = predict(ends, present) - present
    planted = torch.zeros_like(change)
    planted[:, 1, ::2, ..., 0] = 0.5
    torch.testing.assert_close(change, planted, atol=1e-5, rtol=0)


def test_a_flow_moves_pixels_by_what_it_says() -> None:
    present = pictures(frames=1)
    flow = torch.zeros(3, VIEWS, 2, SIZE, SIZE, 2)
    flow[:, 1, 1, ..., 0] = 2 / SIZE * 3  # look three pixels to the right, in one view and frame
    moved = warped(present, flow)
    torch.testing.assert_close(moved[:, 0], present[:, 0].expand_as(moved[:, 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, 1, 1, :, : SIZE - 3], present[:, 1, 0, :, 3:], atol=1e-5, rtol=0)


def test_the_condition_steers_a_stem_with_blocks_and_no_other() -> None:
    for blocks in (False, True):
        ends = make_ends(blocks=blocks)
        for block in ends.stem.blocks:  # type: ignore[union-attr]
            torch.nn.init.normal_(block.conv_out.weight, std=0.1)
        quiet, told = (
            ends.embed(pictures(), value * torch.ones(3, 1, WIDTH), present=pictures(frames=1))[0]
            for value in (0.0, 1.0)
        )
        assert torch.equal(quiet, told) is not blocks


def test_a_signal_enters_as_far_as_it_differs_from_the_present() -> None:
    ends, present = make_ends(), pictures(frames=1)
    condition, nothing = torch.zeros(3, 1, WIDTH), torch.zeros(3, VIEWS, FRAMES, SIZE, SIZE, 3)
    still = present.expand_as(nothing)
    for clock in (torch.zeros(3), torch.zeros(3, FRAMES // 2)):
        unmoved, _ = ends.embed(still, condition, present=present, clock=clock)
        empty, _ = ends.embed(nothing, condition, present=present, clock=torch.ones(3))
        torch.testing.assert_close(unmoved, empty)
        moved, _ = ends.embed(pictures(), condition, present=present, clock=clock)
        assert not torch.allclose(moved, empty, atol=1e-3)
