"""Low-rank adapters beside the layers of a stream's experts, by peft; the weights they stand beside are trained no more."""

from __future__ import annotations

from torch import nn

from wam.contracts import expected
from wam.model.backbones.config import LoraConfig

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "to_qkv", "to_out", "q_proj", "k_proj", "v_proj", "o_proj")
"""Where adapters go unless the config says: the maps of attention, by the names of pretrained and native experts."""


def add_adapters(layers: nn.Module, config: LoraConfig, *, stream: str) -> None:
    """Put adapters beside the linear maps of `layers` whose names end in one of the targets.

    They start as nothing: the output is what it was. Raises WamError where peft is not installed or a target names no map.
    """
    config.validate()
    linear = [name for name, module in layers.named_modules() if isinstance(module, nn.Linear)]
    targets = config.targets or [target for target in ATTENTION if _ending(linear, target)]
    if unknown := [target for target in targets if not _ending(linear, target)]:
        names = sorted({name.partition(".")[2].removeprefix("block.") for name in linear})
        raise expected(
            f"lora.targets of stream {stream!r} among {', '.join(names)}", got=unknown, do="mend the stream's `lora`"
        )
    try:
        import peft
    except ImportError as error:
        raise expected(
            "the package peft for adapters", got="none", do="install it with pip install 'wam[adapters]'"
        ) from error
    chosen = sorted({name for target in targets for name in _ending(linear, target)})
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=chosen),
        layers,
    )


def is_adapter(name: str) -> bool:
    """Is the parameter of this name one that adapters brought?"""
    return ".lora_" in name


def plain_name(name: str) -> str:
    """The name that a weight had before adapters stood beside it."""
    return name.replace(".base_layer.", ".")


def _ending(names: list[str], target: str) -> list[str]:
    return [name for name in names if name == target or name.endswith(f".{target}")]
