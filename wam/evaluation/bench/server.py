"""What a server adds to a call of the policy, whether it is fair to many clients, and whether it keeps what it should not."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from wam.contracts import Observation, WamError
from wam.control.client import Client
from wam.control.server.config import PolicyOptions, ServeConfig
from wam.control.server.running import served_apart
from wam.control.wam_policy import load_policy
from wam.evaluation.bench.sampling import make_model
from wam.evaluation.bench.timing import BenchResult, Target, time_in_turns
from wam.model.config import ModelConfig
from wam.model.pretrained import save_pretrained
from wam.progress import Progress

MIB = 2**20
DROID_SIDE = 224


def bench_server(
    *,
    config: ModelConfig | None = None,
    steps: int = 1,
    repeats: int = 200,
    clients: int = 32,
    seconds: float = 20.0,
    soak_minutes: float = 10.0,
    device: torch.device | None = None,
) -> BenchResult:
    """A model with random weights, served by a process of its own on loopback.

    overhead_ms_p50: median over rounds of a client's request minus the same call made directly, in turns, one client; not
    below 0, which would be the machine's noise.
    fairness: of `clients` that ask as fast as they can for `seconds`, the slowest one's mean latency over the median one's.
    rss_growth_mb: of the server's resident memory while clients ask, come, err and vanish for `soak_minutes`: the median of
    the last tenth minus that of the second (in the first it warms up), in MiB.
    """
    del device  # a server is asked from elsewhere; it runs where its checkpoint is told to
    model = make_model(config or ModelConfig(), torch.device("cpu"))
    options = PolicyOptions(steps=steps, threads=torch.get_num_threads())
    with (
        checkpoint_of(model) as folder,
        served_apart(folder, ServeConfig(port=0, policy=options)) as (address, process),
    ):
        policy = load_policy(folder, steps=steps)
        seen = an_observation(model.config)
        large = replace(seen, images={name: np.zeros((DROID_SIDE, DROID_SIDE, 3), np.uint8) for name in seen.images})
        beside: list[float] = []  # of the same request: what was not the policy's call in the server

        def ask(client: Client) -> None:
            begun = time.perf_counter()
            reply = client.infer(client.request(seen))
            beside.append(1e3 * (time.perf_counter() - begun) - reply["policy_timing"]["infer_ms"])

        with Client(address) as client:
            timings = time_in_turns(
                {
                    "served": lambda: ask(client),
                    "served_large": lambda: client.plan(large),
                    "direct": lambda: policy.act([seen]),
                },
                repeats=repeats,
                warmup=5,
            )
        paired = {
            name: [1e3 * (a - b) for a, b in zip(timings.wall[name], timings.wall["direct"], strict=True)]
            for name in ("served", "served_large")
        }
        latencies = ask_at_once(address, seen, clients=clients, seconds=seconds)
        memory = soak(address, process.pid or 0, seen, seconds=60 * soak_minutes)
    means = sorted(statistics.mean(times) for times in latencies)
    return BenchResult(
        name="server",
        figures={
            "overhead_ms_p50": max(statistics.median(paired["served"]), 0.0),
            "fairness": means[-1] / statistics.median(means),
            "rss_growth_mb": growth(memory),
        },
        detail={
            "steps": steps,
            "direct_ms_p50": 1e3 * timings.median("direct"),
            "served_ms_p50": 1e3 * timings.median("served"),
            "overhead_ms_quartiles": [float(np.quantile(paired["served"], q)) for q in (0.25, 0.5, 0.75)],
            "beside_its_policys_call_ms_p50": statistics.median(beside),
            f"overhead_of_{DROID_SIDE}_pixels_ms_p50": statistics.median(paired["served_large"]),
            "clients": clients,
            "answers_per_second": sum(map(len, latencies)) / seconds,
            "answers_of_each": [min(map(len, latencies)), max(map(len, latencies))],
            "median_client_ms": 1e3 * statistics.median(means),
            "slowest_client_ms": 1e3 * means[-1],
            "soak_minutes": soak_minutes,
            "rss_mb": [memory[0] / MIB, max(memory) / MIB, memory[-1] / MIB],
        },
        n=repeats,
        targets={
            "overhead_ms_p50": Target(value=2.0, at_least=False),
            "fairness": Target(value=1.5, at_least=False),
            "rss_growth_mb": Target(value=20.0, at_least=False),
        },
    )


@contextlib.contextmanager
def checkpoint_of(model: Any) -> Iterator[Path]:
    """A folder with a model of two cameras, whose weights are random and said to be."""
    with tempfile.TemporaryDirectory(prefix="wam-bench-") as folder:
        cameras = tuple(f"camera_{i}" for i in range(model.config.views))
        save_pretrained(model, Path(folder), cameras=cameras, provenance={"random": True})
        yield Path(folder)


def an_observation(config: ModelConfig) -> Observation:
    rng = np.random.default_rng(0)
    shape = (config.image_size, config.image_size, 3)
    images = {f"camera_{i}": rng.integers(0, 256, shape, np.uint8) for i in range(config.views)}
    return Observation(
        images=images, state=rng.normal(size=config.state_dim).astype(np.float32), instruction="push the red button"
    )


def ask_at_once(address: str, seen: Observation, *, clients: int, seconds: float) -> list[list[float]]:
    """Seconds of each answer, by client; all of them ask from the same moment on."""
    times: list[list[float]] = [[] for _ in range(clients)]
    errors: list[Exception] = []
    together = threading.Barrier(clients)

    def ask(mine: list[float]) -> None:
        try:
            with Client(address) as client:
                together.wait()
                end = time.perf_counter() + seconds
                while not mine or time.perf_counter() < end:
                    begun = time.perf_counter()
                    client.plan(seen)
                    mine.append(time.perf_counter() - begun)
        except Exception as error:
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return times


def soak(address: str, pid: int, seen: Observation, *, seconds: float, askers: int = 4) -> list[int]:
    """The server's resident bytes, some ten times a second at most, while it is asked by some and bothered by others."""
    stop = threading.Event()
    errors: list[Exception] = []

    def ask() -> None:
        with Client(address) as client:
            while not stop.is_set():
                client.plan(seen)

    def bother() -> None:
        """Come, ask, and leave: politely, with a broken request, or in the middle of an inference."""
        turn = 0
        while not stop.is_set():
            turn += 1
            with Client(address) as client:
                client.plan(seen)
                if turn % 3 == 0:
                    with contextlib.suppress(WamError):
                        client.infer({"prompt": "a request without its pictures"})
                elif turn % 3 == 1:
                    client.send(client.request(seen))

    def guarded(work: Any) -> None:
        try:
            work()
        except Exception as error:
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (*[ask] * askers, bother)]
    for thread in threads:
        thread.start()
    process, begun = psutil.Process(pid), time.monotonic()
    found: list[int] = []
    pause = min(1.0, max(seconds / 100, 0.1))
    with Progress("soak", round(seconds)) as progress:
        while not found or (time.monotonic() - begun < seconds and not stop.is_set()):
            found.append(int(process.memory_info().rss))
            progress.update(round(time.monotonic() - begun))
            stop.wait(pause)
    stop.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


def growth(memory: list[int]) -> float:
    """MiB from the second tenth of the samples to the last; never below 0, since shrinking is no growth."""
    tenth = max(len(memory) // 10, 1)
    early = memory[tenth : 2 * tenth] or memory[:tenth]
    return max(statistics.median(memory[-tenth:]) - statistics.median(early), 0) / MIB
