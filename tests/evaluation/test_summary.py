"""The summary holds figures with what stands behind them, whole or not at all."""

import json

import numpy as np
import pytest

import wam
from wam.contracts import WamError
from wam.evaluation.summary import read_summary, write_json, write_summary


def test_a_summary_holds_figures_and_where_they_come_from(tmp_path):
    path = tmp_path / "run" / "summary.json"
    written = write_summary(path, {"success_mean": np.float32(0.5)}, n=20, seeds=[0, 1], extra={"command": "wam demo"})
    found = read_summary(path)
    assert found == written
    assert found["figures"] == {"success_mean": 0.5}
    assert (found["n"], found["seeds"], found["version"]) == (20, [0, 1], wam.__version__)
    assert found["hardware"]["cores"] >= 1
    assert found["command"] == "wam demo"


def test_a_figure_that_is_not_finite_is_named_and_never_a_number(tmp_path):
    write_summary(tmp_path / "s.json", {"a": float("nan"), "b": 1}, n=1, seeds=[0])
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["figures"]["a"] is None
    assert found["not_finite"] == ["a"]


def test_words_are_no_figures_and_own_keys_are_kept(tmp_path):
    with pytest.raises(WamError, match="as a number"):
        write_summary(tmp_path / "s.json", {"a": "good"}, n=1, seeds=[0])
    with pytest.raises(WamError, match="beside the summary's own"):
        write_summary(tmp_path / "s.json", {}, n=1, seeds=[0], extra={"date": "today"})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_json(tmp_path / "s.json", {"figures": {}, "n": 1, "seeds": []})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WamError, match="No space left"):
        write_json(path, {"other": 1})
    assert read_summary(path)["n"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_broken_summary_is_a_clear_error(tmp_path):
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(WamError, match="expected a summary"):
        read_summary(tmp_path / "s.json")
