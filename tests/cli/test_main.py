"""The command line: one sentence and status 2 on bad input, no traceback; overrides anywhere."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path

import pytest

import wam.cli.main as cli
from wam.contracts import WamError


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = cli.main(list(arguments))
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "no-such.yaml"), "no-such.yaml"),
        (("train", "configs/train/quickstart.yaml", "optimzer.clip=1"), "optimizer"),
        (("train", "configs/train/quickstart.yaml", "minutes=soon"), "minutes"),
        (("train", "configs/train/quickstart.yaml", "model.visibility=jiont", "data.parts=[]"), "dataset"),
        (("eval", "no-such-run"), "no-such-run"),
        (("report", "no-such-run"), "no-such-run"),
        (("imagine", "no-such-run"), "no-such-run"),
        (("data", "info", "no-such-data"), "no-such-data"),
        (("data", "doctor", "no-such-data"), "no-such-data"),
        (("data", "convert", "no-such-data", "target"), "no-such-data"),
        (("collect", "target", "environments=[metaworld/faucet-opn-v3]"), "faucet-open"),
        (("bench", "no-such-bench"), "rollout"),
        (("distill", "no-such.yaml"), "no-such.yaml"),
        (("distill", "configs/distill/demo.yaml", "losses.dreams=1"), "demonstrations"),
        (("distill", "configs/distill/demo.yaml", "teacher.run=no-such-run"), "no-such-run"),
        (("eval", "student", "no-such-run", "--config", "configs/eval/student.yaml"), "no-such-run"),
        (("eval", "pairing", "no-such-run", "--config", "configs/eval/pairing.yaml"), "no-such-run"),
        (("eval", "routing", "no-such-run", "--config", "configs/eval/routing.yaml"), "no-such-run"),
        (("export", "no-such-run"), "no-such-run"),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = run(capsys, *arguments)
    assert status == 2
    assert words in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1


def test_overrides_may_stand_behind_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr("wam.cli.evaluating.evaluate", lambda options: seen.append(options))
    assert cli.main(["eval", "run", "--config", "a.yaml", "starts=5", "--json", "b.json", "seed=1"]) == 0
    assert seen[0].overrides == ["starts=5", "seed=1"]


def test_words_that_are_no_overrides_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["report", "run", "starts=5"])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (WamError("expected this, got that; do so"), "expected this"),
        (KeyboardInterrupt(), "give the same command again"),
        (OSError(errno.ENOSPC, "No space left on device", "/full"), "/full"),
        (ModuleNotFoundError("No module named 'mujoco'", name="mujoco"), "mujoco"),
    ],
)
def test_every_fault_becomes_a_sentence(
    error: BaseException, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: argparse.Namespace) -> None:
        raise error

    monkeypatch.setattr("wam.cli.evaluating.report", fail)
    status, said = run(capsys, "report", "run")
    assert status == 2
    assert words in said


def test_a_bug_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(options: argparse.Namespace) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("wam.cli.evaluating.report", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["report", str(tmp_path)])


def test_a_benchmark_of_an_accelerator_that_is_not_here_writes_no_figure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, said = run(capsys, "bench", "gpu", "--json", str(tmp_path / "gpu.json"))
    assert status == 77
    assert "nothing was measured" in said
    assert not (tmp_path / "gpu.json").exists()
