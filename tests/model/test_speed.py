"""What makes it fast changes nothing: compiled layers, and the policy on inputs that a recording would read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.model.conftest import make_batch, make_model
from wam.contracts import Observation, WamError
from wam.control.wam_policy import WamPolicy
from wam.model.config import ConditionalConfig
from wam.model.graphs import PolicyGraph
from wam.model.joint import compile_blocks
from wam.training.objective import joint_losses


class TestPolicyGraph:
    @pytest.mark.parametrize("same_noise", [False, True])
    def test_it_draws_what_the_policy_draws_of_each_new_observation(self, same_noise: bool) -> None:
        model = make_model()
        graph = PolicyGraph(model, model.context(make_batch(seed=0)), steps=3)
        for seed in (1, 2):
            batch = make_batch(seed=seed)
            found = graph(model.context(batch), seed=seed, same_noise=same_noise)
            assert torch.equal(found, model.policy(batch, steps=3, seed=seed, same_noise=same_noise).action)  # type: ignore[arg-type]

    def test_streams_that_training_kept_as_noise_stay_in(self) -> None:
        rows = [ConditionalConfig(name="policy", weight=1.0, clocks={"action": "draw", "future": "noise"})]
        model, batch = make_model(conditionals=rows), make_batch()
        found = PolicyGraph(model, model.context(batch), steps=2)(model.context(batch), seed=3)
        assert torch.equal(found, model.policy(batch, steps=2, seed=3).action)  # type: ignore[arg-type]

    def test_an_answer_is_the_callers_own(self) -> None:
        model = make_model()
        graph = PolicyGraph(model, model.context(make_batch()))
        one = graph(model.context(make_batch(seed=1)))
        kept = one.clone()
        graph(model.context(make_batch(seed=2)))
        assert torch.equal(one, kept)

    def test_a_context_of_another_shape_is_refused(self) -> None:
        model = make_model()
        graph = PolicyGraph(model, model.context(make_batch(2)))
        with pytest.raises(WamError, match="record another graph"):
            graph(model.context(make_batch(3)))

    def test_a_policy_with_graphs_acts_as_one_without(self) -> None:
        plain, graphed = (WamPolicy(make_model(), cameras=("a", "b"), steps=2, graphs=on) for on in (False, True))
        rng = np.random.default_rng(0)
        for rows in (1, 2, 1):
            seen = [
                Observation(
                    images={name: rng.integers(0, 256, (16, 16, 3), np.uint8) for name in ("a", "b")},
                    state=rng.standard_normal(4).astype(np.float32),
                    instruction="open the faucet",
                )
                for _ in range(rows)
            ]
            np.testing.assert_array_equal(plain.act(seen), graphed.act(seen))
            for policy in (plain, graphed):
                policy.reset()

    def test_what_no_graph_can_hold_is_refused(self) -> None:
        for options in ({"conditional": "joint"}, {"guidance": 2.0}, {"reuse": 0.9}):
            with pytest.raises(WamError, match="for graphs"):
                WamPolicy(make_model(), cameras=("a", "b"), graphs=True, **options)  # type: ignore[arg-type]


class TestCompiledLayers:
    @pytest.mark.slow
    def test_samples_are_the_same_and_all_layers_share_what_was_compiled(self) -> None:
        self.samples_are_the_same("inductor")

    def test_traced_samples_are_the_same_and_all_layers_share_a_trace(self) -> None:
        """Without the code generator, which takes a minute for a few lines."""
        self.samples_are_the_same("aot_eager")

    def samples_are_the_same(self, backend: str) -> None:
        torch._dynamo.reset()
        model, batch = make_model(), make_batch()
        plain = model.joint(batch, steps=2)
        compile_blocks(model, backend=backend)
        torch._dynamo.utils.counters.clear()
        compiled = model.joint(batch, steps=2)
        torch.testing.assert_close(compiled.action, plain.action, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(compiled.future, plain.future, atol=1e-5, rtol=1e-4)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert 0 < graphs <= 4, "the context, its last layer, and the layers of denoising; not one a layer and a step"
        assert not torch._dynamo.utils.counters["graph_break"]

    @pytest.mark.parametrize("checkpointing", ["none", "blocks"])
    def test_losses_and_gradients_are_the_same(self, checkpointing: str) -> None:
        found = []
        for on in (False, True):
            model = make_model(checkpointing=checkpointing).train()
            compile_blocks(model, on, backend="aot_eager")
            loss = joint_losses(model, make_batch(), generator=torch.Generator().manual_seed(0))["loss"]
            loss.backward()
            found.append((loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
        torch.testing.assert_close(found[1][0], found[0][0], atol=1e-5, rtol=1e-4)
        assert found[0][1].keys() == found[1][1].keys()
        for name, gradient in found[0][1].items():
            torch.testing.assert_close(found[1][1][name], gradient, atol=1e-4, rtol=1e-3)
