"""The two ends of a video stream: frames or latents to tokens, and tokens back to a prediction of frames or latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wam.contracts import expected
from wam.model.config import StreamConfig
from wam.model.video import ConvHead, ConvStem, PatchHead, PatchStem

FLOW_SCALE = 1 / 8
"""Of a picture's half side, what one unit of the head's flow moves a pixel."""


class VideoEnds(nn.Module):
    """Stem, view embedding and head of one video stream of (B, V, T, h, w, c) signals.

    G, the pictures per tubelet, is V, or 1 where the config joins the views in channels. Convolutions work on fold x fold
    pixels folded into channels, which loses nothing and costs a fraction. beside: the present frame
    enters with the signal, and an x0 prediction starts as its copy; with `warp` the copy is first moved by a predicted
    flow (Finn et al. 2016), so that what moved need not be painted anew.
    """

    head: ConvHead | PatchHead | None

    def __init__(
        self,
        config: StreamConfig,
        *,
        size: int,
        channels: int,
        views: int,
        width: int,
        condition_width: int,
        beside: bool,
        predicts: bool,
    ) -> None:
        super().__init__()
        if config.stem not in ("conv", "patch"):
            raise expected("stem conv or patch", got=repr(config.stem), do="choose one of the two")
        self.config, self.channels, self.beside = config, channels, beside
        self.groups = 1 if config.join_views else views
        self.copies = beside and config.predicts == "x0"
        self.fold = config.fold if config.stem == "conv" else 1
        together = views // self.groups * self.fold**2
        inputs = together * channels * (config.tubelet + beside)
        outputs = together * config.tubelet * (channels + 2 * self.warps)
        sizes = {"size": size // self.fold, "grid": config.grid, "width": width}
        if config.stem == "conv":
            self.stem: ConvStem | PatchStem = ConvStem(
                inputs, base=config.stem_width, blocks=config.blocks, condition_width=condition_width, **sizes
            )
        else:
            self.stem = PatchStem(inputs, **sizes)
        self.views = nn.Parameter(0.02 * torch.randn(self.groups, width))
        if not predicts:
            self.head = None
        elif config.stem == "conv":
            self.head = ConvHead(
                outputs,
                grid=config.grid,
                skip_widths=self.stem.skip_widths,
                width=width,
                condition_width=condition_width,
            )
        else:
            self.head = PatchHead(outputs, condition_width=condition_width, **sizes)

    @property
    def resolutions(self) -> list[int]:
        """Channels of what `looked_at` gives."""
        return [*self.stem.skip_widths, self.views.shape[1]]

    def looked_at(self, tokens: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
        """What `embed` gave, as pictures (B, T / tubelet * G, C, h, w) of each resolution, finest first; tokens come last."""
        coarsest = rearrange(tokens, "b t g (h w) d -> (b t g) d h w", h=self.config.grid)
        return [x.unflatten(0, (len(tokens), -1)) for x in (*features, coarsest)]

    @property
    def warps(self) -> bool:
        return self.config.warp and self.copies

    def embed(
        self, signal: Tensor, condition: Tensor, *, present: Tensor | None = None, clock: Tensor | None = None
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Tokens (B, T / tubelet, G, grid * grid, D) and finer features. condition (B, 1 or T / tubelet, condition width);
        present (B, V, 1, h, w, c) and clock (B,) or (B, T / tubelet) of a signal that stands beside it.

        Such a signal enters as its difference to the present, as far as its clock lets it show: what moved is then
        plain to see for inverse dynamics, and nothing is lost.
        """
        times = signal.shape[2] // self.config.tubelet
        if self.beside and present is not None and clock is not None:
            frames = clock[:, None].expand(-1, times) if clock.ndim == 1 else clock
            shows = 1 - frames.repeat_interleave(self.config.tubelet, 1)[:, None, :, None, None, None]
            signal = torch.addcmul(signal, shows.to(signal.dtype), present, value=-1)
        pictures = self._pictures(signal, self.config.tubelet)
        if self.beside and present is not None:
            shown = present.expand(-1, -1, times, -1, -1, -1)
            pictures = torch.cat([pictures, self._pictures(shown, 1)], dim=1)
        tokens, features = self.stem(pictures, self._per_picture(condition, times))
        tokens = rearrange(tokens, "(b t g) l d -> b t g l d", t=times, g=self.groups)
        return tokens + self.views[:, None], features

    def predict(
        self, tokens: Tensor, features: Sequence[Tensor], condition: Tensor, *, present: Tensor, times: int
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, D) after the last layer -> the prediction (B, V, T, h, w, c), and the finest features that it is
        drawn from (B, T / tubelet, G, C, h', w'); times: T / tubelet."""
        assert self.head is not None
        tokens = rearrange(tokens, "b (t g l) d -> (b t g) l d", t=times, g=self.groups)
        drawn, finest = self.head(tokens, features, self._per_picture(condition, times))
        finest = rearrange(finest, "(b t g) c h w -> b t g c h w", t=times, g=self.groups)
        change = rearrange(
            drawn,
            "(b t g) (v p c i j) h w -> b (g v) (t p) (h i) (w j) c",
            t=times,
            g=self.groups,
            p=self.config.tubelet,
            c=self.channels + 2 * self.warps,
            i=self.fold,
            j=self.fold,
        ).float()
        if not self.copies:
            return change, finest
        if not self.warps:
            return present + change, finest
        painted, flow = change.split([self.channels, 2], dim=-1)
        return warped(present, flow * FLOW_SCALE) + painted, finest

    def _pictures(self, frames: Tensor, tubelet: int) -> Tensor:
        """Frames (B, V, T, h, w, c) as folded pictures, already in the precision that the convolutions run in."""
        if not frames.is_meta and torch.is_autocast_enabled(frames.device.type):
            frames = frames.to(torch.get_autocast_dtype(frames.device.type))
        return rearrange(
            frames,
            "b (g v) (t p) (h i) (w j) c -> (b t g) (v p c i j) h w",
            g=self.groups,
            p=tubelet,
            i=self.fold,
            j=self.fold,
        )

    def _per_picture(self, condition: Tensor, times: int) -> Tensor:
        """(B, 1 or T, W) -> (B T G, W), through its activation."""
        condition = condition.expand(-1, times, -1).repeat_interleave(self.groups, dim=1)
        return F.silu(condition).flatten(0, 1)


def warped(present: Tensor, flow: Tensor) -> Tensor:
    """present (B, V, 1, h, w, c) sampled at each place plus flow (B, V, T, h, w, 2): x, y in halves of a side."""
    views, times = flow.shape[1:3]
    picture = rearrange(present.expand(-1, -1, times, -1, -1, -1), "b v t h w c -> (b v t) c h w").float()
    height, width = picture.shape[-2:]
    y, x = torch.meshgrid(
        (torch.arange(height, device=flow.device) * 2 + 1) / height - 1,
        (torch.arange(width, device=flow.device) * 2 + 1) / width - 1,
        indexing="ij",
    )
    places = torch.stack([x, y], dim=-1) + flow.flatten(0, 2)
    moved = F.grid_sample(picture, places, padding_mode="border", align_corners=False)
    return rearrange(moved, "(b v t) c h w -> b v t h w c", v=views, t=times)
