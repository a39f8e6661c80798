"""The one trainer: every stage, on accelerate, from one CPU to many accelerators.

Each step's random draws come from a generator seeded by (seed, step, share), and the sampler's order from its seed alone,
so a resumed run equals an uninterrupted one bit for bit on a CPU.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from wam.contracts import Batch, WamError, expected
from wam.data.courier import Courier
from wam.data.loader import BatchLoader
from wam.data.sampler import ResumableSampler
from wam.model.joint import compile_blocks
from wam.progress import Progress, duration
from wam.settings import save_settings, to_plain
from wam.training.config import TrainConfig
from wam.training.ema import Ema
from wam.training.memory import keep_freed_memory
from wam.training.ranks import agree, part_number, share_flags, take_place
from wam.training.schedule import learning_rate
from wam.training.sharding import optimizer_like, spread_again, whole
from wam.training.spread import make_accelerator, spread
from wam.training.stage import BetweenSteps, Stage, StageMaker, make_stage
from wam.training.state import (
    last_checkpoint,
    load_training,
    mark_last,
    restore_optimizers,
    save_training,
    step_folder,
)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """checkpoint: the model folder. steps: done in all; interrupted: stopped by a signal before the last one."""

    checkpoint: Path
    steps: int
    seconds: float
    samples_per_second: float
    data_wait_share: float
    losses: dict[str, float]
    checks: dict[str, float]
    interrupted: bool


class InterruptedRunError(WamError):
    """A signal stopped the run after its state was saved."""


def train(
    config: TrainConfig, *, resume: bool = True, stage: Stage | None = None, make: StageMaker = make_stage
) -> TrainResult:
    """Run a stage to its end, from its newest checkpoint if there is one and `resume` is set.

    make: a stage of the caller's own, made once seed and threads are set; stage: one that is made already.
    """
    config.validate()
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    return Trainer(config, stage or make(config)).run(resume=resume)


class Trainer:
    def __init__(self, config: TrainConfig, stage: Stage) -> None:
        self.config, self.stage, self.run_folder = config, stage, Path(config.output)
        self.accelerator = make_accelerator(config)
        compile_blocks(stage.module, config.compile)
        self.place = take_place(stage.module, self.accelerator, context_parallel=config.context_parallel)
        self.spread = spread(stage, config, self.accelerator)
        self.losses, self.optimizers, self.sharded = self.spread.losses, self.spread.optimizers, self.spread.sharded
        self.ema = Ema(stage.module, decay=config.ema)
        share, shares = self.place.share, self.place.shares
        self.sampler = ResumableSampler(stage.mixture, seed=config.seed, rank=share, ranks=shares)
        self.step, self.total, self.seconds = 0, config.steps, 0.0
        self._stop, self._signal = 0, 0  # the signal that all ranks stop for; the one that this rank was sent
        self._recent: list[float] = []

    # the loop ---------------------------------------------------------------------------------------------------

    def run(self, *, resume: bool) -> TrainResult:
        config = self.config
        started_from = self._resume() if resume else 0
        if self.accelerator.is_main_process:
            self.run_folder.mkdir(parents=True, exist_ok=True)
            save_settings(config, self.run_folder / "config.yaml")
            self._trim_metrics()
        if config.tracker != "none":
            # the project of wandb and trackio; of tensorboard, the folder of the run that its files lie in
            project = "tensorboard" if config.tracker == "tensorboard" else "wam"
            self.accelerator.init_trackers(project, config={"seed": config.seed, "stage": config.stage})
        courier = Courier(self.accelerator.device) if config.data.prefetch == "device" else None
        workers, size = config.data.workers, config.batch_size
        loader = BatchLoader(self.stage.mixture, self.sampler, batch_size=size, workers=workers, courier=courier)
        batches = iter(loader)
        begun, latest, checks = time.perf_counter(), {}, {}
        timed: list[float] = []
        with self._signals(), Progress("train", self.total, start=started_from, quiet=not self._main) as progress:
            while (not self.total or self.step < self.total) and not self._stop:
                if isinstance(self.stage, BetweenSteps):
                    self.stage.before_step(self.step, self.total)
                step_begun = time.perf_counter()
                latest = self._train_step(batches)
                self.step += 1
                timed.append(time.perf_counter() - step_begun)
                if not self.total and len(timed) == config.timed_steps:
                    self.total = self._plan(timed)
                    progress.total = self.total
                if self.step % config.log_every == 0 or self.step == self.total:
                    self._log(latest, loader)
                if config.check_every and (self.step % config.check_every == 0 or self.step == self.total):
                    checks = self._check()
                progress.update(self.step, note=f"loss {latest['loss']:.4f}")
                if self.step % config.save_every == 0 and self.step != self.total:
                    self._save(begun)
        seconds = time.perf_counter() - begun
        checkpoint = self._save(begun)
        batches.close()  # type: ignore[attr-defined]
        if config.tracker != "none":
            self.accelerator.end_training()
        if self._stop:
            raise InterruptedRunError(
                f"stopped at step {self.step} of {self.total or '?'} by {signal.Signals(self._stop).name}; the run is "
                f"saved in {checkpoint}; give the same command again to go on"
            )
        return TrainResult(
            checkpoint=checkpoint,
            steps=self.step,
            seconds=self.seconds,
            samples_per_second=(self.step - started_from) * config.batch_size * config.accumulate / max(seconds, 1e-9),
            data_wait_share=loader.wait_share,
            losses=latest,
            checks=checks,
            interrupted=False,
        )

    def _train_step(self, batches: Iterator[Batch]) -> dict[str, float]:
        config = self.config
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, self.total, config)
        self.stage.module.train()
        means: dict[str, float] = {}
        for part in range(config.accumulate):
            batch = next(batches).to(self.accelerator.device, non_blocking=True)
            generator = torch.Generator().manual_seed(self._draw_seed(part))
            with self.accelerator.accumulate(self.losses):
                with self.accelerator.autocast():
                    losses = self.losses(batch, generator)
                self.accelerator.backward(losses["loss"])
                found, self._stop = agree(losses, self._signal, self.accelerator)  # where the ranks have met anyway
                self._guard(found["loss"])
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.losses.parameters(), config.optimizer.clip)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
            for name, value in found.items():
                means[name] = means.get(name, 0.0) + value / config.accumulate
        share_flags(self.stage.module, self.accelerator)
        self.ema.update(self.stage.module)
        return means

    def _draw_seed(self, part: int) -> int:
        c = self.config
        path = (c.seed, self.step, part_number(part, self.place), 0)
        return hash(path) & 0x7FFFFFFFFFFFFFFF  # hashes of integer tuples do not depend on the process

    def _guard(self, value: float) -> None:
        """Stop on NaN or divergence, while the last checkpoint is still good."""
        recent = sorted(self._recent)
        if not math.isfinite(value):
            trouble = f"loss {value}"
        elif self.spread.left_out:
            trouble = "a gradient that is not"
        elif len(recent) >= 50 and value > 20 * recent[len(recent) // 2] + 1:
            trouble = f"loss {value:.3g} against a median of {recent[len(recent) // 2]:.3g} before it"
        else:
            self._recent = [*self._recent[-199:], value]
            return
        raise expected(
            f"a finite, steady loss at step {self.step}",
            got=trouble,
            do=f"look for broken data with `wam data doctor` or lower optimizer.learning_rate (now "
            f"{self.config.optimizer.learning_rate:g}); {self._last_words()}",
        )

    def _last_words(self) -> str:
        checkpoint = last_checkpoint(self.run_folder)
        return f"the newest good checkpoint is {checkpoint}" if checkpoint else "there is no earlier checkpoint"

    def _plan(self, timed: list[float]) -> int:
        """How many steps fill the minutes, from the faster half of the timed steps, since the first ones still take their
        memory; the same on every rank."""
        steady = sorted(timed[len(timed) // 3 :])
        per_step = sum(steady[: max(1, len(steady) // 2 + 1)]) / max(1, len(steady) // 2 + 1)
        total = max(self.step + 1, int((self.config.minutes * 60 - sum(timed)) / per_step) + self.step)
        counted = torch.tensor(total, device=self.accelerator.device)
        total = int(self.accelerator.gather(counted[None]).min())
        if self._main:
            print(f"{per_step:.3f} s a step: {total} steps fill {duration(self.config.minutes * 60)}", flush=True)
        return total

    @property
    def _main(self) -> bool:
        return self.accelerator.is_main_process

    def _check(self) -> dict[str, float]:
        """The stage's held-out figures, with the averaged weights in place."""
        own = {name: value.detach().clone() for name, value in self.stage.module.state_dict().items()}
        self.stage.module.load_state_dict(self.ema.tensors)
        self.stage.module.eval()
        if self.sharded:  # through the module that gathers the weights, some of which it then leaves gathered
            found = self.losses(None, None)
            spread_again(self.losses)
        else:
            found = self.stage.check()
        self.stage.module.load_state_dict(own)
        self._record({f"check/{name}": value for name, value in found.items()})
        return found

    # logs and checkpoints ---------------------------------------------------------------------------------------

    def _log(self, losses: dict[str, float], loader: BatchLoader) -> None:
        rate = learning_rate(self.step - 1, self.total, self.config)
        self._record({**losses, "learning_rate": rate, "data_wait_share": loader.wait_share})

    def _record(self, values: dict[str, float]) -> None:
        if self.config.tracker != "none":
            self.accelerator.log(values, step=self.step)
        if self._main:
            with (self.run_folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": self.step, **values}) + "\n")

    def _trim_metrics(self) -> None:
        """Forget what was logged after the checkpoint that the run resumes from: it will be logged again."""
        path = self.run_folder / "metrics.jsonl"
        if path.exists():
            kept = []
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= self.step:
                        kept.append(line + "\n")
                except (ValueError, KeyError):  # the line a crash cut short
                    continue
            path.write_text("".join(kept))

    def _save(self, begun: float) -> Path:
        folder = step_folder(self.run_folder, self.step)
        self.accelerator.wait_for_everyone()
        seconds = self.seconds + time.perf_counter() - begun
        if self.spread.saved_together or self._main:
            save_training(
                folder / "training",
                weights=self.stage.module.state_dict(),
                averaged=self.ema.tensors,
                optimizers=self.spread.kept,
                state={
                    "step": self.step,
                    "total": self.total,
                    "seconds": seconds,
                    "ema_updates": self.ema.updates,
                    "recent": self._recent,
                    "sampler": self.sampler.state_dict(),
                },
                main=self._main,
                ranks=self.accelerator.num_processes,
            )
        averaged = whole(self.ema.tensors, keep=self._main) if self.sharded else self.ema.tensors
        if self._main:
            provenance = {
                "stage": self.config.stage,
                "seed": self.config.seed,
                "step": self.step,
                "data": [part.root for part in self.config.data.parts],
                "train_seconds": seconds,
                "config": to_plain(self.config),
            }
            self.stage.save(folder, tensors=averaged, provenance=provenance)
            mark_last(self.run_folder, self.step, keep=self.config.keep_checkpoints)
        self.accelerator.wait_for_everyone()
        if self.step == self.total or self._stop:
            self.seconds += time.perf_counter() - begun
        return folder

    def _resume(self) -> int:
        folder = last_checkpoint(self.run_folder)
        if folder is None:
            return 0
        own = {"weights": self.stage.module.state_dict(), "averaged": self.ema.tensors}
        tensors, state = load_training(folder / "training", like={**own, "optimizer": optimizer_like(self.spread.kept)})
        try:
            self.stage.module.load_state_dict(tensors["weights"])
        except RuntimeError as error:
            raise expected(
                f"the model of the run in {self.run_folder}",
                got="another model",
                do="name another output or restore the config the run was started with",
            ) from error
        restore_optimizers(self.spread.kept, tensors["optimizer"], state["optimizer"])
        self.ema.load(tensors["averaged"], state["ema_updates"])
        self.sampler.load_state_dict(state["sampler"])
        self.step, self.seconds, self._recent = state["step"], state["seconds"], state["recent"]
        self.total = self.config.steps or state["total"]
        if self._main:
            print(f"going on from step {self.step} of {self.total or '?'} in {folder}", flush=True)
        return self.step

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the loop after the step in progress; a second SIGINT ends it at once."""

        def note(number: int, frame: FrameType | None) -> None:
            self._signal = number
            signal.signal(signal.SIGINT, signal.default_int_handler)

        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
