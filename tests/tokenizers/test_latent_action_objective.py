"""What trains latent actions: every target and option teaches, augmentation keeps pairs together, labels stay hidden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wam.contracts import Batch, WamError
from wam.tokenizers.autoencoder import Autoencoder, AutoencoderConfig
from wam.tokenizers.latent_action import (
    AugmentConfig,
    FeatureConfig,
    LabelConfig,
    LatentActionConfig,
    LatentActionObjective,
)
from wam.tokenizers.latent_action.augment import coloured, cropped, flipped, shaken
from wam.tokenizers.latent_action.blocks import moved_camera
from wam.tokenizers.quantizers import QuantizerConfig

SMALL = LatentActionConfig(
    image_size=16,
    views=2,
    base=8,
    width=16,
    gap=2,
    quantizer=QuantizerConfig(levels=(5, 5)),
    augment=AugmentConfig(shift=0, colour=0),
)


def pushed(size: int = 24, *, seed: int = 0, side: int = 16) -> Batch:
    """A bright square that an action moves by up to three pixels, in two views that are mirrored."""
    generator = torch.Generator().manual_seed(seed)
    action = torch.randint(-3, 4, (size, 2), generator=generator)
    place = torch.randint(4, side - 7, (size, 2), generator=generator)
    frames = torch.zeros(size, 2, 2, side, side, 3, dtype=torch.uint8)
    for row in range(size):
        for step in range(2):
            y, x = (place[row] + step * action[row]).tolist()
            frames[row, 0, step, y : y + 3, x : x + 3] = 255
        frames[row, 1] = frames[row, 0].flip(2)
    return Batch(
        images=frames[:, :, :1],
        future=frames[:, :, 1:],
        action=action[:, None].expand(-1, 2, -1).float() / 2,
        action_mask=torch.ones(size, 2, dtype=torch.bool),
        state=place.float(),
        instruction=tuple(f"push {a} {b}" for a, b in action.tolist()),
    )


def panned(size: int = 24, *, seed: int = 0) -> Batch:
    """One smooth picture, moved as a whole by two pixels to the left or to the right."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic", align_corners=False).clamp(-1, 1)
    before = before.expand(size, -1, -1, -1)
    motion = torch.zeros(size, 4)
    motion[:, 0] = torch.randint(0, 2, (size,), generator=generator) / 2 - 0.25
    frames = torch.stack([before, moved_camera(before, motion)], dim=1)[:, None].permute(0, 1, 2, 4, 5, 3)
    frames = ((frames + 1) * 127.5).round().byte()
    return Batch(images=frames[:, :, :1], future=frames[:, :, 1:])


