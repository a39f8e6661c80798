"""The house's rules: which room may import which, what stays light, and what is found nowhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "wam"

# A room is a package of `wam` or a module right under it. It may import rooms of lower floors only; floor 1's modules may
# import each other, and each room itself.
FLOORS = {
    "contracts": 1,
    "settings": 1,
    "files": 1,
    "progress": 1,
    "checkpoint": 1,
    "quantized": 1,
    "typed": 1,
    "geometry": 1,
    "data": 2,
    "tokenizers": 2,
    "diffusion": 2,
    "model": 3,
    "simulation": 3,
    "training": 4,
    "control": 4,
    "distillation": 5,
    "evaluation": 5,
    "visualization": 6,
    "explore": 7,
    "cli": 8,
    "__main__": 9,
}

# modules that may read a restricted pickle, and why
MAY_UNPICKLE = {"wam/evaluation/perceptual.py": "a user's torchvision weights, with weights_only=True"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_module = pytest.mark.parametrize("path", modules(), ids=name_of)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room_of(dotted: str) -> str | None:
    """wam.data.store -> data; wam -> None; numpy -> None."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "wam" and len(parts) > 1 else None


def imports_of(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import of a module in `package`: lazy ones, those for type checkers and by name too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names if base == "wam")
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def upward_imports(source: str, *, room: str, package: str) -> list[str]:
    """Imports in `source`, a module of `room`, that the floors forbid."""
    found = []
    for line, dotted in imports_of(ast.parse(source), package):
        other = room_of(dotted)
        if other is None or other == room or other not in FLOORS:
            continue
        if FLOORS[other] > FLOORS[room] or (FLOORS[other] == FLOORS[room] and FLOORS[room] > 1):
            found.append(f"line {line}: {room} (floor {FLOORS[room]}) imports {dotted} (floor {FLOORS[other]})")
    return found


def imports_when_loaded(tree: ast.Module) -> list[str]:
    """Names that a module imports when it is imported itself: outside functions and what is for type checkers alone."""
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            found += imports_when_loaded(ast.Module(body=[*node.body, *node.orelse], type_ignores=[]))
    return [name for name in found if name not in ("__future__", "typing")]


