"""Broken chunks through the safety guard: does anything that a robot must not get come out at its interface?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wam.contracts import ActionSpace
from wam.control.collision import OccupancyVeto
from wam.control.guard import SafetyGuard
from wam.control.limits import GuardLimits, Workspace
from wam.evaluation.bench.judge import Judge, Moment
from wam.evaluation.bench.timing import BenchResult, Target

K, SIDE, RADIUS, SHAPE, ORIGIN = 8, 0.05, 0.06, (20, 20, 12), (-0.5, -0.5, 0.0)
NAMES = ("x", "y", "z", "gripper")


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class _Robot:
    """One kind of actions: the guard, the judge, where the hand is, and what the fuzzer has done to them."""

    space: ActionSpace
    guard: SafetyGuard
    judge: Judge
    clock: _Clock
    hand: np.ndarray
    sequence: int = 0
    pressed: bool = False

    @property
    def delta(self) -> bool:
        return self.space.kind == "delta"

    def standing(self) -> np.ndarray:
        """(A,): the command of a robot that stands here."""
        return np.zeros(4) if self.delta else np.array([*self.hand, 0.0])


def make_robot(kind: str, make_guard: Callable[..., SafetyGuard] = SafetyGuard) -> _Robot:
    """A hand in a room of one metre with a pillar in it, moved by displacements or to places, at 20 Hz."""
    delta = kind == "delta"
    reach = (1.0, 1.0, 1.0) if delta else (0.7, 0.7, 0.8)
    space = ActionSpace(
        names=NAMES,
        units=("5 cm",) * 3 + ("effort",) if delta else ("m",) * 3 + ("effort",),
        low=(*(-r for r in reach), -1.0),
        high=(*reach, 1.0),
        kind="delta" if delta else "absolute",
        rate_hz=20,
        gripper="gripper",
    )
    unit = 1.0 if delta else 0.05  # a displacement of one unit is five centimetres
    limits = GuardLimits(
        velocity={**dict.fromkeys("xyz", 16.0 * unit), "gripper": 30.0},
        acceleration=dict.fromkeys("xyz", 160.0 * unit),
        workspace=Workspace(low=(-0.45, -0.45, 0.05), high=(0.45, 0.45, 0.55), metres=0.05 if delta else 1.0),
        max_age=0.5,
        watchdog=0.3,
        latch_after=40,
    )
    occupied = np.zeros(SHAPE, bool)
    occupied[14:16, 9:11, :8] = True
    clock, hand = _Clock(), np.array([0.0, 0.0, 0.3])
    robot = _Robot(
        space=space,
        guard=make_guard(
            space,
            limits,
            start=None if delta else np.array([*hand, 0.0]),
            veto=OccupancyVeto(occupied, origin=np.array(ORIGIN), side=SIDE, radius=RADIUS),
            clock=clock,
        ),
        judge=Judge(
            names=NAMES,
            low=np.array(space.low),
            high=np.array(space.high),
            displaced=np.array([delta, delta, delta, False]),
            period=1 / space.rate_hz,
            limits=limits,
            boxes=np.argwhere(occupied) * SIDE + np.array(ORIGIN),
            side=SIDE,
            radius=RADIUS,
        ),
        clock=clock,
        hand=hand,
    )
    robot.judge.reset(robot.standing())
    return robot


FAULTS = (
    *("plain", "nan", "infinity", "shape", "dtype", "huge", "step", "slightly beyond", "outside", "pillar", "stale"),
    *("from the future", "replayed", "of unknown age", "lost", "blind", "early", "silent", "nothing", "stop"),
)


def bench_fuzz_guard(
    *, chunks: int = 10_000, seed: int = 0, make_guard: Callable[..., SafetyGuard] = SafetyGuard
) -> BenchResult:
    """escaped: commands at the robot's interface that break a limit, or move it when it must hold, by a judge that shares
    no code with the guard. crashed: chunks at which the guard raised. plain_moved: of the chunks without a fault, the share of
    commands that were not held, so that a guard which holds everything does not look good.
    """
    rng = np.random.default_rng(seed)
    robots = [make_robot(kind, make_guard) for kind in ("delta", "absolute")]
    faults: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    crashed = commands = escaped = 0
    plain: list[bool] = []
    rounds = -(-chunks // len(FAULTS))
    order = [str(fault) for _ in range(rounds) for fault in rng.permutation(FAULTS)]  # each as often as the others
    for fault in order[:chunks]:
        robot = robots[rng.integers(2)]
        seen[fault] += 1
        try:
            found = _one(robot, fault, rng)
        except Exception as error:
            crashed += 1
            faults[f"raised {type(error).__name__}"] += 1
            continue
        commands += len(found)
        for why, moved in found:
            escaped += bool(why)
            faults.update(why)
            if fault == "plain":
                plain.append(moved)
    return BenchResult(
        name="fuzz-guard",
        figures={"escaped": float(escaped), "crashed": float(crashed), "plain_moved": float(np.mean(plain))},
        detail={
            "commands": commands,
            "chunks": dict(seen),
            "escapes": dict(faults),
            "interventions": {r.space.kind: dict(r.guard.counts) for r in robots},
        },
        n=chunks,
        targets={
            "escaped": Target(value=0, at_least=False),
            "crashed": Target(value=0, at_least=False),
            "plain_moved": Target(value=0.9),
        },
        seeds=(seed,),
    )


def _one(robot: _Robot, fault: str, rng: np.random.Generator) -> list[tuple[list[str], bool]]:
    """One chunk: what the judge says of each command, and whether it moved."""
    guard, clock, period = robot.guard, robot.clock, 1 / robot.space.rate_hz
    if fault in ("plain", "pillar") or rng.random() < 0.05:
        _start_anew(robot, rng, near_pillar=fault == "pillar")
    if guard.stopped:  # a person had a look
        guard.release()
        robot.pressed = False
    chunk = broken_chunk(robot, fault, rng)
    guard.vet(chunk, position=robot.hand)
    robot.sequence += 1
    seen_at, stopping = clock.now, int(rng.integers(K)) if fault == "stop" else -1
    found: list[tuple[list[str], bool]] = []
    for tick, row in enumerate(_rows(chunk)):
        wait = {"early": rng.uniform(0, 0.9), "silent": rng.choice([1.0, 5.0, 9.0])}.get(fault, rng.uniform(0.9, 1.3))
        clock.now += wait * period
        if fault == "silent" and rng.random() < 0.5 and (hold := guard.poll()) is not None:
            found.append(_sent(robot, hold, must_hold="moved by the watchdog"))
        if tick == stopping:
            guard.stop("pressed")
            robot.pressed = True
        told: dict[str, Any] = {"position": robot.hand, "seen_at": seen_at, "sequence": robot.sequence}
        why = "moved while stopped" if robot.pressed else ""
        if fault == "silent":
            told["seen_at"] = seen_at = clock.now  # it has just looked: only the silence speaks against it
        elif fault == "stale":
            told["seen_at"], why = clock.now - rng.uniform(0.51, 100), why or "moved by an old observation"
        elif fault == "from the future":
            told["seen_at"], why = clock.now + rng.uniform(0.01, 100), why or "moved by a later observation"
        elif fault == "of unknown age":
            told["seen_at"], why = None, why or "moved by an observation of unknown age"
        elif fault == "replayed":
            # one command of the newest observation, then older ones
            told["sequence"] = robot.sequence - (tick > 0)
            why = why or ("moved by a replayed observation" if tick and found[0][1] else "")
        elif fault == "lost" and robot.delta:
            told["position"] = [None, np.full(3, np.nan), np.zeros(2), "here"][rng.integers(4)]
            why = why or "moved without knowing where the hand is"
        elif fault == "blind":
            row, why = [None, (), {}, "", b"\x00"][rng.integers(5)], why or "moved by no action"
        elif fault == "nothing":
            row, why = None, why or "moved without a command"
        verdict = guard.check(row, **told)
        found.append(_sent(robot, verdict.action, must_hold=why))
    return found


def _sent(robot: _Robot, command: np.ndarray, *, must_hold: str) -> tuple[list[str], bool]:
    """Give a command to the judge and to the hand, which follows at once."""
    hand = robot.hand.copy()
    found = robot.judge.faults(command, Moment(time=robot.clock.now, hand=hand, must_hold=must_hold))
    if not {"no action", "not finite"} & set(found):
        room = robot.judge.room.metres * command[:3]
        robot.hand = np.clip(hand + room if robot.delta else room, -2, 2)
    return found, bool((robot.hand != hand).any())


def _start_anew(robot: _Robot, rng: np.random.Generator, *, near_pillar: bool) -> None:
    robot.guard.release()
    corners = ((0.02, -0.1, 0.1), (0.12, 0.1, 0.4)) if near_pillar else ((-0.3, -0.3, 0.2), (0.05, 0.3, 0.5))
    robot.pressed, robot.hand = False, rng.uniform(*corners)
    robot.guard.reset(robot.standing())
    robot.judge.reset(robot.standing())
    robot.clock.now += 1.0


def _rows(chunk: Any) -> list[Any]:
    """The actions of a chunk as an executor would take them, whatever it is."""
    try:
        return list(chunk) or [chunk]
    except TypeError:
        return [chunk]


def broken_chunk(robot: _Robot, fault: str, rng: np.random.Generator) -> Any:
    """A smooth chunk (K, A) towards the middle of the room, and one thing wrong with it."""
    goal = {"outside": rng.choice([-3.0, 3.0], 3), "pillar": np.array([0.25, 0.0, 0.2])}.get(
        fault, np.array([-0.15, 0, 0.35])
    )
    way = np.clip(goal - robot.hand, -0.03, 0.03) * np.linspace(0.3, 1, K)[:, None]
    moves = way / 0.05 if robot.delta else robot.hand + np.cumsum(way, axis=0)
    chunk = np.column_stack([moves, np.full(K, robot.guard.last[3])])
    row, column = rng.integers(K), rng.integers(4)
    if fault == "nan":
        chunk[row, column] = np.nan
    elif fault == "infinity":
        chunk[row, column] = rng.choice([-np.inf, np.inf])
    elif fault == "huge":
        chunk[row:, column] = rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(1, 300)
    elif fault == "step":
        chunk[row:, column] += rng.uniform(-2, 2)
    elif fault == "slightly beyond":
        chunk[:, column] = rng.choice([-1.0, 1.0]) * np.array(robot.space.high)[column] * rng.uniform(1, 1.05)
    elif fault == "shape":
        shapes: list[Any] = [
            chunk[:, :3],
            chunk.T,
            chunk[0],
            chunk[None],
            chunk[:0],
            chunk[0, 0],
            np.hstack([chunk, chunk]),
        ]
        return shapes[rng.integers(len(shapes))]
    elif fault == "dtype":
        kinds: list[Any] = [
            chunk.astype(object),
            chunk.astype(str),
            chunk.astype(complex),
            chunk > 0,
            [[1.0, 2.0], [3.0]],
            [["a", None, {}, 1]],
            chunk.astype(np.float16),
            chunk.astype(np.int8),
            (10**400 * np.ones(4, object)).tolist(),
        ]
        return kinds[rng.integers(len(kinds))]
    return chunk
