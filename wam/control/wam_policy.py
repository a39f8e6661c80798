"""A world-action model as a policy: observations in, chunks of actions in the action space's units out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from wam.checkpoint import Checkpoint
from wam.contracts import Batch, Observation, expected
from wam.control.continuation import Continuation, require_continuable, stacked
from wam.control.past import Past
from wam.control.policy import stack
from wam.files import sha256
from wam.model.cloning import CloningPolicy
from wam.model.graphs import PolicyGraph
from wam.model.inpainting import Inpainting
from wam.model.pretrained import from_pretrained
from wam.model.steering import Steering
from wam.model.student import Student
from wam.model.wam import WorldActionModel


def to_batch(observations: Sequence[Observation], cameras: Sequence[str]) -> Batch:
    """Observations of one instant each, stacked in the order of `cameras`."""
    images, state = stack(observations, cameras)
    return Batch(
        images=torch.from_numpy(images),
        state=None if state is None else torch.from_numpy(state),
        instruction=tuple(o.instruction for o in observations),
    )


class WamPolicy:
    """Asks a model for its `policy` (the future dropped) or `joint` conditional. chunk: K.

    A model that looks back over several frames gets those that its slot was shown at earlier calls: they are as far apart
    as in training if as many actions of each chunk are executed as the model's `history_stride`.
    seed: every call and every row starts from the same noise, so a rollout repeats, whatever else shares its batch.
    future_stop: of conditional joint, the clock at which the future stops while the action comes clean (decoupled). steer: what
    a batch of observations is to be kept away from, if anything. jacobian: of guided continuation, see `wam.model.inpainting`.
    reuse: see `WorldActionModel.sample`. graphs: record the policy's kernels once for each batch size and replay them, on an
    accelerator (`wam.model.graphs`); chunks that continue others are drawn as ever.
    """

    def __init__(
        self,
        model: WorldActionModel | CloningPolicy | Student,
        *,
        cameras: Sequence[str] | None = None,
        conditional: str = "policy",
        future_stop: float = 0.0,
        steps: int = 4,
        guidance: float = 1.0,
        seed: int = 0,
        device: str | torch.device = "cpu",
        steer: Callable[[Batch], Steering] | None = None,
        jacobian: Literal["network", "identity"] = "identity",
        reuse: float | None = None,
        graphs: bool = False,
    ) -> None:
        if conditional not in ("policy", "joint"):
            raise expected("conditional policy or joint", got=repr(conditional), do="choose one of the two")
        if conditional != "policy" and not isinstance(model, WorldActionModel):
            raise expected("conditional policy of a model that imagines nothing", got=conditional, do="leave it out")
        if future_stop and conditional != "joint":
            raise expected(
                "conditional joint, for a future that stops early", got=conditional, do="leave future_stop out"
            )
        if graphs and (conditional != "policy" or guidance != 1.0 or steer is not None or reuse is not None):
            raise expected(
                "conditional policy without guidance, steering or reuse, for graphs",
                got=f"{conditional}, guidance {guidance:g}" + (", and one of the others" if steer or reuse else ""),
                do="leave graphs out",
            )
        self.model, self.cameras = model.to(device).eval(), tuple(cameras or model.cameras)
        self.chunk, self.conditional = model.config.chunk, conditional
        self.options: dict[str, Any] = {"steps": steps, "guidance": guidance, "seed": seed, "same_noise": True}
        if future_stop:
            self.options["future_stop"] = future_stop
        if reuse is not None:
            self.options["reuse"] = reuse
        self.device, self.steer, self.jacobian = device, steer, jacobian
        self._graphs: dict[int, PolicyGraph] | None = {} if graphs and isinstance(model, WorldActionModel) else None
        self.past = Past(model.config.history)

    def reset(self, index: int | None = None) -> None:
        """Forget the frames that slot `index`, or every slot, was shown."""
        self.past.reset(index)

    def act(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> np.ndarray:
        """(B, K, A) actions, clipped to the action space's limits where it is known."""
        return self._act(observations, slots)

    def continue_from(self, observations: Sequence[Observation], left: Sequence[Continuation | None]) -> np.ndarray:
        """(B, K, A) actions that agree with what each slot is carrying out; as `act` for a slot that carries out nothing.
        By `prefix` they go on from it as in training, where the model was trained with prefixes.

        Raises WamError where the model draws its chunk in one pass and was not trained so, where more is settled than training
        knew, and where actions count from the state at their chunk's start.
        """
        if not isinstance(self.model, WorldActionModel) and not getattr(self.model.config, "prefix", 0):
            raise expected(
                "a world-action model, whose sampler can be inpainted, or a student trained with prefixes",
                got=type(self.model).__name__,
                do="continue chunks by `blend`",
            )
        require_continuable(self.model.action_space)
        methods = {one.method for one in left if one is not None}
        if not methods:
            return self._act(observations)
        if methods not in ({"guided"}, {"prefix"}) or len(left) != len(observations):
            raise expected(
                f"what {len(observations)} slots carry out, continued by `guided` or by `prefix`",
                got=f"{len(left)}, {', '.join(sorted(methods))}",
                do="continue all of them alike",
            )
        chunk, weights = stacked(left, chunk=self.chunk, dim=self.model.config.action_dim)
        inpainting = Inpainting(
            chunk=torch.from_numpy(chunk),
            weights=torch.from_numpy(weights),
            method=methods.pop(),  # type: ignore[arg-type]
            jacobian=self.jacobian,
        )
        return self._act(observations, inpainting=inpainting)

    def _act(
        self, observations: Sequence[Observation], slots: Sequence[int] | None = None, **options: Any
    ) -> np.ndarray:
        batch = self.seen(observations, slots)
        if self.steer is not None:
            options["steering"] = self.steer(batch)
        if self._graphs is not None and not options:
            return self.clipped(self._replayed(batch, self._graphs))
        return self.clipped(getattr(self.model, self.conditional)(batch, **self.options, **options).action)

    def _replayed(self, batch: Batch, graphs: dict[int, PolicyGraph]) -> torch.Tensor:
        assert isinstance(self.model, WorldActionModel)
        context = self.model.context(batch)
        if batch.size not in graphs:
            graphs[batch.size] = PolicyGraph(self.model, context, steps=self.options["steps"])
        return graphs[batch.size](context, seed=self.options["seed"], same_noise=True)

    def seen(self, observations: Sequence[Observation], slots: Sequence[int] | None = None) -> Batch:
        """What the model is shown: the present, and what the slots were shown before, which this adds to."""
        now = to_batch(observations, self.cameras)
        return now.replace(images=torch.from_numpy(self.past.extend(now.images.numpy(), slots))).to(self.device)

    def clipped(self, actions: torch.Tensor) -> np.ndarray:
        """(B, K, A) within the action space, where it is known."""
        found, space = actions.float().cpu().numpy(), self.model.action_space
        return found if space is None else np.clip(found, space.low, space.high)

    @torch.no_grad()
    def foresee(self, observation: Observation, actions: np.ndarray, *, slot: int = 0) -> np.ndarray | None:
        """(V, T, H, W, 3) uint8 by forward dynamics, in as many steps as the policy takes; None from a model without one."""
        if not isinstance(self.model, WorldActionModel) or "future" not in self.model.config.streams:
            return None
        batch = to_batch([observation], self.cameras)
        past = self.past.shown(slot)  # its last frame is the observation's
        if past is not None:
            batch = batch.replace(images=torch.from_numpy(past)[None])
        batch = batch.replace(action=torch.from_numpy(np.asarray(actions, np.float32))[None]).to(self.device)
        future = self.model.forward_dynamics(batch, steps=self.options["steps"], seed=self.options["seed"]).future
        assert future is not None  # it was wanted
        return (future[0] * 255).round().to(torch.uint8).cpu().numpy()


