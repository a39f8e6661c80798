"""A folder for LeRobot holds the whole policy; what it cannot hold is refused. The real package reads it in tests/lerobot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import wam.cli.main as cli
from tests.model.conftest import make_model
from tests.model.test_student import make_student
from wam.contracts import Observation, WamError
from wam.control.lerobot import build_network, camera_key, export_lerobot
from wam.control.wam_policy import WamPolicy, load_policy
from wam.data.features import camera_name
from wam.files import sha256
from wam.model.cloning import CloningConfig, CloningPolicy
from wam.model.pretrained import save_pretrained

CAMERAS = ("side", "top")


def save(kind: str, folder: Path) -> Path:
    if kind == "student":
        make_student(head="flow").save_pretrained(folder, cameras=CAMERAS, provenance={"teacher": {"sha256": "ab"}})
    elif kind == "cloning":
        policy = CloningPolicy(CloningConfig(channels=8, width=16, image_size=16))
        policy.save_pretrained(folder, tensors=policy.state_dict(), cameras=CAMERAS, provenance={})
    else:
        save_pretrained(make_model(), folder, cameras=CAMERAS)
    return folder


@pytest.mark.parametrize("kind", ["student", "cloning", "model"])
def test_the_folder_alone_makes_the_same_policy(kind: str, tmp_path: Path) -> None:
    checkpoint = save(kind, tmp_path / "checkpoint")
    export_lerobot(checkpoint, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    network = build_network(about["checkpoint"])
    weights = load_file(tmp_path / "out" / "model.safetensors")
    network.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (16, 16, 3), np.uint8) for name in CAMERAS}
    seen = [Observation(images=images, state=np.ones(4, np.float32), instruction="open the faucet")]
    found, wanted = WamPolicy(network, steps=2), load_policy(checkpoint, steps=2)
    assert np.array_equal(found.act(seen), wanted.act(seen))
    assert (about["chunk_size"], about["n_action_steps"], about["steps"]) == (8, 6, 4 if kind == "model" else 1)


def test_the_folder_says_what_goes_in_and_out_and_where_it_came_from(tmp_path: Path) -> None:
    checkpoint = save("student", tmp_path / "checkpoint")
    export_lerobot(checkpoint, tmp_path / "out", steps=3, execute=2, source={"checkpoint": "runs/x"})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "policy_postprocessor.json",
        "policy_preprocessor.json",
    ]
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    assert about["type"] == "wam"
    assert about["input_features"] == {
        "observation.images.side": {"type": "VISUAL", "shape": [3, 16, 16]},
        "observation.images.top": {"type": "VISUAL", "shape": [3, 16, 16]},
        "observation.state": {"type": "STATE", "shape": [4]},
    }
    assert about["output_features"] == {"action": {"type": "ACTION", "shape": [4]}}
    assert (about["n_action_steps"], about["steps"]) == (2, 3)
    assert about["sha256"] == sha256(tmp_path / "out" / "model.safetensors")
    assert about["provenance"]["random"] is False
    assert about["provenance"]["teacher"] == {"sha256": "ab"}
    assert about["provenance"]["source"] == {"checkpoint": "runs/x"}


@pytest.mark.parametrize("key", ["observation.images.wrist", "observation.image", "observation.images.a.b"])
def test_a_camera_of_a_dataset_finds_its_key_again(key: str) -> None:
    assert camera_key(camera_name(key)) == key


def test_what_no_such_folder_can_hold_says_so(tmp_path: Path) -> None:
    checkpoint = save("student", tmp_path / "checkpoint")
    with pytest.raises(WamError, match="1 to 8 actions"):
        export_lerobot(checkpoint, tmp_path / "out", execute=9)
    with pytest.raises(WamError, match="steps of 1 or more"):
        export_lerobot(checkpoint, tmp_path / "out", steps=-1)
    make_student().save_pretrained(tmp_path / "blind", cameras=())
    with pytest.raises(WamError, match="name its 2 cameras"):
        export_lerobot(tmp_path / "blind", tmp_path / "out")
    wrapped = {"parts": {"backbones": {"future": {"name": "wan", "source": "somewhere", "random": False}}}}
    save_pretrained(make_model(), tmp_path / "wrapped", cameras=CAMERAS, provenance=wrapped)
    with pytest.raises(WamError, match=r"pretrained backbone in future.*distill"):
        export_lerobot(tmp_path / "wrapped", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("contents", [{}, {"cameras": ["side"]}])
def test_a_config_of_no_network_is_refused(contents: dict[str, object]) -> None:
    with pytest.raises(WamError, match="wam export RUN --format lerobot"):
        build_network(contents)


def test_the_command_writes_it_and_says_how_to_use_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save("student", tmp_path / "run")
    assert cli.main(["export", str(checkpoint), "--format", "lerobot", "--execute", "3"]) == 0
    folder = checkpoint / "export-lerobot-fp32"
    assert f"--policy.path={folder}" in capsys.readouterr().out
    about = json.loads((folder / "config.json").read_text())
    assert about["n_action_steps"] == 3
    assert about["provenance"]["source"]["sha256"] == sha256(checkpoint / "model.safetensors")


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--format", "lerobot", "--precision", "int8"), "fp32"), (("--execute", "3"), "--format lerobot")],
)
def test_options_that_do_not_go_together_get_one_sentence(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(save("student", tmp_path / "run")), *words]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert len(printed.strip().splitlines()) == 1


def test_random_weights_are_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_student().save_pretrained(tmp_path, cameras=CAMERAS, provenance={"random": True})
    assert cli.main(["export", str(tmp_path), "--format", "lerobot"]) == 0
    assert "RANDOM WEIGHTS" in capsys.readouterr().out
    about = json.loads((tmp_path / "export-lerobot-fp32" / "config.json").read_text())
    assert about["provenance"]["random"] is True
