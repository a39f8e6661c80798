"""The voxel decoder: where cells look, what missing and wrong cameras do, and that it can learn a scene."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wam.contracts import WamError
from wam.geometry.grid import VoxelConfig
from wam.model.occupancy import VoxelDecoder, occupancy_loss

GRID = VoxelConfig(shape=[8, 8, 4], origin=[-0.4, -0.4, 0.0], side=0.1)
SIZE, CHANNELS, WIDTH = 32, 6, 12


def decoder(**changes: int) -> VoxelDecoder:
    torch.manual_seed(0)
    sizes = {"channels": CHANNELS, "views": 2, "condition_width": WIDTH, "image_size": SIZE, "width": 24, "narrow": 8}
    return VoxelDecoder(GRID, **{**sizes, **changes})


def cameras(batch: int) -> dict[str, Tensor]:
    """One from above, one from the side, both at the middle of the grid."""
    above, side = torch.eye(4), torch.eye(4)
    above[:3] = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 4]])
    side[:3] = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, -4], [0, -1, 0, 0.2]])
    k = torch.tensor([[150.0, 0, 15.5], [0, 150, 15.5], [0, 0, 1]])
    return {"intrinsics": k.expand(batch, 2, 3, 3), "extrinsics": torch.stack([above, side]).expand(batch, 2, 4, 4)}


def inputs(batch: int = 2, times: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, times, CHANNELS, 8, 8, generator=generator), torch.randn(
        batch, 1, WIDTH, generator=generator
    )


def test_a_grid_for_every_time_and_frame_of_a_tubelet() -> None:
    features, condition = inputs()
    assert decoder()(features, condition, **cameras(2)).shape == (2, 3, 8, 8, 4)
    assert decoder(frames=2)(features, condition, **cameras(2)).shape == (2, 6, 8, 8, 4)


def test_a_cell_reads_the_features_its_points_fall_on_and_no_others() -> None:
    model, (features, condition) = decoder(), inputs(batch=1, times=1)
    for block in model.blocks:  # no neighbours
        torch.nn.init.zeros_(block.around.weight)
    alone = {k: v[:, :1] for k, v in cameras(1).items()}
    above = decoder(views=1)
    above.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("read.1.")})
    before = above(features, condition, **alone)
    changed = features.clone()
    changed[..., :4, 4:] += 1  # the upper right quarter of the picture from above: high x and high y
    moved = (above(changed, condition, **alone) - before).abs().amax((0, 1, 4)) > 1e-6
    assert moved[4:, 4:].all()
    assert not moved[:4, :4].any()


def test_a_missing_camera_is_as_if_its_picture_said_nothing() -> None:
    model, (features, condition) = decoder(), inputs()
    both = cameras(2)
    mask = torch.tensor([[True, False], [True, True]])
    found = model(features, condition, **both, view_mask=mask)
    turned = dict(both)
    turned["extrinsics"] = both["extrinsics"].clone()
    turned["extrinsics"][0, 1] = both["extrinsics"][0, 0]  # wherever the missing one stands
    torch.testing.assert_close(model(features, condition, **turned, view_mask=mask), found)
    assert not torch.allclose(model(features, condition, **both)[0], found[0])
    torch.testing.assert_close(model(features, condition, **both)[1], found[1])


def test_wrong_swapped_and_too_few_cameras_are_refused() -> None:
    model, (features, condition) = decoder(), inputs()
    both = cameras(2)
    with pytest.raises(WamError, match="which is which"):
        model(features, condition, intrinsics=both["extrinsics"], extrinsics=both["intrinsics"])
    with pytest.raises(WamError, match="camera for each of 2 views"):
        model(features, condition, **{k: v[:, :1] for k, v in both.items()})
    with pytest.raises(WamError, match="at least one camera"):
        model(features, condition, **both, view_mask=torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(WamError, match="4 divides"):
        VoxelDecoder(VoxelConfig(shape=[6, 8, 4]), channels=4, views=1, condition_width=4, image_size=8)


def test_unknown_voxels_and_frames_past_the_end_cost_nothing() -> None:
    logits = torch.zeros(1, 2, 2, 1, 1, requires_grad=True)
    truth = torch.tensor([1, 2, 0, 0], dtype=torch.uint8).reshape(1, 2, 2, 1, 1)
    loss = occupancy_loss(logits, truth, mask=torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx(0.6931, abs=1e-3)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad.flatten() != 0).tolist() == [True, False, False, False]
    with pytest.raises(WamError, match="same grid"):
        occupancy_loss(logits, truth[:, :1])


def test_it_learns_where_a_block_stands_from_the_pictures() -> None:
    """A block of one cell at one of 16 places, seen from above and from the side as a bright square."""
    generator = torch.Generator().manual_seed(0)
    model = decoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    condition = torch.zeros(32, 1, WIDTH)

    def draw() -> tuple[Tensor, Tensor]:
        place = torch.randint(0, 4, (32, 2), generator=generator) * 2
        truth = torch.zeros(32, 1, 8, 8, 4, dtype=torch.uint8)
        for row, (x, y) in enumerate(place.tolist()):
            truth[row, 0, x : x + 2, y : y + 2, :2] = 1
        above = truth[:, 0].amax(3).float().transpose(1, 2).flip(1)  # rows fall with y, columns rise with x
        features = torch.zeros(32, 1, CHANNELS, 8, 8)
        features[:, 0, 0] = above
        return features, truth

    for _ in range(150):
        features, truth = draw()
        loss = occupancy_loss(model(features, condition, **cameras(32)), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    features, truth = draw()
    found = model(features, condition, **cameras(32)) > 0
    both, either = (found & (truth == 1)).sum(), (found | (truth == 1)).sum()
    assert both / either > 0.8
