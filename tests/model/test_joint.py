"""The joint transformer: fast equals slow, cached equals uncached, gradients flow only where the table says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as st

from wam.model.joint import JointTransformer, StreamInput
from wam.model.masks import sentence_mask
from wam.model.reference import dense_forward
from wam.model.rope import chunk_positions, grid_positions, rotary_table
from wam.model.visibility import VisibilityTable, preset_names, table_from

STREAMS = ("text", "observation", "state", "future", "action")


def transformer(**widths: int) -> JointTransformer:
    torch.manual_seed(0)
    sizes = dict.fromkeys(STREAMS, 32) | widths
    made = JointTransformer(
        widths=sizes, depth=3, heads=2, head_dim=16, condition_width=24, mlp_ratios=dict.fromkeys(STREAMS, 2.0)
    )
    for parameter in made.parameters():
        if parameter.abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def inputs(made: JointTransformer, *, frames: int = 1) -> dict[str, StreamInput]:
    g = torch.Generator().manual_seed(1)
    lengths = {"text": 5, "observation": 8 * frames, "state": 1, "future": 16, "action": 6}
    rotary = {
        "observation": rotary_table(grid_positions(torch.arange(frames), 2, 2), 16),
        "future": rotary_table(grid_positions(torch.arange(1, 3), 2, 2), 16),
        "action": rotary_table(chunk_positions(torch.arange(6)), 16),
    }
    return {
        s: StreamInput(
            h=torch.randn(2, lengths[s], made.experts[s][0].to_qkv.in_features, generator=g),
            condition=torch.randn(2, 2 if s == "future" else 1, 24, generator=g),
            rotary=rotary.get(s),
            frames={"observation": frames, "future": 2}.get(s, 1),
        )
        for s in STREAMS
    }


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("widths", [{}, {"action": 16, "text": 24}])
def test_the_joined_streams_equal_one_sequence_under_a_dense_mask(preset: str, widths: dict[str, int]) -> None:
    made = transformer(**widths)
    table, given = table_from(preset), inputs(made, frames=3)
    fast, _ = made(given, table)
    slow = dense_forward(made, given, table)
    for s in STREAMS:
        torch.testing.assert_close(fast[s], slow[s], atol=2e-5, rtol=1e-4)


def test_cached_context_gives_what_recomputing_gives() -> None:
    made, table = transformer(), table_from("joint")
    given = inputs(made)
    whole, _ = made(given, table)
    context = {s: given[s] for s in ("text", "observation", "state")}
    _, caches = made(context, table, keep_cache=True)
    rest, _ = made({s: given[s] for s in ("future", "action")}, table, context=caches)
    for s in rest:
        torch.testing.assert_close(rest[s], whole[s], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 2])
def test_frames_appended_to_a_causal_cache_equal_the_whole_sequence(window: int | None) -> None:
    made = transformer()
    table = VisibilityTable(sees={"observation": {"observation": "yes"}}, causal=("observation",))
    whole_input = inputs(made, frames=5)["observation"]
    whole, _ = made({"observation": whole_input}, table, window=window)
    cache, pieces = None, []
    for frame in range(5):
        rows = slice(8 * frame, 8 * frame + 8)
        piece = StreamInput(
            h=whole_input.h[:, rows],
            condition=whole_input.condition,
            rotary=tuple(part[rows] for part in whole_input.rotary),  # type: ignore[arg-type,union-attr]
        )
        out, kept = made(
            {"observation": piece},
            table,
            context={"observation": cache} if cache else None,
            keep_cache=True,
            window=window,
        )
        keep = 5 if window is None else window - 1
        cache = kept["observation"] if cache is None else cache.extend(kept["observation"], keep=keep)
        pieces.append(out["observation"])
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole["observation"], atol=1e-5, rtol=1e-5)


def test_detached_reads_carry_values_and_no_gradient() -> None:
    made = transformer()
    given = inputs(made)
    given["observation"].h.requires_grad_()
    plain, _ = made(given, table_from("first-frame"))
    insulated, _ = made(given, table_from("insulated"))
    torch.testing.assert_close(plain["action"], insulated["action"])
    (gradient,) = torch.autograd.grad(insulated["action"].sum(), given["observation"].h, allow_unused=True)
    assert gradient is None or gradient.abs().sum() == 0
    (gradient,) = torch.autograd.grad(plain["action"].sum(), given["observation"].h)
    assert gradient.abs().sum() > 0


SIGHT = st.sampled_from(["yes", "no", "detached"])
FEW = ("observation", "state", "action")


@settings(max_examples=15, deadline=None)
@each(st.lists(SIGHT, min_size=6, max_size=6))
def test_a_loss_teaches_the_streams_that_the_table_says(sights: list[str]) -> None:
    others = iter(sights)
    table = VisibilityTable(sees={r: {s: "yes" if r == s else next(others) for s in FEW} for r in FEW})
    made = transformer()
    given = {s: x for s, x in inputs(made).items() if s in FEW}
    for x in given.values():
        x.h.requires_grad_()
    out, _ = made(given, table)
    for reader in FEW:
        found = torch.autograd.grad(out[reader].sum(), [given[s].h for s in FEW], allow_unused=True, retain_graph=True)
        taught = {s for s, g in zip(FEW, found, strict=True) if g is not None and g.abs().sum() > 0}
        assert taught == table.taught_by(reader, FEW)


THERE = torch.tensor([[True] * 8, [False, True, True, True, True, False, False, False]])
"""Tokens of an observation of two rows: the second has some missing at its start and padding at its end."""


def padded_inputs(made: JointTransformer, *, causal: bool) -> dict[str, StreamInput]:
    given = inputs(made)
    given["observation"].there, given["observation"].own = THERE, sentence_mask(THERE, causal=causal)
    return given


@pytest.mark.parametrize("preset", ["joint", "first-frame", "causal", "mutual"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_and_a_streams_own_reading_equal_one_dense_mask(preset: str, causal: bool) -> None:
    made, table = transformer(), table_from(preset)
    given = padded_inputs(made, causal=causal)
    fast, _ = made(given, table)
    slow = dense_forward(made, given, table)
    for s in STREAMS:
        torch.testing.assert_close(fast[s], slow[s], atol=2e-5, rtol=1e-4)


def test_no_stream_reads_what_is_padding() -> None:
    made, table = transformer(), table_from("joint")
    before, _ = made(padded_inputs(made, causal=False), table)
    given = padded_inputs(made, causal=False)
    given["observation"].h = torch.where(THERE[..., None], given["observation"].h, 100.0)
    after, _ = made(given, table)
    after["observation"], before["observation"] = after["observation"][THERE], before["observation"][THERE]
    for s in STREAMS:
        torch.testing.assert_close(after[s], before[s])
    given["observation"].there = None
    assert (made(given, table)[0]["action"] - before["action"]).abs().max() > 1e-3


def test_what_is_padding_stays_so_in_a_cache_its_rows_and_repeats() -> None:
    made, table = transformer(), table_from("first-frame")
    given = padded_inputs(made, causal=True)
    whole, _ = made(given, table)
    _, caches = made({s: given[s] for s in ("text", "observation", "state")}, table, cache_only=True)
    rest = {"action": given["action"]}
    torch.testing.assert_close(made(rest, table, context=caches)[0]["action"], whole["action"], atol=1e-5, rtol=1e-5)
    rows = torch.tensor([1, 1])
    taken = {s: cache.take(rows) for s, cache in caches.items()}
    action = StreamInput(
        h=given["action"].h[rows], condition=given["action"].condition[rows], rotary=given["action"].rotary
    )
    found, _ = made({"action": action}, table, context=taken)
    torch.testing.assert_close(found["action"][0], whole["action"][1], atol=1e-5, rtol=1e-5)
    repeated = {s: cache.take(torch.tensor([1])).expand(2) for s, cache in caches.items()}
    found, _ = made({"action": action}, table, context=repeated)
    torch.testing.assert_close(found["action"][1], whole["action"][1], atol=1e-5, rtol=1e-5)
