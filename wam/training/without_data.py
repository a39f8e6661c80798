"""What a stage trains, on batches of noise with the shapes of its config: for measuring a run before its data are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.model.cloning import CloningPolicy
from wam.model.synthetic import synthetic_batch
from wam.model.wam import WorldActionModel
from wam.tokenizers.autoencoder import Autoencoder, autoencoder_loss
from wam.tokenizers.interface import to_signed
from wam.tokenizers.latent_action.objective import LatentActionObjective
from wam.training.config import TrainConfig
from wam.training.latents import LatentLabels
from wam.training.objective import joint_losses
from wam.training.stages.cloning import as_joint

Losses = Callable[[Batch, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class WithoutData:
    """module: what is trained. losses: of a batch like `batch`, which has the run's batch size."""

    module: nn.Module
    losses: Losses
    batch: Batch


def make_without_data(config: TrainConfig) -> WithoutData:
    """Raises WamError for a stage that cannot be planned."""
    makers = {
        "joint": _joint,
        "pretrain": _joint,
        "posttrain": _joint,
        "autoencoder": _autoencoder,
        "cloning": _cloning,
        "latent-action": _latent_action,
    }
    if config.stage not in makers:
        raise expected(f"a stage among {', '.join(makers)}", got=repr(config.stage), do="plan one of them")
    return makers[config.stage](config)


def _batch(config: TrainConfig) -> Batch:
    return synthetic_batch(config.model, config.batch_size, seed=config.seed)


def _joint(config: TrainConfig) -> WithoutData:
    """With its latent actions read off every batch, which costs a pass of their tokenizer."""
    labels = LatentLabels(config.latent_actions, config.model) if config.latent_actions else None
    if labels is not None:
        config.model.latent_action_dim, config.model.latent_action_length = labels.dim, labels.length
    model, batch = WorldActionModel(config.model), _batch(config)

    def losses(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return joint_losses(model, batch if labels is None else labels.label(batch), generator=generator)

    return WithoutData(
        module=model,
        losses=losses,
        batch=batch.without("action", "action_mask", "state") if config.stage == "pretrain" else batch,
    )


def _autoencoder(config: TrainConfig) -> WithoutData:
    module = Autoencoder()
    return WithoutData(
        module=module,
        losses=lambda batch, generator: autoencoder_loss(module, to_signed(batch.images), generator=generator),
        batch=_batch(config),
    )


def _cloning(config: TrainConfig) -> WithoutData:
    own = as_joint(config)
    policy = CloningPolicy(own)
    config.model.views = own.views
    return WithoutData(module=policy, losses=lambda batch, _: {"loss": policy.loss(batch)}, batch=_batch(config))


def _latent_action(config: TrainConfig) -> WithoutData:
    own = config.latent_action
    own.views = len(config.data.cameras)
    seen = replace(
        config.model,
        views=own.views,
        history=1,
        image_size=own.image_size,
        future=[own.gap * (step + 1) for step in range(own.pairs)],
        chunk=own.gap * own.pairs,
    )
    objective = LatentActionObjective(
        own, **({"action_dim": seen.action_dim, "state_dim": seen.state_dim} if own.labels.share else {})
    )
    batch = synthetic_batch(seen, config.batch_size, seed=config.seed)
    if not own.labels.share:
        batch = batch.without("action", "action_mask", "state")
    labelled = torch.ones(config.batch_size, dtype=torch.bool) if own.labels.share else None

    def losses(batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        known = None if labelled is None else labelled[: batch.size].to(batch.images.device)
        return objective.losses(batch, generator=generator, labelled=known)

    return WithoutData(module=objective, losses=losses, batch=batch)
