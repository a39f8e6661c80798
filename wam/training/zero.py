"""ZeRO by DeepSpeed, stages 1 and 2: a rank has all weights, and the gradients (stage 2) and optimizer state of its own part.

Weights stay in float32, so bf16 is DeepSpeed's autocast and not its bf16 engine. DeepSpeed's own checkpoints, which are
pickles, are neither written nor read: `WholeAdamW` gives and takes the optimizer's state as one process would keep it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DeepSpeedPlugin, is_deepspeed_available, parse_flag_from_env
from torch import Tensor, nn

from wam.contracts import expected
from wam.training.config import TrainConfig

STAGES = {"zero1": 1, "zero2": 2}
MOMENTS = ("exp_avg", "exp_avg_sq")
BUCKET = 500_000_000
"""Numbers that DeepSpeed exchanges at once, its own default; a smaller model needs no more than its size."""


def wants_zero(sharding: str) -> bool:
    """Does the run's config or the launcher, which accelerate hears by this flag, ask for DeepSpeed?"""
    return sharding in STAGES or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")


def zero_plugin(config: TrainConfig) -> DeepSpeedPlugin:
    """What DeepSpeed is told. Raises WamError for what it cannot do here."""
    if not is_deepspeed_available():
        raise expected(
            "the package deepspeed for ZeRO",
            got="none",
            do="install it with pip install 'wam[deepspeed]', or take FSDP2",
        )
    if config.sharding == "fsdp2":
        raise expected("one way to spread a run", got="sharding=fsdp2 under DeepSpeed", do="leave out one of the two")
    if config.context_parallel > 1:
        raise expected("whole windows on each rank under DeepSpeed", got="context_parallel", do="take FSDP2 for both")
    if config.precision == "fp16":
        raise expected("precision fp32 or bf16 under DeepSpeed", got="fp16", do="set `precision=bf16`")
    if PartialState(cpu=not torch.cuda.is_available()).num_processes == 1:
        raise expected(
            "several processes to spread over",
            got="one",
            do="launch with `torchrun --nproc-per-node N --no-python wam train ...`, or without DeepSpeed",
        )
    plugin = DeepSpeedPlugin()  # as the launcher says, if it says anything
    told = plugin.deepspeed_config
    zero = told["zero_optimization"]
    if config.sharding in STAGES:
        plugin.zero_stage = zero["stage"] = STAGES[config.sharding]
    if zero["stage"] not in STAGES.values():
        raise expected("ZeRO stage 1 or 2", got=f"stage {zero['stage']}", do="take FSDP2, which spreads weights too")
    moved = [zero.get(f"offload_{part}", {}).get("device") for part in ("optimizer", "param")]
    if any(device not in (None, "none") for device in moved):
        raise expected("state on the accelerators", got="DeepSpeed's offload", do="take fsdp2-offload.yaml")
    if any(told.get(kind, {}).get("enabled") is True for kind in ("bf16", "fp16")):
        raise expected(
            "weights in float32", got="DeepSpeed's 16-bit engine", do="leave it out; `precision=bf16` is autocast"
        )
    told |= {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed loads no data here; its losses are means whatever this says
        "gradient_accumulation_steps": config.accumulate,
        "gradient_clipping": config.optimizer.clip,
    }
    if config.precision == "bf16":  # no modules by name: gradients are summed in float32
        told["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return plugin


def prepare_zero(
    losses: nn.Module, optimizers: Sequence[torch.optim.Optimizer], accelerator: Accelerator
) -> tuple[nn.Module, list[Any], WholeAdamW]:
    """DeepSpeed's engine around the step's module, its optimizer, and that optimizer's state in one piece."""
    _quieten()
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    zero = accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"]
    most = max(2, min(BUCKET, sum(p.numel() for p in parameters)) // 2 * 2)
    for name in ("reduce_bucket_size", "allgather_bucket_size"):
        zero.setdefault(name, most)
    engine, *wrapped = accelerator.prepare(_EveryParameter(losses, parameters), *optimizers)
    inner = wrapped[0].optimizer
    inner.process_gradients = _InOrder(inner.process_gradients, inner.bit16_groups)
    return engine, wrapped, WholeAdamW(inner, keep=accelerator.is_main_process)


def _quieten() -> None:
    """DeepSpeed speaks of every setting; and on a CPU it would compile a kernel for what gloo does."""
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


class _EveryParameter(nn.Module):
    """The step's module with a gradient for every trained parameter, nought where the batch left out its stream.

    DeepSpeed sums what ranks put into a bucket by its place there, so all of them have to put in the same.
    """

    def __init__(self, losses: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.losses = losses
        self._trained = tuple(parameters)  # in a tuple: they are registered in `losses`

    def forward(self, *given: Any) -> dict[str, Any]:
        found = self.losses(*given)
        return {**found, "loss": _Touch.apply(found["loss"], *self._trained)}


class _Touch(torch.autograd.Function):
    """The loss as it is; noughts of no size in memory as the parameters' gradients."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.shapes = [(p.dtype, p.shape) for p in parameters]
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        noughts = (gradients[0].new_zeros((), dtype=dtype).expand(shape) for dtype, shape in ctx.shapes)
        return (gradients[0], *noughts)


class _InOrder:
    """Hands gradients to DeepSpeed in one order, the last parameter's first, whatever order they come in on this rank.

    A gradient waits, whole, for those before it.
    """

    def __init__(self, take: Callable[[Tensor, int], None], groups: Sequence[Sequence[Tensor]]) -> None:
        self._take = take
        self._order = [(p, number) for number, group in enumerate(groups) for p in group][::-1]
        self._ready: set[int] = set()
        self._next = 0

    def __call__(self, parameter: Tensor, group: int) -> None:
        self._ready.add(id(parameter))
        while self._next < len(self._order) and id(self._order[self._next][0]) in self._ready:
            self._take(*self._order[self._next])
            self._next += 1
        if self._next == len(self._order):
            self._ready.clear()
            self._next = 0


class WholeAdamW:
    """The AdamW inside DeepSpeed's optimizer as torch's own would look to a checkpoint, each tensor whole.

    Every rank has to ask for its state; those that do not `keep` it get the numbers of its groups alone.
    """

    def __init__(self, zero: Any, *, keep: bool) -> None:
        self._zero, self._keep = zero, keep

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """AdamW's own settings, with the model's parameters."""
        groups = zip(self._zero.optimizer.param_groups, self._zero.bit16_groups, strict=True)
        return [{**group, "params": list(parameters)} for group, parameters in groups]

    @property
    def left_out(self) -> bool:
        """Was the last step not taken, since a gradient was not finite?"""
        return bool(self._zero.overflow)

    def state_dict(self) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_optimizer_state

        state: dict[int, dict[str, Tensor]] = {}
        groups, count = [], 0
        for own, group in zip(self._zero.optimizer.param_groups, self.param_groups, strict=True):
            places = range(count, count := count + len(group["params"]))
            groups.append({**group, "params": list(places)})
            (flat,) = own["params"]
            if flat not in self._zero.optimizer.state:  # before the first step
                continue
            step = self._zero.optimizer.state[flat]["step"]
            for place, parameter in zip(places, group["params"], strict=True):
                whole = {name: safe_get_full_optimizer_state(parameter, name) for name in MOMENTS}
                if self._keep:
                    state[place] = {"step": step.cpu().clone(), **{name: value.cpu() for name, value in whole.items()}}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """After the module has its weights, which the part of this rank is taken from anew.

        One process counts the steps of each parameter; here all have the most that one had, and one that never had a gradient
        has no moments. Raises WamError for the state of another optimizer.
        """
        from deepspeed.utils import safe_set_full_optimizer_state

        inner, entries = self._zero.optimizer, state["state"]
        for found in entries.values():
            if set(found) != {"step", *MOMENTS}:
                raise expected(
                    "the state of AdamW", got=f"one of {', '.join(sorted(found))}", do="go on without DeepSpeed"
                )
        self._zero.refresh_fp32_params()
        steps = max((float(found["step"]) for found in entries.values()), default=None)
        for own, said in zip(inner.param_groups, state["param_groups"], strict=True):
            own.update({name: value for name, value in said.items() if name != "params"})
            (flat,) = own["params"]
            if steps is not None:
                moments = {name: torch.zeros_like(flat, requires_grad=False) for name in MOMENTS}
                inner.state[flat] = {"step": torch.tensor(steps, device=flat.device), **moments}
        if steps is None:
            return
        self._zero._hp_optimizer_states_linked = False
        self._zero._lazy_init_hp_params_optimizer_state()
        parameters = [p for group in self._zero.bit16_groups for p in group]
        for place, found in entries.items():
            for name in MOMENTS:
                safe_set_full_optimizer_state(parameters[place], found[name].to(parameters[place].device), name)
