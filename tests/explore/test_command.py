"""`wam explore` and `wam bench explore`: bad settings are a sentence, and the bench is found among the others."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")

import wam.cli.main as cli


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no-such-run",), "no-such-run"),
        (("RUN", "--against", "no-such-run"), "no-such-run"),
        (("RUN", "--host", "0.0.0.0"), "token"),
        (("RUN", "--data", "no-such-data"), "no-such-data"),
        (("RUN", "pagse=2"), "pages"),
        (("RUN", "pages=0"), "pages"),
    ],
)
def test_bad_settings_get_one_sentence_and_status_2(
    words: tuple[str, ...], said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(run) if word == "RUN" else word for word in words]
    assert cli.main(["explore", *arguments, "port=0"]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert len(printed.strip().splitlines()) == 1


def test_an_address_in_use_is_a_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert cli.main(["explore", str(run), "--port", str(taken.getsockname()[1])]) == 2
    assert "another port" in capsys.readouterr().err


def test_the_bench_is_one_of_those_that_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "exploring"]) == 2
    assert "explore" in capsys.readouterr().err