class TestFloors:
    def test_every_room_has_a_floor(self) -> None:
        rooms = {room_of(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in modules()}
        assert rooms - {"__init__"} <= set(FLOORS), "give each new room its floor in FLOORS"

    @each_module
    def test_imports_run_downwards_only(self, path: Path) -> None:
        parts = path.relative_to(ROOT).with_suffix("").parts
        room = room_of(".".join(parts))
        assert room is not None
        package = ".".join(parts[:-1])
        if room == "__init__":
            assert imports_when_loaded(tree_of(path)) == [], (
                "so that `import wam` stays light; `load` imports when called"
            )
            return
        assert upward_imports(path.read_text(encoding="utf-8"), room=room, package=package) == []

    @pytest.mark.parametrize(
        "source",
        [
            "from wam.training.trainer import Trainer",
            "from wam import training",
            "import wam.training.trainer as t",
            "def f():\n    from wam.training import trainer",
            "if TYPE_CHECKING:\n    import wam.evaluation",
            "from ..training import trainer",
            "import importlib\nimportlib.import_module('wam.training')",
            "from wam.simulation import raycast",
        ],
    )
    def test_the_check_finds_an_import_that_looks_upwards_or_sideways(self, source: str) -> None:
        assert len(upward_imports(source, room="model", package="wam.model")) == 1

    @pytest.mark.parametrize(
        "source", ["from wam.data import store", "from . import joint", "from ..contracts import Batch"]
    )
    def test_the_check_allows_lower_floors_and_the_own_room(self, source: str) -> None:
        assert upward_imports(source, room="model", package="wam.model") == []


def loaded_after(statement: str, *names: str) -> list[str]:
    """Which of the named packages a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


class TestLightImports:
    def test_the_package_alone_needs_nothing(self) -> None:
        assert loaded_after("import wam; wam.load", "torch", "numpy", "PIL", "wam.explore", "wam.contracts") == []

    @pytest.mark.parametrize(
        "source", ["import torch", "from wam.explore import explorer", "if True:\n    import numpy"]
    )
    def test_the_check_of_the_package_finds_what_it_would_load(self, source: str) -> None:
        assert len(imports_when_loaded(ast.parse(source))) == 1

    def test_the_robot_side_needs_no_torch_for_contracts(self) -> None:
        assert loaded_after("import wam.contracts", "torch", "diffusers", "transformers") == []

    def test_settings_need_no_torch(self) -> None:
        assert loaded_after("import wam.settings", "torch", "diffusers", "transformers") == []

    def test_processes_that_collect_need_no_torch(self) -> None:
        pytest.importorskip("metaworld")
        assert loaded_after("import wam.simulation.meta_world, wam.simulation.workers", "torch") == []

    def test_the_robots_side_of_control_needs_no_torch(self) -> None:
        rooms = ", ".join(f"wam.control.{name}" for name in ("guard", "collision", "executors", "realtime"))
        assert loaded_after(f"import {rooms}", "torch", "diffusers", "transformers") == []

    def test_the_report_needs_no_torch(self) -> None:
        assert loaded_after("import wam.visualization.report", "torch", "mujoco") == []

    def test_the_client_needs_no_torch(self) -> None:
        if not (PACKAGE / "control" / "client.py").is_file():
            pytest.skip("wam/control/client.py is not written yet")
        assert loaded_after("import wam.control.client", "torch", "diffusers", "transformers") == []

    def test_an_exported_policy_needs_no_torch(self) -> None:
        assert loaded_after("import wam.control.exported", "torch", "diffusers", "transformers") == []

    def test_the_command_line_starts_without_the_heavy_libraries(self) -> None:
        assert loaded_after("import wam.cli.main", "torch", "diffusers", "transformers", "mujoco", "matplotlib") == []

    @pytest.mark.parametrize("module", ["wam.tokenizers.video", "wam.tokenizers.text", "wam.tokenizers.action"])
    def test_tokenizers_load_pretrained_libraries_only_when_asked(self, module: str) -> None:
        assert loaded_after(f"import {module}", "diffusers", "transformers") == []


class TestFoundNowhere:
    def test_the_artefact_folder_does_not_shadow_the_tokenizers_package(self) -> None:
        assert list((ROOT / "tokenizers").rglob("*.py")) == []

    @each_module
    def test_pickle(self, path: Path) -> None:
        found = list(pickles(tree_of(path)))
        if name_of(path) in MAY_UNPICKLE:
            found = [call for call in found if "weights_only=True" not in call]
        assert found == []

    @pytest.mark.parametrize(
        "source",
        [
            "import pickle",
            "from dill import load",
            "def f():\n    import joblib",
            "torch.load(path)",
            "np.load(path, allow_pickle=True)",
            "pd.read_pickle(path)",
        ],
    )
    def test_the_pickle_check_finds(self, source: str) -> None:
        assert len(list(pickles(ast.parse(source)))) == 1

    @each_module
    def test_behaviour_switched_by_environment_variables(self, path: Path) -> None:
        assert list(environment_reads(tree_of(path))) == []

    @pytest.mark.parametrize(
        "source",
        ["os.environ['FAST']", "os.environ.get('FAST')", "getenv('FAST')", "'FAST' in os.environ", "environ.pop('X')"],
    )
    def test_the_environment_check_finds_reads(self, source: str) -> None:
        assert len(list(environment_reads(ast.parse(source)))) == 1

    @pytest.mark.parametrize(
        "source", ["os.environ['MUJOCO_GL'] = 'egl'", "os.environ.setdefault('A', 'b')", "spawn(env={**os.environ})"]
    )
    def test_the_environment_check_lets_other_libraries_be_told(self, source: str) -> None:
        assert list(environment_reads(ast.parse(source))) == []

    def test_paths_of_one_machine(self) -> None:
        found = []
        for path in tracked_text():
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if MACHINE_PATH.search(line):
                    found.append(f"{name_of(path)}:{number}: {line.strip()[:80]}")
        assert found == []

    @pytest.mark.parametrize("text", ['open("/' + 'work/main/a")', "at /" + "home/someone/x", " /" + "Users/me/x"])
    def test_the_path_check_finds(self, text: str) -> None:
        assert MACHINE_PATH.search(text)

    @pytest.mark.parametrize("text", ["a/work/b", "the network/home/page", "https://x.org/home/a"])
    def test_the_path_check_leaves_relative_paths_and_addresses_alone(self, text: str) -> None:
        assert not MACHINE_PATH.search(text)


class TestShape:
    @each_module
    def test_a_module_is_one_idea(self, path: Path) -> None:
        length = len(path.read_text(encoding="utf-8").splitlines())
        if length > 300:
            warnings.warn(f"{name_of(path)} has {length} lines; most modules stay under 300", stacklevel=1)
        assert length <= 400, "split it: one idea, one module"

    @each_module
    def test_a_module_says_what_it_is(self, path: Path) -> None:
        assert ast.get_docstring(tree_of(path))


MACHINE_PATH = re.compile(r"(?<![\w.:/~-])/(?:work|home|Users|root)/\w")
_BINARY = {".png", ".jpg", ".gif", ".mp4", ".safetensors", ".npz", ".parquet", ".ico", ".woff2"}


def tracked_text() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=False)
    names = [name for name in listed.stdout.split("\0") if name]
    if listed.returncode or not names:
        pytest.skip("not a git checkout: tracked files are not known")
    paths = [ROOT / name for name in names]
    return [path for path in paths if path.is_file() and path.suffix not in _BINARY]


def pickles(tree: ast.Module) -> Iterator[str]:
    """Imports of pickling modules and calls that unpickle."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in forbidden)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in forbidden:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {option.arg: option.value for option in node.keywords}
            allows = "allow_pickle" in options and ast.unparse(options["allow_pickle"]) != "False"
            if called == "torch.load" or called.endswith("read_pickle") or allows:
                yield ast.unparse(node)


def environment_reads(tree: ast.Module) -> Iterator[str]:
    """Reads of single environment variables; setting one for another library or passing all on is no switch of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and _is_environ(node.value):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            reads = called in ("os.getenv", "getenv", "os.environ.get", "environ.get", "os.environ.pop", "environ.pop")
            if reads:
                yield ast.unparse(node)
        elif isinstance(node, ast.Compare) and any(_is_environ(other) for other in node.comparators):
            yield ast.unparse(node)


def _is_environ(node: ast.AST) -> bool:
    return ast.unparse(node) in ("os.environ", "environ")