def trained(
    config: LatentActionConfig, steps: int, *, draw: Callable[..., Batch] = pushed, **dims: int
) -> tuple[LatentActionObjective, dict, dict]:
    """The objective after some steps, and its losses at the start and at the end."""
    torch.manual_seed(0)
    objective = LatentActionObjective(config, **dims).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3)
    logs = []
    for step in range(steps):
        losses = objective.losses(draw(seed=step), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        logs.append({name: float(value.detach()) for name, value in losses.items()})

    def mean(rows: list) -> dict:
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    return objective, mean(logs[:5]), mean(logs[-5:])


@pytest.mark.parametrize("kind", ["fsq", "vq", "rvq", "vae"])
def test_every_quantiser_learns_what_moved(kind: str) -> None:
    config = replace(SMALL, quantizer=QuantizerConfig(kind=kind, levels=(5, 5), codes=49, dim=2, beta=1e-3))  # type: ignore[arg-type]
    _, first, last = trained(config, 60)
    assert last["foreseen"] < 0.85 * first["foreseen"]


def test_the_decoder_listens_to_the_codes() -> None:
    objective, _, _ = trained(SMALL, 100)
    batch = pushed(64, seed=999)
    tokenizer = objective.tokenizer.eval()
    frames = torch.cat([batch.images, batch.future], dim=2)  # type: ignore[list-item]
    with torch.no_grad():
        latents = tokenizer.encode(frames).latents
        real = frames[:, :, 1:].float() / 127.5 - 1
        errors = [
            float((tokenizer.decode(frames[:, :, :1], z) - real).square().mean()) for z in (latents, latents.roll(7, 0))
        ]
    assert errors[1] > 1.15 * errors[0]


def test_features_of_a_frozen_encoder_teach_codes_and_pixels_are_drawn_beside(tmp_path: Path) -> None:
    torch.manual_seed(0)
    Autoencoder(AutoencoderConfig(width=8, channels=4, levels=1)).save_pretrained(tmp_path)
    features = FeatureConfig(kind="autoencoder", name=str(tmp_path))
    objective, first, last = trained(replace(SMALL, target="features", features=features), 50)
    assert last["foreseen"] < 0.9 * first["foreseen"]
    objective.zero_grad()
    objective.losses(pushed(), generator=torch.Generator())["pixels"].backward()
    assert all(p.grad is None or not p.grad.any() for p in objective.tokenizer.encoder.parameters())
    assert any(p.grad is not None and p.grad.any() for p in objective.tokenizer.decoder.parameters())


def test_optical_flow_teaches_codes_too() -> None:
    _, first, last = trained(replace(SMALL, target="flow"), 50, draw=panned)
    assert last["foreseen"] < 0.8 * first["foreseen"]


def test_a_sentence_that_tells_the_motion_reaches_the_decoder() -> None:
    objective, _, _ = trained(replace(SMALL, language=True, keep=1.0), 40)
    objective.eval()
    batch = pushed(seed=50)
    with torch.no_grad():
        true, wrong = (
            objective.losses(b, generator=torch.Generator())["foreseen"]
            for b in (batch, batch.replace(instruction=tuple(reversed(batch.instruction))))
        )
    assert true < wrong


def test_a_tokenizer_beside_is_frozen_shown_and_not_saved_with_the_new_one(tmp_path: Path) -> None:
    first, _, _ = trained(replace(SMALL, language=True), 10)
    first.tokenizer.save_pretrained(tmp_path, provenance={"random": False})
    objective, _, _ = trained(replace(SMALL, beside=str(tmp_path)), 6)
    assert objective.from_beside is not None
    assert objective.from_beside.weight.grad is not None
    assert objective.from_beside.weight.grad.any()
    again = dict(objective._beside[0].state_dict())
    assert all(torch.equal(value, again[name]) for name, value in first.tokenizer.state_dict().items())
    assert not any("beside" in name and "from_beside" not in name for name in objective.state_dict())


def test_a_tokenizer_beside_of_another_size_is_refused(tmp_path: Path) -> None:
    LatentActionObjective(SMALL).tokenizer.save_pretrained(tmp_path)
    with pytest.raises(WamError, match="tokenizer beside of 32 pixels"):
        LatentActionObjective(replace(SMALL, image_size=32, beside=str(tmp_path)))


def test_a_camera_stream_learns_from_a_camera_that_shakes() -> None:
    augment = AugmentConfig(shift=0, colour=0, camera=0.1, camera_share=1.0)
    objective, _, _ = trained(replace(SMALL, camera=True, augment=augment), 6)
    head = objective.tokenizer.encoder.to_camera
    assert head is not None
    assert head.weight.any()  # it was zero
    assert not trained(SMALL, 1)[0].tokenizer.encoder.to_camera


class TestLabels:
    config = replace(SMALL, labels=LabelConfig(share=0.5, proprio=0.5))

    def test_latents_become_readable_as_actions_and_tell_the_body(self) -> None:
        _, first, last = trained(self.config, 50, action_dim=2, state_dim=2)
        assert last["labels"] < 0.7 * first["labels"]
        assert last["proprio"] < 0.8 * first["proprio"]

    def test_only_labelled_windows_show_their_actions(self) -> None:
        torch.manual_seed(0)
        objective = LatentActionObjective(self.config, action_dim=2, state_dim=2).eval()
        batch = pushed()
        labelled = torch.arange(batch.size) < 8
        assert batch.action is not None
        changed = batch.action.clone()
        changed[8:] = 100.0
        found = [
            objective.losses(b, generator=torch.Generator(), labelled=labelled)["labels"]
            for b in (batch, batch.replace(action=changed))
        ]
        assert torch.equal(*found)
        none = objective.losses(batch, generator=torch.Generator(), labelled=torch.zeros(batch.size, dtype=torch.bool))
        assert not none["labels"].any()

    def test_without_a_share_there_are_no_heads(self) -> None:
        assert LatentActionObjective(SMALL, action_dim=2, state_dim=2).labels is None


class TestAugmentation:
    pictures = torch.rand(4, 2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    still = pictures[:, :, :1].expand(-1, -1, 2, -1, -1, -1)

    def test_crops_and_colours_are_the_same_for_both_frames(self) -> None:
        for change in (cropped, coloured):
            changed = change(self.still, 0.3, torch.Generator().manual_seed(1))
            assert torch.allclose(changed[:, :, 0], changed[:, :, 1], atol=1e-5)
            assert not torch.allclose(changed, self.still, atol=1e-2)

    def test_a_shaking_camera_moves_the_later_frame_alone(self) -> None:
        config = AugmentConfig(camera=0.1, camera_share=1.0)
        changed = shaken(self.still, config, torch.Generator().manual_seed(1))
        assert torch.allclose(changed[:, :, 0], self.still[:, :, 0], atol=1e-5)
        assert not torch.allclose(changed[:, :, 1], self.still[:, :, 1], atol=1e-2)

    def test_windows_of_several_views_are_never_mirrored(self) -> None:
        there = torch.tensor([[True, True], [True, False], [True, False], [True, False]])
        mirrored = flipped(self.pictures, there, torch.Generator().manual_seed(0))
        assert torch.equal(mirrored[0], self.pictures[0])
        assert any(torch.equal(m, p.flip(-1)) for m, p in zip(mirrored[1:], self.pictures[1:], strict=True))

    def test_nothing_is_changed_in_evaluation(self) -> None:
        objective = LatentActionObjective(replace(SMALL, augment=AugmentConfig(shift=0.3, colour=0.5))).eval()
        found = [objective.losses(pushed(), generator=torch.Generator().manual_seed(s))["loss"] for s in (0, 1)]
        assert torch.equal(*found)


def test_windows_past_the_end_of_an_episode_teach_nothing() -> None:
    torch.manual_seed(0)
    objective = LatentActionObjective(SMALL).eval()
    batch = pushed(8)
    assert batch.future is not None
    mask = torch.ones(8, 1, dtype=torch.bool)
    mask[4:] = False
    noise = batch.future.clone()
    noise[4:] = 77
    kept, spoiled = (
        objective.losses(batch.replace(future_mask=mask, future=f), generator=torch.Generator())["foreseen"]
        for f in (batch.future, noise)
    )
    assert torch.equal(kept, spoiled)


def test_a_batch_without_a_future_is_refused() -> None:
    with pytest.raises(WamError, match="frames to come"):
        LatentActionObjective(SMALL).losses(pushed().without("future"), generator=torch.Generator())
