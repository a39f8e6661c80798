"""The fuzzer finds a server that stops answering, and this one answers through all of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")
pytest.importorskip("psutil")

from tests.control.server_fakes import ACTIONS, CHUNK, Recalling, observation, running
from wam.contracts import Observation
from wam.evaluation.bench import fuzz_server
from wam.evaluation.bench.fuzz_server import FUZZES, RUDE, Tally, fuzz
from wam.evaluation.bench.server import ask_at_once, growth, soak


class Echoing(Recalling):
    """Every action is the state's first number, whatever was asked before; `spoil` makes it go wrong in some way."""

    def __init__(self, spoil: Any = None) -> None:
        super().__init__()
        self.spoil, self.asked = spoil, 0

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        self.asked += 1
        found = np.stack([np.full((CHUNK, ACTIONS), seen.state[0]) for seen in observations])  # type: ignore[index]
        return self.spoil(found) if self.spoil and self.asked > 20 else found


def fuzzed(policy: Any, *, frames: int, every: int = 20) -> tuple[bool, Tally]:
    tally = Tally()
    with running(policy, frame_mib=fuzz_server.FRAME_MIB) as server:
        seen = observation(0.5)
        return fuzz(server.address, seen, np.random.default_rng(0), tally, until=frames, every=every), tally


def test_the_server_answers_through_all_kinds_of_frames() -> None:
    alive, tally = fuzzed(Echoing(), frames=600)
    assert alive
    assert tally.sent == 600
    assert set(tally.kinds) == set(FUZZES)
    assert set(tally.outcomes) == {"answered", "refused", "closed", "left"}
    assert tally.kinds["oversize"] <= tally.outcomes["closed"]
    assert tally.outcomes["answered"] >= tally.kinds["honest"]
    assert sum(tally.kinds[name] for name in RUDE) == tally.outcomes["left"]


def hang(found: np.ndarray) -> np.ndarray:
    time.sleep(3)
    return found


def fail(found: np.ndarray) -> np.ndarray:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    "spoil", [hang, fail, lambda found: found + 1], ids=["hangs", "fails", "answers others' chunks"]
)
def test_a_server_that_no_longer_answers_well_is_found(spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_server, "ANSWER_S", 1.0)
    alive, tally = fuzzed(Echoing(spoil), frames=600)
    assert not alive
    assert tally.sent < 600


def test_a_server_that_is_gone_is_found() -> None:
    with running(Echoing()) as server:
        address = server.address
    assert not fuzz(address, observation(0.5), np.random.default_rng(0), Tally(), until=10, every=5)


def test_asking_at_once_times_every_client() -> None:
    with running(Echoing()) as server:
        times = ask_at_once(server.address, observation(), clients=3, seconds=0.2)
    assert len(times) == 3
    assert all(0 < second < 60 for mine in times for second in mine)


def test_asking_a_server_that_refuses_is_an_error_and_no_figure() -> None:
    with running(Echoing(), sessions=2) as server, pytest.raises(Exception, match="503"):
        ask_at_once(server.address, observation(), clients=3, seconds=0.2)


def test_soaking_samples_memory_while_clients_come_and_go() -> None:
    import os

    policy = Echoing()
    with running(policy) as server:
        found = soak(server.address, os.getpid(), observation(), seconds=1.0)
    assert len(found) > 3
    assert policy.asked > 10


def test_growth_is_of_the_last_tenth_over_the_second_and_shrinking_is_none() -> None:
    assert growth([mib * 2**20 for mib in (50, 60, *range(60, 68))]) == 7
    assert growth([100 * 2**20] * 5 + [90 * 2**20] * 5) == 0
