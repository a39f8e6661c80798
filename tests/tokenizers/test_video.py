"""Video tokenizers: pixels, the autoencoder trained here, published tiny files and diffusers VAEs (here tiny and random)."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.tokenizers.video import (
    Autoencoder,
    AutoencoderConfig,
    DiffusersVae,
    PixelTokenizer,
    VideoConfig,
    VideoTokenizer,
    autoencoder_loss,
    make_video_tokenizer,
    to_signed,
    to_unit,
)


def frames(batch: int = 2, views: int = 2, time: int = 1, side: int = 64, seed: int = 0) -> torch.Tensor:
    """Smooth random pictures (B, V, T, side, side, 3) in [-1, 1]."""
    torch.manual_seed(seed)
    coarse = torch.rand(batch * views * time, 3, 4, 4) * 2 - 1
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return smooth.permute(0, 2, 3, 1).reshape(batch, views, time, side, side, 3)


def small_autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(AutoencoderConfig(width=8, channels=4))


class TestPixels:
    def test_pixels_are_their_own_latents(self) -> None:
        tokenizer = make_video_tokenizer(VideoConfig())
        x = frames()
        assert isinstance(tokenizer, PixelTokenizer)
        assert torch.equal(tokenizer.decode(tokenizer.encode(x)), x)
        assert tokenizer.latent_shape(2, 64, 32) == (2, 64, 32, 3)

    @pytest.mark.parametrize("bad", [torch.zeros(2, 1, 1, 8, 8, 3, dtype=torch.uint8), torch.zeros(2, 1, 8, 8, 3)])
    def test_frames_of_another_kind_are_refused(self, bad: torch.Tensor) -> None:
        with pytest.raises(WamError, match=r"expected frames as float of shape \(B, V, T, H, W, 3\)"):
            PixelTokenizer().encode(bad)

    @given(st.integers(0, 255))
    def test_eight_bit_values_survive_the_way_to_signed_and_back(self, value: int) -> None:
        pixel = torch.full((1,), value, dtype=torch.uint8)
        assert (to_unit(to_signed(pixel)) * 255).round().item() == value

    def test_conversions_leave_their_input_alone(self) -> None:
        x = frames(side=8)
        before = x.clone()
        to_unit(x)
        to_signed(x)
        assert torch.equal(x, before)


class TestAutoencoder:
    def test_default_latents_of_64_pixels_are_8_by_8_by_8(self) -> None:
        tokenizer = Autoencoder()
        latents = tokenizer.encode(frames(time=3))
        assert latents.shape == (2, 2, 3, 8, 8, 8)
        assert latents.shape[2:] == tokenizer.latent_shape(3, 64, 64)
        assert tokenizer.decode(latents).shape == (2, 2, 3, 64, 64, 3)

    def test_frames_and_views_are_encoded_apart(self) -> None:
        tokenizer, x = small_autoencoder(), frames(time=2)
        together = tokenizer.encode(x)
        torch.testing.assert_close(tokenizer.encode(x[:1, 1:, 1:]), together[:1, 1:, 1:])

    def test_a_few_steps_of_training_lower_the_loss(self) -> None:
        tokenizer, x = small_autoencoder(), frames(batch=4, side=32)
        optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
        generator = torch.Generator().manual_seed(0)
        losses = []
        for _ in range(40):
            loss = autoencoder_loss(tokenizer, x, generator=generator)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]

    def test_calibrated_latents_have_unit_scale_and_decode_to_the_same_frames(self) -> None:
        tokenizer, x = small_autoencoder(), frames(batch=4)
        before = tokenizer.decode(tokenizer.encode(x))
        tokenizer.calibrate(x)
        latents = tokenizer.encode(x)
        torch.testing.assert_close(latents.flatten(0, -2).std(dim=0), torch.ones(4))
        torch.testing.assert_close(latents.flatten(0, -2).mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(tokenizer.decode(latents), before, atol=1e-4, rtol=1e-4)

    def test_saved_and_loaded_gives_the_same_latents_and_provenance(self, tmp_path: Path) -> None:
        tokenizer, x = small_autoencoder(), frames()
        tokenizer.calibrate(x)
        assert tokenizer.provenance["random"]
        tokenizer.mark_trained("frames of a test", "v1")
        tokenizer.save_pretrained(tmp_path / "ae")
        loaded = make_video_tokenizer(VideoConfig(kind="autoencoder", name=str(tmp_path / "ae")))
        assert torch.equal(loaded.encode(x), tokenizer.encode(x))
        assert loaded.provenance == {"source": "frames of a test", "revision": "v1", "random": False}
        assert sorted(file.name for file in (tmp_path / "ae").iterdir()) == ["config.yaml", "model.safetensors"]

    def test_named_in_a_model_it_neither_learns_along_nor_shifts_the_draws(self, tmp_path: Path) -> None:
        small_autoencoder().save_pretrained(tmp_path)
        torch.manual_seed(0)
        wanted = torch.rand(1)
        torch.manual_seed(0)
        opened = make_video_tokenizer(VideoConfig(kind="autoencoder", name=str(tmp_path)))
        assert torch.equal(torch.rand(1), wanted)
        assert not any(p.requires_grad for p in opened.parameters())

    def test_a_flipped_byte_is_found(self, tmp_path: Path) -> None:
        small_autoencoder().save_pretrained(tmp_path)
        content = bytearray((tmp_path / "model.safetensors").read_bytes())
        content[-5] ^= 1
        (tmp_path / "model.safetensors").write_bytes(bytes(content))
        with pytest.raises(WamError, match="the file has changed since it was written"):
            Autoencoder.from_pretrained(tmp_path)

    @pytest.mark.parametrize("name", ["config.yaml", "model.safetensors"])
    def test_a_missing_file_is_named(self, tmp_path: Path, name: str) -> None:
        small_autoencoder().save_pretrained(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(WamError, match=name.replace(".", r"\.")):
            Autoencoder.from_pretrained(tmp_path)

    def test_sides_that_do_not_divide_are_refused(self) -> None:
        with pytest.raises(WamError, match="multiples of 8, got 60 x 60; resize"):
            small_autoencoder().encode(frames(side=60))

    def test_latents_of_another_tokenizer_are_refused(self) -> None:
        with pytest.raises(WamError, match=r"h, w, 4\), got shape"):
            small_autoencoder().decode(torch.zeros(1, 1, 1, 8, 8, 8))

    def test_impossible_settings_are_refused(self) -> None:
        with pytest.raises(WamError, match="multiple of 8"):
            AutoencoderConfig(width=12)


# ---------------------------------------------------------------- diffusers


def tiny_vae(kind: str) -> Any:
    import diffusers

    torch.manual_seed(0)
    if kind == "AutoencoderKL":
        return diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            scaling_factor=0.5,
            shift_factor=0.25,
        )
    if kind == "AutoencoderTiny":
        widths = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
        return diffusers.AutoencoderTiny(**widths, num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1))
    if kind == "AutoencoderKLWan":
        return diffusers.AutoencoderKLWan(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[True, True],
            latents_mean=[0.1, 0.2, 0.3, 0.4],
            latents_std=[1.0, 2.0, 3.0, 4.0],
        )
    if kind == "AutoencoderKLLTXVideo":
        return diffusers.AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            patch_size=2,
        )
    return diffusers.AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=32,
        num_layers=1,
        patch_size=2,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        latents_mean=[0.1] * 12,
        latents_std=[2.0] * 12,
    )


KINDS = ["AutoencoderKL", "AutoencoderTiny", "AutoencoderKLWan", "AutoencoderKLLTXVideo", "AutoencoderKLCosmos"]
# pixels and frames per latent
GEOMETRY = dict(zip(KINDS, [(2, 1), (4, 1), (4, 4), (8, 4), (4, 4)], strict=True))


@pytest.fixture(scope="module", params=KINDS)
def vae(request: Any) -> DiffusersVae:
    return DiffusersVae.from_network(tiny_vae(request.param))


class TestDiffusersVae:
    def test_latents_have_the_promised_shape_and_decode_to_frames(self, vae: DiffusersVae) -> None:
        spatial, temporal = GEOMETRY[type(vae.network).__name__]
        assert (vae.spatial, vae.temporal) == (spatial, temporal)
        time = 1 + 2 * temporal
        latents = vae.encode(frames(batch=1, time=time, side=32))
        assert latents.shape == (1, 2, *vae.latent_shape(time, 32, 32))
        assert latents.shape[2] == 3
        assert vae.decode(latents).shape == (1, 2, time, 32, 32, 3)

    def test_one_frame_alone_is_a_clip(self, vae: DiffusersVae) -> None:
        latents = vae.encode(frames(batch=1, views=1, time=1, side=32))
        assert vae.decode(latents).shape == (1, 1, 1, 32, 32, 3)

    def test_latents_are_the_networks_own_scaled(self, vae: DiffusersVae) -> None:
        x = frames(batch=1, views=1, time=1, side=32)
        picture = x[0, :, 0].movedim(-1, 1)  # (1, 3, H, W)
        given = picture[:, :, None] if vae.takes_video else picture
        output = vae.network.encode(given)
        raw = (output.latent_dist.mode() if hasattr(output, "latent_dist") else output.latents).reshape(
            vae.channels, -1
        )
        steps = torch.arange(1, vae.channels + 1)[:, None]
        scaled = {
            "AutoencoderKL": (raw - 0.25) * 0.5,
            "AutoencoderTiny": raw,
            "AutoencoderKLWan": (raw - 0.1 * steps) / steps,
            "AutoencoderKLLTXVideo": raw,
            "AutoencoderKLCosmos": (raw - 0.1) / 2,
        }[type(vae.network).__name__]
        torch.testing.assert_close(vae.encode(x)[0, 0, 0].movedim(-1, 0).reshape(vae.channels, -1), scaled)

    def test_decoding_undoes_the_scaling(self, vae: DiffusersVae) -> None:
        x = frames(batch=1, views=1, time=1, side=32)
        picture = x[0, :, 0].movedim(-1, 1)
        given = picture[:, :, None] if vae.takes_video else picture
        output = vae.network.encode(given)
        raw = output.latent_dist.mode() if hasattr(output, "latent_dist") else output.latents
        truth = vae.network.decode(raw).sample.reshape(3, 32, 32)
        torch.testing.assert_close(vae.decode(vae.encode(x))[0, 0, 0].movedim(-1, 0), truth, atol=1e-4, rtol=1e-4)

    def test_it_is_frozen_and_no_part_of_a_checkpoint(self, vae: DiffusersVae) -> None:
        assert list(vae.parameters()) == []
        assert vae.state_dict() == {}
        assert not vae.encode(frames(batch=1, views=1, time=1, side=32)).requires_grad
        assert copy.deepcopy(vae).network is vae.network
        assert vae.provenance["random"]

    def test_saved_and_loaded_by_name_gives_the_same_latents(self, vae: DiffusersVae, tmp_path: Path) -> None:
        vae.save_pretrained(tmp_path / "vae")
        loaded = make_video_tokenizer(VideoConfig(kind="diffusers", name=str(tmp_path), subfolder="vae"))
        x = frames(batch=1, time=1 + vae.temporal, side=32)
        torch.testing.assert_close(loaded.encode(x), vae.encode(x))

    def test_parts_of_a_batch_give_the_same_as_the_whole(self, vae: DiffusersVae) -> None:
        x = frames(batch=3, views=1, time=1, side=32)
        parts = DiffusersVae.from_network(vae.network, clips_at_once=2)
        torch.testing.assert_close(parts.encode(x), vae.encode(x), atol=1e-5, rtol=1e-4)


class TestDiffusersFaults:
    def test_frames_that_are_not_4n_plus_1_are_explained(self) -> None:
        vae = DiffusersVae.from_network(tiny_vae("AutoencoderKLWan"))
        with pytest.raises(WamError, match=r"4 n \+ 1 frames .* got 8 frames; give 5 or 9 frames"):
            vae.encode(frames(time=8, side=32))

    def test_more_time_than_the_statistics_cover_is_explained(self) -> None:
        vae = DiffusersVae.from_network(tiny_vae("AutoencoderKLCosmos"))
        with pytest.raises(WamError, match=r"at most 3 latents in time.*at most 9 frames"):
            vae.encode(frames(batch=1, views=1, time=13, side=32))

    def test_an_ltx_decoder_that_denoises_is_called_at_time_zero(self) -> None:
        plain = tiny_vae("AutoencoderKLLTXVideo")
        options = {key: value for key, value in plain.config.items() if not key.startswith("_")}
        vae = DiffusersVae.from_network(type(plain)(**{**options, "timestep_conditioning": True}))
        assert vae.decode(torch.zeros(1, 1, 2, 4, 4, 8)).shape == (1, 1, 5, 32, 32, 3)

    def test_a_name_that_is_not_here_says_what_to_download(self) -> None:
        with pytest.raises(WamError, match="hf download Wan-AI/none --revision r1") as caught:
            DiffusersVae("Wan-AI/none", "r1")
        assert "\n" not in str(caught.value)

    def test_another_class_is_refused_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
        with pytest.raises(WamError, match=r"AutoencoderKLWan.*got 'VQModel'"):
            DiffusersVae(str(tmp_path))

    def test_missing_weights_are_never_random(self, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        DiffusersVae.from_network(tiny_vae("AutoencoderKL")).save_pretrained(tmp_path)
        file = tmp_path / "diffusion_pytorch_model.safetensors"
        weights = load_file(file)
        del weights["decoder.conv_in.weight"]
        save_file(weights, file, metadata={"format": "pt"})
        with pytest.raises(WamError, match=r"decoder\.conv_in\.weight"):
            DiffusersVae(str(tmp_path))

    def test_a_nameless_config_is_refused(self) -> None:
        with pytest.raises(WamError, match="set `name`"):
            make_video_tokenizer(VideoConfig(kind="diffusers"))


# ---------------------------------------------------------------- published tiny files

DATA = Path(os.environ.get("WAM_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
PREFIX = DATA / "weights" / "taef2"


class TestTinyAutoencoder:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(WamError, match=r"taesd_encoder\.safetensors"):
            make_video_tokenizer(VideoConfig(kind="tiny", name=str(tmp_path / "taesd")))

    def test_an_unfitting_file_is_refused(self, tmp_path: Path) -> None:
        from safetensors.torch import save_file

        for name in ("encoder", "decoder"):
            save_file({"a": torch.zeros(1)}, tmp_path / f"t_{name}.safetensors")
        with pytest.raises(WamError, match="a tiny autoencoder's layers"):
            make_video_tokenizer(VideoConfig(kind="tiny", name=str(tmp_path / "t")))

    @pytest.mark.parametrize("channels", [4, 16])
    def test_any_published_width_is_found_from_the_shapes(self, tmp_path: Path, channels: int) -> None:
        from safetensors.torch import save_file

        from wam.tokenizers.tiny_autoencoder import _decoder, _encoder

        encoder = _encoder({"0.weight": torch.zeros(8, 3, 3, 3), "14.weight": torch.zeros(channels, 8, 3, 3)})
        decoder = _decoder({"1.weight": torch.zeros(8, channels, 3, 3)})
        save_file(encoder.state_dict(), tmp_path / "t_encoder.safetensors")
        save_file(decoder.state_dict(), tmp_path / "t_decoder.safetensors")
        tokenizer = make_video_tokenizer(VideoConfig(kind="tiny", name=str(tmp_path / "t")))
        latents = tokenizer.encode(frames(side=32))
        assert latents.shape == (2, 2, 1, 4, 4, channels)
        assert tokenizer.decode(latents).shape == (2, 2, 1, 32, 32, 3)

    @pytest.mark.skipif(
        not PREFIX.with_name("taef2_encoder.safetensors").is_file(), reason="set WAM_DATA to the real recordings"
    )
    def test_the_published_flux2_pair_reconstructs_real_frames(self) -> None:
        av = pytest.importorskip("av")
        tokenizer = make_video_tokenizer(VideoConfig(kind="tiny", name=str(PREFIX)))
        assert isinstance(tokenizer, VideoTokenizer)
        clip = sorted((DATA / "human_video").glob("*.mp4"))[0]
        with av.open(str(clip)) as container:
            picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
        h, w = (side // 8 * 8 for side in picture.shape[:2])
        x = to_signed(torch.from_numpy(np.ascontiguousarray(picture[:h, :w])))[None, None, None]
        latents = tokenizer.encode(x)
        error = (to_unit(tokenizer.decode(latents)) - to_unit(x)).square().mean()
        assert latents.shape == (1, 1, 1, h // 8, w // 8, 32)
        assert 0.4 < latents.std() < 1.6
        assert -10 * torch.log10(error) > 25
        assert not tokenizer.provenance["random"]
