"""A trained prefix is read clean at every step, and the rest of the chunk is drawn so that it goes on from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.model.conftest import make_batch, make_model, tiny_config
from wam.contracts import Batch, WamError
from wam.model.config import ConditionalConfig, PrefixConfig
from wam.model.expert import Modulation, by_token, modulate
from wam.model.inpainting import Inpainting
from wam.model.joint import JointTransformer, StreamInput
from wam.model.pretrained import from_pretrained, save_pretrained
from wam.model.reference import dense_forward
from wam.model.visibility import table_from
from wam.model.wam import WorldActionModel

TRAINED = PrefixConfig(share=0.5)


def settled(*counts: int, chunk: int = 8) -> Tensor:
    """(B, K): so many first actions of each row."""
    return torch.arange(chunk) < torch.tensor(counts)[:, None]


def prefix(*counts: int, value: float = 0.6) -> Inpainting:
    weights = settled(*counts).float()
    return Inpainting(chunk=value * torch.ones(len(counts), 8, 4), weights=weights, method="prefix")


def seen(size: int = 3) -> Batch:
    return make_batch(size).without("action", "action_mask", "future", "future_mask")


def drawn(model: WorldActionModel, inpainting: Inpainting | None, *, steps: int = 3, **options: object) -> Tensor:
    action = model.policy(seen(), steps=steps, inpainting=inpainting, **options).action
    assert action is not None
    return action


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_what_is_settled_stays_where_it_is_at_every_step(sampler: str) -> None:
    model, path = make_model(prefix=TRAINED), []
    found = drawn(model, prefix(3, 1, 0), sampler=sampler, path=path)
    given = settled(3, 1, 0)
    assert len(path) == 4
    assert all((point["action"][given] == 0.6).all() for point in path)
    torch.testing.assert_close(found[given], torch.full_like(found[given], 0.6))
    torch.testing.assert_close(found[2], drawn(model, None, sampler=sampler)[2], atol=1e-4, rtol=1e-4)


def test_the_rest_hears_of_the_prefix_in_the_first_step_and_without_training_it_does_not() -> None:
    for trained, moved in ((TRAINED, 0.01), (PrefixConfig(), 0.0)):
        model = make_model(prefix=trained)
        one, other = (drawn(model, prefix(3, 3, 3, value=value), steps=1)[:, 3:] for value in (-0.6, 0.6))
        assert ((one - other).abs().max() > moved) == (trained is TRAINED)


def test_a_row_hears_of_its_own_prefix_alone() -> None:
    model = make_model(prefix=TRAINED)
    together, alone = drawn(model, prefix(3, 1, 4)), drawn(model, prefix(3, 0, 0))
    torch.testing.assert_close(together[0], alone[0], atol=1e-5, rtol=1e-4)
    assert (together[1:] - alone[1:]).abs().max() > 1e-3


@torch.no_grad()
def test_nothing_settled_is_no_prefix() -> None:
    model = make_model(prefix=TRAINED)
    batch = model.normalized(make_batch())
    context, signals = model.network.context(batch), model.signals(batch)
    clocks = {s: torch.tensor([0.1, 0.5, 1.0]) for s in signals}
    plain = model.network.denoise(context, signals, clocks)
    nothing = model.network.denoise(context, signals, clocks, settled=settled(0, 0, 0))
    for s in signals:
        torch.testing.assert_close(nothing[s], plain[s], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_settled_actions_have_a_clock_of_their_own_and_what_follows_is_not_looked_at() -> None:
    """All that is told of the chunk's clock is told to the rest of it; the prefix stem sees no action that is not settled."""
    network = make_model(prefix=TRAINED).network
    chunk, given = torch.randn(3, 8, 4), settled(3, 1, 4)
    late, early = (network._told(chunk, given, network.clock(torch.full((3,), c)), None) for c in (0.9, 0.2))
    assert torch.equal(late[:, 1], early[:, 1])
    torch.testing.assert_close(late[:, 1:], network.clock(torch.zeros(3)))
    assert (late[:, 0] - early[:, 0]).abs().min(dim=1).values.max() > 0
    assert network.prefix is not None
    other = torch.where(given[..., None], chunk, torch.randn(3, 8, 4))
    assert torch.equal(network.prefix(chunk, given, None), network.prefix(other, given, None))
    assert (network.prefix(chunk, settled(0, 0, 0), None) == 0).all()


def test_each_token_is_modulated_by_its_group() -> None:
    parts, given, h = torch.randn(6, 2, 2, 5), settled(1, 3, chunk=4), torch.randn(2, 4, 5)
    own = by_token(Modulation(*parts), given)
    for row in range(2):
        for token in range(4):
            group = int(given[row, token])
            for part, whole in zip(own, parts, strict=True):
                assert torch.equal(part[row, token], whole[row, group])
            shift, scale = (parts[i][row : row + 1, group : group + 1] for i in (0, 1))
            alone = modulate(h[row : row + 1, token : token + 1], shift, scale)[0, 0]
            torch.testing.assert_close(modulate(h, own[0], own[1])[row, token], alone)


