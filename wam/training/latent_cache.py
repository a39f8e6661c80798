"""Latents and text features made once, before training, by the very encoders that the model would run (`data.latents`).

    wam data cache configs/train/wan2.2-5b-libero.yaml data.latents=runs/latents     make them; goes on where it stopped
    wam train      configs/train/wan2.2-5b-libero.yaml data.latents=runs/latents     train on them

A clip's latents are found by a digest of its video and of the encoder's weights (`wam.data.latents`), so training on stale
ones cannot happen: where one is missing, training refuses and says what to do. Encoding takes clip by clip, in this
process, in several on this machine, or on a cluster (`tools/cache_cluster.py`).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wam.contracts import expected
from wam.data.latents import LatentFiles, LatentKey
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset, WindowSpec
from wam.files import write_bytes
from wam.model.backbones.catalogue import CATALOGUE
from wam.model.latents import FrameCoder
from wam.simulation.workers import worker_pool
from wam.tokenizers.fingerprint import fingerprint
from wam.tokenizers.remembered import RememberedText
from wam.tokenizers.text import TextEncoder, make_text_encoder
from wam.tokenizers.video import VideoTokenizer, make_video_tokenizer
from wam.training.config import TrainConfig
from wam.training.data import training_episodes

AT_ONCE = 32
"""Windows that an encoder is given together."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One episode to encode. clip: the digest of its video."""

    root: str
    episode: int
    clip: str


Executor = Callable[[Sequence[Clip], TrainConfig, str], Iterable[None]]
"""(clips, config, device) -> something for every clip that is done; how they are spread over processes or machines."""


@dataclass(frozen=True, kw_only=True)
class Cached:
    """clips: that the config trains on; new: made just now. sentences: whose features are there, 0 where the encoder learns."""

    folder: Path
    clips: int
    new: int
    sentences: int