def teacher_of(checkpoint: Path) -> Path:
    """The teacher that a student's provenance names. Raises WamError where it had none, or where that is no more what the
    student learned from."""
    named = Checkpoint.load(checkpoint).provenance.get("teacher")
    if not named:
        raise expected(f"a student in {checkpoint} that had a teacher", got="none", do="name one: teacher=RUN")
    folder = Path(named["checkpoint"])
    if not (folder / "model.safetensors").is_file() or sha256(folder / "model.safetensors") != named["sha256"]:
        raise expected(
            f"the teacher {folder} with sha256 {named['sha256'][:12]}", got="none or another", do="name it: teacher=RUN"
        )
    return folder


def load_policy(checkpoint: str | Path, *, threads: int = 0, **options: Any) -> WamPolicy:
    """The policy of a checkpoint folder; importable by name, so worker processes can make their own."""
    if threads:
        torch.set_num_threads(threads)
    opened = Checkpoint.load(Path(checkpoint))
    model: WorldActionModel | CloningPolicy | Student
    if "student" in opened.config:
        model = Student.from_checkpoint(opened)
    elif "cloning" in opened.config:
        model = CloningPolicy.from_checkpoint(opened)
    else:
        model = from_pretrained(checkpoint)
    return WamPolicy(model, **options)
