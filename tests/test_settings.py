"""Settings: what YAML and overrides may say, and the sentence that comes back when they say something else."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wam.contracts import WamError
from wam.settings import build, load_settings, override, save_settings, to_plain, to_yaml


class Precision(enum.Enum):
    FULL = 1
    HALF = 2


@dataclass(frozen=True, kw_only=True)
class Stream:
    name: str
    width: int = 32
    sees: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Train:
    steps: int = 100
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    conditionals: dict[str, float] = field(default_factory=lambda: {"policy": 0.5, "joint": 0.5})


@dataclass
class Run:
    out: Path = Path("runs/x")
    seed: int | None = None
    mode: Literal["fast", "slow"] = "fast"
    precision: Precision = Precision.FULL
    verbose: bool = False
    train: Train = field(default_factory=Train)
    streams: list[Stream] = field(default_factory=lambda: [Stream(name="future"), Stream(name="action", width=16)])
    by_name: dict[str, Stream] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    threshold: int | float | str = 1


@dataclass(frozen=True, kw_only=True)
class Layer:
    width: int = 32
    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Streams:
    by_name: dict[str, Layer] = field(default_factory=lambda: {"action": Layer(), "future": Layer()})
    maybe: Layer | None = field(default_factory=lambda: Layer(depth=2))


@dataclass(frozen=True, kw_only=True)
class Needs:
    root: str
    inner: Train


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def fails(*overrides: str, cls: type = Run) -> str:
    with pytest.raises(WamError) as caught:
        load_settings(cls, None, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_file_and_no_overrides_give_the_defaults() -> None:
    assert load_settings(Run, None) == Run()


def test_file_then_overrides_win_and_keep_types(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "train: {steps: 5, learning_rate: 1}\nprecision: HALF\nout: here/now\n")
    run = load_settings(Run, path, ["train.steps=7", "seed=3", "train.betas=[0.1, 0.2]", "verbose=true"])
    assert run.train == Train(steps=7, learning_rate=1.0, betas=(0.1, 0.2))
    assert isinstance(run.train.learning_rate, float)
    assert (run.precision, run.out, run.seed, run.verbose) == (Precision.HALF, Path("here/now"), 3, True)


def test_exponents_are_numbers() -> None:
    assert load_settings(Run, None, ["train.learning_rate=3e-4"]).train.learning_rate == 3e-4


def test_extends_merges_relative_to_the_file_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", "root.yaml", "seed: 1\ntrain: {steps: 1, learning_rate: 1.0}\n")
    write(tmp_path / "base", "mid.yaml", "extends: root.yaml\ntrain: {steps: 2}\n")
    write(tmp_path, "slow.yaml", "mode: slow\n")
    path = write(tmp_path, "leaf.yaml", "extends: [base/mid.yaml, slow.yaml]\nseed: 9\n")
    run = load_settings(Run, path)
    assert (run.seed, run.mode, run.train.steps, run.train.learning_rate) == (9, "slow", 2, 1.0)


def test_extending_in_a_circle_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "extends: b.yaml\n")
    write(tmp_path, "b.yaml", "extends: a.yaml\n")
    with pytest.raises(WamError, match=r"a\.yaml -> b\.yaml -> a\.yaml"):
        load_settings(Run, tmp_path / "a.yaml")


def test_interpolation_reads_another_key(tmp_path: Path) -> None:
    run = load_settings(Run, write(tmp_path, "a.yaml", "seed: 4\ntrain: {steps: '${seed}'}\n"))
    assert run.train.steps == 4


def test_a_dict_in_a_file_replaces_the_default_dict(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "train: {conditionals: {imagine: 2}}\n")
    assert load_settings(Run, path).train == Train(conditionals={"imagine": 2.0})


def test_dicts_merge_over_extended_files_and_null_removes_an_entry(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "train: {conditionals: {policy: 3, joint: 4}}\n")
    path = write(tmp_path, "a.yaml", "extends: base.yaml\ntrain: {conditionals: {joint: null, imagine: 2}}\n")
    assert load_settings(Run, path).train.conditionals == {"policy": 3.0, "imagine": 2.0}
    assert load_settings(Run, None, ["train.conditionals.joint=null"]).train.conditionals == {"policy": 0.5}


def test_a_dict_of_dataclasses_that_is_given_replaces_the_default_one() -> None:
    without = build(Streams, {"by_name": {"future": {"width": 8}}, "maybe": {"width": 4}})
    assert list(without.by_name) == ["future"]
    assert without.maybe == Layer(width=4, depth=2)  # a dataclass that may be None is still filled up
    assert build(Streams, to_plain(without)) == without


def test_lists_of_dataclasses_are_replaced_by_files_and_reached_by_index(tmp_path: Path) -> None:
    assert load_settings(Run, None, ["streams.1.width=8"]).streams == [
        Stream(name="future"),
        Stream(name="action", width=8),
    ]
    path = write(tmp_path, "a.yaml", "streams: [{name: text, sees: [text]}]\n")
    assert load_settings(Run, path, ["streams.0.width=4"]).streams == [Stream(name="text", width=4, sees=("text",))]


def test_dicts_of_dataclasses_and_free_dicts(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "by_name: {a: {name: x}}\nextra: {k: [1, {z: null}]}\n")
    run = load_settings(Run, path, ["by_name.b.name=y"])
    assert run.by_name == {"a": Stream(name="x"), "b": Stream(name="y")}
    assert run.extra == {"k": [1, {"z": None}]}


def test_unions_keep_the_kind_that_was_written() -> None:
    values = [load_settings(Run, None, [f"threshold={text}"]).threshold for text in ("3", "3.5", "auto")]
    assert values == [3, 3.5, "auto"]
    assert [type(value) for value in values] == [int, float, str]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("train.step=3", "`train.steps`"),
        ("train.lerning_rate=3", "`train.learning_rate`"),
        ("steps=3", "`train.steps`"),
        ("streams.0.wdith=3", "`streams.0.width`"),
        ("by_name.a.nam=3", "`by_name.a.name`"),
        ("trian.steps=3", "`train`"),
    ],
)
def test_an_unknown_key_names_the_nearest(text: str, named: str) -> None:
    message = fails(text)
    assert f"got `{text.split('=')[0].split('.')[0]}" in message
    assert f"did you mean {named}?" in message


def test_an_unknown_key_like_nothing_lists_the_known() -> None:
    message = fails("zzzzqqq=1")
    assert "mode" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("train.steps=soon", ["`train.steps` as a whole number", "'soon' (str)"]),
        ("train.steps=1.5", ["a whole number", "1.5 (float)"]),
        ("train.steps=true", ["a whole number", "True (bool)"]),
        ("train.steps=null", ["a whole number", "null"]),
        ("verbose=1", ["true or false", "1 (int)"]),
        ("seed=x", ["`seed` as a whole number"]),
        ("train=3", ["`train` as a mapping", "3 (int)"]),
        ("streams.0.name=3", ["text", "put it in quotes"]),
        ("streams=3", ["`streams` as a list"]),
        ("train.betas=[1]", ["`train.betas` with 2 values", "got 1"]),
        ("train.conditionals.policy=x", ["`train.conditionals.policy` as a number"]),
        ("mode=fats", ["fast, slow", "did you mean 'fast'?"]),
        ("precision=HALV", ["FULL, HALF", "did you mean 'HALF'?"]),
        ("out=[]", ["`out` as a path"]),
        ("just_a_word", ["an override like `train.steps=100`"]),
        ("=3", ["an override like"]),
        ("streams.7.width=3", ["streams.7.width"]),
        ("train.steps=${nothing}", ["interpolations that resolve", "'nothing'"]),
    ],
)
def test_a_wrong_value_says_expected_and_got(text: str, parts: list[str]) -> None:
    message = fails(text)
    assert message.startswith("expected")
    for part in parts:
        assert part in message


def test_a_required_value_that_nothing_gives_is_named() -> None:
    assert "a value for `root`" in fails(cls=Needs)
    assert load_settings(Needs, None, ["root=a"]) == Needs(root="a", inner=Train())


def test_a_missing_file_names_near_ones(tmp_path: Path) -> None:
    write(tmp_path, "quickstart.yaml", "")
    with pytest.raises(WamError, match=r"quickstart\.yaml"):
        load_settings(Run, tmp_path / "quikstart.yaml")
    with pytest.raises(WamError, match="no folder"):
        load_settings(Run, tmp_path / "nowhere" / "a.yaml")


@pytest.mark.parametrize("text", ["a: [1\nb: 2", "- 1\n- 2\n", "a: 1\na: 2\n", "\x00"])
def test_a_malformed_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(WamError, match=r"bad\.yaml") as caught:
        load_settings(Run, write(tmp_path, "bad.yaml", text))
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_settings(Run, write(tmp_path, "a.yaml", "")) == Run()


def test_a_disagreement_found_by_the_dataclass_is_the_users_error() -> None:
    @dataclass(frozen=True)
    class Even:
        n: int = 0

        def __post_init__(self) -> None:
            if self.n % 2:
                raise ValueError("n is odd")

    assert "n is odd" in fails("n=1", cls=Even)


def test_override_starts_from_the_instance_and_build_from_a_mapping() -> None:
    run = Run(seed=5, train=Train(steps=2))
    assert override(run, ["train.learning_rate=2"]).train == Train(steps=2, learning_rate=2.0)
    assert build(Run, {"train": {"steps": 2}}) == Run(train=Train(steps=2))
    with pytest.raises(WamError, match=r"train\.steps"):
        build(Run, {"train": {"stepz": 2}})


TEXT = st.text(st.characters(codec="ascii", exclude_characters="$\\", exclude_categories=["Cc"]))


@given(
    st.builds(
        Run,
        seed=st.none() | st.integers(-9, 9),
        mode=st.sampled_from(["fast", "slow"]),
        precision=st.sampled_from(Precision),
        threshold=st.integers() | st.floats(-1e9, 1e9) | st.sampled_from(["1e3", "no", "3", "~", ""]),
        train=st.builds(
            Train,
            learning_rate=st.floats(1e-12, 1e12),
            conditionals=st.dictionaries(st.text("ab1 ", min_size=1), st.floats(0, 1)),
        ),
        streams=st.lists(st.builds(Stream, name=TEXT), max_size=3),
    )
)
def test_saved_settings_read_back_equal(tmp_path_factory: pytest.TempPathFactory, run: Run) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip.yaml"
    save_settings(run, path)
    assert load_settings(Run, path) == run


def test_yaml_writes_every_default() -> None:
    assert "learning_rate: 0.001" in to_yaml(Run())
