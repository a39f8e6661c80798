"""Policies together: counted by episode, driven from the same starts, and not driven twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.evaluation_fakes import ObedientPolicy, SquareEnvironment, StillPolicy
from wam.contracts import Observation, WamError
from wam.control.routing import LARGE, RoutedPolicy
from wam.evaluation import pairing, routing
from wam.evaluation.figures import Measured, meaning
from wam.evaluation.pairing import PairingEvaluateConfig
from wam.evaluation.routing import RoutingEvaluateConfig, rank_correlation
from wam.evaluation.together import Side, TogetherConfig, drive_side

TOLD: dict[str, str] = {}


class UnsureFarOut(StillPolicy):
    """Never moves, and is the more unsure the farther the square is from the middle."""

    def ask(self, observations: Sequence[Observation], slots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        return self.act(observations), np.array([np.linalg.norm(o.state) for o in observations])


class Slotted(ObedientPolicy):
    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        return super().act(observations)


def config(**changes: object) -> TogetherConfig:
    fields: dict[str, object] = {"environments": ["square/middle"], "starts": 3, "execute": 2, "max_steps": 12}
    return TogetherConfig(**(fields | changes))  # type: ignore[arg-type]


def make(name: str, *, max_steps: int) -> SquareEnvironment:
    return SquareEnvironment(name)


def side(name: str, policy: object, folder: Path, how: TogetherConfig | None = None) -> Side:
    return drive_side(
        name,
        lambda: policy,  # type: ignore[arg-type,return-value]
        how or config(),
        folder,
        identity={"weights": "a"},
        make=make,  # type: ignore[arg-type]
        told=TOLD,
    )


def test_what_is_routed_and_what_succeeds_are_counted(tmp_path: Path) -> None:
    for limit, success, share in ((-1.0, 1.0, 1.0), (9.0, 0.0, 0.0)):
        policy = RoutedPolicy(UnsureFarOut(), Slotted(), threshold=limit)
        found = side(f"routed{limit}", policy, tmp_path)
        assert (found.success, found.share(LARGE)) == (success, share)
    halfway = side("halfway", RoutedPolicy(UnsureFarOut(), Slotted(), threshold=0.3), tmp_path)
    assert 0 < halfway.share(LARGE) < 1, "once it is near the middle, the one that never moves is sure"
    assert halfway.success == 0
    assert sum(episode.chunks for episode in halfway.episodes) == halfway.chunks == 3 * 6
    assert all(sum(episode.tally.values()) == episode.chunks for episode in halfway.episodes)
    assert halfway.chunk_ms > 0


def test_all_sides_meet_the_same_starts(tmp_path: Path) -> None:
    sides = [side("a", Slotted(), tmp_path), side("b", StillPolicy(), tmp_path)]
    starts = [[(episode.environment, episode.seed) for episode in one.episodes] for one in sides]
    assert starts[0] == starts[1] == [("square/middle", start) for start in range(3)]
    assert [one.success for one in sides] == [1, 0]


def test_an_episode_on_record_is_not_driven_again(tmp_path: Path) -> None:
    first = side("a", RoutedPolicy(UnsureFarOut(), Slotted(), threshold=0.3), tmp_path)

    def nobody() -> object:
        pytest.fail("driven again")

    again = drive_side("a", nobody, config(), tmp_path, identity={"weights": "a"}, make=make, told=TOLD)  # type: ignore[arg-type]
    assert again == first
    with pytest.raises(WamError, match="weights"):
        drive_side("a", nobody, config(), tmp_path, identity={"weights": "b"}, make=make, told=TOLD)  # type: ignore[arg-type]


def test_more_than_a_chunk_cannot_be_carried_out(tmp_path: Path) -> None:
    with pytest.raises(WamError, match="chunk's 4"):
        side("a", Slotted(), tmp_path, config(execute=5))


def test_every_figure_says_what_it_is(tmp_path: Path) -> None:
    policy = RoutedPolicy(UnsureFarOut(), Slotted(), threshold=0.3)
    sides = [side(name, policy, tmp_path) for name in ("student", "teacher", "error_0.1")]
    found = routing.figures(sides[:2], sides[2:], Measured())
    assert set(found.values) == {
        *(f"success_{one.name}" for one in sides),
        *(f"chunk_ms_{one.name}" for one in sides),
        "routed_error_0.1",
    }
    policy.tally = Counter({"fresh": 0, "stale": 0, "absent": 0})  # type: ignore[assignment]
    paired = pairing.figures(sides[:2], [side("paired_200ms", Slotted(), tmp_path)])
    assert {"success_paired_200ms", "thought_fresh_200ms", "thought_absent_200ms"} <= set(paired.values)
    for name in (*found.values, *paired.values, "doubt_rank_error"):
        assert meaning(name), name


def test_ranks_that_agree_correlate() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=50)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, -(a**3)) == pytest.approx(-1)
    assert rank_correlation(a, np.zeros(50)) == 0
    assert abs(rank_correlation(a, rng.normal(size=50))) < 0.5
    assert rank_correlation(np.array([1, 2, 2, np.inf]), np.array([0, 1, 1, 5.0])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (RoutingEvaluateConfig, {"doubts": ["mood"]}),
        (RoutingEvaluateConfig, {"shares": [1.5]}),
        (RoutingEvaluateConfig, {"environments": []}),
        (PairingEvaluateConfig, {"hz": 0.0}),
        (PairingEvaluateConfig, {"delays_ms": [-1.0]}),
        (PairingEvaluateConfig, {"controls": {"teacher": "x"}}),
    ],
)
def test_what_cannot_be_measured_says_so(kind: type, changes: dict[str, object]) -> None:
    with pytest.raises(WamError):
        kind(**({"environments": ["square/middle"]} | changes)).validate()
