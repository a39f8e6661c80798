"""The learning rate over a run."""

from __future__ import annotations

import math

from wam.training.config import TrainConfig


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Warm-up, then cosine. `total` 0 means not known yet (still timing): warm-up only."""
    o = config.optimizer
    if step < o.warmup or total <= o.warmup:
        return o.learning_rate * min(1.0, (step + 1) / max(1, o.warmup))
    progress = min(1.0, (step - o.warmup) / max(1, total - o.warmup))
    return o.learning_rate * (o.final_rate + (1 - o.final_rate) * (1 + math.cos(math.pi * progress)) / 2)
