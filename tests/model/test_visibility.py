"""The table decides who can know what."""

from __future__ import annotations

import pytest

from wam.contracts import WamError
from wam.model.visibility import STREAMS, VisibilityTable, preset_names, table_from


def test_first_frame_lets_nothing_of_the_future_reach_an_action() -> None:
    table = table_from("first-frame")
    assert not table.reaches("future", "action")
    assert table.reaches("action", "future")


def test_joint_lets_action_and_future_reach_each_other() -> None:
    table = table_from("joint")
    assert table.reaches("future", "action")
    assert table.reaches("action", "future")


def test_modulation_alone_is_a_path() -> None:
    table = VisibilityTable(sees={"future": {"future": "yes"}}, modulated_by={"future": ("action",)})
    assert table.reaches("action", "future")
    assert not table.reaches("future", "action")


def test_an_action_blind_table_has_no_path_from_the_action() -> None:
    assert not table_from("action-blind").reaches("action", "future")


def test_a_path_through_an_absent_stream_does_not_count() -> None:
    table = VisibilityTable(sees={"action": {"latent_action": "yes"}, "latent_action": {"future": "yes"}})
    assert table.reaches("future", "action")
    assert not table.reaches("future", "action", present=("future", "action"))


@pytest.mark.parametrize("name", preset_names())
def test_the_context_of_every_preset_is_what_no_noisy_stream_reaches(name: str) -> None:
    table = table_from(name)
    noisy = ("future", "action", "latent_action", "occupancy", "value")
    context = table.context(STREAMS, noisy)
    assert set(context) == {"text", "observation", "state", "velocity"}
    assert not any(table.reaches(n, c) for n in noisy for c in context)


def test_isolated_outputs_are_read_by_no_other_stream() -> None:
    table = table_from("isolated")
    for stream in STREAMS:
        if stream != "occupancy":
            assert not table.reaches("occupancy", stream)


def test_a_table_extends_a_preset_and_replaces_its_rows() -> None:
    table = table_from({"extends": "joint", "sees": {"action": {"observation": True, "future": False}}})
    assert table.sources("action", STREAMS) == (("observation", False),)
    assert table.sees["future"] == table_from("joint").sees["future"]


def test_detached_reads_are_marked() -> None:
    assert ("observation", True) in table_from("insulated").sources("action", STREAMS)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ("jiont", "joint"),
        ({"sees": {"futur": {"future": "yes"}}}, "futur"),
        ({"sees": {"future": {"future": "maybe"}}}, "maybe"),
        ({"look": {}}, "look"),
    ],
)
def test_a_wrong_table_says_what_was_expected(data: object, word: str) -> None:
    with pytest.raises(WamError, match="expected") as error:
        table_from(data)  # type: ignore[arg-type]
    assert word in str(error.value)


@pytest.mark.parametrize("name", preset_names())
def test_no_action_reads_the_velocity_where_the_future_is_dropped(name: str) -> None:
    table = table_from(name)
    present = ("text", "observation", "state", "velocity", "action", "latent_action", "value")
    assert not any(table.reaches("velocity", stream, present) for stream in ("action", "latent_action", "value"))
    assert table.reaches("velocity", "future")


@pytest.mark.parametrize("name", preset_names())
def test_the_velocity_modulates_and_has_no_tokens(name: str) -> None:
    table = table_from(name)
    assert not table.is_seen("velocity", STREAMS)
    assert table.is_seen("state", STREAMS)
    assert "velocity" in table.modulators("future", STREAMS)


def test_a_stream_that_only_itself_reads_is_not_seen() -> None:
    table = VisibilityTable(sees={"state": {"state": "yes"}, "action": {"state": "no", "action": "yes"}})
    assert not table.is_seen("state", STREAMS)
    table = VisibilityTable(sees={"action": {"state": "detached"}})
    assert table.is_seen("state", STREAMS)
    assert not table.is_seen("state", ("state", "future"))
