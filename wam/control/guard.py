"""The safety guard: the last thing between a policy and a robot. It knows nothing of models, and needs numpy alone.

    guard = SafetyGuard(space, limits)
    verdict = guard.check(action, position=hand, seen_at=seen_at, sequence=number)
    robot.send(verdict.action)  # always safe to send: the action, the action cut to its limits, or a hold
    guard.counts  # interventions by reason

Every command is asked, in this order: finite, shape, position limits, velocity, acceleration, workspace, collision, age of the
observation, underrun (no command), watchdog, e-stop. It fails closed, and to fail is to hold: displacements become 0
and the gripper stays as it was; of absolute actions the last safe one is repeated. A hold asks nobody, since a robot may
always stop. Source of the order and of speeding up as what is limited: ros2_control's limiters; the rest is ours.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wam.contracts import ActionSpace, expected
from wam.control.limits import GuardLimits, Rules
from wam.control.stages import OF_THE_ACTION, OF_THE_MOMENT, Situation, Stage, Veto, as_numbers, hand_move, underrun


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """action (A,) float64: what to send. reasons: why it is not what was asked for, if it is not. held: it is a hold."""

    action: np.ndarray
    reasons: tuple[str, ...] = ()
    held: bool = False


@dataclass(frozen=True, kw_only=True)
class ChunkVerdict:
    """actions (K, A): what would be sent. reasons: of each step. safe: how many of the first steps stay as they are."""

    actions: np.ndarray
    reasons: tuple[tuple[str, ...], ...]

    @property
    def safe(self) -> int:
        return next((step for step, why in enumerate(self.reasons) if why), len(self.reasons))


class SafetyGuard:
    """Judges one command at a time, at the robot's interface; `vet` looks at a whole chunk beforehand.

    rate_hz: of commands, if not the action space's. start (A,): where the robot stands, needed where actions are absolute.
    veto: may forbid a move, such as `wam.control.collision.OccupancyVeto`. button: asked at every command; True stops the
    robot until `release`. on_stop: called once with the reason when the robot is stopped. clock: monotonic seconds.
    `stop` may be called from any thread, the rest from one at a time. Stages are asked in the order of `stages`, then
    `moment_stages`.
    """

    stages: tuple[Stage, ...] = OF_THE_ACTION
    moment_stages: tuple[Stage, ...] = OF_THE_MOMENT

    def __init__(
        self,
        space: ActionSpace,
        limits: GuardLimits | None = None,
        *,
        rate_hz: float | None = None,
        start: np.ndarray | None = None,
        veto: Veto | None = None,
        button: Callable[[], bool] | None = None,
        on_stop: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.space, self.rules = space, Rules.of(space, limits or GuardLimits(), rate_hz=rate_hz)
        self.counts: Counter[str] = Counter()
        self.commands = 0
        self.stopped = ""
        self._veto, self._button, self._on_stop, self._clock = veto, button, on_stop, clock
        self.reset(start)

    def reset(self, start: np.ndarray | None = None) -> None:
        """A new episode, from standstill. What was counted stays, and so does an e-stop."""
        self.last = self._begin(start)
        self._velocity = np.zeros_like(self.last)
        self._at: float | None = None
        self._newest: tuple[int, float] | None = None
        self._held_in_a_row, self._silence_counted = 0, False

    def stop(self, reason: str = "e-stop") -> None:
        """Hold every command from now on, until `release`."""
        if not self.stopped:
            self.stopped = reason or "e-stop"
            if self._on_stop is not None:
                self._on_stop(self.stopped)

    def release(self) -> None:
        """Lift an e-stop: a person's decision, never the program's."""
        self.stopped, self._held_in_a_row = "", 0

    def check(
        self,
        action: Any,
        *,
        position: np.ndarray | None = None,
        seen_at: float | None = None,
        sequence: int | None = None,
    ) -> Verdict:
        """Judge a command that is about to be sent, or None where there is none.

        position: of the hand now, (3,) metres in the world. seen_at: when the observation behind the action was taken, by the
        guard's clock; sequence: that observation's number, which may never fall.
        """
        self._ask_button()
        now, period = self._clock(), self.rules.period
        silence = 0.0 if self._at is None else now - self._at
        on_time = self._at is None or silence >= (1 - self.rules.limits.early) * period
        at = self._situation(
            dt=period if on_time else max(silence, 0.0),
            position=position,
            age=None if seen_at is None else now - seen_at,
            replayed=self._replayed(sequence, seen_at),
            silence=silence,
        )
        stages = (underrun,) if action is None else (*self.stages, *self.moment_stages)
        found, reasons = _ask(stages, action, at)
        self._at, self.commands = now, self.commands + 1
        self._count(reasons)
        self._silence_counted = False
        verdict = self._settle(found, at, reasons)
        if not verdict.held and sequence is not None:
            self._newest = (sequence, np.nan if seen_at is None else seen_at)
        return verdict

    def poll(self) -> np.ndarray | None:
        """A hold (A,) if no command was checked for longer than the watchdog waits, else None; for a timer of its own."""
        longest = self.rules.limits.watchdog
        if not longest or self._at is None or self._clock() - self._at <= longest:
            return None
        if not self._silence_counted:
            self.counts["watchdog"] += 1
            self._silence_counted = True
        self.last, self._velocity = self.hold(), np.zeros_like(self.last)
        return self.last.copy()

    def hold(self) -> np.ndarray:
        """(A,): the command that makes the robot stay where it is."""
        return np.where(self.rules.moves, 0.0, self.last)

    def vet(self, chunk: Any, *, position: np.ndarray | None = None) -> ChunkVerdict:
        """What would become of a chunk (K, A) that begins now, one action a period; nothing is sent or counted.

        position: of the hand now; later ones are where displacements would take it.
        """
        numbers = as_numbers(chunk)
        if numbers is None or numbers.ndim != 2 or not len(numbers):
            return ChunkVerdict(actions=self.hold()[None], reasons=(("shape",),))
        at, actions, reasons = self._situation(dt=self.rules.period, position=position), [], []
        for row in numbers:
            found, why = _ask(self.stages, row, at)
            if self.stopped:
                found, why = None, [*why, "estop"]
            held = found is None
            command = np.where(self.rules.moves, 0.0, at.last) if found is None else found
            actions.append(command)
            reasons.append(tuple(why))
            at = self._situation(
                dt=self.rules.period,
                last=command,
                velocity=np.zeros_like(command) if held else at.displacement(command) / at.dt,
                position=at.position if held else hand_move(command, at)[1],
            )
        return ChunkVerdict(actions=np.stack(actions), reasons=tuple(reasons))

    def _begin(self, start: np.ndarray | None) -> np.ndarray:
        rules = self.rules
        if start is None:
            if not rules.delta:
                raise expected(
                    "where the robot stands, since its actions are absolute", got="nothing", do="give `start` (A,)"
                )
            return np.clip(np.zeros_like(rules.low), rules.low, rules.high)
        found = as_numbers(start)
        if found is None or found.shape != rules.low.shape or not np.isfinite(found).all():
            raise expected(f"a finite start of shape {rules.low.shape}", got=start, do="read it off the robot")
        return found

    def _situation(self, *, position: np.ndarray | None, **known: Any) -> Situation:
        place = None if position is None else as_numbers(position)
        if place is not None and (place.shape != (3,) or not np.isfinite(place).all()):
            place = None
        known = {"last": self.last, "velocity": self._velocity, **known}
        return Situation(rules=self.rules, position=place, veto=self._veto, stopped=self.stopped, **known)

    def _replayed(self, sequence: int | None, seen_at: float | None) -> bool:
        if sequence is None or self._newest is None:
            return False
        number, at = self._newest
        return sequence < number or (seen_at is not None and seen_at < at)

    def _settle(self, found: np.ndarray | None, at: Situation, reasons: list[str]) -> Verdict:
        """Remember what is sent, and stop the robot after too many holds."""
        held = found is None
        command = self.hold() if found is None else found
        moved = at.displacement(command)
        self._velocity = np.zeros_like(command) if held or at.dt <= 0 else moved / at.dt
        self.last = command
        self._held_in_a_row = self._held_in_a_row + 1 if held else 0
        longest = self.rules.limits.latch_after
        if longest and self._held_in_a_row >= longest:
            self.stop(f"{self._held_in_a_row} commands held in a row, the last for {', '.join(reasons)}")
        return Verdict(action=command.copy(), reasons=tuple(reasons), held=held)

    def _ask_button(self) -> None:
        """A button that cannot be read counts as pressed."""
        if self._button is None:
            return
        try:
            pressed = bool(self._button())
        except Exception:
            pressed = True
        if pressed:
            self.stop("button")

    def _count(self, reasons: list[str]) -> None:
        self.counts.update(reason for reason in reasons if reason != "watchdog" or not self._silence_counted)


def _ask(stages: tuple[Stage, ...], command: Any, at: Situation) -> tuple[np.ndarray | None, list[str]]:
    """The command after every stage, or None from the first that holds it, and the stages that changed it.

    Turning a list into numbers is no intervention, and neither is a copy of equal ones.
    """
    reasons: list[str] = []
    for stage in stages:
        passed = stage(command, at)
        if passed is None:
            return None, [*reasons, stage.__name__]
        if isinstance(command, np.ndarray) and passed is not command and not np.array_equal(passed, command):
            reasons.append(stage.__name__)
        command = passed
    return command, reasons
