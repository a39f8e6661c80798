"""A trained policy as a folder that LeRobot loads by the plugin `lerobot_policy_wam`, and the network of such a folder.

    config.json                what the plugin's `WamConfig` holds: what goes in and out, how to sample, what the network is
    model.safetensors          its weights, each name behind `model.`
    policy_preprocessor.json   names, batch and device; numbers are left as they are, since networks scale them inside
    policy_postprocessor.json

Written without the package; `make test-lerobot` holds these files equal to what LeRobot itself would write.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from wam.checkpoint import WEIGHTS, Checkpoint
from wam.contracts import ActionSpace, expected
from wam.control.wam_policy import WamPolicy, load_policy
from wam.data.features import ACTION, IMAGE_PREFIXES, STATE
from wam.files import sha256, write_bytes, write_json
from wam.model.cloning import CloningConfig, CloningPolicy
from wam.model.config import ModelConfig
from wam.model.student import Student, StudentConfig
from wam.model.wam import WorldActionModel
from wam.settings import build

TYPE = "wam"
"""The policy's name in LeRobot's registry."""
SETTINGS, PREPROCESSOR, POSTPROCESSOR = "config.json", "policy_preprocessor.json", "policy_postprocessor.json"
EXECUTE = 6
"""Actions carried out of a chunk, as in `wam eval`."""
STEPS = 4
"""Of a world-action model's sampling, as in `wam eval`."""
KINDS: Mapping[str, tuple[type[Any], type[Any]]] = {
    "student": (StudentConfig, Student),
    "cloning": (CloningConfig, CloningPolicy),
    "model": (ModelConfig, WorldActionModel),
}


def settings_of(contents: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """(kind, settings) of the network in a checkpoint's config. Raises WamError for a config of none."""
    for kind in KINDS:
        if kind in contents:
            return kind, contents[kind]
    raise expected(
        f"a config of wam's with one of {', '.join(KINDS)}",
        got=", ".join(contents) or "an empty one",
        do="write the folder with `wam export RUN --format lerobot` and name it by --policy.path",
    )


def build_network(contents: Mapping[str, Any]) -> Student | CloningPolicy | WorldActionModel:
    """The network that a checkpoint's config describes, in evaluation mode; its weights are random, to be loaded."""
    kind, settings = settings_of(contents)
    config, network = KINDS[kind]
    space = contents.get("action_space")
    built = network(build(config, settings), action_space=ActionSpace.from_dict(space) if space else None)
    built.cameras = tuple(contents.get("cameras", ()))
    return built.eval()


def camera_key(camera: str) -> str:
    """top -> observation.images.top; a camera that is named by its whole key keeps it."""
    return camera if camera.startswith("observation.") else IMAGE_PREFIXES[0] + camera


def export_lerobot(
    checkpoint: Path, folder: Path, *, steps: int = 0, execute: int = 0, source: Mapping[str, Any] | None = None
) -> WamPolicy:
    """Write the policy of a checkpoint folder; returns it. steps: of sampling, 0: one of a student's, `STEPS` of a
    world-action model's. execute: actions carried out before the next chunk is planned, 0: `EXECUTE`, or all of a shorter
    chunk. source: what is said of where it came from. Raises WamError for a model that no such folder can hold.
    """
    opened = Checkpoint.load(checkpoint)
    wrapped = opened.provenance.get("parts", {}).get("backbones")
    if wrapped:
        raise expected(
            "a model whose weights are all its own, for LeRobot",
            got=f"a pretrained backbone in {', '.join(wrapped)}",
            do="distill a student of it, or serve it: wam serve",
        )
    policy = load_policy(checkpoint)
    model, config = policy.model, policy.model.config
    if len(policy.cameras) != config.views:
        raise expected(
            f"{checkpoint} to name its {config.views} cameras",
            got=", ".join(policy.cameras) or "none",
            do="train it from a config with data.cameras",
        )
    if steps < 0:
        raise expected("steps of 1 or more", got=steps, do="set --steps so")
    execute = execute or min(EXECUTE, policy.chunk)
    if not 1 <= execute <= policy.chunk:
        raise expected(f"1 to {policy.chunk} actions of a chunk to carry out", got=execute, do="set --execute within")
    pictures = {
        camera_key(name): _feature("VISUAL", 3, config.image_size, config.image_size) for name in policy.cameras
    }
    inputs = pictures | ({STATE: _feature("STATE", config.state_dim)} if config.state_dim else {})
    outputs = {ACTION: _feature("ACTION", config.action_dim)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).unlink(missing_ok=True)
    weights = {f"model.{name}": value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(weights))
    for name, pipeline in _pipelines(inputs, outputs).items():
        write_json(folder / name, pipeline)
    said = {name: opened.provenance.get(name) for name in ("random", "teacher", "losses", "code", "seed")}
    write_json(
        folder / SETTINGS,  # last, so that a folder without it is unfinished
        {
            "type": TYPE,
            "n_obs_steps": 1,
            "input_features": inputs,
            "output_features": outputs,
            "device": "cpu",
            "chunk_size": policy.chunk,
            "n_action_steps": execute,
            "conditional": policy.conditional,
            "steps": steps or (STEPS if isinstance(model, WorldActionModel) else 1),
            "guidance": 1.0,
            "seed": 0,
            "normalization_mapping": _AS_THEY_ARE,
            "checkpoint": dict(opened.config),
            "provenance": {**said, "source": dict(source or {})},
            "sha256": sha256(folder / WEIGHTS),
        },
    )
    return policy


_AS_THEY_ARE = dict.fromkeys(("VISUAL", "STATE", "ACTION"), "IDENTITY")


def _feature(kind: str, *shape: int) -> dict[str, Any]:
    return {"type": kind, "shape": list(shape)}


def _pipelines(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The steps that LeRobot's policies have by default. Those that scale do nothing here; its trainer wants them there."""

    def step(name: str, **settings: Any) -> dict[str, Any]:
        return {"registry_name": name, "config": settings}

    def scaling(**features: Any) -> dict[str, Any]:
        return {"eps": 1e-8, "features": features, "norm_map": _AS_THEY_ARE}

    device = step("device_processor", device="cpu", float_dtype=None)
    before = [
        step("rename_observations_processor", rename_map={}),
        step("to_batch_processor"),
        device,
        step("normalizer_processor", **scaling(**inputs, **outputs)),
    ]
    after = [step("unnormalizer_processor", **scaling(**outputs)), device]
    pipelines = {PREPROCESSOR: before, POSTPROCESSOR: after}
    return {name: {"name": Path(name).stem, "steps": steps} for name, steps in pipelines.items()}
