"""A run's folder as a command would leave it, drawn rather than measured: a small table with a hand, a box and a tap."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wam.evaluation import artefacts
from wam.evaluation.artefacts import FilmStrips, WhatIf
from wam.evaluation.closed_loop import ClosedLoopResult
from wam.evaluation.episode_log import Episode, Rollout
from wam.evaluation.gates import judge
from wam.evaluation.summary import write_summary

SIZE = 64
TASKS = (
    "metaworld/faucet-open-v3",
    "metaworld/faucet-close-v3",
    "metaworld/drawer-open-v3",
    "metaworld/button-press-v3",
)
SENTENCES = ("open the faucet", "close the faucet", "pull the drawer open", "press the button")


def scene(x: float, y: float, *, blur: int = 0, noise: float = 0, top: bool = False) -> np.ndarray:
    """(H, W, 3) uint8 of a hand at x, y in [0, 1] over a table."""
    image = np.zeros((SIZE, SIZE, 3), np.float32)
    image[:] = (176, 150, 118) if top else (203, 212, 222)
    if not top:
        image[40:] = (168, 132, 98)
    image[30:50, 44:52] = (196, 62, 58)
    image[26:31, 38:58] = (230, 190, 70)
    row, column = round(y * (SIZE - 16)), round(x * (SIZE - 14))
    image[row : row + 14, column : column + 10] = (70, 84, 104)
    image[row + 10 : row + 16, column + 2 : column + 8] = (38, 44, 56)
    for _ in range(blur):
        image = (
            image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, -1, 0) + np.roll(image, -1, 1)
        ) / 5
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def views(x: float, y: float, **options) -> np.ndarray:
    return np.stack([scene(x, y, **options), scene(y, x, top=True, **options)])


def film_strips() -> FilmStrips:
    starts = np.random.default_rng(1).uniform(0.1, 0.5, (4, 2))
    moves = np.random.default_rng(2).uniform(-0.05, 0.3, (4, 2))
    present = np.stack([views(*s) for s in starts])
    real, imagined = (
        np.stack([
            np.stack([views(*(s + m * t), blur=blur, noise=noise) for t in (0.5, 1)], 1)
            for s, m in zip(starts, moves * gain, strict=True)
        ])
        for blur, noise, gain in ((0, 0, 1), (1, 3, 0.9))
    )  # fmt: skip
    return FilmStrips(
        present=present,
        real=real,
        imagined=imagined,
        captions=("play (3 sampling steps)",) * 2 + ("open the faucet (3 sampling steps)", "press the button"),
        kinds=("forward", "forward", "imagine", "imagine"),
        seconds=np.array([0.2, 0.4]),
    )


def what_if() -> WhatIf:
    names = ("still", "+x", "−x", "+y", "−y", "+z", "−z")
    motion = np.zeros((7, 3), np.float32)
    for i in range(3):
        motion[1 + 2 * i, i], motion[2 + 2 * i, i] = 0.8, -0.8
    pushes = motion[:, :2] * (0.25, -0.25) + motion[:, 2:] * (0, -0.2)
    imagined, truth = (
        np.stack([[views(0.4 + p[0], 0.35 + p[1], blur=b, noise=n)[:, None] for p in pushes]])
        for b, n in ((1, 3), (0, 0))
    )
    side = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], np.float32)
    above = np.diag([1, -1, -1, 1]).astype(np.float32)
    return WhatIf(
        present=views(0.4, 0.35)[None],
        imagined=imagined,
        truth=truth,
        names=names,
        motion=motion,
        extrinsics=np.stack([side, above])[None],
    )


def closed_loop() -> ClosedLoopResult:
    episodes, rollouts = [], []
    for t, (task, sentence) in enumerate(zip(TASKS, SENTENCES, strict=True)):
        for seed in range(20):
            solved = (seed + t) % (5 + 9 * t) != 4
            episode = Episode(
                environment=task, seed=seed, variant="policy", instruction=sentence, success=solved,
                steps=60 + seed if solved else 150, reward=1.0,
            )  # fmt: skip
            episodes.append(episode)
            if seed == 0 or (seed == 4 and not solved):
                path = np.linspace(0, 1, 40 if solved else 19)
                frames = np.stack([views(0.1 + 0.5 * s, 0.1 + 0.3 * s**2) for s in path])
                rollouts.append(Rollout(episode=episode, frames=frames, stride=1 if solved else 8))
    return ClosedLoopResult(episodes=tuple(episodes), rollouts=tuple(rollouts))


def wrong_text() -> ClosedLoopResult:
    return ClosedLoopResult(
        episodes=tuple(
            Episode(
                environment=TASKS[i], seed=s, variant="wrong_text", instruction=SENTENCES[1 - i], success=s == 3 and i == 0,
                steps=150, reward=0.0,
            )
            for i in (0, 1)
            for s in range(20)
        )
    )  # fmt: skip


def write_run(folder: Path, *, blind: bool = False) -> Path:
    """blind: the model ignores actions, so its gates fail."""
    gates = [
        judge("action_sensitivity", 1.02 if blind else 2.44, n=256, steps=1),
        judge("action_sensitivity", 1.01 if blind else 2.31, n=256, steps=3),
        judge("forward_gain_db", 0.4 if blind else 4.4, n=256, steps=1),
        judge("forward_gain_db", 0.3 if blind else 3.8, n=256, steps=3),
        judge("imagine_gain_db", 2.3, n=256, steps=1),
        judge("imagine_gain_db", 1.9, n=256, steps=3),
        judge("inverse_r2_gain", 0.45, n=256, steps=1),
        judge("inverse_r2_gain", 0.44, n=256, steps=3),
        judge("wrong_text_success", 0.025, n=40),
    ]
    result = closed_loop()
    artefacts.save_gates(folder, gates)
    artefacts.save_success(folder, {"policy": result, "wrong_text": wrong_text()})
    artefacts.save_film_strips(folder, film_strips())
    artefacts.save_what_if(folder, what_if())
    artefacts.save_rollouts(folder, result.rollouts)
    protocol = {"extractor": "randconv-3x3-s2-relu-x3", "weights_sha256": "0123456789abcdef", "frames": 2, "stride": 1}
    artefacts.save_video_table(
        folder,
        [
            {"prediction": name, "data": data, "steps": steps, "n": 256, "psnr": psnr, "psnr_changed": psnr - 6,
             "ssim": psnr / 30, "frechet_randconv": 40 - psnr, "frechet_protocol": protocol}
            for name, data, steps, psnr in (
                ("copying the last frame", "play", 0, 17.7),
                ("forward dynamics, true actions", "play", 1, 22.1),
                ("forward dynamics, true actions", "play", 3, 21.5),
                ("forward dynamics, shuffled actions", "play", 1, 17.1),
                ("copying the last frame", "expert", 0, 19.0),
                ("imagined without actions", "expert", 3, 20.9),
            )
        ],
    )  # fmt: skip
    rng, lines = np.random.default_rng(0), []
    for step in range(10, 2000, 10):
        fall = np.exp(-step / 400)
        lines.append({"step": step, "loss": 0.2 + fall + rng.normal(0, 0.03),
                      "loss/future": 0.1 + 0.6 * fall + rng.normal(0, 0.01),
                      "loss/action": 0.08 + 0.4 * fall + rng.normal(0, 0.02), "learning_rate": 3e-4 * (1 - step / 2000),
                      "data_wait_share": 0.01 + abs(rng.normal(0, 0.003))})  # fmt: skip
    lines.append({"step": 1000, "check/future": 0.3, "check/action": 0.2})
    lines.append({"step": 1990, "check/future": 0.15, "check/action": 0.12})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines) + '{"step": 20')
    (folder / "config.yaml").write_text("stage: joint\nmodel:\n  width: 192\n  layers: 6\n# a < b & c\n")
    checkpoint = folder / "checkpoints" / "step-00001990"
    checkpoint.mkdir(parents=True)
    (folder / "checkpoints" / "last").write_text("step-00001990\n")
    (checkpoint / "provenance.json").write_text(
        json.dumps(
            {"wam": "0.1.0", "code": "0123456789ab", "random": False, "stage": "joint", "seed": 0, "step": 1990,
             "data": ["data"], "train_seconds": 420.5, "windows": {"demo": 12345},
             "parts": {"video": {"source": "autoencoder trained here", "random": False}},
             "sha256": {"config.yaml": "aa" * 32, "model.safetensors": "bb" * 32}}
        )
    )  # fmt: skip
    write_summary(
        folder / "summary.json",
        {"success_mean": result.mean.value, "action_sensitivity": 2.31, "wall_minutes": 9.1},
        n={"play_windows": 256, "starts_per_task": 20},
        seeds=[0],
    )
    return folder
