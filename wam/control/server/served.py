"""A policy with what its clients must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wam.contracts import ActionSpace, Observation, expected
from wam.control.exported import ABOUT, GRAPH, ExportedPolicy
from wam.control.policy import Policy
from wam.control.server.config import PolicyOptions

if TYPE_CHECKING:
    from wam.control.wam_policy import WamPolicy


@dataclass(frozen=True, kw_only=True)
class Served:
    """cameras: those the policy looks at, in its order. image_size: side of the square pictures it takes. state_dim: S.
    action_dim: A. sha256: of the weights; random: whether they are untrained."""

    policy: Policy
    cameras: tuple[str, ...]
    image_size: int
    state_dim: int
    action_dim: int
    action_space: ActionSpace | None = None
    name: str = ""
    sha256: str = ""
    random: bool = False

    def example(self) -> Observation:
        """A grey observation, of the shapes the policy takes."""
        grey = np.full((self.image_size, self.image_size, 3), 127, np.uint8)
        state = np.zeros(self.state_dim, np.float32) if self.state_dim else None
        return Observation(images=dict.fromkeys(self.cameras, grey), state=state)


def load_served(folder: Path, options: PolicyOptions, *, image_size: int = 0) -> Served:
    """The policy of a checkpoint folder, or of a student's export. image_size: in place of what a checkpoint says, for
    models that take any."""
    if (folder / ABOUT).is_file():
        return _exported(folder, options)
    return _checkpoint(folder, options, image_size)


def _exported(folder: Path, options: PolicyOptions) -> Served:
    if replace(options, threads=0) != PolicyOptions():
        raise expected("no options but policy.threads for an exported student", got="others", do="export it with them")
    policy = ExportedPolicy(folder, threads=options.threads or 1)
    student = policy.about["student"]
    return Served(
        policy=policy,
        cameras=policy.cameras,
        image_size=student["image_size"],
        state_dim=student["state_dim"],
        action_dim=student["action_dim"],
        action_space=policy.action_space,
        name=str(folder),
        sha256=policy.about["sha256"][GRAPH],
        random=policy.about["provenance"].get("random") is not False,
    )


def _checkpoint(checkpoint: Path, options: PolicyOptions, image_size: int) -> Served:
    from wam.control.wam_policy import load_policy

    policy = load_policy(
        checkpoint,
        threads=options.threads,
        conditional=options.conditional,
        steps=options.steps,
        guidance=options.guidance,
        seed=options.seed,
        device=options.device,
    )
    model, provenance = policy.model, policy.model.provenance
    acting = _with_teacher(policy, checkpoint, options)
    if not policy.cameras:
        raise expected(f"{checkpoint} to name its cameras", got="none", do="train it from a config with data.cameras")
    return Served(
        policy=acting,
        cameras=policy.cameras,
        image_size=image_size or _image_size(model.config, provenance),
        state_dim=model.config.state_dim,
        action_dim=model.config.action_dim,
        action_space=model.action_space,
        name=str(checkpoint),
        sha256=str(provenance.get("sha256", {}).get("model.safetensors", "")),
        random=bool(provenance.get("random", True)),
    )


def _with_teacher(alone: WamPolicy, checkpoint: Path, options: PolicyOptions) -> Policy:
    """The student alone, or with its teacher where the options say so."""
    from wam.control.pairing import load_paired
    from wam.control.routing import load_routed

    pairing, routing = options.pairing, options.routing
    own: dict[str, Any] = {"steps": options.steps, "seed": options.seed, "device": options.device}
    if pairing.hz and routing.calibration:
        raise expected("policy.pairing or policy.routing", got="both", do="leave one out")
    if pairing.hz:
        return load_paired(checkpoint, teacher=pairing.teacher or None, hz=pairing.hz, **own)
    if routing.calibration:
        return load_routed(
            checkpoint,
            calibration=Path(routing.calibration),
            share=routing.share,
            teacher=routing.teacher or None,
            teacher_steps=routing.steps,
            **own,
        )
    return alone


def _image_size(config: Any, provenance: Mapping[str, Any]) -> int:
    """Of the model, or of the run that trained it."""
    trained = provenance.get("config", {}).get("model", {}).get("image_size", 0)
    size = int(getattr(config, "image_size", 0) or trained)
    if not size:
        raise expected("a checkpoint that says its pictures' size", got="none", do="set image_size=, as in training")
    return size
