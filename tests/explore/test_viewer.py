"""The page of `wam explore`: what it is told, that the newest question wins, and that bad input never takes it down."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.control.browser import Page, chromium
from tests.explore.test_failures import failing
from wam.contracts import WamError
from wam.control.server.door import PAGE_MAY
from wam.explore.bench import bench_explore
from wam.explore.explorer import Explorer
from wam.explore.failures import Failures
from wam.explore.viewer.questions import Imagine, Question, Retrace
from wam.explore.viewer.server import PAGE, SOCKET, ViewerConfig, ViewerServer, viewing
from wam.explore.viewer.studio import Part, Studio
from wam.model.config import ModelConfig


@pytest.fixture(scope="module")
def studio(voxel_model: Explorer, model: Explorer) -> Studio:
    found = Studio([voxel_model, model])
    found.failures = failing()
    return found


@pytest.fixture(scope="module")
def server(studio: Studio) -> Iterator[ViewerServer]:
    with viewing(studio, ViewerConfig(port=0)) as server:
        yield server


@contextlib.contextmanager
def page_of(server: ViewerServer) -> Iterator[tuple[ClientConnection, Part]]:
    with connect(f"ws://127.0.0.1:{server.port}{SOCKET}", max_size=None) as socket:
        yield socket, json.loads(socket.recv(timeout=60))["hello"]


def told(socket: ClientConnection, question: dict[str, Any], part: str) -> Part:
    socket.send(json.dumps(question))
    while (found := json.loads(socket.recv(timeout=60))).get("part") != part:
        assert "error" not in found, found
    return found


def picture(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


class TestAnswers:
    def test_a_page_is_told_models_starts_sentences_actions_and_failures(self, server: ViewerServer) -> None:
        with page_of(server) as (_, hello):
            assert [model["voxels"] for model in hello["models"]] == [True, False]
            assert [(a["name"], a["axis"], a["gripper"]) for a in hello["actions"]] == [
                ("x", 0, False),
                ("y", 1, False),
            ]
            assert hello["instructions"] == ["push the square"]
            assert len(hello["starts"]) == 10
            assert hello["failures"][0]["told"] == "push it"

    def test_frames_voxels_and_actions_of_both_models_then_the_truth(
        self, server: ViewerServer, voxel_model: Explorer
    ) -> None:
        with page_of(server) as (socket, _):
            question = {"ask": "imagine", "number": 7, "place": 0.25, "kind": "push", "push": {"x": 0.5}, "steps": 1}
            found = told(socket, question, "imagined")
            truth = json.loads(socket.recv(timeout=60))
        assert found["number"] == truth["number"] == 7
        start = voxel_model.start(0.25)
        np.testing.assert_array_equal(picture(found["present"]["a"]), start.present[0])
        first, second = found["models"]
        assert [len(first["frames"][camera]) for camera in ("a", "b")] == [2, 2]
        assert first["actions"] == [[0.5, 0.0]] * 8
        assert first["voxels"]["shape"] == [8, 8, 4]
        assert second["voxels"] is None
        assert set(found["poses"]) == {"a", "b"}
        assert "nobody knows" in truth["models"][0]["why"]

    def test_recorded_actions_have_a_recorded_truth(self, server: ViewerServer, voxel_model: Explorer) -> None:
        with page_of(server) as (socket, _):
            truth = told(socket, {"ask": "imagine", "number": 1, "place": 0.0, "kind": "recorded"}, "truth")["models"][
                0
            ]
        start = voxel_model.start(0.0)
        came = start.recorded(voxel_model.model.config.future)
        assert came is not None
        np.testing.assert_array_equal(picture(truth["frames"]["b"][1]), came[1, 1])
        cells = np.unpackbits(np.frombuffer(base64.b64decode(truth["voxels"]["filled"][0]), np.uint8))
        assert start.batch.occupancy is not None
        np.testing.assert_array_equal(cells, start.batch.occupancy[0, 0].reshape(-1))

    def test_the_second_model_is_asked_of_the_same_frame(self, studio: Studio) -> None:
        one, other = studio.start(0, 0.5), studio.start(1, 0.5)
        np.testing.assert_array_equal(one.present, other.present)

    def test_a_failure_is_stepped_through_with_what_was_expected_and_what_came(self, server: ViewerServer) -> None:
        with page_of(server) as (socket, _):
            found = told(socket, {"ask": "retrace", "number": 2, "which": 0, "plan": 1}, "retraced")
        assert (found["plan"], len(found["plans"])) == (1, 4)
        assert len(found["planned"]) == 8
        assert found["carried_out"] == 6
        assert len(found["came"]["a"]) == len(found["imagined"]["a"]) == 2
        assert found["errors"][-1] is None  # the episode was over before what was imagined last

    def test_a_model_that_imagines_nothing_is_refused(self, model: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
        streams = {name: s for name, s in model.model.config.streams.items() if name != "future"}
        monkeypatch.setattr(model.model.config, "streams", streams)
        with pytest.raises(WamError, match="imagines"):
            Studio([model])


class Slow:
    """A studio whose answers wait at a gate."""

    def __init__(self) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()
        self.asked: list[int] = []
        self.threads: set[str] = set()

    def hello(self) -> Part:
        return {}

    def close(self) -> None: ...

    def answer(self, question: Question, say: Callable[[str], None]) -> Iterator[Part]:
        self.threads.add(threading.current_thread().name)
        self.asked.append(question.number)
        self.begun.set()
        if isinstance(question, Retrace):
            raise RuntimeError("a fault of ours")
        self.gate.wait(30)
        yield {"part": "imagined", "number": question.number}
        yield {"part": "truth", "number": question.number}


@pytest.fixture
def slow() -> Iterator[tuple[Slow, ViewerServer]]:
    studio = Slow()
    with viewing(studio, ViewerConfig(port=0, pages=2)) as server:  # type: ignore[arg-type]
        yield studio, server


class TestTheNewestWins:
    def test_questions_that_waited_are_dropped_and_the_truth_of_an_old_one_too(
        self, slow: tuple[Slow, ViewerServer]
    ) -> None:
        studio, server = slow
        with page_of(server) as (socket, _):
            socket.send('{"ask": "imagine", "number": 1}')
            assert studio.begun.wait(30)
            for number in range(2, 30):
                socket.send(json.dumps({"ask": "imagine", "number": number}))
            socket.send("nonsense")  # its error comes back once all before it were read
            assert "error" in json.loads(socket.recv(timeout=30))
            studio.gate.set()
            parts = [json.loads(socket.recv(timeout=30)) for _ in range(3)]
        assert [(p["part"], p["number"]) for p in parts] == [("imagined", 1), ("imagined", 29), ("truth", 29)]
        assert studio.asked == [1, 29]
        assert all(name.startswith("studio") for name in studio.threads)

    def test_the_event_loop_answers_others_while_a_model_thinks(self, slow: tuple[Slow, ViewerServer]) -> None:
        studio, server = slow
        with page_of(server) as (socket, _):
            socket.send('{"ask": "imagine", "number": 1}')
            assert studio.begun.wait(30)
            assert get(server, "/")[0] == 200
            studio.gate.set()


class TestBadInput:
    @pytest.mark.parametrize(
        "frame",
        ["{", b"\x00", '{"ask": "imagine", "place": 9}', '{"ask": "retrace", "which": 99, "number": 5}', "[" * 9000],
    )
    def test_it_gets_a_sentence_and_the_page_goes_on(self, server: ViewerServer, frame: str | bytes) -> None:
        with page_of(server) as (socket, _):
            socket.send(frame)
            assert json.loads(socket.recv(timeout=60))["error"].startswith("expected")
            assert told(socket, {"ask": "imagine", "number": 8, "steps": 1}, "truth")["number"] == 8

    def test_unknown_actions_and_sentences_are_answered(self, server: ViewerServer) -> None:
        with page_of(server) as (socket, _):
            socket.send('{"ask": "imagine", "number": 4, "kind": "push", "push": {"<b>": 1}}')
            found = json.loads(socket.recv(timeout=60))
            assert found["number"] == 4
            assert "x, y" in found["error"]
            question = {"ask": "imagine", "number": 5, "instruction": "<img src=x> ☃", "steps": 1}
            assert told(socket, question, "imagined")["told"] == "<img src=x> ☃"

    def test_a_fault_of_ours_is_said_without_its_words_and_the_page_goes_on(
        self, slow: tuple[Slow, ViewerServer]
    ) -> None:
        studio, server = slow
        studio.gate.set()
        with page_of(server) as (socket, _):
            socket.send('{"ask": "retrace", "number": 6}')
            found = json.loads(socket.recv(timeout=30))
            assert found["number"] == 6
            assert "a fault of ours" not in found["error"]
            assert told(socket, {"ask": "imagine", "number": 7}, "truth")["number"] == 7

    def test_a_frame_that_is_too_large_ends_its_own_page_alone(self, server: ViewerServer) -> None:
        with page_of(server) as (socket, _):
            socket.send('"' + "a" * 100_000 + '"')
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=30)
        with page_of(server) as (_, hello):
            assert hello["models"]

    def test_pages_beyond_those_allowed_are_turned_away(self, slow: tuple[Slow, ViewerServer]) -> None:
        _, server = slow
        with page_of(server), page_of(server), pytest.raises(InvalidStatus, match="503"), page_of(server):
            pass


class TestTheDoor:
    def test_only_the_page_and_its_socket_are_there(self, server: ViewerServer) -> None:
        status, headers, body = get(server, "/")
        assert (status, headers["Content-Security-Policy"]) == (200, PAGE_MAY)
        assert body == PAGE.read_bytes()
        assert get(server, "/ask")[0] == get(server, "/metrics")[0] == 404

    def test_a_page_of_elsewhere_may_not_ask(self, server: ViewerServer) -> None:
        with (
            pytest.raises(InvalidStatus, match="403"),
            connect(f"ws://127.0.0.1:{server.port}{SOCKET}", additional_headers={"Origin": "http://evil.example"}),
        ):
            pass

    def test_another_address_needs_a_token(self) -> None:
        with pytest.raises(WamError, match="token"):
            ViewerServer(Slow(), ViewerConfig(host="0.0.0.0"))  # type: ignore[arg-type]

    def test_the_page_holds_no_address_and_may_load_none(self) -> None:
        page = PAGE.read_text()
        assert not re.search(r"(https?:)?//[a-z]|\bsrc=|\bhref=|@import|url\(", re.sub(r'"(ws|wss)://"', "", page))
        assert "innerHTML" not in page


def get(server: ViewerServer, path: str) -> tuple[int, dict[str, str], bytes]:
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        line.request("GET", path)
        answer = line.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        line.close()


def test_the_bench_times_answers_of_random_weights() -> None:
    config = ModelConfig(width=32, depth=1, heads=2, head_dim=16, image_size=16)
    for stream in config.streams.values():
        stream.grid, stream.stem_width = 4, 8
    found = bench_explore(config=config, repeats=3, steps=1)
    assert found.n == 3
    assert 0 < found.figures["answer_seconds_p50"] <= found.figures["answer_seconds_p95"]
    assert set(found.targets) == {"answer_seconds_p95"}


@contextlib.contextmanager
def browsing(server: ViewerServer) -> Iterator[Page]:
    """The page in a window that holds all of it, once it has been answered."""
    chromium()
    with Page(server.address) as page:
        page.call("Emulation.setDeviceMetricsOverride", width=1280, height=1900, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        page.until("shown && shown.number === number")
        yield page


class TestInABrowser:
    def test_dragging_the_arrow_asks_anew_and_shows_what_is_imagined(self, server: ViewerServer) -> None:
        with browsing(server) as page:
            page.until("document.querySelectorAll('#answers article').length == 2")
            page.until("document.querySelector('.state').textContent.startsWith('answered')")
            assert page.evaluate("document.querySelectorAll('#starts img').length") == 10
            assert page.evaluate("document.querySelectorAll('#answers .cells canvas').length") == 3
            page.evaluate("wish.kind = 'recorded'; ask()")  # whose true cells are known
            page.until("document.querySelectorAll('#answers .cells canvas').length == 6")
            page.until("document.querySelector('.state').textContent.startsWith('answered')")  # nothing moves any more
            drawn = "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((value) => value > 0)"
            assert page.evaluate(f"(() => {{ const c = document.querySelector('.cells canvas'); return {drawn}; }})()")
            assert page.evaluate("document.querySelectorAll('#answers .strip .blank').length") == 0
            box = page.evaluate(
                "(() => { const b = document.querySelector('.pad canvas').getBoundingClientRect();"
                " return [b.left + b.width / 2, b.top + b.height / 2, b.width]; })()"
            )
            before = page.evaluate("number")
            mouse(page, "mousePressed", box[0], box[1])
            mouse(page, "mouseMoved", box[0] + 0.2 * box[2], box[1])
            mouse(page, "mouseReleased", box[0] + 0.2 * box[2], box[1])
            assert page.evaluate("number") > before
            assert (
                page.evaluate("Math.abs(wish.push.x)") > 0.3
            )  # the toy's cameras look down, the picture's right being x
            assert abs(page.evaluate("wish.push.y")) < 0.05
            page.until("shown && shown.number === number")
            assert page.evaluate("shown.models[0].actions[0][0].toFixed(2) === wish.push.x.toFixed(2)")
            loaded = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name).join(' ')")
            assert re.sub(r"data:\S+", "", loaded).split() == []

    def test_keys_push_and_step(self, server: ViewerServer) -> None:
        with browsing(server) as page:
            page.evaluate("document.querySelector('.pad canvas').focus()")
            key(page, "ArrowRight")
            assert abs(page.evaluate("wish.push.x")) == pytest.approx(0.1, abs=0.02)
            page.evaluate("document.getElementById('tab-retrace').click()")
            page.until("failure.told && failure.told.plan === 0")
            page.evaluate("document.activeElement.blur()")
            key(page, "ArrowRight")
            page.until("failure.told.plan === 1")
            assert "Plan 2 of 4" in page.evaluate("document.getElementById('plan-title').textContent")
            assert page.evaluate("document.querySelectorAll('#plan-strip img').length") == 2 * (1 + 3 * 2)

    def test_a_newcomer_is_told_what_to_do_before_anything_is_asked_of_him(self, server: ViewerServer) -> None:
        with browsing(server) as page:
            page.until("document.querySelector('.state').textContent.startsWith('answered')")
            inked = "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v) => v > 0).length"
            hinted = page.evaluate(f"(() => {{ const c = document.querySelector('.pad canvas'); return {inked}; }})()")
            page.evaluate("pushed = true; showWish()")
            bare = page.evaluate(f"(() => {{ const c = document.querySelector('.pad canvas'); return {inked}; }})()")
            assert hinted > bare > 0, "the words on the picture go once something was pushed"
            assert page.evaluate("document.querySelectorAll('details dt').length") >= 4
            assert page.evaluate("document.querySelectorAll('#answers .legend').length") == 1
            assert "not taught" in page.evaluate("document.querySelector('[data-model=\"1\"]').textContent")
            unnamed = (
                "[...document.querySelectorAll('button, input, select, canvas')].filter((e) => !e.ariaLabel && !e.title"
            )
            unnamed += " && !e.textContent.trim() && !e.closest('label')).length"
            assert page.evaluate(unnamed) == 0, "whatever can be used has a name that is read aloud"

    def test_tabs_go_by_arrow_keys_and_films_can_be_paused(self, server: ViewerServer) -> None:
        with browsing(server) as page:
            page.evaluate("document.getElementById('tab-imagine').focus()")
            key(page, "ArrowRight")
            assert page.evaluate("document.activeElement.id") == "tab-retrace"
            assert page.evaluate("document.getElementById('imagine').hidden")
            key(page, "ArrowLeft")
            assert page.evaluate("document.activeElement.id") == "tab-imagine"
            page.until("document.querySelector('.pause') !== null")
            before = page.evaluate("paused")
            page.evaluate("document.querySelector('.pause').click()")
            assert page.evaluate("paused") is not before
            assert page.evaluate("document.querySelector('.pause').textContent") == ("pause" if before else "play")

    def test_nothing_is_wider_than_a_telephone(self, server: ViewerServer) -> None:
        with browsing(server) as page:
            page.call("Emulation.setDeviceMetricsOverride", width=390, height=1900, deviceScaleFactor=1, mobile=True)
            page.evaluate("wish.kind = 'recorded'; ask()")
            page.until("shown.number === number && truth")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            widths = "[...document.querySelectorAll('#answers .strip img')].map((i) => i.getBoundingClientRect().width)"
            assert min(page.evaluate(widths)) > 60, "each camera has a line of its own"
            page.evaluate("document.getElementById('tab-retrace').click()")
            page.until("failure.told")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390

    def test_without_failures_the_page_says_so_and_offers_none(self, studio: Studio) -> None:
        kept, studio.failures = studio.failures, Failures(why="every episode was solved")
        try:
            with viewing(studio, ViewerConfig(port=0)) as server, browsing(server) as page:
                page.evaluate("document.getElementById('tab-retrace').click()")
                assert "every episode was solved" in page.evaluate("document.getElementById('none').textContent")
                assert page.evaluate("document.getElementById('choice').hidden")
        finally:
            studio.failures = kept

    def test_an_error_is_shown_and_the_page_goes_on(self, server: ViewerServer) -> None:
        with browsing(server) as page:
            page.evaluate("wish.steps = -1; ask()")
            page.until("document.getElementById('error').textContent.includes('steps')")
            page.evaluate("wish.steps = 1; ask()")
            page.until("shown.number === number && document.getElementById('error').textContent === ''")


def mouse(page: Page, kind: str, x: float, y: float) -> None:
    page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


def key(page: Page, name: str) -> None:
    page.call("Input.dispatchKeyEvent", type="keyDown", key=name)
    page.call("Input.dispatchKeyEvent", type="keyUp", key=name)


def test_asking_the_studio_itself_gives_parts_as_they_are_known(studio: Studio) -> None:
    parts = studio.answer(Imagine(number=1, steps=1))
    assert next(parts)["part"] == "imagined"
    assert next(parts)["part"] == "truth"
    assert next(parts, None) is None
