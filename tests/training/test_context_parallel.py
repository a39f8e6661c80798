"""Ranks that share the tokens of their windows train as one rank does, and each keeps a part of what it would keep alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.model.test_joint import transformer
from tests.training.shared_tokens import ALONE, DEALT, MODELS, dealt_config
from tests.training.test_ranks import furthest, launch, losses
from tests.training.two_ranks import STEPS, STOP
from wam.contracts import WamError
from wam.model.context_parallel import Deal
from wam.training.ranks import take_place
from wam.training.state import last_checkpoint, load_training
from wam.training.trainer import train


@pytest.fixture(scope="module")
def ranks(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one rank alone, and what two did."""
    out = tmp_path_factory.mktemp("context-parallel")
    train(dealt_config(toy, out / ALONE))
    launch("tests.training.shared_tokens", toy, out)
    return out


class TestTraining:
    def test_two_ranks_with_half_of_the_tokens_each_train_as_one(self, ranks: Path) -> None:
        assert len(losses(ranks / ALONE)) == STEPS
        assert losses(ranks / "two") == pytest.approx(losses(ranks / ALONE), rel=1e-6)
        assert furthest(ranks / ALONE, ranks / "two") < 1e-5

    def test_their_weights_may_be_spread_too(self, ranks: Path) -> None:
        assert losses(ranks / "sharded") == pytest.approx(losses(ranks / ALONE), rel=1e-6)
        assert furthest(ranks / ALONE, ranks / "sharded") < 1e-5

    def test_one_goes_on_where_two_stopped(self, toy: Path, ranks: Path) -> None:
        stopped = last_checkpoint(ranks / "two-then-one")
        assert stopped is not None
        assert load_training(stopped / "training")[1]["step"] == STOP
        train(dealt_config(toy, ranks / "two-then-one"))
        assert losses(ranks / "two-then-one") == pytest.approx(losses(ranks / ALONE), rel=1e-6)
        assert furthest(ranks / ALONE, ranks / "two-then-one") < 1e-5

    @pytest.mark.parametrize("name", MODELS)
    def test_losses_and_gradients_are_those_of_one_rank(self, ranks: Path, name: str) -> None:
        apart = json.loads((ranks / "apart.json").read_text())[name]
        assert apart["loss"] < 1e-6
        assert apart["gradient"] < 2e-6

    def test_compiled_layers_give_what_plain_ones_do(self, ranks: Path) -> None:
        assert json.loads((ranks / "apart.json").read_text())["compiled"] < 1e-5

    def test_a_rank_keeps_little_more_than_half_for_the_backward_pass(self, ranks: Path) -> None:
        for rank in (0, 1):
            kept = json.loads((ranks / f"kept-{rank}.json").read_text())
            assert kept[DEALT] < 0.6 * kept[ALONE]


class TestDeal:
    @given(
        ranks=st.integers(1, 5),
        blocks=st.integers(1, 4),
        block=st.integers(1, 7),
        axis=st.sampled_from([0, 1, 2, -1, -2]),
    )
    def test_what_is_dealt_out_comes_back(self, ranks: int, blocks: int, block: int, axis: int) -> None:
        deal = Deal(ranks=ranks, blocks=blocks, block=block)
        shape = [2, 3, 4]
        shape[axis] = blocks * block
        x = 1 + torch.arange(float(torch.Size(shape).numel())).view(shape)
        out = deal.out(x, axis)
        assert torch.equal(deal.back(out, axis), x)
        shape[axis] = blocks * deal.share
        assert out.shape == (ranks, *shape)
        assert torch.equal(out[out > 0].sort().values, x.flatten()), "what fills up is zero"

    def test_every_rank_has_a_part_of_every_block(self) -> None:
        out = Deal(ranks=2, blocks=2, block=3).out(torch.tensor([1, 2, 3, 11, 12, 13]), 0)
        assert out.tolist() == [[1, 2, 11, 12], [3, 0, 13, 0]]


def machine(rank: int, ranks: int, *, launched: int = 1) -> Any:
    """What a rank knows of its launch. launched: accelerate's cp_size."""
    about = SimpleNamespace(cp_size=launched) if launched > 1 else None
    return SimpleNamespace(
        process_index=rank, num_processes=ranks, device=torch.device("cpu"), parallelism_config=about
    )


class TestPlaces:
    @pytest.fixture
    def made(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
        """Meshes that were asked for."""
        shapes: list[tuple[int, ...]] = []

        def mesh(device: str, shape: tuple[int, ...], **_: Any) -> Any:
            shapes.append(shape)
            return SimpleNamespace(get_group=lambda name: name)

        monkeypatch.setattr("wam.training.ranks.init_device_mesh", mesh)
        return shapes

    @pytest.mark.parametrize(("asked", "launched"), [(2, 1), (1, 2), (2, 2)])
    def test_neighbours_have_one_share(self, made: list[tuple[int, ...]], asked: int, launched: int) -> None:
        """Whether the config asks for it, or the launcher."""
        module = transformer()
        found = [take_place(module, machine(r, 6, launched=launched), context_parallel=asked) for r in range(6)]
        assert [(place.share, place.shares) for place in found] == [(0, 3), (0, 3), (1, 3), (1, 3), (2, 3), (2, 3)]
        assert set(made) == {(3, 2)}
        assert module.peers is not None
        assert (module.peers.rank, module.peers.ranks) == (1, 2)

    def test_without_it_each_rank_has_its_own(self) -> None:
        module = transformer()
        assert take_place(module, machine(2, 3), context_parallel=1).share == 2
        assert module.peers is None

    @pytest.mark.parametrize(
        ("module", "ranks", "asked", "launched", "sentence"),
        [
            (transformer(), 3, 3, 1, "attention heads that context_parallel=3 divides, got 2"),
            (transformer(), 3, 2, 1, "processes that context_parallel=2 divides, got 3"),
            (nn.Linear(1, 1), 2, 2, 1, "a stage that trains a joint transformer"),
            (transformer(), 4, 4, 2, "the launcher's cp_size of 2 as context_parallel, got 4"),
        ],
    )
    def test_what_does_not_come_out_even_is_refused(
        self, module: nn.Module, ranks: int, asked: int, launched: int, sentence: str
    ) -> None:
        with pytest.raises(WamError, match=sentence):
            take_place(module, machine(0, ranks, launched=launched), context_parallel=asked)

    def test_one_process_alone_has_nobody_to_share_with(self, toy: Path, tmp_path: Path) -> None:
        with pytest.raises(WamError, match="torchrun --nproc-per-node 2"):
            train(dealt_config(toy, tmp_path / "run", context_parallel=2))

    def test_none_is_no_number_of_ranks(self, toy: Path, tmp_path: Path) -> None:
        with pytest.raises(WamError, match="context_parallel of 1 or more"):
            train(dealt_config(toy, tmp_path / "run", context_parallel=0))
