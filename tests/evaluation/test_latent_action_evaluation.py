"""`wam eval latent-action` from a run to figures and pictures, on a dataset whose motion is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import wam.cli.main as cli
from tests.training.conftest import write_toy
from tests.training.test_latent_action_stage import config_of
from wam.contracts import WamError
from wam.data.store import EpisodeStore
from wam.data.writer import EpisodeWriter
from wam.evaluation.latent_action.config import LatentActionEvaluateConfig, PairsConfig
from wam.evaluation.latent_action.driving import foreseen, foresight, jitter_response, swapped
from wam.evaluation.latent_action.evaluate import evaluate
from wam.evaluation.latent_action.readings import Readings, read
from wam.evaluation.latent_action.transfer import aligned_pairs, transfer
from wam.tokenizers.latent_action import LatentActionTokenizer
from wam.training.state import newest_checkpoint
from wam.training.trainer import train


class Oracle(LatentActionTokenizer):
    """A tokenizer of the toy's brightest place: its latents are how far that moves, its decoder moves the picture so."""

    def quantized(self, pictures, there, *, generator=None):
        found = super().quantized(pictures, there, generator=generator)
        places = self._place(pictures[:, 0])
        moved = places[:, 1:] - places[:, :-1]
        return type(found)(latents=moved, codes=None, camera=None, loss=found.loss)

    def foresee(self, pictures, latents, there, *, camera=None, extra=None):
        rolled = [
            torch.roll(p, (round(float(z[0])), round(float(z[1]))), dims=(-2, -1))
            for p, z in zip(pictures, latents, strict=True)
        ]
        return torch.stack(rolled)

    @staticmethod
    def _place(pictures: torch.Tensor) -> torch.Tensor:
        """(B, T, 3, H, W) -> (B, T, 4) rows and columns of the bright square's middle, twice zeros behind."""
        bright = (pictures.mean(dim=2) + 1).clamp_min(0)
        side = torch.arange(bright.shape[-1], dtype=torch.float32)
        whole = bright.sum(dim=(-2, -1)).clamp_min(1e-6)
        y = (bright.sum(dim=-1) * side).sum(dim=-1) / whole
        x = (bright.sum(dim=-2) * side).sum(dim=-1) / whole
        return torch.stack([y, x, 0 * x, 0 * x], dim=-1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "data", episodes=16, length=24)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(config_of(data, folder, steps=20, save_every=100))
    return folder


@pytest.fixture(scope="module")
def oracle(run: Path) -> Oracle:
    trained = LatentActionTokenizer.from_pretrained(newest_checkpoint(run))
    tokenizer = Oracle(trained.config).eval()
    tokenizer.cameras, tokenizer.provenance = trained.cameras[:1], trained.provenance
    return tokenizer


@pytest.fixture(scope="module")
def windows(oracle: Oracle, data: Path) -> Readings:
    return read(oracle, EpisodeStore(data), list(range(16)), limit=150, seed=0, axes=(0, 1))


def test_windows_know_where_the_hand_went(windows: Readings) -> None:
    assert windows.motion is not None
    assert np.abs(windows.motion).max() > 1
    assert np.corrcoef(windows.latents[:, 0], windows.motion[:, 0])[0, 1] > 0.95
    assert len(windows) == 150
    assert windows.frames.shape == (150, 1, 2, 16, 16, 3)


def test_a_tokenizer_that_knows_is_sensitive_and_far_above_copying(oracle: Oracle, windows: Readings) -> None:
    errors = foresight(oracle, windows, seed=0)
    assert errors.sensitivity > 2
    assert errors.gain_db > 3


def test_latents_that_say_nothing_are_not_sensitive(oracle: Oracle, windows: Readings) -> None:
    silent = Readings(
        **{**{n: getattr(windows, n) for n in windows.__dataclass_fields__}, "latents": 0 * windows.latents}
    )
    errors = foresight(oracle, silent, seed=0)
    assert errors.sensitivity == pytest.approx(1)
    assert errors.gain_db == pytest.approx(0, abs=1e-6)


def test_borrowed_latents_move_the_other_scene_as_they_say(oracle: Oracle, windows: Readings) -> None:
    driven, frames, again = swapped(oracle, windows, seed=0)
    assert frames.shape == (150, 1, 16, 16, 3)
    assert (windows.task[driven] != windows.task).all()
    left = np.abs(again - windows.latents)[:, :2].max(axis=1)
    unrelated = np.abs(again - np.roll(windows.latents, 7, axis=0))[:, :2].max(axis=1)
    assert np.median(left) < 0.7 < np.median(unrelated)  # moves are rounded to pixels; some squares leave the picture


def test_a_tokenizer_of_places_takes_a_shaking_camera_for_action(oracle: Oracle, windows: Readings) -> None:
    shaken = [jitter_response(oracle, windows, shake=shake, seed=0) for shake in (0.0, 0.05, 0.1)]
    assert shaken[0] == 0
    assert shaken[2] > shaken[1] > 0.1


