"""Knowledge insulation: the flow teaches the trunk nothing, discrete action tokens teach it, and nobody reads them."""

from __future__ import annotations

import math

import pytest
import torch

from tests.model.backbones.test_vlm_streams import vlm_config
from tests.model.conftest import make_batch, tiny_config
from wam.contracts import WamError
from wam.model.action_tokens import token_logits, token_loss
from wam.model.config import ConditionalConfig, ModelConfig
from wam.model.visibility import table_from
from wam.model.wam import WorldActionModel
from wam.tokenizers.action_codes import ActionTokenConfig
from wam.training.objective import joint_losses

TOKENS = ActionTokenConfig(kind="bins", bins=16)
INSULATED = {
    "extends": "insulated",
    "sees": {"state": {"state": True}, "action": {"observation": "detached", "state": True, "action": True}},
}
TRUNKS = ("native", "smolvlm2-256m", "paligemma-3b")
each_trunk = pytest.mark.parametrize("trunk", TRUNKS)


def config_of(trunk: str, *, visibility: object = INSULATED, tokens: ActionTokenConfig = TOKENS) -> ModelConfig:
    if trunk != "native":
        return vlm_config(trunk, visibility=visibility, action_tokens=tokens)
    config = tiny_config(
        visibility=visibility,
        action_tokens=tokens,
        conditionals=[ConditionalConfig(name="policy", weight=1.0, clocks={"action": "draw"})],
        text_dropout=0.0,
    )
    del config.streams["future"]
    return config


def model_of(trunk: str, **changes: object) -> WorldActionModel:
    torch.manual_seed(0)
    model = WorldActionModel(config_of(trunk, **changes))  # type: ignore[arg-type]
    for parameter in model.parameters():
        if parameter.abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def demonstrations():  # type: ignore[no-untyped-def]
    batch = make_batch(4)
    return batch.replace(play=torch.zeros(4, dtype=torch.bool), action=batch.action.clamp(-1, 1))  # type: ignore[union-attr]


def taught_by(model: WorldActionModel, loss: str) -> set[str]:
    """Names of the parameters to which one loss sends a gradient."""
    losses = joint_losses(model, demonstrations(), generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    losses[loss].backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def of_the_trunk(names: set[str]) -> set[str]:
    return {
        n for n in names if n.startswith(("network.transformer.experts.observation.", "network.videos.observation."))
    }


@each_trunk
def test_the_flow_teaches_the_trunk_nothing_and_the_tokens_teach_it(trunk: str) -> None:
    model = model_of(trunk)
    by_flow, by_tokens = taught_by(model, "action"), taught_by(model, "action_tokens")
    assert not of_the_trunk(by_flow)
    assert any("experts.action" in name for name in by_flow)
    own = {n for n, _ in model.named_parameters() if n.startswith("network.transformer.experts.observation.")}
    pictures = {n for n, _ in model.named_parameters() if n.startswith("network.videos.observation.")}
    assert own <= by_tokens | {n for n in own if n.endswith((".norm_q.bias", ".norm_k.bias", "k_proj.bias"))}
    assert pictures & by_tokens
    assert not any("experts.action" in name or "stems.action" in name for name in by_tokens)


def test_the_table_says_so_before_anything_is_trained() -> None:
    assert "observation" not in table_from(INSULATED).taught_by("action", ("observation", "state", "action"))
    assert "observation" in table_from("first-frame").taught_by("action", ("observation", "state", "action"))
    leak = {"extends": "insulated", "sees": {"action": {"observation": "detached", "state": True, "action": True}}}
    assert "observation" in table_from(leak).taught_by("action"), "through a state that reads the observation"


@each_trunk
def test_without_insulation_the_flow_teaches_it_too(trunk: str) -> None:
    assert of_the_trunk(taught_by(model_of(trunk, visibility={**INSULATED, "extends": "first-frame", "sees": {
        **INSULATED["sees"], "action": {"observation": True, "state": True, "action": True}}}), "action"))  # fmt: skip


@each_trunk
def test_a_token_is_foreseen_from_what_is_seen_and_the_tokens_before_it_alone(trunk: str) -> None:
    model, batch = model_of(trunk).eval(), demonstrations()
    codes, known = model.action_codes.encode(batch.action, batch.action_mask)
    with torch.no_grad():
        context = model.network.context(batch)
        right = token_logits(model.network, context, codes, known)
        assert right.shape == (4, 32, 16)
        later = codes.clone()
        later[:, 20:] = (later[:, 20:] + 5) % 16
        found = token_logits(model.network, context, later, known)
        torch.testing.assert_close(found[:, :21], right[:, :21])
        assert (found[:, 21:] - right[:, 21:]).abs().max() > 1e-5
        other = model.network.context(batch.replace(images=batch.images.flip(0)))
        assert (token_logits(model.network, other, codes, known)[:, 0] - right[:, 0]).abs().max() > 1e-5


@each_trunk
def test_what_was_never_done_counts_for_nothing(trunk: str) -> None:
    model, batch = model_of(trunk).eval(), demonstrations()
    codes, _ = model.action_codes.encode(batch.action, None)
    known = torch.arange(32)[None] < torch.tensor([32, 12, 0, 4])[:, None]
    with torch.no_grad():
        context = model.network.context(batch)
        right = token_loss(model.network, context, codes, known)
        other = torch.where(known, codes, (codes + 3) % 16)
        torch.testing.assert_close(token_loss(model.network, context, other, known), right)
        assert token_loss(model.network, context, codes, torch.zeros_like(known)) == 0


def test_random_play_teaches_no_tokens() -> None:
    model = model_of("native")
    losses = joint_losses(
        model,
        demonstrations().replace(play=torch.ones(4, dtype=torch.bool)),
        generator=torch.Generator().manual_seed(0),
    )
    assert losses["action_tokens"] == 0


@each_trunk
def test_tokens_are_learned(trunk: str) -> None:
    model, batch = model_of(trunk), demonstrations()
    batch = batch.replace(action=torch.linspace(-0.9, 0.9, 4)[:, None, None].expand(4, 8, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    codes, known = model.action_codes.encode(batch.action, None)
    first = last = math.nan
    for step in range(30):
        loss = token_loss(model.network, model.network.context(batch), codes, known)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert first == pytest.approx(math.log(16), abs=1.0)
    assert last < 0.8 * first


def test_a_model_without_tokens_has_no_part_for_them() -> None:
    model = model_of("native", tokens=ActionTokenConfig())
    assert not any("action_tokens" in name for name in model.state_dict())
    losses = joint_losses(model, demonstrations(), generator=torch.Generator().manual_seed(0))
    assert set(losses) == {"loss", "action"}


def test_what_no_token_can_teach_is_refused() -> None:
    config = config_of("smolvlm2-256m")
    config.streams["observation"].backbone.frozen = True  # type: ignore[union-attr]
    with pytest.raises(WamError, match="a backbone that action tokens can train"):
        WorldActionModel(config)
    with pytest.raises(WamError, match="at most 256 action tokens"):
        WorldActionModel(config_of("smolvlm2-256m", tokens=ActionTokenConfig(kind="bins", bins=300)))
