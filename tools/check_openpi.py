"""The real openpi-client drives episodes against `wam serve`, and gets the very chunks that a direct call gives.

    make test-openpi                        # makes .venv-openpi and runs this
    .venv/bin/python tools/check_openpi.py --openpi .venv-openpi/bin/python [--run RUN] [--json FILE]

The client has a Python of its own, since it pins numpy below 2. The simulator runs here, and every chunk that the client is
served is compared with one computed here from the same observation. Exits with status 1 if one differs, if the client was
not told what the model is, or if the server does not stop when it is told to.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from wam.contracts import WamError, expected
from wam.control.codec import Limits, pack, unpack
from wam.control.wam_policy import load_policy
from wam.evaluation.summary import write_summary
from wam.simulation.environment import Environment, make_environment
from wam.training.state import newest_checkpoint

ROBOT = Path(__file__).with_name("openpi_robot.py")
WAM = [sys.executable, "-c", "import sys; from wam.cli.main import main; sys.exit(main())"]
CLOSE = 1e-4  # of actions: the same weights and noise in another process
FIRST_START = 1_000_000  # far from the starts of training


@contextlib.contextmanager
def wam_serve(run: Path, *, steps: int) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """(port, process) of `wam serve RUN`."""
    command = [*WAM, "serve", str(run), "--port", "0", f"policy.steps={steps}", "policy.threads=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        if "listening at" not in said:
            raise expected("a server that listens", got=said.strip() or "none", do=f"run {' '.join(command[3:])}")
        yield int(said.partition("listening at ")[2].split()[0].rpartition(":")[2]), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


class Episodes:
    """The environment behind the client's questions, and what became of its episodes."""

    def __init__(self, environment: Environment, policy: Any, *, max_steps: int) -> None:
        self.environment, self.policy, self.max_steps = environment, policy, max_steps
        self.successes: list[bool] = []
        self.steps: list[int] = []
        self.differences: list[float] = []
        self.server_ms: list[float] = []
        self.begun, self.done = 0, True

    def answer(self, told: dict[str, Any]) -> Any:
        return getattr(self, f"on_{told.pop('do')}")(**told)

    def on_reset(self) -> dict[str, Any]:
        self.seen = self.environment.reset(FIRST_START + self.begun)
        self.begun += 1
        self.count, self.success, self.done = 0, False, False
        return {}

    def on_observe(self) -> dict[str, Any]:
        pictures = {f"observation/{name}": image for name, image in self.seen.images.items()}
        return {**pictures, "observation/state": self.seen.state, "prompt": self.seen.instruction}

    def on_chunk(self, actions: np.ndarray, timing: dict[str, Any]) -> dict[str, Any]:
        direct = self.policy.act([self.seen])[0]
        self.differences.append(float(np.abs(direct - actions).max()) if direct.shape == actions.shape else np.inf)
        self.server_ms.append(float(timing["infer_ms"]))
        return {}

    def on_act(self, action: np.ndarray) -> dict[str, Any]:
        space = self.environment.action_space
        result = self.environment.step(np.clip(action, space.low, space.high))
        self.seen, self.count = result.observation or self.environment.observe(), self.count + 1
        self.success = result.success
        self.done = result.success or result.done or self.count >= self.max_steps
        if self.done:
            self.successes.append(self.success)
            self.steps.append(self.count)
        return {}

    def on_done(self) -> dict[str, Any]:
        return {"done": self.done}


def converse(python: Path, port: int, episodes: Episodes, *, horizon: int, count: int) -> dict[str, Any]:
    """Let openpi's client ask until it is done; returns what it says at the end."""
    command = [str(python), str(ROBOT), str(port), "--horizon", str(horizon), "--episodes", str(count)]
    alone = {"PATH": "/usr/bin:/bin"}  # nothing of this Python's
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=alone) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            while True:
                told = _read(client.stdout)
                if told["do"] == "end":
                    _write(client.stdin, {})
                    return told
                _write(client.stdin, episodes.answer(told))
        except EOFError as error:
            raise expected(
                "openpi's client to finish", got="its end", do=f"run {' '.join(command)} to see more"
            ) from error
        finally:
            client.stdin.close()


def _read(stream: BinaryIO) -> dict[str, Any]:
    length = stream.read(4)
    if len(length) < 4:
        raise EOFError
    return unpack(stream.read(int.from_bytes(length, "big")), Limits(values=1_000_000))


def _write(stream: BinaryIO, value: Any) -> None:
    frame = pack(value)
    stream.write(len(frame).to_bytes(4, "big") + frame)
    stream.flush()


def check(python: Path, run: Path, name: str, *, count: int, steps: int, max_steps: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    policy = load_policy(newest_checkpoint(run), steps=steps)
    config = policy.model.config
    environment = make_environment(name, cameras=policy.cameras, image_size=getattr(config, "image_size", 64))
    episodes = Episodes(environment, policy, max_steps=min(max_steps, environment.max_steps))
    with contextlib.closing(environment), wam_serve(run, steps=steps) as (port, server):
        told = converse(python, port, episodes, horizon=policy.chunk, count=count)
    return {
        "episodes": len(episodes.successes),
        "success": statistics.mean(episodes.successes),
        "chunks": len(episodes.differences),
        "largest_difference": max(episodes.differences),
        "request_ms_p50": statistics.median(told["milliseconds"]),
        "server_ms_p50": statistics.median(episodes.server_ms),
        "steps": episodes.steps,
        "environment": name,
        "model_sha256": told["metadata"].get("model_sha256"),
        "action_chunk_size": told["metadata"].get("action_chunk_size"),
        "exit_status": server.returncode,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--openpi", type=Path, default=Path(".venv-openpi/bin/python"), help="a Python with openpi-client"
    )
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="run or checkpoint folder")
    parser.add_argument("--environment", default="metaworld/button-press-topdown-v3")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1, help="of sampling")
    parser.add_argument("--max-steps", type=int, default=100_000, help="of an episode; the environment's own at most")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    a = parser.parse_args()
    try:
        found = check(a.openpi.absolute(), a.run, a.environment, count=a.episodes, steps=a.steps, max_steps=a.max_steps)
    except (WamError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if a.json:
        names = ("success", "largest_difference", "request_ms_p50", "server_ms_p50")
        figures = {name: float(found[name]) for name in names}
        n = {"episodes": found["episodes"], "chunks": found["chunks"]}
        rest = {name: value for name, value in found.items() if name not in (*names, *n)}
        write_summary(a.json, figures, n=n, seeds=[FIRST_START], extra=rest)
    good = found["largest_difference"] <= CLOSE and found["model_sha256"] and found["exit_status"] == 0
    return 0 if good and found["episodes"] == a.episodes else 1


if __name__ == "__main__":
    sys.exit(main())
