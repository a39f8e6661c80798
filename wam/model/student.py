"""The student: a compact vision-language-action expert. One small convolutional encoder for all cameras, which the sentence
modulates, then a residual trunk of features and a chunk head.

What a sentence says is a vector that is computed once and kept (vision and language decoupled, as in NanoVLA), so a chunk
costs one pass of the encoder, the trunk and the head. A long chunk is trained and a short one executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wam.checkpoint import Checkpoint, code_revision
from wam.contracts import ActionSpace, Batch, expected
from wam.diffusion.samplers import initial_noise
from wam.model.chunk_heads import make_head
from wam.model.compact import Block, Encoder
from wam.model.inpainting import Inpainting, settled_prefix
from wam.model.normalize import Normalizer
from wam.model.prefix import PrefixStem
from wam.model.thought import Recall, Thought, ThoughtConfig
from wam.model.wam import Sample
from wam.settings import build, to_plain
from wam.tokenizers.interface import to_signed
from wam.tokenizers.text import TextConfig, TextEncoder, make_text_encoder

SMALLEST, LARGEST = 0.5, 50.0


@dataclass(kw_only=True)
class StudentConfig:
    """size: millions of parameters, from which width and channels follow where they are 0. width: of the trunk; channels: of
    the encoder's first convolution; depth: blocks of the trunk. head: `l1` or `flow`; maps: whether a flow head was trained
    to take long steps (see `wam.model.chunk_heads`). chunk: K, trained. prefix: settled actions from which an `l1` head's chunk
    can go on, at most; 0: none (`wam.model.prefix`). The rest is what the data and a teacher hold:
    training fills it in. columns: of the state, all where none is named. state_dropout: windows whose state training hides.
    thought: what a slow model hands to it, nothing by default.
    """

    size: float = 1.0
    width: int = 0
    channels: int = 0
    depth: int = 2
    head: Literal["l1", "flow"] = "l1"
    maps: bool = False
    chunk: int = 16
    prefix: int = 0
    state_dropout: float = 0.05
    views: int = 2
    history: int = 1
    image_size: int = 64
    action_dim: int = 4
    state_dim: int = 4
    columns: list[int] = field(default_factory=list)
    text: TextConfig = field(default_factory=lambda: TextConfig(width=64))
    thought: ThoughtConfig = field(default_factory=ThoughtConfig)

    def validate(self) -> None:
        if not SMALLEST <= self.size <= LARGEST:
            raise expected(
                f"student.size from {SMALLEST:g} to {LARGEST:g} million parameters", got=self.size, do="set it within"
            )
        if min(self.chunk, self.depth) < 1:
            raise expected(
                "student.chunk and depth of 1 or more", got=f"{self.chunk} and {self.depth}", do="raise them"
            )
        if not 0 <= self.prefix < self.chunk or (self.prefix and self.head != "l1"):
            raise expected(
                f"student.prefix below the chunk's {self.chunk}, and an `l1` head where it is above 0",
                got=f"{self.prefix} and {self.head!r}",
                do="lower it, or set student.head=l1",
            )
        self.thought.validate()


def sized(config: StudentConfig) -> StudentConfig:
    """The config with the width and channels at which a student has the nearest to `size` million parameters, its text
    encoder included if it is learned. What is set stays."""
    config.validate()
    if config.width and config.channels:
        return config

    def at(width: int) -> StudentConfig:
        return replace(config, width=config.width or width, channels=config.channels or max(8, round(width / 96) * 8))

    def parameters(width: int) -> int:
        with torch.device("meta"):
            # a pretrained encoder does not grow with the student, and is not counted
            text = None if config.text.kind == "small" else _Silent(config.text.width)
            return sum(p.numel() for p in Student(at(width), text=text).parameters())

    low, high = 2, 256  # in sixteenths of the width
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if parameters(16 * middle) < 1e6 * config.size else (low, middle)
    nearest = min((16 * low, 16 * max(2, low - 1)), key=lambda width: abs(parameters(width) - 1e6 * config.size))
    return at(nearest)


class _Silent(TextEncoder):
    """Stands in for a pretrained encoder where only sizes matter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.provenance = width, {}

    def encode(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Student(nn.Module):
    """images (B, V, T, H, W, 3), state (B, S) and sentences -> actions (B, K, A).

    In evaluation without gradients a sentence is read once and its features kept.
    """

    def __init__(
        self, config: StudentConfig, *, action_space: ActionSpace | None = None, text: TextEncoder | None = None
    ) -> None:
        super().__init__()
        self.config = config = sized(config)
        self.action_space = action_space
        self.cameras: tuple[str, ...] = ()
        self.provenance: dict[str, Any] = {"random": True}
        self.text = text or make_text_encoder(config.text)
        told, width = self.text.width, config.width
        self.encoder = Encoder(3 * config.history, config.channels, told)
        numbers = len(config.columns) or config.state_dim
        self.missing = nn.Parameter(torch.zeros(numbers))
        self.join = nn.Linear(config.views * self.encoder.width + numbers + told, width)
        self.trunk = nn.Sequential(
            nn.LayerNorm(width), nn.SiLU(), *(Block(width) for _ in range(config.depth)), nn.LayerNorm(width)
        )
        self.prefix: PrefixStem | None = None
        if config.prefix:
            self.prefix = PrefixStem(config.action_dim, config.prefix, embodiments=1, condition_width=width)
        self.head = make_head(config.head, width, config.chunk, config.action_dim, maps=config.maps)
        self.normalizers = nn.ModuleDict(
            {"action": Normalizer(config.action_dim), "state": Normalizer(config.state_dim)}
        )
        self.recall = Recall(config.thought, width) if config.thought.dim else None
        self._told: dict[str, Tensor] = {}

    def normalizer(self, name: str) -> Normalizer:
        return self.normalizers[name]  # type: ignore[return-value]

    # what is told ------------------------------------------------------------------------------------------------

    def read(self, sentences: Sequence[str]) -> Tensor:
        """(B, D): the mean of each sentence's tokens."""
        if self.training or torch.is_grad_enabled():
            return self._read(sentences)
        if unread := [s for s in dict.fromkeys(sentences) if s not in self._told]:
            if len(self._told) > 65536:
                self._told.clear()
            self._told.update(zip(unread, self._read(unread), strict=True))
        return torch.stack([self._told[s] for s in sentences])

    def _read(self, sentences: Sequence[str]) -> Tensor:
        tokens, mask = self.text(sentences)
        return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)

    def train(self, mode: bool = True) -> Student:
        self._told.clear()
        return super().train(mode)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        self._told.clear()
        return super().load_state_dict(*arguments, **options)

    def _apply(self, fn: Any, recurse: bool = True) -> Student:
        self._told.clear()
        return super()._apply(fn, recurse)

    # what is seen and done ---------------------------------------------------------------------------------------

    def see(self, images: Tensor, state: Tensor, told: Tensor, *, thought: Thought | None = None) -> Tensor:
        """z (B, width). images uint8, state (B, S) in its own units, told (B, D). Raises WamError for a thought that the
        student was not made for."""
        return self.trunk(self.joined(images, state, told, thought=thought))

    def going_on(self, joined: Tensor, chunk: Tensor, settled: Tensor) -> Tensor:
        """z (B, width) of what was `taken_in`, for a chunk (B, K, A), normalised, whose first actions are settled (B, K)."""
        if self.prefix is None:
            raise expected("a student trained with prefixes", got="one without", do="set student.prefix=8 to train one")
        return self.trunk(joined + self.prefix(chunk, settled, None)[:, 0])

    def joined(
        self,
        images: Tensor,
        state: Tensor,
        told: Tensor,
        *,
        known: Tensor | None = None,
        thought: Thought | None = None,
    ) -> Tensor:
        """(B, width), before the trunk; known (B,) bool: whose state is there."""
        pictures = to_signed(images).permute(0, 1, 2, 5, 3, 4).flatten(2, 3)
        B, V = pictures.shape[:2]
        seen = self.encoder(pictures.flatten(0, 1), told[:, None].expand(-1, V, -1).flatten(0, 1)).reshape(B, -1)
        own = self.normalizer("state").normalize(state)
        own = own[:, self.config.columns] if self.config.columns else own
        if known is not None:
            own = torch.where(known[:, None], own, self.missing)
        joined = self.join(torch.cat([seen, own, told], dim=1))
        if self.recall is not None:
            joined = joined + self.recall(thought, B)
        elif thought is not None:
            raise expected(
                "a student that learned to be handed thoughts",
                got="one that acts alone",
                do="distill it with student.thought.kind=context",
            )
        return joined

    def look(self, batch: Batch, *, hide: Tensor | None = None, thought: Thought | None = None) -> Tensor:
        """z (B, width) of a batch, see `taken_in`."""
        return self.trunk(self.taken_in(batch, hide=hide, thought=thought))

    def taken_in(self, batch: Batch, *, hide: Tensor | None = None, thought: Thought | None = None) -> Tensor:
        """(B, width), before the trunk, of a batch; a state that it lacks is missing, and so is its thought. hide (B,) bool:
        whose state is kept away.

        Raises WamError where shapes are not those of the config.
        """
        c, B = self.config, batch.size
        wanted = (c.views, c.history, c.image_size, c.image_size, 3)
        if tuple(batch.images.shape[1:]) != wanted:
            raise expected(
                f"images of shape (B, V, T, H, W, C) = (B, {', '.join(map(str, wanted))})",
                got=tuple(batch.images.shape),
                do="give the cameras, frames and sizes that the student was trained with",
            )
        told = self.read(batch.instruction or ("",) * B)
        if batch.state is None:
            nothing = torch.zeros(B, c.state_dim, device=told.device)
            unknown = torch.zeros(B, dtype=torch.bool, device=told.device)
            return self.joined(batch.images, nothing, told, known=unknown, thought=thought)
        if batch.state.shape[1] != c.state_dim:
            raise expected(
                f"a state of {c.state_dim} numbers", got=batch.state.shape[1], do="check the robot or dataset"
            )
        known = None if batch.state_mask is None else batch.state_mask[:, c.columns or slice(None)].all(1)
        if hide is not None:
            known = ~hide.to(told.device) if known is None else known & ~hide.to(told.device)
        return self.joined(batch.images, batch.state, told, known=known, thought=thought)

    def plan(self, z: Tensor, noise: Tensor, *, steps: int) -> Tensor:
        """(B, K, A) in the action space's units."""
        return self.normalizer("action").restore(self.head.sample(z, noise, steps=steps).float())

    def noise(self, size: int, *, seed: int = 0, same_noise: bool = False) -> Tensor:
        """(B, K, A): what a flow head starts from; an `l1` head does not look at it."""
        c, device = self.config, self.missing.device
        rows = 1 if same_noise else size
        return initial_noise((rows, c.chunk, c.action_dim), seed=seed, device=device).expand(size, -1, -1)

    @torch.no_grad()
    def policy(
        self,
        batch: Batch,
        *,
        steps: int = 1,
        guidance: float = 1.0,
        seed: int = 0,
        same_noise: bool = False,
        steering: object = None,
        inpainting: Inpainting | None = None,
        thought: Thought | None = None,
    ) -> Sample:
        """A chunk for each row. steps: of a flow head. inpainting: by `prefix`, of a student trained so. Raises WamError for
        guidance, steering and other inpainting, which need a model that denoises its chunk."""
        if guidance != 1.0 or steering is not None or (inpainting is not None and inpainting.method != "prefix"):
            raise expected(
                "a student without guidance, steering and guided inpainting", got="one", do="ask its teacher instead"
            )
        if inpainting is not None:
            return Sample(action=self._continued(batch, inpainting, thought))
        return Sample(action=self.chunk(batch, steps=steps, seed=seed, same_noise=same_noise, thought=thought))

    def chunk(
        self,
        batch: Batch,
        *,
        steps: int = 1,
        seed: int = 0,
        same_noise: bool = False,
        thought: Thought | None = None,
    ) -> Tensor:
        """(B, K, A) in the action space's units."""
        noise = self.noise(batch.size, seed=seed, same_noise=same_noise)
        return self.plan(self.look(batch, thought=thought), noise, steps=steps)

    def _continued(self, batch: Batch, inpainting: Inpainting, thought: Thought | None) -> Tensor:
        joined, c = self.taken_in(batch, thought=thought), self.config
        like = joined.new_zeros(batch.size, c.chunk, c.action_dim)
        settled, known = settled_prefix(inpainting, like=like, longest=c.prefix), inpainting.chunk.to(like.device)
        z = self.going_on(joined, self.normalizer("action").normalize(known), settled)
        return torch.where(settled[..., None], known, self.plan(z, like, steps=1))

    # checkpoints -------------------------------------------------------------------------------------------------

    def save_pretrained(
        self,
        folder: Path,
        *,
        tensors: dict[str, Tensor] | None = None,
        cameras: tuple[str, ...] | None = None,
        statistics: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        """Write the student, or other `tensors` of its names. provenance: says at least what its teacher was, if any."""
        Checkpoint(
            config={
                "student": to_plain(self.config),
                "action_space": self.action_space.to_dict() if self.action_space else None,
                "cameras": list(self.cameras if cameras is None else cameras),
            },
            tensors=self.state_dict() if tensors is None else tensors,
            statistics=statistics or {},
            provenance={"code": code_revision(), "random": False, "parts": {"text": self.text.provenance}}
            | (provenance or {}),
        ).save(folder)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Student:
        """In evaluation mode. Raises WamError for a checkpoint of another model."""
        if "student" not in checkpoint.config:
            raise expected(
                "a student", got=f"a checkpoint of {', '.join(checkpoint.config)}", do="distill one: wam distill"
            )
        space = checkpoint.config.get("action_space")
        student = cls(
            build(StudentConfig, checkpoint.config["student"]),
            action_space=ActionSpace.from_dict(space) if space else None,
        )
        student.load_state_dict(dict(checkpoint.tensors))
        student.cameras, student.provenance = tuple(checkpoint.config["cameras"]), dict(checkpoint.provenance)
        return student.eval()

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Student:
        return cls.from_checkpoint(Checkpoint.load(Path(folder)))
