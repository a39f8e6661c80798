"""Every family trains: a joint model of video and actions around its tiny random network, end to end."""

from __future__ import annotations

import pytest
import torch

from tests.model.backbones.tools import EACH, tiny_model
from wam.model.synthetic import synthetic_batch
from wam.training.objective import joint_losses


@pytest.mark.parametrize(("name", "shared"), [(name, False) for name in EACH] + [("wan2.2-ti2v-5b", True)])
def test_it_learns_a_batch_by_heart(name: str, shared: bool) -> None:
    model = tiny_model(name, shared=shared).train()
    model.config.conditionals = [row for row in model.config.conditionals if row.name in ("policy", "joint")]
    batch = synthetic_batch(model.config, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    before = {name: p.detach().clone() for name, p in model.network.transformer.layers("future").named_parameters()}
    losses = []
    for _ in range(8):
        found = joint_losses(model, batch, generator=torch.Generator().manual_seed(0))
        found["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append({key: value.item() for key, value in found.items()})
    assert losses[-1]["future"] < 0.9 * losses[0]["future"]
    assert losses[-1]["loss"] < 0.5 * losses[0]["loss"]
    after = dict(model.network.transformer.layers("future").named_parameters())
    unmoved = [name for name, value in before.items() if torch.equal(value, after[name])]
    assert unmoved == []


@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "cosmos-predict2-2b", "ltx-video"])
def test_it_trains_in_bfloat16(name: str) -> None:
    model = tiny_model(name).train()
    batch = synthetic_batch(model.config, 2)
    whole = joint_losses(model, batch, generator=torch.Generator().manual_seed(0))["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        half = joint_losses(model, batch, generator=torch.Generator().manual_seed(0))["loss"]
    half.backward()
    assert half.item() == pytest.approx(whole.item(), rel=0.05)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
