"""`wam serve`: bad settings are a sentence, and a signal lets what was asked be answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")

import wam.cli.main as cli
from tests.model.conftest import make_model
from wam.contracts import Observation
from wam.control.client import Client
from wam.model.pretrained import save_pretrained


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_pretrained(make_model(), folder, cameras=("side", "top"), provenance={"random": True})
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no-such-run",), "no-such-run"),
        (("CHECKPOINT", "--host", "0.0.0.0"), "token"),
        (("CHECKPOINT", "--token-file", "no-such-token"), "no-such-token"),
        (("CHECKPOINT", "keys.images={wirst: a}"), "side, top"),
        (("CHECKPOINT", "sesions=3"), "sessions"),
        (("CHECKPOINT", "sessions=0"), "sessions"),
        (("CHECKPOINT", "--config", "no-such.yaml"), "no-such.yaml"),
        (("CHECKPOINT", "certificate=a.pem"), "key"),
    ],
)
def test_bad_settings_get_one_sentence_and_status_2(
    words: tuple[str, ...], said: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(checkpoint) if word == "CHECKPOINT" else word for word in words]
    assert cli.main(["serve", *arguments, "port=0"]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert len(printed.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_signal_stops_it_after_the_last_answer(checkpoint: Path) -> None:
    command = [sys.executable, "-c", "import sys; from wam.cli.main import main; sys.exit(main())"]
    command += ["serve", str(checkpoint), "--port", "0", "policy.steps=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "RANDOM WEIGHTS" in line
        grey = np.full((16, 16, 3), 99, np.uint8)
        seen = Observation(images={"side": grey, "top": grey}, state=np.zeros(4, np.float32), instruction="push")
        with Client(line.split("listening at ")[1].split()[0]) as client:
            assert client.metadata["model_is_random"] is True
            client.plan(seen)
            client.send(client.request(seen))
            os.kill(process.pid, signal.SIGTERM)
            assert client.receive()["actions"].shape == (8, 4)
        assert process.wait(60) == 0
