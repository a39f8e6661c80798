"""What each of two ranks runs in the tests of context parallelism, in which they share the tokens of their windows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from tests.model.backbones.test_vlm_streams import vlm_model
from tests.model.backbones.tools import tiny_model
from tests.model.conftest import make_model
from tests.model.test_joint import inputs, transformer
from tests.training.two_ranks import STOP, run_config, train_until
from wam.model.config import PrefixConfig
from wam.model.context_parallel import Peers
from wam.model.joint import compile_blocks
from wam.model.synthetic import synthetic_batch
from wam.model.visibility import table_from
from wam.model.wam import WorldActionModel
from wam.tokenizers.action_codes import ActionTokenConfig
from wam.training.config import TrainConfig
from wam.training.count import kept_bytes
from wam.training.objective import joint_losses
from wam.training.trainer import train

ALONE, DEALT = "one", "dealt"


def dealt_config(toy: Path, output: Path, **changes: Any) -> TrainConfig:
    """Two parts a step. Frames read no later frame, policies drop the future, and chunks of an odd length begin settled."""
    config = run_config(toy, output, 1, **changes)
    config.model.depth, config.model.history, config.model.chunk = 2, 2, 7
    config.model.visibility = "causal"
    config.model.prefix = PrefixConfig(share=0.5)
    return config


def checkpointed() -> WorldActionModel:
    return make_model(checkpointing="blocks")


MODELS: dict[str, Callable[[], WorldActionModel]] = {
    "frames that read no later frame": lambda: make_model(visibility="causal", history=3),
    "detached reads": lambda: make_model(visibility="insulated"),
    "settled actions": lambda: make_model(prefix=PrefixConfig(share=1.0), chunk=7),
    "computed again": checkpointed,
    "wan": lambda: tiny_model("wan2.2-ti2v-5b", shared=True),
    "cosmos": lambda: tiny_model("cosmos-predict2-2b"),
    "ltx": lambda: tiny_model("ltx-video"),
    "a vision-language model": lambda: vlm_model(future=True, action_tokens=ActionTokenConfig(kind="bins")),
}


def furthest_apart(model: WorldActionModel, peers: Peers) -> dict[str, float]:
    """How far a batch's losses with peers are from those without, and the mean of the ranks' gradients from those without; both
    in parts of the largest."""
    model.train()
    batch = synthetic_batch(model.config, 4)
    losses, gradients = [], []
    for dealt in (None, peers):
        model.network.transformer.peers = dealt
        model.zero_grad()
        found = joint_losses(model, batch, generator=torch.Generator().manual_seed(1))
        found["loss"].backward()
        losses.append({name: loss.item() for name, loss in found.items()})
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.numel()})
    assert gradients[0].keys() == gradients[1].keys()  # one without a gradient is not decayed either
    for gradient in gradients[1].values():
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()
    largest = max(gradient.abs().max() for gradient in gradients[0].values())
    apart = max((gradients[1][name] - gradient).abs().max() for name, gradient in gradients[0].items())
    told = max(abs(losses[1][name] - loss) for name, loss in losses[0].items())
    return {"loss": told / losses[0]["loss"], "gradient": float(apart / largest)}


def kept(peers: Peers) -> dict[str, float]:
    """Bytes that this rank keeps for the backward pass through the layers, alone and with peers."""
    made, table = transformer(), table_from("causal")
    given = inputs(made, frames=16)
    found = {}
    for name, dealt in ((ALONE, None), (DEALT, peers)):
        made.peers = dealt
        found[name] = float(kept_bytes(lambda: made(given, table)[0]["observation"].sum(), but=made))
    return found


def compiled_apart(peers: Peers) -> float:
    """How far compiled layers with peers are from plain ones without."""
    made, table = transformer(), table_from("joint")
    given = {s: inputs(made)[s] for s in ("observation", "action")}
    right = made(given, table)[0]["action"]
    made.peers = peers
    compile_blocks(made, backend="aot_eager")
    return float((made(given, table)[0]["action"] - right).abs().max().detach())


def main(toy: Path, out: Path, rank: int) -> None:
    train(dealt_config(toy, out / "two", context_parallel=2))
    train(dealt_config(toy, out / "sharded", context_parallel=2, sharding="fsdp2"))
    train_until(dealt_config(toy, out / "two-then-one", context_parallel=2), STOP, on=rank == 1)
    mesh = init_device_mesh("cpu", (2,))
    peers = Peers(group=mesh.get_group(), rank=rank, ranks=2)
    found: dict[str, Any] = {name: furthest_apart(make(), peers) for name, make in MODELS.items()}
    found["compiled"] = compiled_apart(peers)
    if rank == 0:
        (out / "apart.json").write_text(json.dumps(found))
    (out / f"kept-{rank}.json").write_text(json.dumps(kept(peers)))


if __name__ == "__main__":
    from accelerate import PartialState

    state = PartialState(cpu=True)
    main(Path(sys.argv[1]), Path(sys.argv[2]), state.process_index)
    state.wait_for_everyone()
    state.destroy_process_group()
