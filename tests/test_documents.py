"""What docs/ says is so: every command parses and its settings load, every Python example runs, or is named with why not."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import shlex
import shutil
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.control.control_fakes import Continuing, Counting, space
from tests.tools import tool
from tests.training.conftest import toy_config, write_toy
from wam.cli.main import build_parser
from wam.contracts import Observation
from wam.control.server.config import ServeConfig
from wam.distillation.config import DistillConfig
from wam.explore.viewer.server import ViewerConfig
from wam.model.config import ModelConfig
from wam.settings import load_settings
from wam.simulation.config import CollectConfig
from wam.training.config import TrainConfig

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SETTINGS = {"train": TrainConfig, "plan": TrainConfig, "collect": CollectConfig, "distill": DistillConfig}
SETTINGS |= {"serve": ServeConfig, "explore": ViewerConfig}
PROGRAMS = {"wam", "make", "pip", "torchrun", "accelerate", "python3.12", "lerobot/bin/pip", "lerobot/bin/lerobot-eval"}
NOT_RUN = {
    "backbones.md": "loads weights of a pretrained video model",
    "curation.md": "loads a captioning model of the reader's",
    "ecosystem.md": "opens a checkpoint of the reader's; tests/model/test_ecosystem.py opens one of its own",
    "steering.md": "steers a model of the reader's; tests/control/test_steered_sampling.py runs the examples on a toy",
}
"""Pages whose Python is parsed and not run, and why."""


def name_of(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", path.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(text) for _, text in found]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a block of shell; of a loop, those of the commands inside it."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] not in ("for", "do", "done"):
            found.append(words)
    return found


SHELL = [(name_of(path), words) for path in PAGES for text in blocks(path, "bash") for words in commands(text)]


@pytest.mark.parametrize(
    ("page", "words"), SHELL, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_command_parses_and_its_settings_load(page: str, words: list[str]) -> None:
    assert words[0] in PROGRAMS, "a program that this check knows"
    for word in words:
        if re.match(r"(configs|tools|tokenizers|docs)/", word) and "$" not in word:
            assert (ROOT / word).exists(), word
    if "wam" in words:
        check_wam(words[words.index("wam") + 1 :])


def check_wam(arguments: list[str]) -> None:
    options, rest = build_parser().parse_known_args(arguments)
    assert [word for word in rest if "=" not in word or word.startswith("-")] == []
    config, overrides = getattr(options, "config", None), [*getattr(options, "overrides", []), *rest]
    if options.verb in SETTINGS and not (config and str(config).isupper()):
        load_settings(SETTINGS[options.verb], ROOT / config if config else None, overrides)


@pytest.mark.parametrize(
    "line", ["wam trian x", "wam train configs/train/none.yaml", "wam serve runs/demo keys.promt=a"]
)
def test_the_check_of_commands_finds_a_wrong_one(line: str) -> None:
    with pytest.raises((SystemExit, Exception)):
        check_wam(shlex.split(line)[1:])


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "yaml")], ids=name_of)
def test_settings_that_are_shown_load(path: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for number, text in enumerate(blocks(path, "yaml")):
        shown = tmp_path / "configs" / "zoo" / f"shown-{number}.yaml"
        shown.write_text(text)
        assert isinstance(load_settings(TrainConfig, shown).model, ModelConfig)


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_that_is_shown_imports_what_there_is(path: Path) -> None:
    for text in blocks(path, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wam"):
                module = importlib.import_module(str(node.module))
                assert [a.name for a in node.names if not hasattr(module, a.name)] == []


# what each page's Python finds when it runs ---------------------------------------------------------------------------


@dataclass
class Scene:
    """globals of the example, words of it that stand for what a test has in their place, and what must hold afterwards."""

    names: dict[str, Any]
    instead: dict[str, str]
    holds: Callable[[dict[str, Any]], bool]


def demo() -> Path:
    write_toy(Path("runs/demo/data"))
    train = importlib.import_module("wam.training.trainer").train
    train(toy_config(Path("runs/demo/data"), Path("runs/demo"), steps=2))
    return Path("runs/demo")


@contextlib.contextmanager
def exploring() -> Iterator[Scene]:
    demo()
    words = {
        ", gripper=1": "",  # the toy has none
        '"notebooks/model", data=few_episodes("runs/notebooks/metaworld")': '"runs/demo", data=few_episodes("runs/demo/data")',
    }
    yield Scene({}, words, lambda said: said["now"].present.shape == (2, 16, 16, 3))


@contextlib.contextmanager
def tutorial() -> Iterator[Scene]:
    pytest.importorskip("websockets")
    from wam.control.server.running import serving
    from wam.control.server.served import load_served
    from wam.training.state import newest_checkpoint

    config = ServeConfig(port=0)
    with serving(load_served(newest_checkpoint(demo()), config.policy), config) as server:
        words = {"close the faucet": "push the square", "ws://127.0.0.1:8000": server.address}
        yield Scene({}, words, lambda said: said["chunk"].shape == (8, 2) and Path("imagined.png").is_file())


@contextlib.contextmanager
def plain() -> Iterator[Scene]:
    yield Scene({}, {}, lambda said: bool(said))


@contextlib.contextmanager
def latent_actions() -> Iterator[Scene]:
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 64, 64, 3), np.uint8)
    path = f'"{ROOT / "tokenizers/latent_action"}"'
    torch = importlib.import_module("torch")
    yield Scene(
        {"frames": torch.from_numpy(frames)},
        {'"tokenizers/latent_action"': path},
        lambda said: said["found"].codes.shape[:2] == said["found"].latents.shape[:2],
    )


class Standing:
    """A robot, its cameras and its arm in one, that stays where it is."""

    def observe(self) -> Observation:
        return Observation(images={}, state=np.zeros(1, np.float32), timestamp=None)

    def position(self) -> np.ndarray:
        return np.array([0.0, 0.6, 0.2])

    def send(self, command: np.ndarray) -> None:
        assert np.isfinite(command).all()


CONFIG = {'"configs/control/guard.yaml"': f'"{ROOT / "configs/control/guard.yaml"}"'}


@contextlib.contextmanager
def control() -> Iterator[Scene]:
    names = {"robot": Standing(), "policy": Continuing(), "space": space(rate_hz=200)}
    yield Scene(names, CONFIG, lambda said: said["report"].ticks == 400)


class Served(Counting):
    """A policy behind a server, for the toy robot above."""

    def act(self, observations: Any, slots: Any = None) -> np.ndarray:
        return np.zeros((len(observations), self.chunk, 4))


@contextlib.contextmanager
def robot() -> Iterator[Scene]:
    pytest.importorskip("websockets")
    from tests.control.server_fakes import served
    from wam.control.server.running import serving

    what = served(Served(), cameras=("front",), state_dim=1, action_dim=4, action_space=space(rate_hz=200))
    hardware = Standing()
    hardware.read = lambda: np.zeros(1, np.float32)  # type: ignore[attr-defined]
    hardware.hand, hardware.move = hardware.position, hardware.send  # type: ignore[attr-defined]
    cameras = type("Cameras", (), {"read": lambda self: {"front": np.zeros((8, 8, 3), np.uint8)}})()
    with serving(what, ServeConfig(port=0)) as server:
        words = {"ws://127.0.0.1:8000": server.address, **CONFIG}
        yield Scene({"cameras": cameras, "arm": hardware}, words, lambda said: said["report"].ticks == 200)


@contextlib.contextmanager
def student() -> Iterator[Scene]:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    from tests.control.test_export import seen
    from tests.control.test_export import student as make
    from wam.control.export import export_student

    pupil = make()
    pupil.provenance = {"random": False}
    export_student(pupil, Path("runs/distill/student-0/export-onnx-fp32"))
    yield Scene({"observation": seen(0)}, {}, lambda said: said["actions"].shape[0] == 1)


@contextlib.contextmanager
def recorded() -> Iterator[Scene]:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)
    one = (frames, rng.normal(size=(8, 3)).astype(np.float32), np.zeros((8, 4), np.float32))
    yield Scene({"recordings": [one, one]}, {}, lambda said: (Path("runs/mine/data/meta/info.json")).is_file())


SCENES: dict[str, Callable[[], contextlib.AbstractContextManager[Scene]]] = {
    "concepts.md": plain,
    "control.md": control,
    "distillation.md": student,
    "explore.md": exploring,
    "howto/data.md": recorded,
    "howto/robot.md": robot,
    "latent_actions.md": latent_actions,
    "tutorial.md": tutorial,
}


@pytest.mark.parametrize("page", SCENES)
def test_python_that_is_shown_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SCENES[page]() as scene:
        said = dict(scene.names)
        for text in blocks(DOCS / page, "python"):
            for words, other in scene.instead.items():
                text = text.replace(words, other)
            exec(compile(text, page, "exec"), said)
        assert scene.holds(said)


def test_every_page_with_python_is_run_or_named() -> None:
    assert {name_of(p) for p in PAGES if blocks(p, "python")} == set(SCENES) | set(NOT_RUN)


def test_the_drawings_are_what_the_package_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("docs_drawings").main(["--check"]) == 0, capsys.readouterr().out


def test_a_drawing_that_is_out_of_date_is_found(tmp_path: Path) -> None:
    drawings = tool("docs_drawings")
    assert drawings.main(["--output", str(tmp_path)]) == 0
    assert drawings.main(["--output", str(tmp_path), "--check"]) == 0
    (tmp_path / "clocks.svg").write_text("<svg/>")
    assert drawings.main(["--output", str(tmp_path), "--check"]) == 1
