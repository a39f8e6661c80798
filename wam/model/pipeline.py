"""A saved world-action model as a pipeline of diffusers: schedulers to choose from, and a callback after every step.

from wam.model.pipeline import WamPipeline

pipe = WamPipeline.from_pretrained(FOLDER)          # any checkpoint, or a hub name
pipe(images, "open the faucet", state=state).actions
pipe(images, "open the faucet", conditional="imagine", num_inference_steps=8).frames
pipe.scheduler = FlowMatchHeunDiscreteScheduler()
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.utils import BaseOutput
from torch import Tensor

from wam.contracts import Batch, expected
from wam.diffusion.clocks import sampling_clocks
from wam.diffusion.samplers import Signals
from wam.model.auto import CONDITIONALS, WamModel, folder_of
from wam.model.hub_index import INDEX

Callback = Callable[[Any, int, Tensor, dict[str, Tensor]], Mapping[str, Tensor] | None]


@dataclass
class WamPipelineOutput(BaseOutput):
    """What was wanted, as arrays or tensors. frames (B, V, T, H, W, C) in [0, 1]; actions (B, K, A) in the action space's
    units; None where the conditional draws none."""

    frames: Any = None
    actions: Any = None


class WamPipeline(DiffusionPipeline):
    """model: a `WamModel`. scheduler: a flow-matching one of diffusers, of which every stream is given a copy.

    A scheduler whose shift is 1 is laid out by each stream's own shift, so that the default gives what the model's own
    sampler does; one with another shift keeps it, for all streams.
    """

    model_cpu_offload_seq = "model"
    model: Any
    scheduler: Any
    register_modules: (
        Any  # these three are the base class's, which diffusers makes in a way that hides them from type checkers
    )
    progress_bar: Any
    maybe_free_model_hooks: Any

    def __init__(self, model: WamModel, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(model=model, scheduler=scheduler)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> WamPipeline:
        """Of a checkpoint folder or hub name; of a checkpoint that was written before it had an index too."""
        folder = folder_of(name, options.pop("revision", None))
        if not (folder / INDEX).is_file():
            options = {
                "model": WamModel.from_pretrained(folder),
                "scheduler": FlowMatchEulerDiscreteScheduler(),
                **options,
            }
            return cls(**options)
        return super().from_pretrained(str(folder), **options)

    @torch.no_grad()
    def __call__(
        self,
        images: Batch | np.ndarray | Tensor,
        instruction: str | Sequence[str] = "",
        *,
        state: np.ndarray | Tensor | None = None,
        actions: np.ndarray | Tensor | None = None,
        future: np.ndarray | Tensor | None = None,
        conditional: str = "policy",
        num_inference_steps: int = 4,
        guidance_scale: float = 1.0,
        seed: int = 0,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
    ) -> WamPipelineOutput | tuple[Any, Any]:
        """Draw from one of the five conditionals.

        images (B, V, T, H, W, 3) uint8, the last frame being the present, or a whole `Batch`; state (B, S); actions
        (B, K, A) for forward dynamics; future (B, V, T, H, W, 3) uint8 for inverse dynamics. output_type: `np` or `pt`.
        callback_on_step_end(pipeline, step, clock, signals): after each step, with the normalised signals by stream (all, or
        those named); what it returns takes their place.
        """
        if conditional not in CONDITIONALS or output_type not in ("np", "pt"):
            raise expected(
                f"a conditional among {', '.join(CONDITIONALS)} and output_type np or pt",
                got=f"{conditional!r} and {output_type!r}",
                do="correct them",
            )
        batch = images if isinstance(images, Batch) else make_batch(images, instruction, state, actions, future)
        model = self.model.model
        device = next(model.parameters()).device
        streams = model.config.streams
        schedulers = {}
        for s in model.config.noisy:
            clock = streams[s].clock
            shift = clock.sampling_shift or clock.shift
            schedulers[s] = laid_out(self.scheduler, num_inference_steps, shift=shift, device=device)
        with self.progress_bar(total=len(next(iter(schedulers.values())).timesteps)) as bar:

            def after(step: int, signals: Signals, clocks: Mapping[str, Tensor]) -> Signals:
                bar.update()
                if callback_on_step_end is None:
                    return signals
                shown = {s: x for s, x in signals.items() if s in (callback_on_step_end_tensor_inputs or signals)}
                clock = next(iter(clocks.values()))
                return {**signals, **(callback_on_step_end(self, step, clock, shown) or {})}

            found = getattr(model, conditional)(
                batch.to(device),
                steps=num_inference_steps,
                guidance=guidance_scale,
                seed=seed,
                schedulers=schedulers,
                after_step=after,
            )
        self.maybe_free_model_hooks()
        drawn = [
            None if x is None else x.cpu().numpy() if output_type == "np" else x for x in (found.future, found.action)
        ]
        return WamPipelineOutput(frames=drawn[0], actions=drawn[1]) if return_dict else (drawn[0], drawn[1])


def make_batch(
    images: np.ndarray | Tensor, instruction: str | Sequence[str], state: Any, actions: Any, future: Any
) -> Batch:
    """The arguments of a call as a batch; one sentence is for all of its rows."""
    pictures = torch.as_tensor(images)
    size = len(pictures)
    return Batch(
        images=pictures,
        future=None if future is None else torch.as_tensor(future),
        state=None if state is None else torch.as_tensor(state).float(),
        action=None if actions is None else torch.as_tensor(actions).float(),
        instruction=(instruction,) * size if isinstance(instruction, str) else tuple(instruction),
    )


def laid_out(scheduler: Any, steps: int, *, shift: float, device: torch.device) -> Any:
    """A copy of the scheduler at the start of so many steps, laid by `shift` where its own is 1. Raises WamError for a
    scheduler whose noise is not a flow's."""
    name, config = type(scheduler).__name__, scheduler.config
    if not (name.startswith("FlowMatch") or config.get("use_flow_sigmas")):
        raise expected(
            "a flow-matching scheduler of diffusers (FlowMatch..., or another with use_flow_sigmas=True)",
            got=name,
            do="give one of these",
        )
    own = "flow_shift" if "flow_shift" in config else "shift"
    changed = {own: shift} if config.get(own, 1.0) == 1.0 else {}
    copied = type(scheduler).from_config(config, **changed)
    takes_sigmas = "sigmas" in inspect.signature(copied.set_timesteps).parameters
    if name.startswith("FlowMatch") and takes_sigmas:
        copied.set_timesteps(sigmas=sampling_clocks(steps)[:-1].tolist(), device=device)
    else:
        copied.set_timesteps(steps, device=device)
    return copied