@torch.no_grad()
def test_two_clocks_in_a_chunk_are_those_of_the_dense_reference() -> None:
    torch.manual_seed(0)
    transformer = JointTransformer(
        widths={"text": 32, "action": 32}, depth=2, heads=2, head_dim=16, condition_width=24,
        mlp_ratios={"text": 2.0, "action": 2.0},
    )  # fmt: skip
    streams = {
        "text": StreamInput(h=torch.randn(2, 3, 32), condition=torch.randn(2, 1, 24)),
        "action": StreamInput(h=torch.randn(2, 8, 32), condition=torch.randn(2, 2, 24), settled=settled(3, 0)),
    }
    table = table_from("joint")
    fast, slow = transformer(streams, table)[0], dense_forward(transformer, streams, table)
    for s in streams:
        torch.testing.assert_close(fast[s], slow[s], atol=1e-4, rtol=1e-4)


def test_frames_imagined_along_hear_of_the_prefix_too() -> None:
    model = make_model(prefix=TRAINED)
    one, other = (model.joint(seen(), steps=1, inpainting=prefix(4, 4, 4, value=v)) for v in (-0.9, 0.9))
    assert one.action is not None
    assert one.future is not None
    assert other.future is not None
    torch.testing.assert_close(one.action[:, :4], torch.full((3, 4, 4), -0.9))
    assert (one.future - other.future).abs().max() > 1e-4


def test_a_conditional_that_was_not_trained_so_is_inpainted_as_before() -> None:
    """Inverse dynamics is given the frames to come; one that training never gave a prefix knows none."""
    batch = make_batch().without("action", "action_mask")
    mixed = make_model(prefix=TRAINED)
    plain = WorldActionModel(tiny_config())
    plain.load_state_dict({k: v for k, v in mixed.state_dict().items() if not k.startswith("network.prefix.")})
    one, other = (m.eval().inverse_dynamics(batch, inpainting=prefix(3, 3, 3)).action for m in (mixed, plain))
    torch.testing.assert_close(one, other)


def test_a_model_without_prefixes_has_nothing_to_read_them_with() -> None:
    assert set(make_model(prefix=PrefixConfig(longest=3)).state_dict()) == set(make_model().state_dict())
    assert set(make_model(prefix=TRAINED).state_dict()) > set(make_model().state_dict())


def test_a_checkpoint_keeps_what_it_was_trained_with(tmp_path: Path) -> None:
    model = make_model(prefix=PrefixConfig(share=0.5, longest=3))
    save_pretrained(model, tmp_path / "checkpoint")
    again = from_pretrained(tmp_path / "checkpoint")
    assert again.config.longest_prefix == 3
    assert torch.equal(drawn(again, prefix(3, 2, 1)), drawn(model, prefix(3, 2, 1)))


def test_what_training_never_settled_is_refused() -> None:
    model = make_model(prefix=TRAINED)  # half the chunk
    with pytest.raises(WamError, match="up to 4 first actions"):
        drawn(model, prefix(5, 0, 0))
    gap = Inpainting(chunk=torch.zeros(3, 8, 4), weights=settled(3, 3, 3).float().flip(1), method="prefix")
    with pytest.raises(WamError, match="up to 4 first actions"):
        drawn(model, gap)
    soft = Inpainting(chunk=torch.zeros(3, 8, 4), weights=0.5 * settled(3, 3, 3).float(), method="prefix")
    with pytest.raises(WamError, match="none of another weight"):
        drawn(model, soft)
    short = Inpainting(chunk=torch.zeros(3, 4, 4), weights=torch.zeros(3, 4), method="prefix")
    with pytest.raises(WamError, match=r"known chunk of shape \(3, 8, 4\)"):
        drawn(model, short)
    plain, batch = make_model(), make_batch()
    with pytest.raises(WamError, match="a model trained with prefixes"):
        plain.network.denoise(
            plain.context(batch), {"action": torch.zeros(3, 8, 4)}, {"action": torch.ones(3)}, settled=settled(1, 1, 1)
        )


def test_settings_that_settle_nothing_or_all_are_refused() -> None:
    for wrong in (PrefixConfig(share=1.5), PrefixConfig(share=0.5, longest=8), PrefixConfig(share=0.5, longest=-1)):
        with pytest.raises(WamError, match="prefix"):
            tiny_config(prefix=wrong).validate()
    with pytest.raises(WamError, match="draws actions"):
        tiny_config(prefix=PrefixConfig(share=0.5, conditionals=["forward_dynamics"])).validate()
    rows = [ConditionalConfig(name="policy", weight=1.0, clocks={"action": "draw"})]
    with pytest.raises(WamError, match="2 actions or more"):
        tiny_config(prefix=TRAINED, chunk=1, conditionals=rows).validate()
