"""A policy of wam's as one of LeRobot's: the same network and the same actions, asked through LeRobot's methods."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lerobot.__version__ import __version__
from lerobot.policies import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from torch import Tensor, nn

from lerobot_policy_wam.configuration_wam import WamConfig
from lerobot_policy_wam.observation import to_observations
from wam.checkpoint import WEIGHTS
from wam.contracts import Observation, expected
from wam.control import wam_policy
from wam.control.lerobot import build_network
from wam.files import sha256
from wam.model.student import Student

ACTION_IS_PAD = "action_is_pad"


class WamPolicy(PreTrainedPolicy):
    """A student, a world-action model or a cloning policy. Actions come in the dataset's units, within the action space."""

    config_class = WamConfig
    name = "wam"

    def __init__(self, config: WamConfig, **_: Any) -> None:
        """Weights are random until they are loaded. The network has its own of a dataset's statistics, which LeRobot passes."""
        super().__init__(config)
        config.validate_features()
        self.model = build_network(config.checkpoint)
        self._acting = wam_policy.WamPolicy(
            self.model,
            conditional=config.conditional,
            steps=config.steps,
            guidance=config.guidance,
            seed=config.seed,
            device=config.device or "cpu",
        )
        self._queue: deque[Tensor] = deque()
        self._trained = False
        if config.provenance.get("random") is not False:
            logging.warning("this policy's weights are random: its checkpoint was never trained")

    # acting ------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """An episode begins in every row: forget the actions that are left and the frames that were shown."""
        self._queue.clear()
        self._acting.reset()

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any]) -> Tensor:
        """(B, K, A). A network that looks back takes each call's frames for those before the next call's."""
        self.eval()
        self._acting.device = device = self._device
        return torch.from_numpy(self._acting.act(self._observations(batch))).to(device, torch.float32)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any]) -> Tensor:
        """(B, A): the next of the chunk, of which n_action_steps are carried out before another is planned."""
        if not self._queue:
            chunk = self.predict_action_chunk(batch)[:, : self.config.n_action_steps]
            self._queue.extend(chunk.transpose(0, 1))
        return self._queue.popleft()

    def _observations(self, batch: dict[str, Any]) -> list[Observation]:
        settings = self.model.config
        return to_observations(batch, self.config.cameras, state=bool(settings.state_dim), size=settings.image_size)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    # training ----------------------------------------------------------------------------------------------------

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """A student's cloning loss on a dataset's chunks, over real steps, some states hidden as wam hides them.

        Raises WamError for other networks, whose losses wam's own trainer has.
        """
        student = self.model
        if not isinstance(student, Student) or student.config.history > 1:
            seen = "frames of the past" if isinstance(student, Student) else type(student).__name__
            raise expected(
                "a student of one frame, which LeRobot can train", got=seen, do="train it with wam: wam train"
            )
        if ACTION_IS_PAD not in batch:
            raise expected(f"windows with {ACTION_IS_PAD}", got="none", do="train from a dataset of LeRobot's")
        self._trained |= self.training
        observations = self._observations(batch)
        seen = wam_policy.to_batch(observations, student.cameras).to(self._device)
        hide = torch.rand(len(observations)) < student.config.state_dropout if self.training else None
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))  # so LeRobot's seed is this one's too
        chunk = student.normalizer("action").normalize(batch[ACTION].to(self._device).float())
        mask = (~batch[ACTION_IS_PAD].to(self._device)).float()
        loss = student.head.loss(student.look(seen, hide=hide), chunk, mask, generator=generator)
        return loss, {"cloning_loss": loss.item()}

    def get_optim_params(self) -> Iterator[nn.Parameter]:
        return self.parameters()

    # files -------------------------------------------------------------------------------------------------------

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        if self._trained:
            self.config.provenance = {**self.config.provenance, "trained_further": f"lerobot {__version__}"}
        super()._save_pretrained(save_directory, state_dict=state_dict)
        self.config.sha256 = sha256(save_directory / WEIGHTS)
        self.config._save_pretrained(save_directory)

    @classmethod
    def _load_as_safetensor(cls, model: WamPolicy, model_file: str, map_location: str, strict: bool) -> WamPolicy:
        """All weights or none, as they were written: LeRobot would let weights that lack stay random."""
        found = sha256(Path(model_file)) if Path(model_file).is_file() else "no file"
        if found != model.config.sha256:
            raise expected(
                f"{model_file} with sha256 {model.config.sha256[:12]}",
                got=found[:12],
                do="the file was damaged or changed; export it again",
            )
        try:
            return super()._load_as_safetensor(model, model_file, map_location, True)
        except RuntimeError as error:
            raise expected(
                f"weights for every part of the network in {model_file}",
                got=" ".join(str(error).split())[:200],
                do="use the version of wam that its provenance names",
            ) from error
