"""A saved world-action model by transformers' `AutoConfig` and `AutoModel`, which know of it once this module is imported.

    import wam.model.auto
    from transformers import AutoModel

    model = AutoModel.from_pretrained(FOLDER)      # or a hub name
    model(batch, conditional="joint", steps=4)     # as `wam.model.wam.WorldActionModel.joint`

The weights are read by `wam.model.pretrained`, which holds every file against its recorded digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from wam.contracts import Batch, expected
from wam.model.config import ModelConfig
from wam.model.hub_index import TYPE
from wam.model.pretrained import from_pretrained, save_pretrained
from wam.model.wam import Sample, WorldActionModel
from wam.settings import build, to_plain
from wam.tokenizers.frozen import not_on_disk

CONDITIONALS = ("policy", "imagine", "forward_dynamics", "inverse_dynamics", "joint")


class WamConfig(PreTrainedConfig):
    """model: the plain settings of a `ModelConfig`."""

    model_type = TYPE

    def __init__(self, model: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.model = dict(model or {})
        super().__init__(**options)


class WamModel(PreTrainedModel):
    """A `WorldActionModel`, at `model`, as transformers knows models."""

    config_class = WamConfig
    base_model_prefix = "model"
    main_input_name = "batch"

    def __init__(self, config: WamConfig, model: WorldActionModel | None = None) -> None:
        """model: one that is made already; without one, of the config and at random, as its provenance says."""
        super().__init__(config)
        self.model = WorldActionModel(build(ModelConfig, config.model)) if model is None else model

    def forward(self, batch: Batch, *, conditional: str = "policy", **options: Any) -> Sample:
        """Draw from one of the five conditionals; options: as its method takes them."""
        if conditional not in CONDITIONALS:
            raise expected(f"a conditional among {', '.join(CONDITIONALS)}", got=repr(conditional), do="name one")
        return getattr(self.model, conditional)(batch, **options)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path,
        *_: Any,
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        bases: Mapping[str, str] | None = None,
        **options: Any,
    ) -> WamModel:
        """The model of a checkpoint folder or hub name, in evaluation mode. dtype: None keeps float32. bases: as
        `wam.model.pretrained.from_pretrained` takes them. Raises WamError where options ask for placement or quantisation,
        which this loader does not do."""
        asked = {k: options.get(k) for k in ("device_map", "quantization_config", "variant") if options.get(k)}
        if asked:
            raise expected("none of device_map, quantization_config and variant", got=asked, do="move it afterwards")
        folder = folder_of(name, revision)
        model = from_pretrained(folder, bases=bases)
        if isinstance(dtype, torch.dtype):
            model = model.to(dtype)
        return cls(WamConfig(model=to_plain(model.config)), model).eval()

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:  # type: ignore[override]
        """Write the checkpoint anew, with what the model says of itself."""
        own = self.model
        said = {name: value for name, value in own.provenance.items() if name not in ("wam", "sha256")}
        save_pretrained(own, Path(folder), cameras=own.cameras, statistics=own.statistics, provenance=said)


def folder_of(name: str | Path, revision: str | None = None) -> Path:
    """The folder itself, or where the hub's files of that name lie on this machine, fetched if need be."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(str(name), revision=revision))
    except (LocalEntryNotFoundError, RepositoryNotFoundError, HFValidationError, OSError) as error:
        raise not_on_disk("the world-action model", str(name), revision, error) from error


AutoConfig.register(TYPE, WamConfig, exist_ok=True)
AutoModel.register(WamConfig, WamModel, exist_ok=True)
