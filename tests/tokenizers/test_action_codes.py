"""Chunks become rows of codes and come back; what was never done has no code that counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.tokenizers.action_codes import ActionCodes, ActionTokenConfig


def chunks(size: int, *, chunk: int = 8, dim: int = 2, seed: int = 0) -> torch.Tensor:
    """Smooth ones within [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    phase, rate = torch.rand(size, 1, dim, generator=g) * 6, 0.2 + torch.rand(size, 1, dim, generator=g)
    return torch.sin(phase + rate * torch.arange(chunk)[None, :, None]) * 0.9


@given(st.integers(0, 2**16), st.integers(2, 300))
def test_bins_come_back_within_half_a_bin(seed: int, bins: int) -> None:
    made = ActionCodes(ActionTokenConfig(kind="bins", bins=bins), chunk=8, dim=2)
    action = chunks(2, seed=seed)
    codes, known = made.encode(action, None)
    assert codes.shape == known.shape == (2, 16)
    assert known.all()
    assert codes.max() < bins
    assert (made.decode(codes[0]) - action[0]).abs().max() <= 1 / bins + 1e-6


def fast() -> ActionCodes:
    made = ActionCodes(ActionTokenConfig(kind="fast", vocabulary=256, reach=63), chunk=8, dim=2)
    assert not made.fitted
    made.fit(chunks(200).numpy())
    return made


def test_fast_codes_are_fewer_than_numbers_and_come_back_nearly() -> None:
    made, action = fast(), chunks(5, seed=1)
    codes, known = made.encode(action, None)
    assert made.fitted
    assert known.sum(1).float().mean() < 16
    for row in range(5):
        assert (made.decode(codes[row][known[row]]) - action[row]).abs().max() < 0.2


def test_steps_that_were_never_done_have_no_known_code() -> None:
    mask = torch.arange(8)[None] < torch.tensor([8, 3])[:, None]
    action = chunks(2)
    bins = ActionCodes(ActionTokenConfig(kind="bins"), chunk=8, dim=2)
    assert bins.encode(action, mask)[1].sum(1).tolist() == [16, 6]
    known = fast().encode(action, mask)[1]
    assert known[0].any()
    assert not known[1].any()


def test_fitted_merges_are_saved_and_named_by_another_run(tmp_path: Path) -> None:
    made, action = fast(), chunks(3, seed=2)
    made.save(tmp_path / "tokens.json")
    config = ActionTokenConfig(kind="fast", vocabulary=256, reach=63, file=str(tmp_path / "tokens.json"))
    again = ActionCodes(config, chunk=8, dim=2)
    assert again.fitted
    assert torch.equal(again.encode(action, None)[0], made.encode(action, None)[0])
    with pytest.raises(WamError, match="chunks of 4 x 2"):
        ActionCodes(config, chunk=4, dim=2)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(WamError, match="loss_weight above 0"):
        ActionTokenConfig(kind="bins", loss_weight=0.0).validate()
    with pytest.raises(WamError, match="at least 2 bins"):
        ActionTokenConfig(kind="bins", bins=1).validate()
    unfitted = ActionCodes(ActionTokenConfig(kind="fast"), chunk=8, dim=2)
    with pytest.raises(WamError, match="merges for FAST"):
        unfitted.encode(chunks(1), None)
