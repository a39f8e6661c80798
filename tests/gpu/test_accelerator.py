"""On an accelerator: the same answers as on the CPU, caching and rollouts included, and training steps that hold.

Run by `make gpu`; skipped where there is no accelerator.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.model.conftest import make_batch, make_model
from wam.control.wam_policy import WamPolicy
from wam.evaluation.bench.loader import CAMERAS, write_episodes
from wam.evaluation.bench.step import bench_step
from wam.model.config import ModelConfig
from wam.model.rollout import rollout
from wam.training.config import DataConfig, DataPart, TrainConfig
from wam.training.objective import joint_losses
from wam.training.plan import plan
from wam.training.trainer import train

pytestmark = pytest.mark.gpu

METHODS = ("policy", "imagine", "forward_dynamics", "inverse_dynamics", "joint")


@pytest.fixture(scope="module")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no accelerator here")
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def full_precision() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("visibility", ["joint", "causal"])
def test_a_seed_gives_the_same_sample_on_either_device(method: str, visibility: str, device: torch.device) -> None:
    model, batch = make_model(visibility=visibility), make_batch()
    here = getattr(model, method)(batch, steps=3, seed=5)
    there = getattr(model.to(device), method)(batch.to(device), steps=3, seed=5)
    for name in ("future", "action"):
        if getattr(here, name) is not None:
            torch.testing.assert_close(getattr(there, name).cpu(), getattr(here, name), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_cached_denoising_equals_uncached(method: str, device: torch.device) -> None:
    model, batch = make_model().to(device), make_batch().to(device)
    fast, slow = (getattr(model, method)(batch, steps=3, cached=cached) for cached in (True, False))
    for name in ("future", "action"):
        if getattr(fast, name) is not None:
            torch.testing.assert_close(getattr(fast, name), getattr(slow, name), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("visibility", ["joint", "causal"])
def test_a_rollout_imagines_the_same_on_either_device(visibility: str, device: torch.device) -> None:
    model, batch = make_model(visibility=visibility, history=2), make_batch(history=2)
    here = rollout(model, batch, chunks=3, steps=2)
    there = rollout(model.to(device), batch.to(device), chunks=3, steps=2)
    torch.testing.assert_close(there.cpu(), here, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 0.05)])
def test_a_training_step_has_the_loss_it_has_on_the_cpu(precision: str, tolerance: float, device: torch.device) -> None:
    model, batch = make_model(), make_batch()
    expected = joint_losses(model, batch, generator=torch.Generator().manual_seed(0))["loss"].item()
    model.to(device).train()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss = joint_losses(model, batch.to(device), generator=torch.Generator().manual_seed(0))["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=tolerance)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_policy_answers_on_the_accelerator_with_arrays(device: torch.device) -> None:
    from wam.contracts import Observation

    batch = make_batch(1)
    images = {name: batch.images[0, view, 0].numpy() for view, name in enumerate(CAMERAS)}
    policy = WamPolicy(make_model(), cameras=CAMERAS, device=device)
    chunk = policy.act([Observation(images=images, state=batch.state[0].numpy(), instruction="open")])  # type: ignore[index]
    assert chunk.shape == (1, 8, 4)


def test_a_run_trains_resumes_and_ends_on_the_accelerator(tmp_path: Path, device: torch.device) -> None:
    write_episodes(tmp_path / "data", episodes=10, length=16, size=64)
    config = TrainConfig(
        output=str(tmp_path / "run"),
        steps=4,
        save_every=2,
        check_every=4,
        tracker="none",
        batch_size=8,
        model=ModelConfig(width=32, depth=2, heads=2, head_dim=16),
        data=DataConfig(parts=[DataPart(root=str(tmp_path / "data"))], cameras=list(CAMERAS)),
    )
    assert train(config).steps == 4
    config.steps = 6
    result = train(config)
    assert result.steps == 6
    assert math.isfinite(result.losses["loss"])


def test_a_plan_measures_the_peak_of_memory(device: torch.device) -> None:
    found = plan(TrainConfig(), timed_steps=2, device=device)
    assert found.peak is not None
    assert found.memory["weights"] < found.peak < torch.cuda.get_device_properties(device).total_memory


def test_the_step_benchmark_runs_where_the_model_runs(device: torch.device) -> None:
    result = bench_step(repeats=3, device=device)
    assert 0 < result.figures["step_ratio"] < math.inf


def test_a_recorded_policy_draws_what_the_policy_draws(device: torch.device) -> None:
    from wam.model.graphs import PolicyGraph

    model = make_model().to(device)
    graph = PolicyGraph(model, model.context(make_batch(1).to(device)), steps=3)
    for seed in (1, 2):
        batch = make_batch(1, seed=seed).to(device)
        wanted = model.policy(batch, steps=3, seed=seed).action
        torch.testing.assert_close(graph(model.context(batch), seed=seed), wanted, atol=1e-4, rtol=1e-4)


def test_compiled_layers_give_the_same_sample(device: torch.device) -> None:
    from wam.model.joint import compile_blocks

    model, batch = make_model().to(device), make_batch().to(device)
    plain = model.joint(batch, steps=2)
    compile_blocks(model)
    torch.testing.assert_close(model.joint(batch, steps=2).action, plain.action, atol=1e-3, rtol=1e-3)


def test_a_courier_brings_what_there_was(device: torch.device) -> None:
    from wam.data.courier import Courier

    courier, batch = Courier(device), make_batch()
    moved = courier.fetch(batch)
    courier.deliver(moved)
    for name, value in batch.tensors().items():
        assert getattr(moved, name).is_cuda
        assert torch.equal(getattr(moved, name).cpu(), value)


def test_the_accelerators_benchmark_measures_a_small_model(device: torch.device) -> None:
    from wam.evaluation.bench.gpu import bench_gpu

    result = bench_gpu(models=("native-nano", "wan-nano"), train_steps=3, chunks=5, device=device, peak=1e15)
    for kind in ("native-nano", "wan-nano"):
        row = result.detail[kind]
        assert not [said for said in row.values() if isinstance(said, str) and said.startswith("failed")]
    assert all(math.isfinite(value) and value > 0 for value in result.figures.values())
