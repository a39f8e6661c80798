"""What the README says is so: its commands parse, its examples run, its links lead somewhere, its figures come from files."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_notebooks import tool
from tests.training.conftest import toy_config, write_toy
from wam.cli.main import build_parser
from wam.evaluation.artefacts import FilmStrips, WhatIf, save_film_strips, save_what_if
from wam.model.visibility import table_from
from wam.settings import load_settings
from wam.training.config import TrainConfig
from wam.training.trainer import train

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(word: str) -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(f"{word} ")]


def verbs() -> dict[str, argparse.ArgumentParser]:
    actions = build_parser()._actions
    return dict(next(a.choices for a in actions if isinstance(a, argparse._SubParsersAction)))


class TestCommands:
    @pytest.mark.parametrize("arguments", commands("wam"), ids=" ".join)
    def test_each_parses_and_its_config_loads(self, arguments: list[str]) -> None:
        options = build_parser().parse_args(arguments)
        config = getattr(options, "config", None)
        assert config is None or (ROOT / config).is_file()
        if config is not None and options.verb == "train":
            load_settings(TrainConfig, ROOT / config, options.overrides)

    def test_make_has_every_target_that_is_named(self) -> None:
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        named = {m for path in DOCUMENTS for m in re.findall(r"[`\n]make ([\w-]+)", path.read_text())}
        assert {"demo", "test"} <= named <= targets

    def test_the_table_names_every_verb(self) -> None:
        assert set(re.findall(r"^\| `wam (\w+)", README, re.MULTILINE)) == set(verbs())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_are_there(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text())
    missing = [t for t in targets if not t.startswith("http") and not (path.parent / t).exists()]
    assert missing == []


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_toy(Path("runs/demo/data"))
    train(toy_config(Path("runs/demo/data"), Path("runs/demo"), steps=2))
    said: dict[str, Any] = {}
    shipped = '"notebooks/model", data=few_episodes("runs/notebooks/metaworld")'
    for example in blocks("python"):  # one goes on where the other ends
        example = example.replace(shipped, '"runs/demo", data=few_episodes("runs/demo/data")')
        exec(compile(example, "README.md", "exec"), said)
    views, times, side = 2, 2, 16
    for future in (said["dream"], said["what_if"], said["both"].future):
        assert future.shape == (1, views, times, side, side, 3)
        assert 0 <= future.min() <= future.max() <= 1
    assert said["chunk"].shape == said["both"].action.shape == (1, 8, 2)
    assert torch.isfinite(said["chunk"]).all()
    assert (said["careful"][..., 0] <= 0.2 + 1e-4).all()
    assert Path("pushes.png").is_file()


def test_the_method_in_yaml_is_what_the_text_says(tmp_path: Path) -> None:
    (example,) = blocks("yaml")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    path = tmp_path / example.splitlines()[0].removeprefix("# ")
    path.write_text(example)
    model = load_settings(TrainConfig, path).model
    assert dict(table_from(model.visibility).sources("action", ("future", "action"))) == {
        "future": True,
        "action": False,
    }
    assert model.conditionals[0].clocks == {"action": "shared", "future": "shared"}
    assert model.streams["future"].predicts == "x0", "what the example does not name stays as in the base"


class TestResults:
    def test_the_table_is_what_the_files_say(self) -> None:
        assert tool("readme_results").main(["--root", str(ROOT), "--check"]) == 0, "run `make readme`"

    def test_no_figure_is_typed_outside_the_table(self) -> None:
        results = tool("readme_results")
        before, _, rest = README.partition(results.BEGIN)
        prose = before + rest.partition(results.END)[2]
        assert re.findall(r"\d+(?:\.\d+)? ?(?:%|dB|ms\b|seconds|minutes)", prose) == []

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        results = tool("readme_results")
        (tmp_path / "README.md").write_text(f"above\n{results.BEGIN}\nold\n{results.END}\nbelow\n")
        return tmp_path

    def rows(self, root: Path) -> dict[str, list[str]]:
        """The table's cells by command and figure."""
        found = {}
        for line in (root / "README.md").read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if named := re.search(r"\(`(\w+)`\)", cells[0]):
                found[f"{cells[4].strip('`')}: {named[1]}"] = cells
        return found

    def write(self, root: Path, path: str, figures: dict[str, float | None], n: Any = 5) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        made = {"cores": 2, "processor": "Example", "accelerator": None}
        content = {"figures": figures, "n": n, "seeds": [0], "hardware": made, "date": "2026-01-02T03:04:05+00:00"}
        (root / path).write_text(json.dumps(content))

    def test_without_files_every_row_says_so(self, root: Path) -> None:
        results = tool("readme_results")
        assert results.main(["--root", str(root)]) == 0
        assert {cells[1] for cells in self.rows(root).values()} == {"not measured yet"}
        assert len(self.rows(root)) == len(results.ROWS)

    def test_a_figure_comes_with_all_that_belongs_to_it(self, root: Path) -> None:
        counts = {"starts_per_task": 20, "play_windows": 64, "expert_windows": 32, "wrong_text_episodes": 40}
        self.write(root, "runs/demo/summary.json", {"success_mean": 0.9, "imagine_gain_db": 1.2}, counts)
        self.write(root, "runs/bench/rollout.json", {"per_frame_ratio": 1.3}, 9)
        assert tool("readme_results").main(["--root", str(root)]) == 0
        rows = self.rows(root)
        success, imagined = rows["make demo: success_mean"], rows["make demo: imagine_gain_db"]
        assert success[1:4] == ["0.90", "≥ 0.85", "20 starts a task, seed 0"]
        assert success[5] == "2 cores, Example, 2026-01-02"
        assert imagined[1:4] == ["**1.20 dB, missed**", "≥ 1.5 dB", "32 windows, seed 0"]
        assert rows["wam bench rollout: per_frame_ratio"][1:3] == ["**1.30×, missed**", "≤ 1.15×"]
        assert rows["make demo: wall_minutes"][1] == "not measured yet"
        assert (root / "README.md").read_text().startswith("above\n")

    def test_several_seeds_are_told_as_their_mean_and_range(self, root: Path) -> None:
        for seed, success in enumerate((0.8, 0.9, 1.0)):
            self.write(root, f"runs/metaworld-cpu/seed-{seed}/summary.json", {"success_mean": success}, {})
        assert tool("readme_results").main(["--root", str(root)]) == 0
        (cells,) = (c for name, c in self.rows(root).items() if name == "make recipe SEED=0 (1, 2): success_mean")
        assert cells[1] == "0.900 (0.800 to 1.000)"
        assert cells[3] == "3 seeds"

    def test_a_control_is_shown_whatever_it_says(self, root: Path) -> None:
        self.write(root, "runs/metaworld-cpu/cloning/summary.json", {"success_mean": 0.99})
        self.write(root, "runs/metaworld-cpu/blind/summary.json", {"action_sensitivity": 1.2})
        assert tool("readme_results").main(["--root", str(root)]) == 0
        rows = self.rows(root)
        assert rows["make control-cloning: success_mean"][1:3] == ["0.990", ""]
        assert rows["make control-blind: action_sensitivity"][1:3] == ["**1.20×, missed**", "≤ 1.05×"]

    def test_figures_stay_when_the_runs_are_gone(self, root: Path) -> None:
        results = tool("readme_results")
        self.write(root, "runs/bench/cache.json", {"cached_speedup": 2.5})
        results.main(["--root", str(root)])
        shutil.rmtree(root / "runs")
        assert results.main(["--root", str(root), "--check"]) == 0
        results.main(["--root", str(root)])
        assert self.rows(root)["wam bench cache: cached_speedup"][1] == "2.50×"

    def test_a_figure_changed_by_hand_is_found(self, root: Path) -> None:
        results = tool("readme_results")
        self.write(root, "runs/bench/cache.json", {"cached_speedup": 2.5})
        results.main(["--root", str(root)])
        path = root / "README.md"
        path.write_text(path.read_text().replace("2.50×", "3.50×"))
        assert results.main(["--root", str(root), "--check"]) == 1

    def test_a_figure_that_is_not_finite_is_no_number(self, root: Path) -> None:
        self.write(root, "runs/demo/summary.json", {"success_mean": None})
        tool("readme_results").main(["--root", str(root)])
        assert self.rows(root)["make demo: success_mean"][1] == "**not finite**"

    @pytest.mark.parametrize("broken", ["runs/demo/summary.json", "README.md"])
    def test_broken_input_gives_status_2(self, root: Path, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
        (root / broken).parent.mkdir(parents=True, exist_ok=True)
        (root / broken).write_text("{")
        assert tool("readme_results").main(["--root", str(root)]) == 2
        assert capsys.readouterr().err.startswith("expected ")


class TestPictures:
    def test_they_are_drawn_from_an_evaluated_run(self, tmp_path: Path) -> None:
        shape = (1, 2, 8, 8, 3)
        g = torch.Generator().manual_seed(0)

        def noise(*shape: int) -> Any:
            return torch.randint(0, 256, shape, dtype=torch.uint8, generator=g).numpy()

        names, motion = ("still", "+x"), torch.eye(2, 3).numpy()
        save_what_if(
            tmp_path, WhatIf(present=noise(*shape), imagined=noise(1, 2, 2, 2, 8, 8, 3), names=names, motion=motion)
        )
        real = noise(1, 2, 2, 8, 8, 3)
        strips = FilmStrips(present=noise(*shape), real=real, imagined=real, captions=("push",), kinds=("imagine",))
        save_film_strips(tmp_path, strips)
        out = tmp_path / "images"
        assert tool("readme_pictures").main(["--run", str(tmp_path), "--output", str(out)]) == 0
        assert sorted(path.name for path in out.iterdir()) == ["film-strip.png", "provenance.json", "what-if.png"]
        assert json.loads((out / "provenance.json").read_text())["code"] is None, "this run has no checkpoint"

    def test_without_one_it_says_what_to_do(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert tool("readme_pictures").main(["--run", str(tmp_path)]) == 2
        assert "make demo" in capsys.readouterr().err
