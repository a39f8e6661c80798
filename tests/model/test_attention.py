"""Attention kernels by name give one result, and layers that are computed again give the gradients they would have given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.model.conftest import make_batch, tiny_config
from wam.contracts import WamError
from wam.model.attention import KERNELS, attend
from wam.model.masks import causal_mask
from wam.model.pretrained import from_pretrained, save_pretrained
from wam.model.wam import WorldActionModel
from wam.training.count import saved_bytes
from wam.training.objective import joint_losses

HERE = ("auto", "sdpa", "flash", "flex", "explicit")
"""Kernels that run on a CPU, flex without a backward pass."""


def tensors(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries of three frames of four tokens, keys of a past frame and these, and the mask between them."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, length, 16, generator=g).to(dtype) for length in (12, 16, 16))
    return q, k, v, causal_mask(3, 1, 4, window=None, device=torch.device("cpu"))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kernel", HERE)
def test_every_kernel_gives_what_the_written_out_operations_give(kernel: str, masked: bool) -> None:
    q, k, v, mask = tensors()
    shown = mask if masked else None
    expected = torch.softmax((q @ k.transpose(-1, -2) / 4).masked_fill(~mask, -torch.inf) if masked
                             else q @ k.transpose(-1, -2) / 4, dim=-1) @ v  # fmt: skip
    torch.testing.assert_close(attend(q, k, v, mask=shown, kernel=kernel), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 12])
@pytest.mark.parametrize("kernel", ["auto", "sdpa", "flex", "explicit"])
def test_every_kernel_that_masks_takes_a_mask_of_each_row(kernel: str, rows: int) -> None:
    q, k, v, _ = tensors()
    mask = torch.rand(2, 1, rows, 16, generator=torch.Generator().manual_seed(3)) < 0.5
    mask[..., 0] = True
    expected = torch.softmax((q @ k.transpose(-1, -2) / 4).masked_fill(~mask, -torch.inf), dim=-1) @ v
    torch.testing.assert_close(attend(q, k, v, mask=mask, kernel=kernel), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["sdpa", "flash", "explicit"])
def test_and_its_gradients(kernel: str) -> None:
    found = []
    for name in (kernel, "auto"):
        q, k, v, _ = tensors()
        leaves = [x.requires_grad_() for x in (q, k, v)]
        attend(*leaves, kernel=name).square().sum().backward()
        found.append([x.grad for x in leaves])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", HERE)
def test_mixed_precision_of_queries_and_values_is_taken(kernel: str) -> None:
    q, k, _, _ = tensors()
    v = tensors(torch.bfloat16)[2]
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(q, k, v, kernel=kernel)
    torch.testing.assert_close(out.float(), attend(q, k, v.float(), kernel="sdpa"), atol=0.05, rtol=0.05)


def test_a_kernel_whose_package_is_missing_says_so_when_the_model_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wam.model.attention.importlib.util.find_spec", lambda name: None)
    with pytest.raises(WamError, match=r"xformers.*pip install 'wam\[xformers\]'"):
        WorldActionModel(tiny_config(attention="xformers"))


def test_a_kernel_that_does_not_run_on_this_machine_says_so_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Tensor:
        raise RuntimeError("No available kernel. Aborting execution.\nmore lines")

    monkeypatch.setattr("wam.model.attention._flash", fails)
    with pytest.raises(WamError, match="flash to run on the cpu with float32, got No available kernel") as error:
        attend(*tensors()[:3], kernel="flash")
    assert "model.attention=sdpa" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_kernel_names_those_there_are() -> None:
    with pytest.raises(WamError, match=", ".join(KERNELS)):
        attend(*tensors()[:3], kernel="fast")


def one_step(**changes: object) -> tuple[WorldActionModel, Tensor]:
    torch.manual_seed(0)
    model = WorldActionModel(tiny_config(**changes)).train()
    loss = joint_losses(model, make_batch(4), generator=torch.Generator().manual_seed(1))["loss"]
    loss.backward()
    return model, loss.detach()


@pytest.mark.parametrize("changes", [{"checkpointing": "blocks"}, {"attention": "flash"}, {"attention": "explicit"}])
def test_losses_and_gradients_are_those_of_the_plain_model(changes: dict[str, str]) -> None:
    (plain, loss), (other, again) = one_step(), one_step(**changes)
    torch.testing.assert_close(loss, again, atol=1e-6, rtol=1e-5)
    for (name, p), q in zip(plain.named_parameters(), other.parameters(), strict=True):
        if p.grad is None:
            assert q.grad is None, name
        else:
            torch.testing.assert_close(q.grad, p.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    kept = {}
    for checkpointing in ("none", "blocks"):
        torch.manual_seed(0)
        model = WorldActionModel(tiny_config(checkpointing=checkpointing)).train()

        def losses(batch, generator, model=model):  # type: ignore[no-untyped-def]
            return joint_losses(model, batch, generator=generator)

        kept[checkpointing] = saved_bytes(losses, make_batch(4), "fp32", but=model)
    assert kept["blocks"] < 0.8 * kept["none"]


def test_neither_is_part_of_a_saved_model(tmp_path: Path) -> None:
    save_pretrained(WorldActionModel(tiny_config(attention="flash", checkpointing="blocks")), tmp_path / "model")
    found = from_pretrained(tmp_path / "model").config
    assert (found.attention, found.checkpointing) == ("auto", "none")
