"""The latent-action tokenizer: any views, rolled out frames, saved and loaded, refused where it does not fit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wam.contracts import WamError
from wam.tokenizers.autoencoder import Autoencoder, AutoencoderConfig
from wam.tokenizers.latent_action import FeatureConfig, LatentActionConfig, LatentActionTokenizer
from wam.tokenizers.latent_action.blocks import moved_camera, warped
from wam.tokenizers.latent_action.features import TransformersFeatures, make_features
from wam.tokenizers.latent_action.flow import optical_flow
from wam.tokenizers.quantizers import QuantizerConfig

DATA = Path(os.environ.get("WAM_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
SMALL = LatentActionConfig(image_size=16, views=2, base=8, width=16, quantizer=QuantizerConfig(levels=(3, 3)))


def made(config: LatentActionConfig = SMALL, **changes: object) -> LatentActionTokenizer:
    torch.manual_seed(0)
    tokenizer = LatentActionTokenizer(replace(config, **changes)).eval()
    for (
        parameter
    ) in tokenizer.decoder.parameters():  # some are zero at the start of training: every latent does the same then
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return tokenizer


def frames(batch: int = 3, views: int = 2, time: int = 3, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, views, time, side, side, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def smooth(count: int, side: int = 64, seed: int = 0) -> torch.Tensor:
    """Smooth random pictures (P, 3, side, side)."""
    coarse = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False).clamp(-1, 1)


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("context", [0, 1])
def test_every_pair_of_frames_gives_its_latents(tokens: int, context: int) -> None:
    tokenizer = made(tokens=tokens, context=context)
    found = tokenizer.encode(frames(time=4))
    assert found.latents.shape == (3, 3 * tokens, 2)
    assert found.codes is not None
    assert found.codes.shape == (3, 3 * tokens, 2)
    assert torch.allclose(tokenizer.latents_of(found.codes), found.latents, atol=1e-6)
    assert tokenizer.decode(frames(time=1), found.latents).shape == (3, 2, 3, 16, 16, 3)


def test_pairs_know_nothing_of_each_other_without_context_and_of_neighbours_with_it() -> None:
    clip, other = frames(time=4), frames(time=4)
    other[:, :, 3] = 0
    for context, same in ((0, True), (1, False)):
        tokenizer = made(context=context, quantizer=QuantizerConfig(kind="vae", dim=2))
        first, changed = (tokenizer.encode(x).latents[:, 1] for x in (clip, other))
        assert torch.allclose(first, changed, atol=1e-6) is same


def test_frames_in_eight_bits_mean_the_same() -> None:
    tokenizer = made(quantizer=QuantizerConfig(kind="vae", dim=2))
    bytes_ = ((frames() + 1) * 127.5).round().byte()
    assert torch.allclose(tokenizer.encode(bytes_).latents, tokenizer.encode(bytes_ / 127.5 - 1).latents, atol=1e-5)


def test_a_missing_view_is_as_if_it_were_not_given() -> None:
    tokenizer = made(quantizer=QuantizerConfig(kind="vae", dim=2))
    clip = frames()
    mask = torch.tensor([[True, False]]).expand(3, 2)
    alone, masked = tokenizer.encode(clip[:, :1]), tokenizer.encode(clip, view_mask=mask)
    assert torch.allclose(alone.latents, masked.latents, atol=1e-6)
    told = tokenizer.decode(clip[:, :, :1], masked.latents, view_mask=mask)
    assert torch.allclose(told[:, 1], clip[:, 1, :1].expand(-1, 2, -1, -1, -1), atol=1e-6)
    assert not torch.allclose(told[:, 0], clip[:, 0, :1].expand(-1, 2, -1, -1, -1), atol=1e-3)


def test_each_frame_is_decoded_from_the_one_before_it() -> None:
    tokenizer = made()
    clip, latents = frames(), made().encode(frames()).latents
    whole = tokenizer.decode(clip[:, :, :1], latents)
    first = tokenizer.decode(clip[:, :, :1], latents[:, :1])
    second = tokenizer.decode(first, latents[:, 1:])
    assert torch.allclose(whole, torch.cat([first, second], dim=2), atol=1e-5)


def test_latents_modulate_the_picture() -> None:
    tokenizer = made()
    present = frames(batch=2, time=1)[:1].expand(2, -1, -1, -1, -1, -1)
    told = tokenizer.decode(present, torch.tensor([[[1.0, 1.0]], [[-1.0, -1.0]]]))
    assert not torch.allclose(told[0], told[1], atol=1e-3)


def test_an_untrained_decoder_copies_the_present() -> None:
    tokenizer = LatentActionTokenizer(SMALL).eval()
    clip = frames()
    told = tokenizer.decode(clip[:, :, :1], tokenizer.encode(clip).latents)
    assert torch.allclose(told, clip[:, :, :1].expand(-1, -1, 2, -1, -1, -1), atol=1e-5)


def test_a_camera_stream_moves_the_picture_apart_from_the_latents() -> None:
    tokenizer = LatentActionTokenizer(replace(SMALL, camera=True)).eval()
    clip = frames()
    found = tokenizer.encode(clip)
    assert found.camera is not None
    assert found.camera.shape == (3, 2, 2, 4)
    right = torch.zeros_like(found.camera)
    right[..., 0] = 2 / 16 * 2  # two pixels of sixteen
    told = tokenizer.decode(clip[:, :, :1], found.latents, camera=right)
    assert torch.allclose(told[:, :, 0, :, :-2], clip[:, :, 0, :, 2:], atol=1e-4)


def test_what_was_saved_is_loaded_in_one_line(tmp_path: Path) -> None:
    tokenizer = made(camera=True, tokens=2)
    tokenizer.cameras = ("a", "b")
    tokenizer.save_pretrained(tmp_path / "saved", provenance={"random": False, "data": ["x"]})
    again = LatentActionTokenizer.from_pretrained(tmp_path / "saved")
    assert again.config == tokenizer.config
    assert again.cameras == ("a", "b")
    assert again.provenance["random"] is False
    assert torch.equal(again.encode(frames()).latents, tokenizer.encode(frames()).latents)


def test_random_weights_are_named_so_after_saving_and_loading(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)
    assert LatentActionTokenizer.from_pretrained(tmp_path).provenance["random"] is True


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(WamError, match="damaged or changed"):
        LatentActionTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (frames(views=3), "V from 1 to 2"),
        (frames(side=32), "16, 16, 3"),
        (frames(time=1), "at least two frames"),
    ],
)
def test_frames_that_do_not_fit_are_refused(given: torch.Tensor, words: str) -> None:
    with pytest.raises(WamError, match=words):
        made().encode(given)


def test_latents_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WamError, match="K a multiple of 2"):
        made(tokens=2).decode(frames(time=1), torch.zeros(3, 3, 2))


def test_a_window_without_any_view_is_refused() -> None:
    with pytest.raises(WamError, match="at least one view"):
        made().encode(frames(), view_mask=torch.zeros(3, 2, dtype=torch.bool))


@pytest.mark.parametrize("change", [{"gap": 0}, {"image_size": 40}, {"keep": 2.0}])
def test_impossible_settings_are_refused(change: dict) -> None:
    with pytest.raises(WamError, match="expected"):
        LatentActionTokenizer(replace(SMALL, **change))


class TestMovedPictures:
    def test_flow_brings_the_earlier_picture_onto_the_later_one(self) -> None:
        before = smooth(4)
        shift = torch.tensor([[3, 0], [0, -3], [2, 2], [0, 0]]) * 2 / 64  # pixels in halves of a side
        motion = torch.cat([shift, torch.zeros(4, 2)], dim=1)
        after = moved_camera(before, motion)
        flow = optical_flow(before, after)
        inside = flow[..., 12:-12, 12:-12]
        assert torch.allclose(inside.mean(dim=(2, 3)), shift, atol=0.01)
        left = (warped(before, flow) - after)[..., 8:-8, 8:-8].abs().mean()
        assert left < 0.2 * (before - after)[..., 8:-8, 8:-8].abs().mean()

    def test_a_still_flat_picture_has_no_flow(self) -> None:
        flat = torch.full((1, 3, 32, 32), 0.3)
        assert float(optical_flow(flat, flat).abs().max()) < 1e-6

    def test_zooming_in_shows_the_middle_larger(self) -> None:
        picture = smooth(1)
        closer = moved_camera(picture, torch.tensor([[0.0, 0.0, -0.6931, 0.0]]))  # half as far across
        assert torch.allclose(closer[..., ::2, ::2].mean(), picture[..., 16:48, 16:48].mean(), atol=0.02)


class TestFrozenFeatures:
    def test_an_autoencoder_trained_here_gives_its_latents(self, tmp_path: Path) -> None:
        autoencoder = Autoencoder(AutoencoderConfig(width=8, channels=4))
        autoencoder.save_pretrained(tmp_path)
        features = make_features(FeatureConfig(kind="autoencoder", name=str(tmp_path)))
        pictures = smooth(2)
        assert features(pictures).shape == (2, 4, 8, 8)
        assert features.provenance["random"] is True
        assert not list(features.parameters())

    def test_patches_of_a_vision_transformer_keep_their_places(self) -> None:
        from transformers import Dinov2Config, Dinov2Model

        config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=7)
        torch.manual_seed(0)
        features = TransformersFeatures.from_network(Dinov2Model(config))
        pictures = smooth(1, side=28)
        changed = pictures.clone()
        changed[..., :7, 21:] = -1  # the last patch of the first row
        moved = (features(pictures) - features(changed)).abs().sum(dim=1)[0]
        assert moved.shape == (4, 4)
        assert int(moved.argmax()) == 3
        assert features.provenance["random"] is True

    def test_weights_that_are_not_there_are_never_made_up(self, tmp_path: Path) -> None:
        for kind in ("squeezenet", "tiny", "autoencoder", "transformers"):
            with pytest.raises(WamError, match="expected"):
                make_features(FeatureConfig(kind=kind, name=str(tmp_path / "none")))  # type: ignore[arg-type]
        with pytest.raises(WamError, match="a name for the transformers encoder"):
            make_features(FeatureConfig())

    @pytest.mark.skipif(not (DATA / "weights").is_dir(), reason="set WAM_DATA to the real recordings")
    @pytest.mark.parametrize(
        ("kind", "name", "channels"),
        [("squeezenet", "squeezenet_v1_0_decoded_fp16.npz", 384), ("tiny", "taef2", 32)],
    )
    def test_real_weights_see_the_same_thing_where_it_moves_and_not_noise(
        self, kind: str, name: str, channels: int
    ) -> None:
        features = make_features(FeatureConfig(kind=kind, name=str(DATA / "weights" / name)))  # type: ignore[arg-type]
        picture = smooth(1)
        moved = moved_camera(picture, torch.tensor([[4 / 64, 0, 0, 0]]))
        other = smooth(1, seed=5)
        seen = [features(p).mean(dim=(2, 3)) for p in (picture, moved, other)]
        assert seen[0].shape == (1, channels)
        assert features.provenance["random"] is False
        assert (seen[0] - seen[1]).norm() < 0.7 * (seen[0] - seen[2]).norm()
