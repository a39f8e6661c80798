"""What a training run is: the model, its data and how it is optimised. YAML fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wam.contracts import expected
from wam.model.cloning import CloningConfig
from wam.model.config import ModelConfig
from wam.tokenizers.latent_action.config import LatentActionConfig

CACHED_STAGES = ("joint", "pretrain", "posttrain")
"""Those that can train on latents made before."""


@dataclass(kw_only=True)
class DataPart:
    """One dataset of the mixture. root: a LeRobot v3.0 folder. play_share: of the windows drawn, how many are of
    random play (None: as they come). skip, take: of each task's training episodes, in the order of the dataset, leave out
    the first `skip` and use the `take` after them (0: all). hide_actions: use it as video that came without labels."""

    root: str
    name: str = ""
    weight: float = 1.0
    play_share: float | None = None
    skip: int = 0
    take: int = 0
    hide_actions: bool = False


@dataclass(kw_only=True)
class DataConfig:
    """parts: the mixture. held_out: share of each task's episodes kept for evaluation, chosen by split_seed.

    latents: a folder of latents that `wam data cache` made with this config, read in place of encoding frames and sentences in
    every step; empty: encode. half_latents: kept as float16, which takes half the room and is no longer exact. prefetch:
    batches are made ahead in the host's memory, or moved to the accelerator ahead too.
    """

    parts: list[DataPart] = field(default_factory=list)
    cameras: list[str] = field(default_factory=lambda: ["side", "top"])
    held_out: float = 0.1
    split_seed: int = 0
    cache: Literal["memory", "none"] = "memory"
    workers: int = 1
    latents: str = ""
    half_latents: bool = False
    prefetch: Literal["host", "device"] = "host"


@dataclass(kw_only=True)
class OptimizerConfig:
    """kind: `adamw`; `muon` for the weights of layers and AdamW for the rest (see `wam.training.optimizer`); or `adamw8bit`,
    AdamW whose two moments are held in 8 bits (Dettmers et al. 2022, by bitsandbytes), where a GPU is. Linear
    warm-up over `warmup` steps, then a cosine down to final_rate * learning_rate at the last step. betas: AdamW's;
    momentum: Muon's."""

    kind: Literal["adamw", "muon", "adamw8bit"] = "adamw"
    learning_rate: float = 1e-3
    final_rate: float = 0.02
    warmup: int = 50
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    momentum: float = 0.95
    clip: float = 1.0


@dataclass(kw_only=True)
class StartConfig:
    """Weights to start from: a run or checkpoint of a world-action model whose parts need not all be the same.

    rename: old stream -> new stream; LAPA's way from latent to true actions is {latent_action: action}.
    freeze: parts that stay as they came, by the beginnings of their tensors' names in the network: stems.text,
    transformer.experts.text, edges.text->action.
    """

    checkpoint: str = ""
    rename: dict[str, str] = field(default_factory=dict)
    freeze: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class TrainConfig:
    """A run. steps: how many, or 0 to fill `minutes`, from the time of the first `timed_steps` steps; the number is then
    fixed and kept in the run, so that a resumed run ends where it would have.

    latent_actions: a trained latent-action tokenizer (its folder or run), whose latents are the `latent_action` stream.
    tune: `all` that is not frozen, or `soft_prompts` alone, the model.soft_prompts tokens that stand for a robot.
    pseudo_labels: give windows that came without actions those that their latent actions suggest, by a regression fitted
    on the labelled ones of the mixture; pseudo_states: and what of the state their pictures tell.

    threads: of torch on a CPU, 0 leaves torch's choice. precision: `bf16` suits CPUs and GPUs alike; fp16 is refused on
    a CPU, where it is fifty times slower. tracker: tensorboard, wandb, trackio or none.

    batch_size: windows of a step's part, over all ranks. sharding: `fsdp2` spreads weights, gradients and optimizer state over
    the ranks, `zero1` the optimizer state alone and `zero2` gradients too, by DeepSpeed; a launch with one of
    configs/accelerate/*.yaml does so by itself. context_parallel: how many neighbouring ranks have the same windows and a
    share each of their tokens (`wam.model.context_parallel`). compile: the repeated layers, by torch.compile, which takes
    a minute at the start and is worth it on an accelerator.
    """

    output: str = "runs/train"
    stage: str = "joint"
    start: StartConfig = field(default_factory=StartConfig)
    tune: Literal["all", "soft_prompts"] = "all"
    latent_actions: str = ""
    pseudo_labels: bool = False
    pseudo_states: bool = False
    seed: int = 0
    steps: int = 0
    minutes: float = 5.0
    timed_steps: int = 40
    batch_size: int = 16
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    threads: int = 0
    sharding: Literal["none", "fsdp2", "zero1", "zero2"] = "none"
    context_parallel: int = 1
    compile: bool = False
    ema: float = 0.995
    log_every: int = 10
    save_every: int = 500
    keep_checkpoints: int = 2
    check_every: int = 200
    tracker: str = "tensorboard"
    model: ModelConfig = field(default_factory=ModelConfig)
    cloning: CloningConfig = field(default_factory=CloningConfig)
    latent_action: LatentActionConfig = field(default_factory=LatentActionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def validate(self) -> None:
        if self.steps <= 0 and self.minutes <= 0:
            raise expected("steps or minutes above 0", got=f"{self.steps} and {self.minutes}", do="set one of them")
        if self.tune not in ("all", "soft_prompts"):
            raise expected("tune all or soft_prompts", got=repr(self.tune), do="name one of the two")
        if self.tracker not in ("tensorboard", "wandb", "trackio", "none"):
            raise expected("tracker tensorboard, wandb, trackio or none", got=repr(self.tracker), do="name one")
        if self.data.latents and self.stage not in CACHED_STAGES:
            raise expected(
                f"one of the stages {', '.join(CACHED_STAGES)} for data.latents",
                got=self.stage,
                do="leave data.latents out: this stage looks at pixels",
            )
        if self.pseudo_labels and not (self.latent_actions and "action" in self.model.streams):
            raise expected(
                "latent_actions and an action stream, which pseudo-labels are read from and are for",
                got=f"latent_actions={self.latent_actions!r} and the streams {', '.join(self.model.streams)}",
                do="set latent_actions=tokenizers/latent_action, or pseudo_labels=false",
            )
        if self.batch_size < 1 or self.accumulate < 1:
            raise expected(
                "batch_size and accumulate of 1 or more",
                got=f"{self.batch_size} and {self.accumulate}",
                do="raise them",
            )
        if self.context_parallel < 1:
            raise expected("context_parallel of 1 or more", got=self.context_parallel, do="set 1 to leave it out")
        self.model.validate()
