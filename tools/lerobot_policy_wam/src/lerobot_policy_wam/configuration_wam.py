"""The settings of a policy of wam's, as LeRobot keeps them in config.json. `wam export RUN --format lerobot` fills them in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig

from wam.contracts import expected
from wam.control.lerobot import TYPE, camera_key, settings_of


@PreTrainedConfig.register_subclass(TYPE)
@dataclass
class WamConfig(PreTrainedConfig):
    """n_action_steps: actions carried out of each chunk of chunk_size. conditional, steps, guidance, seed: how chunks are
    sampled, see `wam.control.wam_policy`. checkpoint: the config of wam's checkpoint; provenance: where the weights came
    from; sha256: of model.safetensors. normalization_mapping: none, since the network scales what it reads and says. The
    rest is of LeRobot's trainer.
    """

    chunk_size: int = 0
    n_action_steps: int = 1
    conditional: str = "policy"
    steps: int = 1
    guidance: float = 1.0
    seed: int = 0
    checkpoint: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )
    optimizer_lr: float = 1e-4
    optimizer_weight_decay: float = 1e-2

    @property
    def settings(self) -> dict[str, Any]:
        """Of the network: chunk, action_dim, image_size and so on."""
        return dict(settings_of(self.checkpoint)[1])

    @property
    def cameras(self) -> dict[str, str]:
        """Key of a batch for each camera, in the network's order."""
        return {name: camera_key(name) for name in self.checkpoint.get("cameras", ())}

    def validate_features(self) -> None:
        """Raises WamError where the network cannot do what is asked."""
        settings = self.settings
        if not 1 <= self.n_action_steps <= settings["chunk"]:
            raise expected(
                f"n_action_steps from 1 to {settings['chunk']}, the chunk", got=self.n_action_steps, do="set it within"
            )
        if set(self.normalization_mapping.values()) - {NormalizationMode.IDENTITY}:
            raise expected(
                "a normalization_mapping of IDENTITY",
                got=", ".join(sorted({mode.value for mode in self.normalization_mapping.values()})),
                do="leave it as it was written: the network scales by itself",
            )
        action = self.action_feature
        if action is not None and tuple(action.shape) != (settings["action_dim"],):
            raise expected(
                f"an environment or dataset with actions of {settings['action_dim']} numbers",
                got=f"shape {tuple(action.shape)}",
                do="use the robot that the policy was trained for",
            )

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def get_scheduler_preset(self) -> None:
        return None
