"""Which optimizer steps which parameter.

`muon` steps the weights of linear and convolutional layers by their orthogonalised momentum (Jordan et al. 2024) and
everything else by AdamW, at one learning rate: the update of a matrix is scaled to the size AdamW's would have (Liu et
al. 2025). A step costs more and teaches much more; docs/architecture.md has the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wam.contracts import expected
from wam.training.config import OptimizerConfig


def make_optimizers(module: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """One or two optimizers that between them step every parameter of the module that is trained."""
    if config.kind not in ("adamw", "muon", "adamw8bit"):
        raise expected("optimizer.kind adamw, muon or adamw8bit", got=repr(config.kind), do="name one of the three")
    chosen = {id(p) for p in layer_weights(module)} if config.kind == "muon" else set()
    trained = [p for p in module.parameters() if p.requires_grad and p.numel()]  # empty ones, such as of no registers
    rest = [p for p in trained if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        options: dict[str, Any] = {
            "lr": config.learning_rate,
            "betas": (config.betas[0], config.betas[1]),
            "weight_decay": config.weight_decay,
        }
        if config.kind == "adamw8bit":
            optimizers.append(_eight_bits()(rest, **options))
        else:
            optimizers.append(torch.optim.AdamW(rest, fused=True, **options))
    if matrices := [p for p in trained if id(p) in chosen]:
        optimizers.append(
            MatrixMuon(
                matrices,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def _eight_bits() -> Any:
    """bitsandbytes' AdamW. Raises WamError where there is no GPU, or where it is not installed."""
    if not torch.cuda.is_available():
        raise expected("a GPU for optimizer.kind=adamw8bit", got="none", do="set optimizer.kind=adamw")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise expected(
            "the package bitsandbytes for optimizer.kind=adamw8bit",
            got="none",
            do="install it with pip install 'wam[eight-bit]', or set optimizer.kind=adamw",
        ) from error
    return AdamW8bit


def layer_weights(module: nn.Module) -> Sequence[Tensor]:
    """What maps features to features: no embeddings, biases, norms, nor weights that are one for each robot."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [layer.weight for layer in module.modules() if isinstance(layer, kinds)]


class MatrixMuon(torch.optim.Muon):
    """Muon that takes a convolution's weight (out, in, ...) as the matrix (out, in * ...), which the same memory holds."""

    def __init__(self, params: Sequence[nn.Parameter], **options: Any) -> None:
        self._weights = list(params)
        self._matrices = [nn.Parameter(p.detach().flatten(1)) for p in self._weights]
        super().__init__(self._matrices, **options)

    def _follow(self) -> None:
        """The module may have moved to another device since."""
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            matrix.data = weight.detach().flatten(1)

    def step(self, closure: Any = None) -> Any:
        self._follow()
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in (*self._weights, *self._matrices):
            parameter.grad = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._follow()
        super().load_state_dict(state_dict)
