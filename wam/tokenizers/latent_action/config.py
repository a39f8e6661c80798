"""What a latent-action tokenizer is made of. YAML fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wam.contracts import expected
from wam.tokenizers.quantizers import QuantizerConfig

TARGETS = ("pixels", "features", "flow")


@dataclass(kw_only=True)
class FeatureConfig:
    """A frozen encoder of pictures.

    kind: ``transformers``, any vision model of transformers (DINOv2, DINOv3, SigLIP, ...) at `name`, a folder or a hub name;
    ``tiny``, `name`_encoder.safetensors of a TAESD-like autoencoder with `name`_decoder.safetensors beside it; ``squeezenet``,
    an .npz of SqueezeNet 1.0 in Caffe's layout; ``autoencoder``, one trained here without labels (stage=autoencoder).
    size: side that pictures are resized to before it; 0 leaves them as they are.
    """

    kind: Literal["transformers", "tiny", "squeezenet", "autoencoder"] = "transformers"
    name: str = ""
    revision: str | None = None
    size: int = 0


@dataclass(kw_only=True)
class AugmentConfig:
    """What is changed in training so that latents say what moves, not what it looks like or where it is.

    shift: up to this share of a side is cut away, the same of both frames of a pair; the decoder sees another part than the
    encoder. colour: strength of random gains and offsets of the colours that the encoder sees, the same in both frames;
    decoder_colour: of others that the decoder sees.
    camera: the later frame alone is moved by up to this share of a side in `camera_share` of the pairs: a camera that shakes.
    """

    shift: float = 0.06
    colour: float = 0.2
    decoder_colour: float = 0.0
    camera: float = 0.0
    camera_share: float = 0.5

    def validate(self) -> None:
        if not 0 <= self.shift < 0.5 or not 0 <= self.camera < 0.5 or not 0 <= self.colour < 1:
            raise expected(
                "shares of a side below 0.5 and a colour strength below 1",
                got=f"shift {self.shift}, camera {self.camera}, colour {self.colour}",
                do="lower them",
            )


@dataclass(kw_only=True)
class LabelConfig:
    """True actions, where some are at hand.

    share: of the episodes that have actions, how many may show them (0: labels stay hidden). weight: of reading the mean
    action linearly from the latent (Motus). proprio: weight of predicting the chunk from latent and state (villa-X).
    """

    share: float = 0.0
    weight: float = 1.0
    proprio: float = 0.0


@dataclass(kw_only=True)
class LatentActionConfig:
    """gap: dataset frames from one frame of a pair to the next. pairs: consecutive pairs of a training window.

    views: cameras it knows, in the order of the data's; any of them may be missing from a window. tokens: latents per
    pair. context: neighbouring pairs on either side that a latent may look at. width: of the encoder's summary and the
    decoder's condition; base: channels at the finest resolution of both networks.
    target: what the decoder has to foresee: pixels, features of a frozen encoder, or optical flow. With the last two a
    decoder of pixels is trained beside, on latents that its gradient does not reach. changed: extra weight of the error
    where pixels change. camera: a stream of its own for the motion of the whole picture (move, zoom, turn), which then
    needs no code. language: the sentence is shown to the decoder, so codes hold what it does not tell. beside: folder of a
    tokenizer trained so; its latents are shown to the decoder, so new codes hold the rest (UniVLA). keep: share of the
    windows for which sentence and latents beside are shown. collapse_after, collapse_below: batches after which training
    stops if codes are used no more evenly than that many.
    """

    image_size: int = 64
    views: int = 2
    gap: int = 12
    pairs: int = 1
    tokens: int = 1
    context: int = 0
    base: int = 24
    width: int = 192
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    target: Literal["pixels", "features", "flow"] = "pixels"
    features: FeatureConfig = field(default_factory=FeatureConfig)
    changed: float = 0.0
    camera: bool = False
    language: bool = False
    beside: str | None = None
    keep: float = 0.9
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    collapse_after: int = 300
    collapse_below: float = 2.0

    def validate(self) -> None:
        """Raises WamError where the numbers do not fit."""
        self.quantizer.validate()
        self.augment.validate()
        if min(self.views, self.gap, self.pairs, self.tokens) < 1 or self.context < 0:
            raise expected(
                "views, gap, pairs and tokens of 1 and more",
                got=f"{self.views}, {self.gap}, {self.pairs} and {self.tokens}",
                do="raise them",
            )
        if self.image_size % 16:
            raise expected("an image_size that 16 divides", got=self.image_size, do="use 64, say")
        if not 0 <= self.labels.share <= 1 or not 0 <= self.keep <= 1:
            raise expected(
                "labels.share and keep from 0 to 1", got=f"{self.labels.share} and {self.keep}", do="give shares"
            )
