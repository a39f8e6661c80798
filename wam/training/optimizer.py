"""Which optimizer steps which parameter.

`muon` steps the weights of linear layers by their orthogonalised momentum (Jordan et al. 2024) and everything else by
AdamW, at one learning rate: the update of a matrix is scaled to the size AdamW's would have (Liu et al. 2025). A step
costs more and teaches much more; see docs/architecture.md for the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wam.contracts import expected
from wam.training.config import OptimizerConfig


def make_optimizers(module: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """One or two optimizers that between them step every parameter of the module that is trained."""
    if config.kind not in ("adamw", "muon"):
        raise expected("optimizer.kind adamw or muon", got=repr(config.kind), do="name one of the two")
    chosen = {id(p) for p in linear_weights(module)} if config.kind == "muon" else set()
    trained = [p for p in module.parameters() if p.requires_grad]
    rest = [p for p in trained if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        optimizers.append(
            torch.optim.AdamW(
                rest,
                lr=config.learning_rate,
                betas=(config.betas[0], config.betas[1]),
                weight_decay=config.weight_decay,
                fused=True,
            )
        )
    if matrices := [p for p in trained if id(p) in chosen]:
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def linear_weights(module: nn.Module) -> Sequence[Tensor]:
    """Matrices that map features to features; embeddings, biases, norms, convolutions and heads per robot are none."""
    return [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]
