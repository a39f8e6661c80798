"""What a person looks at besides numbers: film strips, the same start under different actions, and a table of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wam.contracts import ActionSpace, Batch, expected
from wam.evaluation import gates, video_metrics
from wam.evaluation.artefacts import FilmStrips, WhatIf
from wam.evaluation.frechet import FeatureExtractor, frechet_distance
from wam.evaluation.runners import Conditionals, Futures, WorldModel, ask, frames


def to_uint8(video: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] to 8 bits."""
    return np.round(np.clip(video, 0, 1) * 255).astype(np.uint8)


def film_strips(
    model: WorldModel,
    batch: Batch,
    *,
    kind: str,
    steps: int,
    seed: int = 0,
    seconds: Sequence[float] | None = None,
    conditionals: Conditionals | None = None,
) -> FilmStrips:
    """Real and predicted futures of a few windows; choose the windows by what they show, not by how well they went.

    kind: "forward" gives the true actions, "imagine" none. seconds (T,): how far ahead the future frames lie.
    """
    if kind not in ("forward", "imagine"):
        raise expected("film strips of kind forward or imagine", got=repr(kind), do="choose one of the two")
    real, present, _ = frames(batch)
    chosen = conditionals or Conditionals()
    given = chosen.forward if kind == "forward" else chosen.imagine
    predicted = ask(model, batch, given=given, want="future", steps=steps, seed=seed)
    told = batch.instruction or ("",) * batch.size
    plural = "" if steps == 1 else "s"
    return FilmStrips(
        present=to_uint8(present),
        real=to_uint8(real),
        imagined=to_uint8(predicted),
        captions=tuple(f"{sentence} ({steps} sampling step{plural})".strip() for sentence in told),
        kinds=(kind,) * batch.size,
        seconds=None if seconds is None else np.asarray(seconds, np.float32),
    )


def probe_actions(batch: Batch, space: ActionSpace, *, motion: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Constant pushes along each moving dimension, both ways, and standing still: name -> chunk (K, A).

    A push is as strong as the strongest tenth of the batch's own, so the model is asked nothing it could not know;
    other dimensions (the gripper) stay at the batch's median.
    """
    if batch.action is None:
        raise expected("windows with actions", got="none", do="take windows from data that has actions")
    action = batch.action.cpu().numpy()
    mask = None if batch.action_mask is None else batch.action_mask.cpu().numpy()
    dims = gates.motion_dims(space, motion)
    absolute = space.kind == "absolute"
    strength = np.quantile(np.abs(gates.mean_motion(action, dims, mask=mask, absolute=absolute)), 0.9, axis=0)
    base = np.broadcast_to(np.median(action.reshape(-1, action.shape[-1]), axis=0), action.shape[1:]).copy()
    if not absolute:
        base[:, list(dims)] = 0
    probes = {"still": base}
    for dim, push in zip(dims, strength, strict=True):
        for sign, mark in ((1, "+"), (-1, "−")):
            direction = np.zeros(space.dim)
            direction[dim] = sign * push
            probes[f"{mark}{space.names[dim]}"] = pushed(base, direction, space)
    return probes


def pushed(still: np.ndarray, direction: np.ndarray, space: ActionSpace) -> np.ndarray:
    """Actions (L, A) that stay where they are, with a push (A,) added to each, within the space's limits; to absolute
    targets it is added little by little, so that their mean motion is the push."""
    ramp = np.linspace(0, 2, len(still)) if space.kind == "absolute" else np.ones(len(still))
    return np.clip(still + ramp[:, None] * direction, space.low, space.high).astype(still.dtype)


def what_if(
    model: WorldModel,
    batch: Batch,
    space: ActionSpace,
    *,
    steps: int,
    seed: int = 0,
    motion: Sequence[str] | None = None,
    conditionals: Conditionals | None = None,
) -> WhatIf:
    """The same starts under different actions, with the same noise, so that only the action makes the difference.

    The strength of the pushes comes from all windows of `batch`; the starts are its first four.
    """
    import torch

    probes = probe_actions(batch, space, motion=motion)
    starts = batch[: min(batch.size, 4)]
    _, present, _ = frames(starts)
    imagined = []
    for chunk in probes.values():
        action = torch.from_numpy(np.repeat(chunk[None], starts.size, 0).astype(np.float32))
        pushed = starts.replace(action=action, action_mask=torch.ones(action.shape[:2], dtype=torch.bool))
        given = (conditionals or Conditionals()).forward
        imagined.append(to_uint8(ask(model, pushed, given=given, want="future", steps=steps, seed=seed)))
    dims = gates.motion_dims(space, motion)
    chunks = np.stack(list(probes.values()))
    moves = np.zeros((len(chunks), 3))
    moves[:, : len(dims)] = gates.mean_motion(chunks, dims, absolute=space.kind == "absolute")[:, :3]
    return WhatIf(
        present=to_uint8(present),
        imagined=np.stack(imagined, 1),
        names=tuple(probes),
        motion=moves.astype(np.float32),
        extrinsics=None if starts.extrinsics is None else starts.extrinsics.cpu().numpy().astype(np.float32),
    )


def video_table(
    futures: Futures,
    *,
    play: Batch,
    expert: Batch,
    threshold: float = video_metrics.CHANGED,
    extractor: FeatureExtractor | None = None,
    lpips: bool = False,
) -> list[dict[str, Any]]:
    """Rows of PSNR, PSNR on changed pixels, SSIM, a Fréchet distance and, if asked for, LPIPS for every sampled future.

    futures: what `evaluate_gates` sampled. Copying the last frame stands beside them. Frames past an episode's end
    repeat the last one, so windows that reach it are left out.
    """
    rows: list[dict[str, Any]] = []
    sources = {"play": play, "expert": expert}
    names = {"forward": "forward dynamics, true actions", "shuffled": "forward dynamics, shuffled actions"}
    for data, batch in sources.items():
        real, present, valid = frames(batch)
        whole = valid.all((1, 2))
        if not whole.any():
            continue
        real, present = real[whole], present[whole, :, None]
        kinds = ("forward", "shuffled") if data == "play" else ("imagine",)
        videos = {("copying the last frame", 0): np.broadcast_to(present, real.shape)}
        for (kind, steps), future in sorted(futures.items()):
            if kind in kinds:
                videos[names.get(kind, "imagined without actions"), steps] = future[whole]
        for (name, steps), video in videos.items():
            flat = [x.reshape(-1, *x.shape[2:]) for x in (video, real)]
            row: dict[str, Any] = {
                "prediction": name,
                "data": data,
                "steps": steps,
                "n": len(real),
                "psnr": video_metrics.psnr(video, real),
                "psnr_changed": video_metrics.changed_psnr(video, real, present, threshold=threshold),
                "ssim": video_metrics.ssim(video, real),
            }
            if len(flat[0]) > 1:
                distance = frechet_distance(*flat, extractor=extractor)
                row[distance.label] = distance.value
                row["frechet_protocol"] = distance.protocol
            if lpips:
                from wam.evaluation.perceptual import lpips_distance

                perceptual = lpips_distance(video, real)
                row[perceptual.label] = perceptual.value
            rows.append(row)
    return rows
