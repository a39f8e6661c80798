"""What Wan2.1's image-to-video networks read of their first frame beside its latents: a frozen CLIP's second-last layer."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.tokenizers.frozen import Frozen, not_on_disk, read_provenance, refuse_missing

FOLDER = "image_encoder"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures, in [0, 1]."""


class PictureReader(Frozen):
    """Pictures (B, H, W, 3) float in [-1, 1] -> features (B, M, width). A picture is squeezed to a square, as in training."""

    def __init__(self, network: nn.Module, provenance: dict[str, Any]) -> None:
        super().__init__()
        self._hold(network)
        self.provenance = provenance

    @classmethod
    def load(cls, source: str, revision: str | None) -> PictureReader:
        """The one beside a pretrained transformer. Raises WamError where it is not on this machine or incomplete."""
        from safetensors import SafetensorError
        from transformers import CLIPVisionModel

        made: Any = CLIPVisionModel
        try:
            network, report = made.from_pretrained(
                source,
                revision=revision,
                subfolder=FOLDER,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
        except (OSError, ValueError, ImportError, SafetensorError, RuntimeError) as error:
            raise not_on_disk("the image encoder", source, revision, error) from error
        refuse_missing("the image encoder", source, report["missing_keys"])
        return cls(network, read_provenance(source, revision))

    @classmethod
    def tiny(cls, width: int) -> PictureReader:
        """A small random one, always the same, since checkpoints do not hold it."""
        from transformers import CLIPVisionConfig, CLIPVisionModel

        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = CLIPVisionModel(config)
        return cls(network, {"source": "CLIPVisionModel, tiny", "revision": None, "random": True})

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        side = self.network.config.image_size
        x = rearrange(pictures.float(), "b h w c -> b c h w") / 2 + 0.5
        x = F.interpolate(x, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(numbers, device=x.device)[:, None, None] for numbers in (MEAN, STD))
        return self.network((x - mean) / std, output_hidden_states=True).hidden_states[-2]