def precompute(
    config: TrainConfig,
    *,
    device: str = "cpu",
    processes: int = 1,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Cached:
    """Make all latents and text features that training by this config reads and that are not there yet.

    processes: on this machine, each with its own encoder and, where there are several accelerators, one of them. Raises
    WamError for encoders that have nothing to make before training: raw pixels, or weights that learn with the model.
    """
    encoder = ClipEncoder(config, device)
    found: dict[str, Clip] = {}
    sentences: dict[str, None] = {"": None}
    for part in config.data.parts:
        store = EpisodeStore(part.root)
        for index in training_episodes(store, part, config.data):
            episode = store.episode(index)
            clip = encoder.files.clip(store, episode)
            found[clip] = Clip(root=part.root, episode=index, clip=clip)
        sentences |= dict.fromkeys(store.tasks)
    left = [clip for name, clip in found.items() if not encoder.files.has(name)]
    report, done = progress or (lambda *_: None), len(found) - len(left)
    report(done, len(found))
    run: Executor = executor or (
        (lambda clips, *_: map(encoder.encode, clips)) if processes == 1 else _Pool(min(processes, max(1, len(left))))
    )
    for _ in run(left, config, device) if left else ():
        report(done := done + 1, len(found))
    told = make_features(config, list(sentences), device=device)
    return Cached(folder=encoder.files.folder, clips=len(found), new=len(left), sentences=len(told))


class ClipEncoder:
    """The encoder of a process, and the files that it fills."""

    def __init__(self, config: TrainConfig, device: str) -> None:
        video = make_video_tokenizer(config.model.video)
        self.coder = FrameCoder(config.model, video.to(device)).eval()
        self.device, self.files = device, latent_files(config, video)
        self.spec = _spec(config, video)

    @torch.no_grad()
    def encode(self, clip: Clip) -> None:
        windows = WindowDataset(EpisodeStore(clip.root), self.spec, episodes=[clip.episode])
        made: dict[str, list[Tensor]] = {
            name: [] for name in (("frames", "future") if self.spec.future else ("frames",))
        }
        for start in range(0, len(windows), AT_ONCE):
            batch = windows.batch(range(start, min(start + AT_ONCE, len(windows)))).to(self.device)
            made["frames"].append(self.coder.encode_frames(batch.images)[:, :, 0].cpu())
            if self.spec.future:
                assert batch.future is not None
                made["future"].append(self.coder.encode_future(batch.images, batch.future).cpu())
        self.files.write(clip.clip, {name: torch.cat(parts).numpy() for name, parts in made.items()})


def latent_files(config: TrainConfig, video: VideoTokenizer) -> LatentFiles:
    """Where the latents that this tokenizer makes for this config lie. Raises WamError where it has none to keep."""
    if not config.data.latents:
        raise expected("a folder for latents", got="none", do="set data.latents=FOLDER")
    if config.model.video.kind == "pixels":
        raise expected(
            "a video tokenizer, whose latents are worth keeping", got="pixels", do="set `model.video`, or data.latents="
        )
    if any(p.requires_grad for p in video.parameters()):
        raise expected("a video tokenizer that stays as it is", got="one that learns with the model", do="freeze it")
    spec = _spec(config, video)
    key = LatentKey(
        encoder=fingerprint(video),
        cameras=tuple(config.data.cameras),
        image_size=config.model.image_size,
        future=spec.future,
        half=config.data.half_latents,
    )
    return LatentFiles(config.data.latents, key)


def _spec(config: TrainConfig, video: VideoTokenizer) -> WindowSpec:
    """A present and, for a causal tokenizer, the frames to come that it is shown with it."""
    causal = video.temporal > 1 and "future" in config.model.streams
    return WindowSpec(
        history=1,
        future=tuple(config.model.future) if causal else (),
        chunk=0,
        cameras=tuple(config.data.cameras),
        image_size=config.model.image_size,
    )


# ---------------------------------------------------------------- for training


@dataclass(frozen=True, kw_only=True)
class LatentCache:
    """What training takes in place of its encoders' work. text: None where the text encoder learns with the model. pictures:
    whether the model looks at pixels beside their latents."""

    files: LatentFiles
    video: VideoTokenizer
    text: TextEncoder | None
    pictures: bool


def open_cache(config: TrainConfig) -> LatentCache | None:
    """What `data.latents` holds for this config; None where it names no folder. Raises WamError where features are missing;
    missing latents are found when the episodes are opened."""
    if not config.data.latents:
        return None
    video = make_video_tokenizer(config.model.video)
    sentences = {"", *(sentence for part in config.data.parts for sentence in EpisodeStore(part.root).tasks)}
    text = None
    if config.model.text.kind == "pretrained":
        encoder = make_text_encoder(config.model.text)
        place = _FeatureFiles(config, encoder)
        if missing := [sentence for sentence in sorted(sentences) if not place.has(sentence)]:
            raise expected(
                f"features of {len(sentences)} sentences in {place.folder}, made by this very encoder",
                got=f"none of {len(missing)}, {missing[0]!r} first",
                do="make them: wam data cache CONFIG, with the same config and settings; or set data.latents=",
            )
        features = {sentence: place.read(sentence) for sentence in sorted(sentences)}
        text = RememberedText(features, provenance=encoder.provenance)
    return LatentCache(files=latent_files(config, video), video=video, text=text, pictures=reads_pictures(config))


def reads_pictures(config: TrainConfig) -> bool:
    """Does anything in training look at pixels beside their latents? A latent-action tokenizer does, and an image-to-video
    backbone; one that is not in the catalogue might."""
    named = [stream.backbone.name for stream in config.model.streams.values() if stream.backbone is not None]
    guided = [name not in CATALOGUE or "image_dim" in CATALOGUE[name].config for name in named]
    return bool(config.latent_actions) or any(guided)


# ---------------------------------------------------------------- text features


class _FeatureFiles:
    """One file a sentence under FOLDER/text-KEY, by the digest of the sentence; KEY is the encoder's."""

    def __init__(self, config: TrainConfig, encoder: TextEncoder) -> None:
        self.key = fingerprint(encoder)
        self.folder = Path(config.data.latents) / f"text-{self.key[:16]}"

    def path(self, sentence: str) -> Path:
        return self.folder / f"{hashlib.sha256(sentence.encode()).hexdigest()}.safetensors"

    def has(self, sentence: str) -> bool:
        return self.path(sentence).is_file()

    def write(self, sentence: str, features: Tensor) -> None:
        from safetensors.torch import save

        said = {"encoder": self.key, "sentence": json.dumps(sentence)}
        write_bytes(self.path(sentence), save({"features": features.cpu().contiguous()}, metadata=said))

    def read(self, sentence: str) -> Tensor:
        """(L, D)."""
        from safetensors import SafetensorError, safe_open

        path = self.path(sentence)
        try:
            with safe_open(path, framework="pt") as file:
                said, features = file.metadata() or {}, file.get_tensor("features")
        except (SafetensorError, OSError) as error:
            raise expected(
                f"readable features in {path}", got=str(error), do="delete the file and make it anew"
            ) from error
        if said != {"encoder": self.key, "sentence": json.dumps(sentence)}:
            raise expected(f"features of {sentence!r} in {path}", got=said, do="delete the file and make it anew")
        return features


@torch.no_grad()
def make_features(config: TrainConfig, sentences: Sequence[str], *, device: str) -> list[str]:
    """Make what is missing of these sentences' features. The sentences; none where the text encoder learns with the model."""
    if config.model.text.kind != "pretrained":
        return []
    encoder = make_text_encoder(config.model.text).to(device)
    place = _FeatureFiles(config, encoder)
    left = [sentence for sentence in sentences if not place.has(sentence)]
    for start in range(0, len(left), AT_ONCE):
        some = left[start : start + AT_ONCE]
        features, mask = encoder(some)
        for sentence, row, real in zip(some, features, mask, strict=True):
            place.write(sentence, row[real])
    return list(sentences)


# ---------------------------------------------------------------- processes


class _Pool:
    """An executor: processes on this machine."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def __call__(self, clips: Sequence[Clip], config: TrainConfig, device: str) -> Iterator[None]:
        number = multiprocessing.get_context("spawn").Value("i", 0)
        with worker_pool(self.processes, _begin, config, device, number) as pool:
            yield from pool.map(_encode, clips)


_encoder: ClipEncoder | None = None  # of a worker process


def _begin(config: TrainConfig, device: str, number: Any) -> None:
    """One core's work, or one accelerator's: the nth process takes the nth of them."""
    global _encoder
    torch.set_num_threads(1)
    if device == "cuda":
        with number.get_lock():
            device, number.value = f"cuda:{number.value % torch.cuda.device_count()}", number.value + 1
    _encoder = ClipEncoder(config, device)


def _encode(clip: Clip) -> None:
    assert _encoder is not None
    _encoder.encode(clip)
