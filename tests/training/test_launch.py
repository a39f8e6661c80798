"""configs/accelerate: accelerate reads every file as it is meant, and the trainer takes from it what it needs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, ParallelismConfig
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.fsdp import CPUOffloadPolicy

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "accelerate").glob("*.yaml"))
SHARDED = {
    "fsdp2": (True, False),
    "fsdp2-zero2": (False, False),
    "fsdp2-offload": (True, True),
    "fsdp2-nodes": (True, False),
    "fsdp2-context": (True, False),
}


def launched(path: Path, *words: str) -> argparse.Namespace:
    """What `accelerate launch` makes of the file."""
    told = ["--config_file", str(path), *words, "--no_python", "wam", "train", "x.yaml", "batch_size=8"]
    return _validate_launch_command(launch_command_parser().parse_args(told))[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_file(path: Path) -> None:
    found = load_config_from_file(str(path))
    assert isinstance(found, ClusterConfig)
    assert found.mixed_precision == "bf16"
    assert found.num_processes == {"one-gpu": 1, "fsdp2-nodes": 512}.get(path.stem, 8)
    kinds = {
        "one-gpu": DistributedType.NO,
        "ddp": DistributedType.MULTI_GPU,
        "deepspeed-zero2": DistributedType.DEEPSPEED,
        **dict.fromkeys(SHARDED, DistributedType.FSDP),
    }
    assert found.distributed_type == kinds[path.stem]
    assert set(kinds) == {path.stem for path in CONFIGS}


@pytest.mark.parametrize("name", SHARDED)
def test_a_sharded_launch_tells_the_trainer_how(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for path in CONFIGS if path.stem == name)
    args = launched(path, "--main_process_ip", "10.0.0.1", "--main_process_port", "29500")
    assert args.training_script == "wam"
    assert args.training_script_args == ["train", "x.yaml", "batch_size=8"]
    before = dict(os.environ)
    environment = prepare_multi_gpu_env(args)
    monkeypatch.setattr(os, "environ", {**before, **environment})
    monkeypatch.setattr("os.environ", {**before, **environment})
    plugin = FullyShardedDataParallelPlugin()
    reshard, offload = SHARDED[name]
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is reshard
    assert isinstance(plugin.cpu_offload, CPUOffloadPolicy) is offload


def test_a_launch_says_how_many_share_their_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for path in CONFIGS if path.stem == "fsdp2-context")
    args = launched(path, "--main_process_ip", "10.0.0.1", "--main_process_port", "29500")
    monkeypatch.setattr("os.environ", {**os.environ, **prepare_multi_gpu_env(args)})
    assert os.environ["ACCELERATE_USE_PARALLELISM_CONFIG"] == "true"
    told = ParallelismConfig()
    assert (told.cp_size, told.total_size) == (2, args.num_processes)


def test_many_nodes_are_one_line_each() -> None:
    path = next(path for path in CONFIGS if path.stem == "fsdp2-nodes")
    args = launched(path, "--machine_rank", "3", "--main_process_ip", "10.0.0.1", "--main_process_port", "29500")
    assert (args.num_machines, args.num_processes, args.machine_rank) == (64, 512, 3)
