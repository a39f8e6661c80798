"""The parts of the network that a stream has beside its expert: a stem, a head, and for frames both ends and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from wam.contracts import expected
from wam.model.backbones.ends import PretrainedEnds
from wam.model.backbones.vlm.scene import SceneEnds
from wam.model.config import ModelConfig
from wam.model.frames import VideoEnds
from wam.model.rope import chunk_positions, grid_positions
from wam.model.stems import ChunkHead, ChunkStem, TextStem, VectorStem, VideoSummary
from wam.model.visibility import VisibilityTable
from wam.tokenizers.text import TextEncoder
from wam.tokenizers.video import VideoTokenizer


def chunk_shape(config: ModelConfig, stream: str) -> tuple[int, int]:
    """(A, K) of a chunk stream."""
    latent = (config.latent_action_dim, config.latent_action_length or config.chunk)
    return {"action": (config.action_dim, config.chunk), "latent_action": latent, "value": (1, 1)}[stream]


def make_stem(config: ModelConfig, stream: str, *, width: int, text: TextEncoder, seen: bool) -> nn.Module:
    """The stem of a text, vector or chunk stream; one that no other sees has no soft prompts."""
    c, W = config.streams[stream], config.condition_width
    if c.kind == "text":
        return TextStem(text, tokens=c.tokens, width=width, condition_width=W)
    if c.kind == "vector":
        if wrong := [column for column in c.columns if not 0 <= column < config.state_dim]:
            raise expected(
                f"columns of a state of {config.state_dim} numbers", got=wrong, do=f"set model.streams.{stream}.columns"
            )
        return VectorStem(
            len(c.columns) or config.state_dim,
            embodiments=config.embodiments,
            prompts=config.soft_prompts if seen else 0,
            width=width,
            condition_width=W,
        )
    if c.kind == "chunk":
        dim, length = chunk_shape(config, stream)
        return ChunkStem(
            dim,
            length,
            embodiments=config.embodiments,
            registers=c.registers,
            width=width,
            condition_width=W,
        )
    raise expected("stream kind text, video, vector or chunk", got=f"{c.kind!r} for {stream!r}", do="mend it")


def make_head(config: ModelConfig, stream: str, *, width: int) -> ChunkHead:
    dim, length = chunk_shape(config, stream)
    return ChunkHead(dim, length, embodiments=config.embodiments, width=width, condition_width=config.condition_width)


def make_ends(
    config: ModelConfig, stream: str, *, width: int, table: VisibilityTable, video: VideoTokenizer
) -> VideoEnds:
    """Both ends of a native video stream."""
    return VideoEnds(
        config.streams[stream],
        size=config.image_size // video.spatial,
        channels=video.channels,
        views=config.views,
        width=width,
        condition_width=config.condition_width,
        beside=stream in table.skips,
        predicts=stream in config.noisy,
    )


def tokens_of(ends: VideoEnds | PretrainedEnds | SceneEnds, *, frames: int, side: int) -> int:
    """Tokens of a video stream of so many frames (or tubelets) of latents, side x side in each view."""
    if isinstance(ends, SceneEnds):
        return frames * ends.picture_tokens
    if isinstance(ends, PretrainedEnds):
        return (frames + ends.leads) * ends.tokens(side)
    return frames * ends.groups * ends.config.grid**2


def positions_of(
    config: ModelConfig,
    stream: str,
    signal: Tensor,
    videos: nn.ModuleDict,
    *,
    video: VideoTokenizer,
    time: int,
) -> Tensor:
    """(L, 3): where the tokens of a noisy stream's signal stand, in dataset frames and in the picture."""
    c = config.streams[stream]
    if c.kind == "video":
        offsets = torch.tensor(config.future, dtype=torch.float32).reshape(-1, c.tubelet * video.temporal).mean(1)
        return grid_positions(time + offsets, c.grid, cast(VideoEnds, videos[stream]).groups)
    times = torch.arange(signal.shape[1] + c.registers).clamp(max=signal.shape[1] - 1) + time
    return chunk_positions(times)


def make_summary(config: ModelConfig, stream: str, *, tokens: int, width: int) -> VideoSummary:
    return VideoSummary(tokens, width=width, condition_width=config.condition_width)


def unknown_vectors(config: ModelConfig, known: Tensor | None, hide: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows (B,) bool in which a vector stream is missing: those to hide, and those where a number of the state that it reads
    is not known (B, S)."""
    found = dict(hide)
    for s in config.vectors if known is not None else ():
        assert known is not None
        found[s] = found.get(s, False) | ~known[:, config.streams[s].columns or slice(None)].all(1)
    return found
