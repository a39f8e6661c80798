"""Latents made before training: equal to fresh ones, made once, and never those of another video or another encoder."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tokenizers.test_text import tiny_config, tokenizer
from tests.training.conftest import toy_config, write_toy
from tests.training.test_backbones import pipeline, wan_config  # noqa: F401  (a fixture)
from wam.cli.main import main
from wam.contracts import Batch, WamError
from wam.data.latents import LatentFiles, LatentKey
from wam.data.store import EpisodeStore
from wam.model.config import ModelConfig, StreamConfig
from wam.settings import save_settings
from wam.tokenizers.autoencoder import Autoencoder, AutoencoderConfig
from wam.tokenizers.fingerprint import fingerprint
from wam.tokenizers.text import PretrainedTextEncoder, TextConfig
from wam.tokenizers.video import VideoConfig, VideoTokenizer, make_video_tokenizer
from wam.training.config import TrainConfig
from wam.training.latent_cache import Clip, precompute
from wam.training.stages.joint import JointStage
from wam.training.trainer import train

TOOL = Path(__file__).parents[2] / "tools" / "cache_cluster.py"


def save_autoencoder(folder: Path, seed: int = 0) -> str:
    torch.manual_seed(seed)
    made = Autoencoder(AutoencoderConfig(channels=4, width=8, levels=2))
    made.mark_trained("a test")
    made.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_autoencoder(tmp_path_factory.mktemp("autoencoder"))


def framewise_config(toy: Path, autoencoder: str, output: Path, **changes: object) -> TrainConfig:
    """Frames one by one, three of the past."""
    config = toy_config(toy, output, **changes)
    config.model.history, config.model.history_stride = 3, 2
    config.model.video = VideoConfig(kind="autoencoder", name=autoencoder)
    for stream in config.model.streams.values():
        stream.fold = 1
    return config


def causal_config(toy: Path, pipeline: Path, output: Path) -> TrainConfig:  # noqa: F811
    """Frames to come together with the present, by a VAE of Wan's class; a native future."""
    config = wan_config(toy, pipeline, output)
    plain = ModelConfig().streams["observation"]
    config.model.streams["observation"] = replace(plain, grid=2, fold=1, stem_width=8)
    config.model.streams["future"] = StreamConfig(kind="video", predicts="x0", grid=2, fold=1, stem_width=8)
    config.model.streams["action"].registers = 0
    return config


def losses(stage: JointStage, batch: Batch) -> dict[str, float]:
    found = stage.losses(batch, generator=torch.Generator().manual_seed(0))
    return {name: loss.item() for name, loss in found.items()}


def compare(config: TrainConfig, folder: Path) -> tuple[JointStage, JointStage]:
    """Stages of the same weights, on fresh latents and on cached ones."""
    stages = []
    for latents in ("", str(folder)):
        torch.manual_seed(0)
        own = replace(config, data=replace(config.data, latents=latents), model=config.model)
        stages.append(JointStage(own))
    return stages[0], stages[1]


def test_training_on_cached_latents_equals_training_on_fresh_ones(toy: Path, autoencoder: str, tmp_path: Path) -> None:
    config = framewise_config(toy, autoencoder, tmp_path / "fresh")
    cached = replace(config, output=str(tmp_path / "cached"), data=replace(config.data, latents=str(tmp_path / "made")))
    precompute(cached)
    one, two = train(config), train(cached)
    assert two.losses == pytest.approx(one.losses, rel=1e-5)


