"""One picture of imagined futures from a frame of a dataset: what `wam imagine` draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from wam.contracts import expected
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec
from wam.evaluation import pictures
from wam.evaluation.evaluate import CONDITIONALS, spread_rows, with_poses
from wam.evaluation.truth import simulate
from wam.files import write_bytes
from wam.model.pretrained import from_pretrained
from wam.training.state import newest_checkpoint
from wam.visualization.filmstrip import film_strip, what_if_picture


@dataclass(frozen=True, kw_only=True)
class ImagineRequest:
    """run: run or checkpoint folder. data: dataset, None for the one it was trained on. actions: `true` (those
    recorded), `none`, or `probe`: the same start under pushes in every direction, beside what the simulator says."""

    run: Path
    data: Path | None = None
    episode: int = 0
    frame: int = 0
    instruction: str | None = None
    actions: Literal["true", "none", "probe"] = "probe"
    steps: int = 3
    seed: int = 0


def imagine_picture(request: ImagineRequest, output: Path) -> str:
    """Write the PNG and return a sentence that says what it shows."""
    model = from_pretrained(newest_checkpoint(request.run))
    root = request.data or _training_data(model.provenance)
    store = EpisodeStore(root)
    if not 0 <= request.episode < len(store):
        raise expected(f"an episode from 0 to {len(store) - 1}", got=request.episode, do="choose one of the dataset")
    m = model.config
    spec = WindowSpec(
        history=m.history,
        history_stride=m.history_stride,
        future=tuple(m.future),
        chunk=m.chunk,
        cameras=model.cameras,
        image_size=m.image_size,
    )
    windows = WindowDataset(
        store, spec, episodes=[request.episode], instruction_override=request.instruction, cache="memory"
    )
    if not 0 <= request.frame < len(windows):
        raise expected(f"a frame from 0 to {len(windows) - 1}", got=request.frame, do="choose one of the episode")
    rows = [request.frame, *spread_rows(len(windows), 32)]
    batch = with_poses(windows.batch(rows), windows)
    sentence = batch.instruction[0] if batch.instruction else ""
    when = f"episode {request.episode}, frame {request.frame}, {sentence!r}"
    if request.actions == "probe":
        if model.action_space is None or batch.action is None:
            raise expected("a model and data with actions", got="none", do="use --actions none")
        found = pictures.what_if(
            model, batch, model.action_space, steps=request.steps, seed=request.seed, conditionals=CONDITIONALS
        )
        chunks = np.stack(list(pictures.probe_actions(batch, model.action_space).values()))
        truth = simulate(windows, rows[:1], chunks)
        picture = what_if_picture(
            found.present[0],
            found.imagined[0],
            found.motion,
            truth=None if truth is None else truth[0],
            extrinsics=None if found.extrinsics is None else found.extrinsics[0],
        )
        text = f"the same start under {', '.join(found.names)}"
    else:
        kind = "forward" if request.actions == "true" else "imagine"
        strip = pictures.film_strips(
            model, batch[:1], kind=kind, steps=request.steps, seed=request.seed, conditionals=CONDITIONALS
        )
        picture = film_strip(strip.real[0], strip.imagined[0], strip.present[0])
        text = "real above, imagined below, difference under both"
    write_bytes(output, picture)
    return f"{output}: {text} ({when})"


def _training_data(provenance: dict[str, object]) -> Path:
    data = provenance.get("data")
    if not isinstance(data, list) or not data or not Path(str(data[0])).exists():
        raise expected("the data that the run was trained on", got=data, do="name a dataset with --data FOLDER")
    return Path(str(data[0]))
