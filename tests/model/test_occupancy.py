"""Voxels: where cells look, what missing and wrong cameras do, and that a model can learn them and be without them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wam.contracts import Batch, WamError
from wam.geometry.cameras import Cameras
from wam.geometry.grid import VoxelConfig
from wam.model.config import ModelConfig, OccupancyConfig
from wam.model.occupancy import VoxelDecoder, VoxelReader, colour_loss, distance_loss, occupancy_loss
from wam.model.synthetic import synthetic_batch
from wam.model.wam import WorldActionModel
from wam.training.objective import joint_losses

GRID = VoxelConfig(shape=[8, 8, 4], origin=[-0.4, -0.4, 0.0], side=0.1)
SIZE, CHANNELS, WIDTH = 32, 6, 12


def reader(views: int = 2) -> VoxelReader:
    torch.manual_seed(0)
    return VoxelReader(GRID, channels=CHANNELS, views=views, image_size=SIZE, cell=4, width=8, narrow=8)


def cameras(batch: int, size: int = SIZE) -> Cameras:
    """One from above, one from the side, both at the middle of the grid."""
    above, side = torch.eye(4), torch.eye(4)
    above[:3] = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 4]])
    side[:3] = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, -4], [0, -1, 0, 0.2]])
    focal, middle = 150.0 * size / SIZE, (size - 1) / 2
    k = torch.tensor([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    return Cameras(
        intrinsics=k.expand(batch, 2, 3, 3),
        extrinsics=torch.stack([above, side]).expand(batch, 2, 4, 4),
        mask=torch.ones(batch, 2, dtype=torch.bool),
    )


def features(batch: int = 2) -> Tensor:
    return torch.randn(batch, 1, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_cell_reads_the_features_its_points_fall_on_and_no_others() -> None:
    model, seen = reader(), features(1)
    only_above = replace(cameras(1), mask=torch.tensor([[True, False]]))
    before = model(seen, only_above)
    changed = seen.clone()
    changed[..., :4, 4:] += 1  # the upper right quarter of the picture from above: high x and high y
    moved = ((model(changed, only_above) - before).abs() > 1e-6).any(1)[0]
    assert moved[1, 1]
    assert not moved[0, 0]


def test_each_view_may_have_a_picture_of_its_own() -> None:
    model, two = reader(), torch.cat([features(1), features(1)], dim=1)
    torch.testing.assert_close(model(two, cameras(1)), model(features(1), cameras(1)))
    two[:, 1] += 1
    assert not torch.allclose(model(two, cameras(1)), model(features(1), cameras(1)))


def test_a_missing_camera_is_as_if_its_picture_said_nothing() -> None:
    model, both = reader(), cameras(2)
    some = replace(both, mask=torch.tensor([[True, False], [True, True]]))
    found = model(features(), some)
    turned = both.extrinsics.clone()
    turned[0, 1] = both.extrinsics[0, 0]  # wherever the missing one stands
    torch.testing.assert_close(model(features(), replace(some, extrinsics=turned)), found)
    assert not torch.allclose(model(features(), both)[0], found[0])
    torch.testing.assert_close(model(features(), both)[1], found[1])


def test_wrong_swapped_and_too_few_cameras_are_refused() -> None:
    both = cameras(2)
    with pytest.raises(WamError, match="which is which"):
        replace(both, intrinsics=both.extrinsics, extrinsics=both.intrinsics).check()
    with pytest.raises(WamError, match="camera for each of 2 views"):
        replace(both, intrinsics=both.intrinsics[:, :1]).check()
    with pytest.raises(WamError, match="at least one camera"):
        replace(both, mask=torch.zeros(2, 2, dtype=torch.bool)).check()
    with pytest.raises(WamError, match="not transposed"):
        replace(both, intrinsics=both.intrinsics.transpose(-1, -2)).check()
    with pytest.raises(WamError, match="intrinsics and extrinsics"):
        Cameras.of(Batch(images=torch.zeros(2, 2, 1, SIZE, SIZE, 3, dtype=torch.uint8)))
    with pytest.raises(WamError, match=r"4 .*divides"):
        OccupancyConfig(grid=VoxelConfig(shape=[6, 8, 4])).validate()


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


def test_what_may_well_be_there_is_said_to_be_there_of_frames_to_come_alone() -> None:
    """Two chances in five: less likely than not at the present, yet more overlap than leaving it out."""
    logits = torch.zeros(5, 2, 1, 1, 1, requires_grad=True)
    truth = torch.zeros(5, 2, 1, 1, 1, dtype=torch.uint8)
    truth[:2] = 1
    occupancy_loss(logits, truth, filled_weight=2.0).backward()
    assert logits.grad is not None
    present, ahead = logits.grad.sum(0).flatten()
    assert present > 0  # downhill is "free"
    assert ahead < 0  # downhill is "filled"


def test_it_learns_where_a_block_stands_from_the_pictures() -> None:
    """A block of half a cell at one of 16 places, seen from above as a bright square."""
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.ModuleList(
        [reader(), VoxelDecoder(GRID, pillar=8, width=32, condition_width=WIDTH, cell=4, frames=1)]
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    condition = torch.zeros(32, WIDTH)

    def draw() -> tuple[Tensor, Tensor]:
        place = torch.randint(0, 4, (32, 2), generator=generator) * 2
        truth = torch.zeros(32, 1, 8, 8, 4, dtype=torch.uint8)
        for row, (x, y) in enumerate(place.tolist()):
            truth[row, 0, x : x + 2, y : y + 2, :2] = 1
        seen = torch.zeros(32, 1, CHANNELS, 8, 8)
        seen[:, 0, 0] = truth[:, 0].amax(3).float().transpose(1, 2).flip(1)  # rows fall with y, columns rise with x
        return seen, truth

    def logits(seen: Tensor) -> Tensor:
        return model[1](model[0](seen, cameras(32)), condition)["filled"][..., 0]

    for _ in range(350):
        seen, truth = draw()
        loss = occupancy_loss(logits(seen), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seen, truth = draw()
    found = logits(seen) > 0
    both, either = (found & (truth == 1)).sum(), (found | (truth == 1)).sum()
    assert both / either > 0.8


def small(beside: float = 0.0, **changes: object) -> tuple[WorldActionModel, Batch]:
    """A model with voxels, and a batch with cameras and labels. beside: weight of colours and distances."""
    torch.manual_seed(0)
    config = ModelConfig(width=32, depth=2, heads=2, head_dim=16, image_size=SIZE)
    config.occupancy = OccupancyConfig(
        loss_weight=1.0, colour_weight=beside, distance_weight=beside, distance_reach=0.25, rows=3, grid=GRID, width=32
    )
    for name, value in changes.items():
        setattr(config.streams["future"], name, value)
        if name != "warp":
            setattr(config.streams["observation"], name, value)
    model = WorldActionModel(config)
    batch, seen = synthetic_batch(config, 4), cameras(4)
    truth = torch.randint(0, 3, (4, 3, 8, 8, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return model, batch.replace(intrinsics=seen.intrinsics, extrinsics=seen.extrinsics, occupancy=truth)


@pytest.mark.parametrize("changes", [{}, {"join_views": False}, {"stem": "patch"}])
def test_a_model_gives_grids_at_the_present_and_at_each_frame_it_draws(changes: dict[str, object]) -> None:
    model, batch = small(**changes)
    found = model.sample(batch, want=("future", "action", "occupancy"), steps=2)
    assert found.occupancy is not None
    assert found.occupancy.shape == (4, 3, 8, 8, 4)
    assert ((found.occupancy >= 0) & (found.occupancy <= 1)).all()
    now = model.sample(batch, want=("occupancy",)).occupancy
    assert now is not None
    torch.testing.assert_close(now, found.occupancy[:, :1])


def test_voxels_are_read_by_nothing() -> None:
    model, batch = small()
    with_voxels = model.sample(batch, want=("future", "action", "occupancy"), steps=2)
    without = model.sample(batch, want=("future", "action"), steps=2)
    assert without.occupancy is None
    assert with_voxels.future is not None
    assert with_voxels.action is not None
    assert torch.equal(with_voxels.future, without.future)  # type: ignore[arg-type]
    assert torch.equal(with_voxels.action, without.action)  # type: ignore[arg-type]


def test_grids_to_come_answer_to_the_given_future() -> None:
    model, batch = small()
    for decoder in (model.network.occupancy.present, model.network.occupancy.future):  # type: ignore[union-attr]
        torch.nn.init.normal_(decoder.out[-1].weight, std=0.1)
    given = ("observation", "text", "state", "future")
    found = model.sample(batch, given=given, want=("occupancy",)).occupancy
    other = model.sample(batch.replace(future=255 - batch.future), given=given, want=("occupancy",)).occupancy  # type: ignore[operator]
    assert found is not None
    assert other is not None
    assert torch.equal(found[:, 0], other[:, 0])
    assert not torch.allclose(found[:, 1:], other[:, 1:])


def test_the_loss_reaches_both_video_streams() -> None:
    model, batch = small()
    for decoder in (model.network.occupancy.present, model.network.occupancy.future):  # type: ignore[union-attr]
        torch.nn.init.normal_(decoder.out[-1].weight, std=0.1)
    losses = joint_losses(model, batch, generator=torch.Generator().manual_seed(0))
    losses["occupancy"].backward()
    for stream in ("observation", "future"):
        stem = model.network.videos[stream].stem
        assert stem.first.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_a_model_without_voxels_says_so_and_has_no_loss_of_them() -> None:
    _, batch = small()
    plain = WorldActionModel(ModelConfig(width=32, depth=2, heads=2, head_dim=16, image_size=SIZE))
    assert "occupancy" not in joint_losses(plain, batch, generator=torch.Generator().manual_seed(0))
    with pytest.raises(WamError, match="model with voxels"):
        plain.sample(batch, want=("occupancy",))


def test_hidden_voxels_and_frames_past_the_end_have_no_colour_to_miss() -> None:
    logits = torch.zeros(1, 2, 2, 1, 1, 3, requires_grad=True)
    truth = torch.zeros(1, 2, 2, 1, 1, 4, dtype=torch.uint8)
    truth[0, 0, 0] = torch.tensor([255, 0, 255, 255])
    truth[0, 1] = 255
    loss = colour_loss(logits, truth, mask=torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx(0.5)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[0, 0, 0].sign().flatten() == torch.tensor([-1, 1, -1])).all()  # downhill is towards the truth
    assert logits.grad.abs().sum() == logits.grad[0, 0, 0].abs().sum()
    assert colour_loss(logits, torch.zeros_like(truth)).item() == 0
    with pytest.raises(WamError, match="same grid"):
        colour_loss(logits, truth[:, :1])


def test_a_distance_is_missed_by_its_share_of_the_reach() -> None:
    truth = torch.zeros(1, 1, 8, 1, 1, dtype=torch.uint8)
    truth[0, 0, 0] = 1
    right = torch.tensor([0, 0.25, 0.5, 0.75, 1, 1, 1, 1]).reshape_as(truth)
    measure = {"reach": 0.4, "side": 0.1}
    assert distance_loss(torch.logit(right, 1e-6), truth, **measure).item() == pytest.approx(0, abs=1e-5)
    assert distance_loss(torch.full(truth.shape, -30.0), truth, **measure).item() == pytest.approx(right.mean().item())
    truth[0, 0, 3] = 2  # it may be filled: nothing is sure of what is nearer to it than to the filled one
    off = torch.logit(right, 1e-6)
    off[0, 0, 2:7] = 9
    assert distance_loss(off, truth, **measure).item() == pytest.approx(0, abs=1e-5)


def test_it_learns_the_colour_of_a_block_from_the_pictures() -> None:
    """The block's place tells nothing of its colour, which the picture shows; a mean colour is off by a third of the range."""
    generator = torch.Generator().manual_seed(0)
    decoder = VoxelDecoder(GRID, pillar=8, width=32, condition_width=WIDTH, cell=4, frames=1, beside={"colour": 3})
    model = torch.nn.ModuleList([reader(), decoder])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def draw() -> tuple[Tensor, Tensor]:
        colour = torch.rand(32, 3, generator=generator)
        truth = torch.zeros(32, 1, 8, 8, 4, 4, dtype=torch.uint8)
        truth[:, :, 2:6, 2:6, :2, 3] = 255
        truth[:, :, 2:6, 2:6, :2, :3] = (255 * colour)[:, None, None, None, None].to(torch.uint8)
        seen = torch.zeros(32, 1, CHANNELS, 8, 8)
        seen[:, 0, :3, 2:6, 2:6] = colour[:, :, None, None]
        return seen, truth

    for _ in range(250):
        seen, truth = draw()
        loss = colour_loss(model[1](model[0](seen, cameras(32)), torch.zeros(32, WIDTH))["colour"], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seen, truth = draw()
    said = model[1](model[0](seen, cameras(32)), torch.zeros(32, WIDTH))["colour"]
    assert colour_loss(said, truth) < 0.1
    blind = model[1](model[0](torch.zeros_like(seen), cameras(32)), torch.zeros(32, WIDTH))["colour"]
    assert colour_loss(blind, truth) > 0.2


def test_colours_and_distances_are_sampled_where_the_model_has_them() -> None:
    model, batch = small(beside=1.0)
    found = model.sample(batch, want=("future", "occupancy"), steps=1)
    assert found.occupancy_colour is not None
    assert found.occupancy_distance is not None
    assert found.occupancy_colour.shape == (4, 3, 8, 8, 4, 3)
    assert found.occupancy_distance.shape == (4, 3, 8, 8, 4)
    assert ((found.occupancy_colour >= 0) & (found.occupancy_colour <= 1)).all()
    assert ((found.occupancy_distance >= 0) & (found.occupancy_distance <= 0.25)).all()
    now = model.sample(batch, want=("occupancy",))
    torch.testing.assert_close(now.occupancy_colour, found.occupancy_colour[:, :1])
    plain = small()[0].sample(batch, want=("occupancy",))
    assert plain.occupancy is not None
    assert plain.occupancy_colour is plain.occupancy_distance is None


def test_without_their_weights_a_model_has_no_part_of_them() -> None:
    own, more = (set(small(beside=weight)[0].state_dict()) for weight in (0.0, 1.0))
    assert own < more
    assert {name.split(".")[-3:-1][0] for name in more - own} == {"beside"}
    assert {name.split(".")[-2] for name in more - own} == {"colour", "distance"}


def test_losses_of_colour_and_distance_join_the_others_by_their_weights() -> None:
    model, batch = small(beside=0.5)
    painted = torch.randint(0, 256, (4, 3, 8, 8, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    batch = batch.replace(occupancy_colour=painted)
    model.config.occupancy.colour_weight = 0.5
    first = joint_losses(model, batch, generator=torch.Generator().manual_seed(0))
    model.config.occupancy.colour_weight = 2.5
    second = joint_losses(model, batch, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(second["loss"] - first["loss"], 2 * first["occupancy_colour"])
    assert first["occupancy_distance"] > 0
    first["loss"].backward()
    for decoder in (model.network.occupancy.present, model.network.occupancy.future):  # type: ignore[union-attr]
        for last in decoder.beside.values():
            assert last.bias.grad.abs().sum() > 0
    with pytest.raises(WamError, match="colours of its voxels"):
        joint_losses(model, batch.without("occupancy_colour"), generator=torch.Generator().manual_seed(0))


def test_colours_of_no_voxels_are_refused() -> None:
    with pytest.raises(WamError, match="beside a loss_weight"):
        OccupancyConfig(colour_weight=1.0).validate()
