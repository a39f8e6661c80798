"""Who asks while the policy computes is answered in its next call; first come, first served; slots keep apart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client")

from tests.control.server_fakes import ACTIONS, CHUNK, Gated, Recalling, observation
from wam.contracts import WamError
from wam.control.server.batcher import Batcher


def with_batcher(policy: Any, use: Callable[[Batcher], Awaitable[Any]], **settings: Any) -> Any:
    async def run() -> Any:
        async with Batcher(policy, **settings) as batcher:
            return await use(batcher)

    return asyncio.run(run())


async def computing(policy: Gated) -> None:
    while not policy.computing.is_set():
        await asyncio.sleep(0.01)


def test_requests_that_come_while_the_policy_computes_share_its_next_call() -> None:
    policy = Gated()

    async def use(batcher: Batcher) -> list[int]:
        slots = [batcher.open_slot() for _ in range(6)]
        policy.hold()
        asking = [asyncio.create_task(batcher.act(slots[0], observation(0.0)))]
        await computing(policy)
        asking += [asyncio.create_task(batcher.act(slot, observation(float(slot)))) for slot in slots[1:]]
        await asyncio.sleep(0)
        policy.gate.set()
        return [answer.batch for answer in await asyncio.gather(*asking)]

    assert with_batcher(policy, use, size=4) == [1, 4, 4, 4, 4, 1]
    assert policy.calls == [[0.0], [1.0, 2.0, 3.0, 4.0], [5.0]]


def test_everyone_gets_their_own_answer() -> None:
    async def use(batcher: Batcher) -> list[np.ndarray]:
        slots = [batcher.open_slot() for _ in range(10)]
        found = await asyncio.gather(*(batcher.act(slot, observation(10.0 + slot)) for slot in slots))
        return [answer.actions for answer in found]

    for slot, actions in enumerate(with_batcher(Recalling(), use, size=4)):
        assert actions.shape == (CHUNK, ACTIONS)
        assert (actions == (10 + slot, 1)).all()


def test_the_first_waits_a_moment_for_the_others_but_not_when_it_is_alone() -> None:
    policy = Recalling()

    async def use(batcher: Batcher) -> tuple[float, list[int]]:
        loop = asyncio.get_running_loop()
        one = batcher.open_slot()
        begun = loop.time()
        await batcher.act(one, observation())
        alone = loop.time() - begun
        two = batcher.open_slot()
        first = asyncio.create_task(batcher.act(one, observation()))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(batcher.act(two, observation()))
        return alone, [answer.batch for answer in await asyncio.gather(first, second)]

    alone, batches = with_batcher(policy, use, size=4, gather_s=30.0)
    assert alone < 15
    assert batches == [2, 2]


def test_a_request_whose_caller_left_is_not_computed() -> None:
    policy = Gated()

    async def use(batcher: Batcher) -> None:
        slots = [batcher.open_slot() for _ in range(3)]
        policy.hold()
        first = asyncio.create_task(batcher.act(slots[0], observation(0.0)))
        await computing(policy)
        left = asyncio.create_task(batcher.act(slots[1], observation(1.0)))
        stayed = asyncio.create_task(batcher.act(slots[2], observation(2.0)))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        policy.gate.set()
        await asyncio.gather(first, stayed)

    with_batcher(policy, use)
    assert policy.calls == [[0.0], [2.0]]


def test_slots_are_forgotten_before_others_get_them() -> None:
    policy = Recalling()

    async def use(batcher: Batcher) -> list[float]:
        first, second = batcher.open_slot(), batcher.open_slot()
        assert (first, second) == (0, 1)
        counts = []
        for slot in (first, second, first, first):
            counts.append((await batcher.act(slot, observation())).actions[0, 1])
        await batcher.close_slot(first)
        assert batcher.open_slot() == first
        counts.append((await batcher.act(first, observation())).actions[0, 1])
        counts.append((await batcher.act(second, observation())).actions[0, 1])
        return counts

    assert with_batcher(policy, use) == [1, 1, 2, 3, 1, 2]


def test_only_one_thread_touches_the_policy_and_it_is_not_the_loops() -> None:
    policy = Recalling()

    async def use(batcher: Batcher) -> None:
        await batcher.warm_up(observation())
        slot = batcher.open_slot()
        await batcher.act(slot, observation())
        await batcher.close_slot(slot)

    with_batcher(policy, use)
    assert len(policy.threads) == 1
    assert policy.threads.pop().startswith("policy")


def test_warming_up_leaves_no_trace() -> None:
    policy = Recalling()

    async def use(batcher: Batcher) -> float:
        await batcher.warm_up(observation())
        return (await batcher.act(batcher.open_slot(), observation())).actions[0, 1]

    assert with_batcher(policy, use, size=3) == 1
    assert [len(call) for call in policy.calls] == [1, 3, 1]


def test_a_row_that_is_not_finite_reaches_nobody_and_spoils_no_other() -> None:
    class Diverging(Recalling):
        def act(self, observations: Any, slots: Any = None) -> np.ndarray:
            found = super().act(observations, slots)
            found[found == 13] = np.nan
            return found

    async def use(batcher: Batcher) -> list[Any]:
        slots = [batcher.open_slot() for _ in range(2)]
        asking = (batcher.act(slot, observation(value)) for slot, value in zip(slots, (13.0, 14.0), strict=True))
        return await asyncio.gather(*asking, return_exceptions=True)

    bad, good = with_batcher(Diverging(), use)
    assert isinstance(bad, WamError)
    assert good.actions[0, 0] == 14


def test_a_policy_that_fails_once_answers_the_next_time() -> None:
    class Stumbling(Recalling):
        def act(self, observations: Any, slots: Any = None) -> np.ndarray:
            if not self.calls:
                self.calls.append([])
                raise RuntimeError("once")
            return super().act(observations, slots)

    async def use(batcher: Batcher) -> float:
        slot = batcher.open_slot()
        with pytest.raises(RuntimeError, match="once"):
            await batcher.act(slot, observation())
        return (await batcher.act(slot, observation(3.0))).actions[0, 0]

    assert with_batcher(Stumbling(), use) == 3


def test_nobody_waits_for_an_imagination_that_the_policy_does_not_have() -> None:
    async def use(batcher: Batcher) -> Any:
        return await batcher.foresee(0, observation(), np.zeros((CHUNK, ACTIONS)))

    assert with_batcher(Recalling(), use) is None