def write_video(path: Path, frames: np.ndarray) -> None:
    from wam.data.video import VideoEncoding, encode_video

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_video(frames, fps=10, encoding=VideoEncoding(crf=4)))


@pytest.fixture
def pairs(tmp_path: Path) -> PairsConfig:
    """A green square and a blue one over another background, moving alike; frames by half a pixel would blur."""
    for number in range(2):
        human, robot = np.zeros((20, 16, 16, 3), np.uint8), np.full((20, 16, 16, 3), 40, np.uint8)
        for step in range(20):
            x = 1 + (step // 4 * 2 if number else 8 - step // 4 * 2)
            human[step, 4:8, x : x + 4] = (0, 255, 0)
            robot[step, 8:12, x : x + 4] = (200, 200, 255)
        write_video(tmp_path / "human" / f"clip_{number}.mp4", human)
        write_video(tmp_path / "robot" / f"clip_{number}_robot.mp4", robot)
    return PairsConfig(human=str(tmp_path / "human"), robot=str(tmp_path / "robot"), every=1)


def test_motion_of_the_human_clip_drives_the_robot_clip(oracle: Oracle, pairs: PairsConfig) -> None:
    aligned = aligned_pairs(pairs, seconds=0.4, size=16)
    assert sorted(set(aligned.clip)) == ["clip_0", "clip_1"]
    found = transfer(oracle, aligned, slot=0)
    assert found.gain > 2
    still = LatentActionTokenizer(oracle.config).eval()  # untrained: it copies
    still.cameras = oracle.cameras
    assert transfer(still, aligned, slot=0).gain == pytest.approx(1, abs=0.02)


def test_named_clips_alone_are_used_and_missing_ones_are_an_error(pairs: PairsConfig) -> None:
    pairs.clips = ["clip_1"]
    assert set(aligned_pairs(pairs, seconds=0.4, size=16).clip) == {"clip_1"}
    pairs.clips = ["clip_7"]
    with pytest.raises(WamError, match="named after human clips"):
        aligned_pairs(pairs, seconds=0.4, size=16)


def test_a_run_is_measured_drawn_and_summed_up(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(
        ["eval", "latent-action", str(run), f"data={data}", "held_out=0.45", "axes=[0,1]", "windows=200", "pictures=3"]
    )
    printed = capsys.readouterr().out
    assert status == 1  # twenty steps of training reach no target
    summary = json.loads((run / "evaluation" / "latent-action" / "summary.json").read_text())
    wanted = {
        "probe_r2",
        "probe_r2_worst_axis",
        "probe_r2_shuffled",
        "probe_r2_task",
        "probe_r2_mlp",
        "probe_r2_features",
    }
    wanted |= {
        "perplexity_share",
        "dead_codes",
        "swap_r2",
        "retrieval_cosine",
        "jitter_response",
        "simulator_sensitivity",
    }
    assert wanted <= set(summary["figures"])
    assert set(summary["n"]) == set(summary["figures"])
    assert any(reason.startswith("code_sensitivity") for reason in summary["unmeasured"])
    assert "not measured: transfer_gain" in printed
    for name in ("simulator", "simulator-walk", "swap"):
        picture = Image.open(run / "evaluation" / "latent-action" / f"{name}.png")
        assert min(picture.size) > 32


def test_held_out_clips_are_measured_and_clips_of_the_training_are_refused(
    run: Path, data: Path, tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    rng = np.random.default_rng(0)
    with EpisodeWriter(clips, fps=10) as writer:
        for _ in range(2):
            writer.add_episode(images={"a": rng.integers(0, 255, (20, 16, 16, 3), np.uint8)}, columns={}, task="")
    config = LatentActionEvaluateConfig(
        data=str(data), held_out=0.3, axes=(0, 1), windows=60, human=str(clips), pictures=2
    )
    found = evaluate(run, config)
    assert {"code_sensitivity", "human_gain_db", "perplexity_share_human"} <= set(found.values)
    config.human = str(data)
    with pytest.raises(WamError, match="did not see"):
        evaluate(run, config)


def test_untrained_weights_are_named_so(tmp_path: Path, data: Path, run: Path) -> None:
    tokenizer = LatentActionTokenizer(LatentActionTokenizer.from_pretrained(newest_checkpoint(run)).config)
    tokenizer.cameras = ("a", "b")
    tokenizer.save_pretrained(tmp_path)
    found = evaluate(tmp_path, LatentActionEvaluateConfig(data=str(data), axes=(0, 1), windows=40, held_out=0.3))
    assert found.notes["random_weights"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no-such-run",), "no-such-run"),
        (("{run}", "data=no-such-data"), "no-such-data"),
        (("{run}", "windoes=3"), "windows"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    run: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", "latent-action", *(word.format(run=run) for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_latents_of_one_moment_do_not_depend_on_the_others_in_the_batch(oracle: Oracle, windows: Readings) -> None:
    present, latents = windows.frames[:70, :, 0], windows.latents[:70]
    whole = foreseen(oracle, present, latents, windows.there)
    assert np.array_equal(whole[66:], foreseen(oracle, present[66:], latents[66:], windows.there))
