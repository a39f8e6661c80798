"""How long the page of `wam explore` waits: from an action that changed to the frames that are imagined of it."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from websockets.sync.client import connect

from wam.evaluation.bench.sampling import make_model
from wam.evaluation.bench.timing import BenchResult, Target
from wam.explore.explorer import Explorer, load
from wam.explore.viewer.server import SOCKET, ViewerConfig, viewing
from wam.explore.viewer.studio import Studio
from wam.model.config import ModelConfig

WARM = 5


def bench_explore(
    *, run: Path | None = None, config: ModelConfig | None = None, repeats: int = 200, steps: int = 3
) -> BenchResult:
    """answer_seconds_p95: of `repeats` changed pushes, each from another of ten starts, from sending the question over the
    websocket to having read the imagined frames; answer_seconds_p50 beside it. truth_seconds_p95: until what really comes of
    them is there too, rendered by the simulator where the data has its states.

    run: a trained run and its data; without one, random weights of the default sizes on drawn episodes, which have no
    simulator and so no such figure.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = load(run) if run is not None else _random(Path(folder), config)
        studio = Studio([model], run=run)
        with viewing(studio, ViewerConfig(port=0)) as server:
            address = f"ws://{server.config.host}:{server.port}{SOCKET}"
            with connect(address, max_size=None, compression=None) as page:
                answers, truths = _ask(page, repeats=repeats, steps=steps)
    figures = {
        "answer_seconds_p95": float(np.quantile(answers, 0.95)),
        "answer_seconds_p50": float(np.quantile(answers, 0.5)),
        **({"truth_seconds_p95": float(np.quantile(truths, 0.95))} if truths else {}),
    }
    return BenchResult(
        name="explore",
        figures=figures,
        detail={
            "steps": steps,
            "millions": sum(p.numel() for p in model.model.parameters()) / 1e6,
            "image_size": model.model.config.image_size,
            "voxels": model.model.network.occupancy is not None,
            "run": None if run is None else str(run),
            "torch_threads": torch.get_num_threads(),
        },
        n=repeats,
        targets={"answer_seconds_p95": Target(value=2.0, at_least=False)},
    )


def _ask(page: Any, *, repeats: int, steps: int) -> tuple[list[float], list[float]]:
    """Seconds until frames, and until the truth where it is known, of one question after the other."""
    hello = json.loads(page.recv())["hello"]
    rng = np.random.default_rng(0)
    places = [start["place"] for start in hello["starts"]]
    answers, truths = [], []
    for number in range(WARM + repeats):
        push = {a["name"]: float(rng.uniform(a["low"], a["high"])) for a in hello["actions"]}
        question = {"ask": "imagine", "number": number, "place": places[number % len(places)], "kind": "push"}
        begun = time.perf_counter()
        page.send(json.dumps({**question, "push": push, "steps": steps}))
        while True:
            told = json.loads(page.recv())
            spent = time.perf_counter() - begun
            if told.get("part") == "imagined" and number >= WARM:
                answers.append(spent)
            if told.get("part") == "truth":
                if number >= WARM and "source" in (told["models"][0] or {}):
                    truths.append(spent)
                break
    return answers, truths


def _random(folder: Path, config: ModelConfig | None) -> Explorer:
    """A model with random weights, and episodes of noise for it to start from."""
    from wam.contracts import ActionSpace
    from wam.data.writer import EpisodeWriter

    model = make_model(config or ModelConfig(), torch.device("cpu"))
    c, rng = model.config, np.random.default_rng(0)
    names = tuple(f"x{i}" for i in range(c.action_dim))
    space = ActionSpace(
        names=names,
        units=("",) * c.action_dim,
        low=(-1.0,) * c.action_dim,
        high=(1.0,) * c.action_dim,
        kind="delta",
        rate_hz=20,
    )
    model.action_space, model.cameras = space, ("side", "top")[: c.views]
    length, side = 4 * max(c.future), c.image_size
    with EpisodeWriter(folder / "data", fps=20, action_space=space) as writer:
        for number in range(4):
            frames = rng.integers(0, 256, (length, side, side, 3), np.uint8)
            writer.add_episode(
                images=dict.fromkeys(model.cameras, frames),
                columns={
                    "observation.state": rng.standard_normal((length, c.state_dim), np.float32),
                    "action": rng.uniform(-1, 1, (length, c.action_dim)).astype(np.float32),
                },
                task="noise",
                extra={"play": False, "success": True, "seed": number, "environment": "noise"},
            )
    return Explorer(model, name="random weights", data=folder / "data")
