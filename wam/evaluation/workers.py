"""Several processes that share one list of episodes. Spawned, because renderers do not survive a fork."""

from __future__ import annotations

import multiprocessing
import os
import queue
import traceback
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import AbstractContextManager
from typing import Any

from wam.contracts import WamError, expected
from wam.control.policy import Policy
from wam.evaluation.episode_log import Episode, Rollout
from wam.evaluation.rollout import Job, LoopSettings, Take, run_jobs


def claim(jobs: Sequence[Job], claimed: MutableSequence[int], lock: AbstractContextManager[Any]) -> Take:
    """A function that hands out each job once, wherever it is called from.

    It prefers the environment asked for, so that a slot need not build another, and else the one with most jobs left.
    """

    def take(prefer: str | None) -> Job | None:
        with lock:
            free = [i for i in range(len(jobs)) if not claimed[i]]
            if not free:
                return None
            left: dict[str, int] = {}
            for i in free:
                left[jobs[i].environment] = left.get(jobs[i].environment, 0) + 1
            wanted = prefer if prefer in left else max(left, key=lambda name: left[name])
            chosen = next(i for i in free if jobs[i].environment == wanted)
            claimed[chosen] = 1
            return jobs[chosen]

    return take


def run_processes(
    policy_factory: Callable[[], Policy],
    jobs: Sequence[Job],
    *,
    settings: LoopSettings,
    make_environment: Callable[[str], Any],
    processes: int,
    finished: Callable[[Episode, Rollout | None], None],
) -> None:
    """Run all jobs in `processes` processes; `finished` is called here, in the parent, as each episode ends.

    A process that fails or dies stops the others and raises; what has finished by then has been handed over.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    claimed = context.Array("b", len(jobs), lock=False)
    lock = context.Lock()
    threads = max(1, (os.cpu_count() or 1) // processes)
    workers = [
        context.Process(
            target=_work,
            args=(policy_factory, jobs, claimed, lock, results, settings, make_environment, threads),
            daemon=True,
        )
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    try:
        open_workers = processes
        while open_workers:
            try:
                kind, content = results.get(timeout=0.5)
            except queue.Empty:
                dead = [w.exitcode for w in workers if w.exitcode not in (None, 0)]
                if dead:
                    raise expected(
                        "every evaluation process to finish",
                        got=f"one that died with exit code {dead[0]}",
                        do="check the memory, run the same command again (finished episodes are kept) "
                        "or use fewer processes",
                    ) from None
                continue
            if kind == "episode":
                finished(*content)
            elif kind == "end":
                open_workers -= 1
            elif kind == "refused":
                raise WamError(content)
            else:
                raise RuntimeError(f"an evaluation process failed:\n{content}")
    finally:
        for worker in workers:
            if worker.is_alive() and worker.exitcode is None:
                worker.join(timeout=0.5)
            if worker.is_alive():
                worker.terminate()
            worker.join()


def _work(
    policy_factory: Callable[[], Policy],
    jobs: Sequence[Job],
    claimed: MutableSequence[int],
    lock: AbstractContextManager[Any],
    results: Any,
    settings: LoopSettings,
    make_environment: Callable[[str], Any],
    threads: int,
) -> None:
    import torch

    torch.set_num_threads(threads)
    parent = os.getppid()
    shared = claim(jobs, claimed, lock)

    def take(prefer: str | None) -> Job | None:
        return shared(prefer) if os.getppid() == parent else None  # an orphan takes no more work

    try:
        for episode in run_jobs(policy_factory(), take, settings=settings, make_environment=make_environment):
            results.put(("episode", episode))
        results.put(("end", None))
    except WamError as error:
        results.put(("refused", str(error)))
    except Exception:
        results.put(("failed", traceback.format_exc()))
