"""What a student gains by the thoughts of its slow teacher: success at several delays of a thought, beside both alone.

Time is simulated: a thought comes so long after the frame that it is of, and the student acts meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from wam.contracts import expected
from wam.control.pairing import ABSENT, FRESH, STALE, load_pair, paired_in_step
from wam.control.policy import Policy
from wam.control.wam_policy import WamPolicy, load_policy, teacher_of
from wam.evaluation.figures import Measured
from wam.evaluation.student import seen_by
from wam.evaluation.together import Side, TogetherConfig, drive_side
from wam.files import sha256
from wam.training.state import newest_checkpoint


@dataclass(kw_only=True)
class PairingEvaluateConfig(TogetherConfig):
    """hz: thoughts a second, at most. delays_ms: of a thought, from its frame to when it is there. controls: name -> run of a
    student that acts alone, such as {plain: runs/distill/student-0}."""

    hz: float = 2.0
    delays_ms: list[float] = field(default_factory=lambda: [0.0, 200.0, 500.0])
    controls: dict[str, str] = field(default_factory=dict)

    def validate(self) -> None:
        super().validate()
        if self.hz <= 0 or not self.delays_ms or min(self.delays_ms) < 0 or {"alone", "teacher"} & set(self.controls):
            raise expected(
                "hz above 0, delays of 0 or more, and controls of other names than alone and teacher",
                got=f"{self.hz}, {self.delays_ms} and {sorted(self.controls)}",
                do="mend them",
            )


def evaluate(run: Path, config: PairingEvaluateConfig, *, say: Callable[[str], None] = print) -> Measured:
    config.validate()
    if config.threads:
        torch.set_num_threads(config.threads)
    checkpoint = newest_checkpoint(run)
    folder = Path(config.output) if config.output else run / "evaluation" / "pairing"
    teacher = newest_checkpoint(Path(config.teacher)) if config.teacher else teacher_of(checkpoint)
    student, thinker = load_pair(checkpoint, teacher=teacher, seed=config.seed)
    weights = {"student": sha256(checkpoint / "model.safetensors"), "teacher": sha256(teacher / "model.safetensors")}
    options: dict[str, Any] = {"steps": config.student_steps, "seed": config.seed}
    make = seen_by(checkpoint)

    def side(name: str, policy: Callable[[], Policy], **about: object) -> Side:
        say(name)
        return drive_side(name, policy, config, folder, identity={**weights, **about}, make=make)

    alone = [
        side(
            "teacher",
            lambda: WamPolicy(thinker.model, cameras=thinker.cameras, steps=config.teacher_steps, seed=config.seed),
            steps=config.teacher_steps,
        ),
        side("alone", lambda: WamPolicy(student, **options), steps=config.student_steps),
    ]
    for name, other in config.controls.items():
        beside = newest_checkpoint(Path(other))
        about = {"control": sha256(beside / "model.safetensors"), "steps": config.student_steps}
        alone.append(side(name, lambda beside=beside: load_policy(beside, **options), **about))  # type: ignore[misc]
    paired = []
    for delay in config.delays_ms:

        def policy(delay: float = delay) -> Policy:
            return paired_in_step(student, thinker, execute=config.execute, hz=config.hz, delay=delay / 1e3, **options)

        paired.append(side(f"paired_{delay:g}ms", policy, hz=config.hz, steps=config.student_steps))
    return figures(alone, paired)


def figures(alone: Sequence[Side], paired: Sequence[Side]) -> Measured:
    found = Measured()
    for side in (*alone, *paired):
        found.add(f"success_{side.name}", side.success, len(side.episodes))
    for side in paired:
        for what in (FRESH, STALE, ABSENT):
            found.add(f"thought_{what}_{side.name.removeprefix('paired_')}", side.share(what), side.chunks)
    return found
