"""What a world-action model is made of, as structured configs that YAML fills in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from wam.contracts import expected
from wam.diffusion.clocks import RULES, ClockConfig
from wam.diffusion.flow import Parametrisation
from wam.geometry.grid import VoxelConfig
from wam.model.backbones.config import BackboneConfig, LoraConfig
from wam.tokenizers.action_codes import ActionTokenConfig
from wam.tokenizers.text import TextConfig
from wam.tokenizers.video import VideoConfig

VECTORS = ("state", "velocity")
"""Streams that may be hidden window by window; a model may lack the second."""


@dataclass(kw_only=True)
class StreamConfig:
    """One stream. kind: `text`, `video`, `vector` (one token of the state) or `chunk` (one token per step).

    width: 0 takes the model's. predicts: what a noisy stream's head prints. loss_weight: its share of the loss.
    tubelet: frames joined into one token grid (video). registers: learned extra tokens (UWM). stem: `conv` or `patch`,
    of `stem_width` channels at its finest, to `grid` x `grid` tokens; `conv` starts on fold x fold pixels in one.
    join_views: the views' pictures enter as channels of one, which halves the tokens of two views. blocks: modulated
    residual blocks in the conv stem too. warp: an x0 prediction moves the present by a flow before it adds to it.
    tokens: length every sentence is padded or cut to. columns: of the state, which a vector reads; none named: all of them,
    where training finds no velocities among the state's names (`split_state`).
    backbone: a pretrained network whose blocks are a video stream's experts and whose own ends take the stem's place: a video
    transformer in the future, a vision-language model in the observation, which then holds the sentence too (of `tokens` at
    most). shares: the stream with a backbone whose layers this video stream runs through too. lora: adapters beside the
    experts, whose own weights then stay as they are.
    """

    kind: str
    width: int = 0
    mlp_ratio: float = 2.0
    predicts: Parametrisation = "velocity"
    loss_weight: float = 1.0
    clock: ClockConfig = field(default_factory=ClockConfig)
    registers: int = 0
    tubelet: int = 1
    stem: str = "conv"
    stem_width: int = 64
    grid: int = 8
    fold: int = 4
    join_views: bool = False
    blocks: bool = False
    warp: bool = False
    tokens: int = 12
    columns: list[int] = field(default_factory=list)
    backbone: BackboneConfig | None = None
    shares: str = ""
    lora: LoraConfig | None = None


@dataclass(kw_only=True)
class ConditionalConfig:
    """One row of the training mixture: clock rules by stream (see `wam.diffusion.clocks`) and how often it is drawn.

    weight: on demonstrations; play: on random play, where actions do not follow from the frame (None: as `weight`).
    loss_scale: of its losses, beside the streams' own weights. hide: share of its windows without these vector streams: what
    the hand does may be guessed from how it moves now, and inverse dynamics would not learn to look at the frames.
    """

    name: str
    weight: float
    play: float | None = None
    loss_scale: float = 1.0
    hide: dict[str, float] = field(default_factory=dict)
    clocks: dict[str, str] = field(default_factory=dict)

    def of(self, *rules: str) -> set[str]:
        """Streams that have one of these rules."""
        return {s for s, rule in self.clocks.items() if rule in rules}


@dataclass(kw_only=True)
class PrefixConfig:
    """Chunks that go on from actions already settled, in training (training-time action conditioning, Black et al. 2025).

    share: of the rows of these `conditionals`, how many have their first 1 to `longest` actions given clean, at a clock of
    their own, and learn the rest alone; 0: none, and the model has nothing to read them with. longest: 0 takes half the
    chunk, beyond which asynchronous execution settles none. noise: how far what is given is pushed aside, of displacements
    alone, and the rest made to make up for it; see `wam.training.prefixes`. Passes with video are spared.
    """

    share: float = 0.0
    longest: int = 0
    noise: float = 0.0
    conditionals: list[str] = field(default_factory=lambda: ["policy", "joint"])


@dataclass(kw_only=True)
class OccupancyConfig:
    """Voxels read off the video streams, at the present and at each frame to come.

    loss_weight: of their loss; 0: the model has no voxels. rows: of each training batch's windows with a future, how many
    it runs on. grid: training takes that of its dataset's labels. A cell of cell x cell x cell voxels is described by
    cell_width numbers, from `narrow` channels of the pictures' features; width: of the decoder over columns of cells.
    filled_weight: of filled voxels in frames to come, so that what may be there is said to be there.
    colour_weight, distance_weight: of the loss of surface colours, and of the distance to the nearest filled voxel, which is
    told up to `distance_reach` metres; 0: the model does not say them, and has no weights for it.
    """

    loss_weight: float = 0.0
    filled_weight: float = 2.0
    colour_weight: float = 0.0
    distance_weight: float = 0.0
    distance_reach: float = 0.1
    rows: int = 10
    grid: VoxelConfig = field(default_factory=VoxelConfig)
    cell: int = 4
    cell_width: int = 32
    narrow: int = 16
    width: int = 128

    def validate(self) -> None:
        self.grid.validate()
        if self.loss_weight < 0 or self.filled_weight <= 0 or self.rows < 1:
            raise expected(
                "occupancy.loss_weight of 0 or more, filled_weight above 0 and rows of 1 or more",
                got=f"{self.loss_weight}, {self.filled_weight} and {self.rows}",
                do="mend `model.occupancy`",
            )
        beside = (self.colour_weight, self.distance_weight)
        if min(beside) < 0 or self.distance_reach <= 0 or (any(beside) and not self.loss_weight):
            raise expected(
                "colour_weight and distance_weight of 0 or more, beside a loss_weight above 0, and a reach above 0",
                got=f"{beside}, {self.loss_weight} and {self.distance_reach}",
                do="mend `model.occupancy`",
            )
        if any(count % self.cell for count in self.grid.shape):
            raise expected(
                f"a grid whose counts {self.cell} (model.occupancy.cell) divides",
                got=self.grid.shape,
                do="change the grid or the cell",
            )


def default_streams() -> dict[str, StreamConfig]:
    return {
        "text": StreamConfig(kind="text"),
        "observation": StreamConfig(kind="video", grid=4, fold=2, stem_width=32, join_views=True),
        "state": StreamConfig(kind="vector"),
        "velocity": StreamConfig(kind="vector"),
        "future": StreamConfig(
            kind="video",
            predicts="x0",
            tubelet=2,
            clock=ClockConfig(full_noise=0.6, sampling_shift=5.0),
            loss_weight=40.0,
            grid=4,
            stem_width=48,
            join_views=True,
            blocks=True,
            warp=True,
        ),
        "action": StreamConfig(
            kind="chunk", predicts="x0", registers=4, clock=ClockConfig(shift=5.0, full_noise=0.4), loss_weight=2.0
        ),
    }


def default_conditionals() -> list[ConditionalConfig]:
    """The mixture trained when the config names none. Every row with the same set of present streams runs as one."""
    row = ConditionalConfig
    return [
        row(name="policy", weight=1.0, play=0.05, loss_scale=6.0, clocks={"action": "draw", "future": "dropped"}),
        row(name="forward_dynamics", weight=0.35, play=0.43, clocks={"action": "clean", "future": "draw"}),
        row(
            name="inverse_dynamics",
            weight=0.3,
            play=0.53,
            loss_scale=2.5,
            hide={"velocity": 0.9},
            clocks={"action": "draw", "future": "clean"},
        ),
        row(
            name="imagine",
            weight=0.2,
            play=0.01,
            hide={"state": 0.5, "velocity": 0.5},
            clocks={"action": "noise", "future": "draw"},
        ),
        row(name="joint", weight=0.15, play=0.03, clocks={"action": "draw", "future": "draw"}),
    ]


@dataclass(kw_only=True)
class ModelConfig:
    """Streams, visibility and sizes of one world-action model.

    width, depth, heads, head_dim: of the transformer; head count and head size are shared by all streams so that
    attention can join them, widths may differ. condition_width: of the vector in which a stream's clock and all that
    modulates it are summed. views, history, future, chunk: V, observed T (`history_stride` dataset frames apart), future
    frame offsets (in dataset frames) and K. visibility: a preset's name or a table. dropout rates make context optional:
    state_dropout hides all of the state (imagined frames have none), text_dropout trains the unconditional model that guidance
    needs; word_noise replaces words of a sentence by the unknown word, which stands for those a text encoder learned here
    never met.
    prefix: settled actions that a chunk goes on from. action_tokens: discrete ones that train what the actions read.
    latent_action_dim, latent_action_length: A and K of latent actions; training takes them from its tokenizer.
    draws: clocks and noises per training context where no video is denoised, which costs next to nothing.
    attention: the kernel, see `wam.model.attention`. checkpointing: `blocks` keeps nothing inside a layer for the backward
    pass, which computes it again: less memory, a third more arithmetic (half, of a frozen base). Neither is part of a
    saved model.
    video_share: of each batch's windows, how many the passes with video run on, random play first, where a pass without
    video learns from all of them.
    """

    width: int = 128
    condition_width: int = 256
    depth: int = 3
    heads: int = 4
    head_dim: int = 32
    image_size: int = 64
    views: int = 2
    history: int = 1
    history_stride: int = 1
    future: list[int] = field(default_factory=lambda: [4, 8])
    chunk: int = 8
    action_dim: int = 4
    state_dim: int = 4
    latent_action_dim: int = 0
    latent_action_length: int = 0
    embodiments: int = 1
    soft_prompts: int = 0
    draws: int = 2
    attention: str = "auto"
    checkpointing: Literal["none", "blocks"] = "none"
    video_share: float = 1.0
    state_dropout: float = 0.05
    text_dropout: float = 0.05
    word_noise: float = 0.2
    visibility: Any = "joint"
    streams: dict[str, StreamConfig] = field(default_factory=default_streams)
    conditionals: list[ConditionalConfig] = field(default_factory=default_conditionals)
    prefix: PrefixConfig = field(default_factory=PrefixConfig)
    action_tokens: ActionTokenConfig = field(default_factory=ActionTokenConfig)
    occupancy: OccupancyConfig = field(default_factory=OccupancyConfig)
    text: TextConfig = field(default_factory=lambda: TextConfig(width=96))
    video: VideoConfig = field(default_factory=VideoConfig)

    def validate(self) -> None:
        if not 0 < self.video_share <= 1:
            raise expected("video_share above 0 and up to 1", got=self.video_share, do="set `model.video_share`")
        if len(self.future) % self.streams["future"].tubelet if "future" in self.streams else 0:
            raise expected(
                f"a number of future frames that {self.streams['future'].tubelet} (tubelet) divides",
                got=len(self.future),
                do="change `model.future` or `model.streams.future.tubelet`",
            )
        self.occupancy.validate()
        self.action_tokens.validate()
        self._validate_prefix()
        for row in self.conditionals:
            if unknown := set(row.hide) - set(VECTORS):
                raise expected(
                    f"conditional {row.name!r} to hide streams among {VECTORS}",
                    got=sorted(unknown),
                    do="mend `model.conditionals`",
                )
            for stream, rule in row.clocks.items():
                if stream not in self.streams or rule not in RULES:
                    raise expected(
                        f"conditional {row.name!r} to give streams {sorted(self.streams)} a rule among {RULES}",
                        got=f"{stream}: {rule}",
                        do="mend `model.conditionals`",
                    )

    def _validate_prefix(self) -> None:
        share, longest = self.prefix.share, self.prefix.longest
        if not 0 <= share <= 1 or (share > 0 and not 0 <= longest < self.chunk):
            raise expected(
                f"prefix.share from 0 to 1 and prefix.longest below the chunk's {self.chunk}",
                got=f"{share} and {longest}",
                do="mend `model.prefix`",
            )
        if share > 0 and not any(self.continues(row) for row in self.conditionals):
            raise expected(
                "a conditional that draws actions to go on from a prefix",
                got=f"none of {', '.join(self.prefix.conditionals)}",
                do="name one in `model.prefix.conditionals`, or set model.prefix.share=0",
            )
        if share > 0 and self.longest_prefix < 1:
            raise expected("a chunk of 2 actions or more, to settle some", got=self.chunk, do="set `model.chunk`")

    @property
    def longest_prefix(self) -> int:
        """How many settled actions a chunk of this model can go on from; 0 where it was not trained to."""
        return (self.prefix.longest or self.chunk // 2) if self.prefix.share > 0 else 0

    def continues(self, row: ConditionalConfig) -> bool:
        """Whether chunks of this conditional go on from settled actions."""
        return row.name in self.prefix.conditionals and "action" in row.of("draw", "shared")

    def stream_width(self, stream: str) -> int:
        return self.streams[stream].width or self.width

    @property
    def noisy(self) -> tuple[str, ...]:
        """Streams that are denoised, in a fixed order."""
        return tuple(s for s in self.streams if s not in ("text", "observation", *self.vectors))

    @property
    def vectors(self) -> tuple[str, ...]:
        """Streams that read the robot's state, all of it or some of its columns."""
        return tuple(s for s, stream in self.streams.items() if stream.kind == "vector")
