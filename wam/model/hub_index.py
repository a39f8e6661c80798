"""What diffusers and transformers look for in a folder: the files by which a checkpoint opens as a pipeline or by `AutoModel`.

    config.json                       transformers: the kind of model, and its settings as config.yaml has them
    model_index.json                  diffusers: the pipeline's class and its parts
    scheduler/scheduler_config.json   diffusers: Euler over each stream's own clocks

Written beside the checkpoint without either library. config.yaml stays what the model is built from.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wam.files import write_json

TYPE = "wam"
"""The model's name in transformers' registry."""
CONFIG, INDEX, SCHEDULER = "config.json", "model_index.json", "scheduler/scheduler_config.json"


def write_index(folder: Path, model: Mapping[str, Any]) -> None:
    """model: the plain settings of a `ModelConfig`."""
    scheduler = "FlowMatchEulerDiscreteScheduler"
    made = {"_diffusers_version": version("diffusers")}
    write_json(folder / CONFIG, {"model_type": TYPE, "architectures": ["WamModel"], "model": model})
    write_json(folder / SCHEDULER, {"_class_name": scheduler, **made, "num_train_timesteps": 1000, "shift": 1.0})
    write_json(
        folder / INDEX,
        {
            "_class_name": "WamPipeline",
            **made,
            "model": ["wam.model.auto", "WamModel"],
            "scheduler": ["diffusers", scheduler],
        },
    )