@pytest.mark.parametrize("kind", ["framewise", "causal"])
def test_every_window_is_given_the_latents_of_its_own_frames(
    kind: str, toy: Path, autoencoder: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if kind == "framewise":
        config = framewise_config(toy, autoencoder, tmp_path / "run")
    else:
        config = causal_config(toy, request.getfixturevalue("pipeline"), tmp_path / "run")
    precompute(replace(config, data=replace(config.data, latents=str(tmp_path / "made"))))
    fresh, cached = compare(config, tmp_path / "made")
    for source, dataset in enumerate(fresh.mixture.datasets):
        draws = np.array([(source, row) for row in range(0, len(dataset), 5)] + [(source, len(dataset) - 1)])
        plain, given = fresh.mixture.batch(draws), cached.mixture.batch(draws)
        assert given.images.shape[3:5] == (0, 0), "no video is read"
        with torch.no_grad():
            torch.testing.assert_close(given.latents, fresh.model.network.observed(plain))
            torch.testing.assert_close(given.future_latents, fresh.model.network.foreseen(plain))
        assert losses(cached, given) == pytest.approx(losses(fresh, plain), rel=1e-4)


def test_half_latents_take_half_the_room_and_are_near(toy: Path, autoencoder: str, tmp_path: Path) -> None:
    config = framewise_config(toy, autoencoder, tmp_path / "run")
    sizes = []
    for half in (False, True):
        config.data = replace(config.data, latents=str(tmp_path / str(half)), half_latents=half)
        found = precompute(config)
        sizes.append(sum(file.stat().st_size for file in found.folder.rglob("*.safetensors")))
    assert sizes[1] < 0.6 * sizes[0]
    near = JointStage(config).mixture.batch(np.array([(0, 3)]))
    config.data = replace(config.data, latents=str(tmp_path / "False"), half_latents=False)
    exact = JointStage(config).mixture.batch(np.array([(0, 3)]))
    torch.testing.assert_close(near.latents, exact.latents, atol=1e-2, rtol=1e-2)


class TestResuming:
    def test_an_interrupted_run_goes_on_with_what_is_missing(self, toy: Path, autoencoder: str, tmp_path: Path) -> None:
        config = framewise_config(toy, autoencoder, tmp_path / "run")
        config.data.latents = str(tmp_path / "made")

        def dies(clips: list[Clip], *_: object):  # type: ignore[no-untyped-def]
            from wam.training.latent_cache import ClipEncoder

            encoder = ClipEncoder(config, "cpu")
            for clip in clips[:2]:
                yield encoder.encode(clip)
            (encoder.files.path(clips[2].clip).parent).mkdir(parents=True, exist_ok=True)
            encoder.files.path(clips[2].clip).with_suffix(".safetensors.part").write_bytes(b"half of it")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            precompute(config, executor=dies)  # type: ignore[arg-type]
        with pytest.raises(WamError, match=r"got \d+ of them; make the others: wam data cache"):
            JointStage(config)
        shown: list[tuple[int, int]] = []
        found = precompute(config, progress=lambda done, total: shown.append((done, total)))
        assert (found.clips - found.new, shown[0][0]) == (2, 2)
        assert precompute(config).new == 0
        JointStage(config)

    @pytest.mark.slow
    def test_processes_make_what_one_makes(self, toy: Path, autoencoder: str, tmp_path: Path) -> None:
        contents = []
        for processes in (1, 2):
            config = framewise_config(toy, autoencoder, tmp_path / "run")
            config.data.latents = str(tmp_path / str(processes))
            found = precompute(config, processes=processes)
            contents.append({p.name: p.read_bytes() for p in sorted(found.folder.rglob("*.safetensors"))})
        assert contents[0] == contents[1]


class TestNothingStale:
    """Each change makes other names, so training finds nothing and says so."""

    @pytest.fixture
    def made(self, toy: Path, autoencoder: str, tmp_path: Path) -> TrainConfig:
        shutil.copytree(toy, tmp_path / "data")
        config = framewise_config(tmp_path / "data", save_autoencoder(tmp_path / "autoencoder"), tmp_path / "run")
        config.data.latents = str(tmp_path / "made")
        precompute(config)
        JointStage(config)
        return config

    def refused(self, config: TrainConfig) -> None:
        with pytest.raises(WamError, match=r"got 0 of them; make the others"):
            JointStage(config)

    def test_after_the_encoder_was_trained_again(self, made: TrainConfig, tmp_path: Path) -> None:
        save_autoencoder(tmp_path / "autoencoder", seed=1)
        self.refused(made)

    def test_at_another_image_size(self, made: TrainConfig) -> None:
        made.model.image_size = 32
        for stream in made.model.streams.values():
            stream.grid = 8
        self.refused(made)

    def test_with_the_cameras_in_another_order(self, made: TrainConfig) -> None:
        made.data.cameras = ["b", "a"]
        self.refused(made)

    def test_after_the_video_was_recorded_anew(self, made: TrainConfig, tmp_path: Path) -> None:
        shutil.rmtree(tmp_path / "data")
        write_toy(tmp_path / "data", tinted=True)
        self.refused(made)

    def test_a_file_put_under_anothers_name_is_found(self, made: TrainConfig, tmp_path: Path) -> None:
        one, two = sorted((tmp_path / "made").rglob("*.safetensors"))[:2]
        two.write_bytes(one.read_bytes())
        with pytest.raises(WamError, match="delete the file and make it anew"):
            JointStage(made)

    def test_a_torn_file_is_found(self, made: TrainConfig, tmp_path: Path) -> None:
        file = next((tmp_path / "made").rglob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(WamError, match="delete the file and make it anew"):
            JointStage(made)

    def test_a_copy_of_the_data_elsewhere_shares_the_latents(self, made: TrainConfig, tmp_path: Path) -> None:
        shutil.move(tmp_path / "data", tmp_path / "moved")
        made.data.parts[0].root = str(tmp_path / "moved")
        JointStage(made)

    def test_replaced_pictures_take_their_latents_with_them(self, made: TrainConfig) -> None:
        batch = JointStage(made).mixture.batch(np.array([(0, 0), (0, 1)]))
        assert batch.latents is not None
        assert batch.replace(images=batch.images + 1).latents is None
        assert batch.replace(images=batch.images + 1).future_latents is None
        assert batch.without("future").future_latents is None
        assert torch.equal(batch[[1]].latents, batch.latents[1:])  # type: ignore[arg-type]


def test_sentences_are_encoded_before_training_and_the_encoder_is_not_kept(
    toy: Path, autoencoder: str, tmp_path: Path
) -> None:
    PretrainedTextEncoder.from_config(tiny_config("t5"), tokenizer()).save_pretrained(tmp_path / "t5")
    config = framewise_config(toy, autoencoder, tmp_path / "run")
    config.model.text = TextConfig(kind="pretrained", name=str(tmp_path / "t5"))
    config.data.latents = str(tmp_path / "made")
    with pytest.raises(WamError, match="features of 2 sentences"):
        JointStage(config)
    assert precompute(config).sentences == 2
    fresh, cached = compare(config, tmp_path / "made")
    draws = np.array([(0, 1), (0, 4)])
    plain, given = fresh.mixture.batch(draws), cached.mixture.batch(draws)
    assert losses(cached, given) == pytest.approx(losses(fresh, plain), rel=1e-4)
    encoder = cached.model.network.stems["text"].encoder
    assert not isinstance(encoder, PretrainedTextEncoder)
    assert encoder.provenance == fresh.model.network.stems["text"].encoder.provenance  # type: ignore[union-attr]
    with pytest.raises(WamError, match="whose features were made before"):
        cached.losses(given.replace(instruction=("another",) * 2), generator=torch.Generator())


def test_what_has_nothing_to_make_before_training_is_refused(toy: Path, autoencoder: str, tmp_path: Path) -> None:
    config = toy_config(toy, tmp_path / "run")
    with pytest.raises(WamError, match="a folder for latents"):
        precompute(config)
    config.data.latents = str(tmp_path / "made")
    with pytest.raises(WamError, match="whose latents are worth keeping"):
        precompute(config)
    with pytest.raises(WamError, match="looks at pixels"):
        replace(config, stage="cloning").validate()


def test_a_fingerprint_is_of_content_alone(autoencoder: str, tmp_path: Path) -> None:
    def made(folder: str | Path) -> VideoTokenizer:
        return make_video_tokenizer(VideoConfig(kind="autoencoder", name=str(folder)))

    shutil.copytree(autoencoder, tmp_path / "copy")
    own = fingerprint(made(autoencoder))
    assert fingerprint(made(tmp_path / "copy")) == own
    moved = made(autoencoder)
    with torch.no_grad():
        next(moved.parameters()).flatten()[0] += 1e-3
    assert fingerprint(moved) != own


def test_the_command_makes_them_and_says_how_many(
    toy: Path, autoencoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_settings(framewise_config(toy, autoencoder, tmp_path / "run"), tmp_path / "train.yaml")
    command = ["data", "cache", str(tmp_path / "train.yaml"), f"data.latents={tmp_path / 'made'}", "--device", "cpu"]
    for fresh in ("4 clips (4 new)", "4 clips (0 new)"):
        assert main(command) == 0
        assert fresh in capsys.readouterr().out


def test_one_clip_of_two_datasets_is_made_once(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy, tmp_path / "copy")
    files = LatentFiles(tmp_path / "made", LatentKey(encoder="e", cameras=("a", "b"), image_size=16))
    clips = [
        [files.clip(store, episode) for episode in store.episodes]
        for store in map(EpisodeStore, (toy, tmp_path / "copy"))
    ]
    assert clips[0] == clips[1]
    assert len(set(clips[0])) == len(clips[0])


@pytest.mark.slow
def test_latents_made_on_ray_are_those_made_here(toy: Path, autoencoder: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed; pip install 'wam[ray]'")
    config = framewise_config(toy, autoencoder, tmp_path / "run")
    save_settings(config, tmp_path / "train.yaml")
    config.data.latents = str(tmp_path / "here")
    local = precompute(config).folder
    command = [sys.executable, str(TOOL), str(tmp_path / "train.yaml"), f"data.latents={tmp_path / 'ray'}"]
    for fresh in ("4 clips (4 new)", "4 clips (0 new)"):
        done = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert fresh in done.stdout
    remote = tmp_path / "ray" / local.name
    files = sorted(file.relative_to(local) for file in local.rglob("*.safetensors"))
    assert files
    assert all((remote / file).read_bytes() == (local / file).read_bytes() for file in files)
