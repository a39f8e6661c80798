"""The report stands alone, shows what is missing as such, and never hides a failure."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from example_run import write_run

from wam.contracts import WamError
from wam.evaluation.figures import Figure
from wam.evaluation.latent_action.evaluate import LatentActionEvaluation
from wam.evaluation.latent_action.pictures import Strip
from wam.visualization.latent_action import save_evaluation
from wam.visualization.report import write_report

SECTIONS = [
    "gates",
    "rollouts",
    "imagined",
    "what-if",
    "success",
    "failures",
    "training",
    "video",
    "figures",
    "provenance",
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def page(good):
    path = write_report(good)
    assert path == good / "report.html"
    return path.read_text()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)))


class Addresses(HTMLParser):
    """Every address a page makes a browser go to, and whether its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert tag not in ("script", "link", "iframe")
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_outside(page):
    parser = Addresses()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.found) > 20
    assert all(address.startswith(("data:image/", "#")) for address in parser.found)
    assert not re.search(r"https?://|@import|url\(", page)
    assert {f"#{name}" for name in SECTIONS} - {"#figures"} <= set(parser.found)


def test_nothing_is_missing_from_a_complete_run(page):
    assert "Not measured" not in page
    text = text_of(page)
    assert "All 5 measured gates passed." in text
    assert page.count('class="tile pass"') == 5
    assert 'class="tile fail"' not in page
    for words in ("2.31×", "target: at least 1.8", "16 of 20", "open the faucet", "0123456789ab", "7.0 min", "+0.4 s"):
        assert words in text, words
    assert "a &lt; b &amp; c" in page  # what a file says is escaped


def test_a_failed_gate_is_red_and_explained(tmp_path):
    page = write_report(write_run(tmp_path / "blind", blind=True)).read_text()
    text = text_of(page)
    assert page.count('class="tile fail"') == 2
    assert "2 of 5 measured gates failed." in text
    assert text.count("hardly depends on the action") == 2  # on its tile and among the failures


HEAVY = {
    "evaluation/filmstrips.npz": "film strips",
    "evaluation/what_if.npz": "the same start under different actions",
    "evaluation/rollouts.npz": "recorded rollouts",
    "metrics.jsonl": "training curves",
}


@pytest.fixture
def light(good, tmp_path):
    """The run without what takes long to draw."""
    left_out = {name.rsplit("/", 1)[-1] for name in HEAVY}
    return shutil.copytree(good, tmp_path / "demo", ignore=lambda folder, names: left_out & set(names))


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        (None, list(HEAVY.values())),
        ("evaluation/gates.json", ["The world-model gates were not measured."]),
        ("evaluation/success.json", ["success in closed loop"]),
        ("evaluation/video.json", ["PSNR, SSIM"]),
        ("config.yaml", ["config.yaml"]),
        ("summary.json", ["summary.json"]),
    ],
)
def test_a_missing_part_is_said_and_the_rest_is_shown(light, removed, said):
    if removed:
        (light / removed).unlink()
    page = write_report(light).read_text()
    assert page.count("Not measured:") >= len(said) + len(HEAVY) * bool(removed) - (removed == "evaluation/gates.json")
    assert all(words in page for words in said)
    assert all(f'id="{name}"' in page for name in SECTIONS)


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path):
    text = text_of(write_report(tmp_path).read_text())
    assert "The world-model gates were not measured." in text
    assert text.count("Not measured:") >= 8
    assert "no checkpoint with provenance was found" in text


def test_a_broken_file_is_one_sentence_on_the_page(light):
    run = light
    (run / "evaluation" / "filmstrips.npz").write_bytes(b"torn")
    (run / "evaluation" / "gates.json").write_text('{"results": [{"name": "x"}]}')
    text = text_of(write_report(run).read_text())
    assert "filmstrips.npz, got" in text
    assert "unknown shape" in text
    assert "16 of 20" in text


def test_random_weights_are_never_shown_silently(light):
    run = light
    path = run / "checkpoints" / "step-00001990" / "provenance.json"
    made = json.loads(path.read_text())
    made["parts"]["video"]["random"] = True
    path.write_text(json.dumps(made))
    text = text_of(write_report(run).read_text())
    assert "Random weights." in text
    assert "video: random" in text


def test_no_folder_is_a_clear_error(tmp_path):
    with pytest.raises(WamError, match="a run's folder"):
        write_report(tmp_path / "none")


def test_latent_actions_are_shown_where_a_tokenizer_was_measured(good, page, tmp_path):
    assert 'id="latent"' not in page
    run = tmp_path / "run"
    shutil.copytree(good, run)
    rng = np.random.default_rng(0)
    strip = Strip(
        name="walk",
        title="One start <under> each code",
        rows=("a", "b"),
        frames=rng.integers(0, 255, (2, 3, 16, 16, 3), dtype=np.uint8),
    )
    found = LatentActionEvaluation(
        figures=[Figure(name="probe_r2", value=0.71, n=400), Figure(name="swap_r2", value=0.43, n=400)], strips=[strip]
    )
    written = save_evaluation(found, run / "evaluation" / "latent-action", seed=0)
    assert [path.name for path in written] == ["walk.png"]
    told = write_report(run).read_text()
    assert 'id="latent"' in told
    words = text_of(told)
    assert "0.71" in words
    assert "One start &lt;under&gt; each code" in words
    assert words.index("probe_r2") < words.index("more figures") < words.index("swap_r2")
    addresses = Addresses()
    addresses.feed(told)
    assert not addresses.open
