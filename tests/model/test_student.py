"""The student: its size is what was asked for, a sentence is read once, and everything that it is shown reaches its chunk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.model.conftest import make_batch
from wam.contracts import ActionSpace, Batch, WamError
from wam.control.wam_policy import WamPolicy, load_policy
from wam.model.chunk_heads import FlowHead
from wam.model.compact import GROUPS, normalized
from wam.model.inpainting import Inpainting
from wam.model.student import Student, StudentConfig, sized
from wam.tokenizers.text import TextConfig

HEADS = ("l1", "flow")
SPACE = ActionSpace(
    names=tuple("xyzg"), units=("m",) * 4, low=(-1,) * 4, high=(1,) * 4, kind="delta", rate_hz=10.0, gripper="g"
)


def make_student(seed: int = 0, **changes: object) -> Student:
    """A small student whose zero-initialised parts are woken."""
    torch.manual_seed(seed)
    fields: dict[str, object] = {"size": 0.5, "width": 32, "channels": 8, "image_size": 16, "chunk": 8}
    student = Student(StudentConfig(**(fields | changes)), action_space=SPACE)  # type: ignore[arg-type]
    for parameter in student.parameters():
        if parameter.abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.2)
    return student.eval()


def chunk(student: Student, batch: Batch, **options: object) -> torch.Tensor:
    found = student.policy(batch, **options).action  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [0.5, 1.0, 3.0, 12.0, 50.0])
def test_the_one_knob_gives_so_many_parameters(size: float, head: str) -> None:
    config = sized(StudentConfig(size=size, head=head))  # type: ignore[arg-type]
    with torch.device("meta"):
        count = sum(p.numel() for p in Student(config).parameters())
    assert count == pytest.approx(1e6 * size, rel=0.15)


def test_what_is_set_beside_the_knob_stays() -> None:
    assert sized(StudentConfig(width=40, channels=8)).width == 40
    alone = sized(StudentConfig(size=4.0, width=160))
    assert alone.width == 160
    assert alone.channels > sized(StudentConfig(size=0.6, width=160)).channels


@pytest.mark.parametrize("size", [0.1, 80.0])
def test_a_size_beyond_the_range_is_refused(size: float) -> None:
    with pytest.raises(WamError, match=r"0\.5 to 50"):
        Student(StudentConfig(size=size))


@pytest.mark.parametrize("head", HEADS)
def test_pictures_state_and_sentence_reach_the_chunk(head: str, batch: Batch) -> None:
    student = make_student(head=head)
    plain = chunk(student, batch)
    assert plain.shape == (3, 8, 4)
    assert batch.state is not None
    for changed in (
        batch.replace(images=batch.images.flip(1)),
        batch.replace(state=batch.state + 1),
        batch.replace(instruction=("leave it",) * 3),
        batch.without("state"),
        batch.without("instruction"),
    ):
        assert not torch.allclose(chunk(student, changed), plain, atol=1e-4)


def test_columns_that_a_student_is_not_told_do_not_reach_its_chunk(batch: Batch) -> None:
    student = make_student(columns=[0, 1])
    assert batch.state is not None
    other = batch.replace(state=torch.cat([batch.state[:, :2], batch.state[:, 2:] + 5], dim=1))
    assert torch.equal(chunk(student, other), chunk(student, batch))


def test_a_state_that_is_hidden_is_as_one_that_is_missing(batch: Batch) -> None:
    student = make_student()
    with torch.no_grad():
        hidden = student.look(batch, hide=torch.tensor([True, False, True]))
        without, whole = student.look(batch.without("state")), student.look(batch)
    assert torch.equal(hidden[[0, 2]], without[[0, 2]])
    assert torch.equal(hidden[1], whole[1])


def test_a_sentence_is_read_once_until_the_weights_change(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    student, read = make_student(), []
    encode = student.text.encode

    def counted(sentences):
        read.extend(sentences)
        return encode(sentences)

    monkeypatch.setattr(student.text, "encode", counted)
    first = chunk(student, batch)
    assert len(read) == 3
    assert torch.equal(chunk(student, batch), first)
    assert len(read) == 3
    student.load_state_dict({name: 2 * value for name, value in student.state_dict().items()})
    chunk(student, batch)
    assert len(read) == 6
    student.train()
    student.eval()
    chunk(student, batch[:1])
    assert len(read) == 7


def test_what_is_kept_of_a_sentence_is_what_reading_it_gives(batch: Batch) -> None:
    student = make_student()
    chunk(student, batch)
    with torch.enable_grad():
        fresh = student.read(batch.instruction)
    with torch.no_grad():
        torch.testing.assert_close(student.read(batch.instruction), fresh.detach())


@pytest.mark.parametrize("steps", [1, 3])
def test_a_rows_sample_does_not_depend_on_its_batch(steps: int) -> None:
    student, batch = make_student(head="flow"), make_batch(3)
    options = {"steps": steps, "seed": 5, "same_noise": True}
    together = chunk(student, batch, **options)
    torch.testing.assert_close(chunk(student, batch[1:2], **options), together[1:2], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(chunk(student, batch, **{**options, "seed": 6}), together)


@pytest.mark.parametrize("head", HEADS)
def test_a_saved_student_comes_back_and_is_a_policy(head: str, tmp_path: Path, batch: Batch) -> None:
    student = make_student(head=head, text=TextConfig(width=16, max_words=4))
    student.save_pretrained(tmp_path, cameras=("side", "top"), provenance={"teacher": {"sha256": "ab"}})
    again = Student.from_pretrained(tmp_path)
    assert torch.equal(chunk(again, batch, steps=2), chunk(student, batch, steps=2))
    assert (again.cameras, again.action_space) == (("side", "top"), SPACE)
    assert again.provenance["teacher"] == {"sha256": "ab"}
    assert again.provenance["random"] is False
    policy = load_policy(tmp_path, steps=2)
    assert isinstance(policy.model, Student)
    assert policy.chunk == 8


def test_the_wrong_cameras_states_and_requests_say_so(batch: Batch) -> None:
    student = make_student()
    with pytest.raises(WamError, match=r"\(B, 2, 1, 16, 16, 3\)"):
        student.look(batch.replace(images=batch.images[:, :1]))
    with pytest.raises(WamError, match="a state of 4 numbers"):
        student.look(batch.replace(state=torch.zeros(3, 5)))
    with pytest.raises(WamError, match="without guidance"):
        student.policy(batch, guidance=2.0)
    with pytest.raises(WamError, match="imagines nothing"):
        WamPolicy(student, conditional="joint")


def test_pictures_are_normalised_as_by_a_group_norm() -> None:
    x = 3 + 2 * torch.randn(3, 8, 5, 7)
    torch.testing.assert_close(normalized(x), torch.nn.functional.group_norm(x, GROUPS))


class Straight(FlowHead):
    """Knows where the way ends."""

    def __init__(self, end: torch.Tensor) -> None:
        super().__init__(8, end.shape[1], end.shape[2], maps=True)
        self.end = end

    def forward(self, z, x, now, then):
        return self.end


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_head_that_knows_the_end_of_a_straight_way_gets_there_in_any_number_of_steps(steps: int) -> None:
    end, noise = torch.randn(3, 6, 2), torch.randn(3, 6, 2)
    head = Straight(end)
    torch.testing.assert_close(head.sample(torch.zeros(3, 8), noise, steps=steps), end)
    clocks = torch.tensor([1.0, 0.8, 0.4, 0.0])
    path = torch.stack([end + clock * (noise - end) for clock in clocks], dim=1)
    loss = head.map_loss(torch.zeros(3, 8), path, clocks, generator=torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(0, abs=1e-9)


def test_a_flow_map_learns_to_take_a_teachers_many_steps_in_one() -> None:
    """A way that bends: its first tangent leads elsewhere than to its end, which a map finds and a velocity does not."""
    torch.manual_seed(0)
    clocks = torch.linspace(1, 0, 9)
    noise, turn = torch.randn(256, 1, 2), torch.linspace(0, 2.0, 9)
    path = torch.stack([torch.cat([noise[..., :1] * a.cos(), noise[..., :1] * a.sin()], -1) for a in turn], dim=1)
    path[:, 0] = torch.cat([noise[..., :1], torch.zeros_like(noise[..., :1])], -1)
    head, z = FlowHead(32, 1, 2, maps=True), torch.zeros(256, 32)
    optimizer, generator = torch.optim.Adam(head.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    for _ in range(400):
        optimizer.zero_grad()
        head.map_loss(z, path, clocks, generator=generator).backward()
        optimizer.step()
    with torch.no_grad():
        one = (head.sample(z, path[:, 0], steps=1) - path[:, -1]).square().mean()
    assert one < 0.02 * path[:, -1].square().mean()


@pytest.mark.parametrize("head", HEADS)
def test_steps_that_are_not_there_teach_nothing(head: str) -> None:
    student = make_student(head=head)
    z, target = torch.randn(4, 32), torch.randn(4, 5, 4)
    mask = torch.ones(4, 5)
    mask[2:] = 0

    def loss(chunk: torch.Tensor, weight: torch.Tensor) -> float:
        return student.head.loss(z, chunk, weight, generator=torch.Generator().manual_seed(1)).item()

    spoiled = target.clone()
    spoiled[2:] = 1e3
    assert loss(spoiled, mask) == pytest.approx(loss(target, mask))
    assert loss(spoiled, torch.ones(4, 5)) > loss(target, mask)
    assert loss(target, torch.zeros(4, 5)) == 0


def prefixes(student: Student, *, value: float = 0.5) -> Inpainting:
    """Three settled actions of the first row, one of the second, none of the third."""
    weights = (torch.arange(8) < torch.tensor([3, 1, 0])[:, None]).float()
    return Inpainting(chunk=value * torch.ones(3, 8, 4), weights=weights, method="prefix")


@torch.no_grad()
def test_a_student_trained_so_goes_on_from_settled_actions() -> None:
    student, batch = make_student(prefix=4), make_batch()
    plain, one, other = (
        chunk(student, batch, **options)
        for options in ({}, *({"inpainting": prefixes(student, value=v)} for v in (0.5, -0.5)))
    )
    assert (one[0, :3] == 0.5).all()
    assert (one[1, :1] == 0.5).all()
    assert (one[:2, 3:] - other[:2, 3:]).abs().amin(dim=(1, 2)).max() > 0
    torch.testing.assert_close(one[2], plain[2])


def test_a_student_that_was_not_trained_so_refuses_settled_actions() -> None:
    student, batch = make_student(), make_batch()
    assert not any(name.startswith("prefix") for name in student.state_dict())
    with pytest.raises(WamError, match="up to 0 first actions"):
        chunk(student, batch, inpainting=prefixes(student))
    guided = Inpainting(chunk=torch.zeros(3, 8, 4), weights=torch.zeros(3, 8))
    with pytest.raises(WamError, match="guided inpainting"):
        chunk(make_student(prefix=4), batch, inpainting=guided)
    for wrong in ({"prefix": 8}, {"prefix": -1}, {"prefix": 4, "head": "flow"}):
        with pytest.raises(WamError, match=r"student\.prefix"):
            make_student(**wrong)  # type: ignore[arg-type]
