"""The live page: nothing while nobody looks, everything that is asked for while somebody does, and nothing from elsewhere."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")

from websockets.sync.client import connect

from tests.control.browser import Page, chromium
from tests.control.server_fakes import Recalling, get, observation, running, until
from wam.contracts import Observation
from wam.control.client import Client
from wam.control.server.config import LiveConfig
from wam.control.server.door import PAGE, PAGE_MAY
from wam.control.server.server import PolicyServer

SENTENCE = "<b>push</b> it <img src=x onerror='document.title=1'>"


class Dreaming(Recalling):
    """Foresees two frames of each camera."""

    def __init__(self) -> None:
        super().__init__()
        self.dreams = 0

    def foresee(self, observation: Observation, actions: np.ndarray, *, slot: int = 0) -> np.ndarray:
        self.dreams += 1
        assert threading.current_thread().name.startswith("policy")
        return np.stack([np.stack([observation.images[camera]] * 2) for camera in ("front", "wrist")])


LIVE = LiveConfig(hz=20.0, imagine_every_s=0.2)


@contextlib.contextmanager
def acting(server: PolicyServer) -> Iterator[Client]:
    """A client that asks again and again."""
    stop = threading.Event()
    with Client(server.address) as client:

        def ask() -> None:
            while not stop.wait(0.02):
                client.plan(observation(0.5, instruction=SENTENCE))

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield client
        finally:
            stop.set()
            thread.join()


def test_a_page_is_told_what_was_seen_done_and_imagined() -> None:
    with running(Dreaming(), live=LIVE) as server, acting(server), connect(f"{server.address}/live") as page:
        model = json.loads(page.recv(timeout=30))["model"]
        assert (model["actions"], model["hz"], model["low"]) == (["x", "y"], 20, [-1, -1])
        told: dict[str, Any] = {}
        while not told.get("future"):
            told = json.loads(page.recv(timeout=30))["sessions"][0]
    assert told["instruction"] == SENTENCE
    assert set(told["cameras"]) == set(told["future"]) == {"front", "wrist"}
    assert [len(frames) for frames in told["future"].values()] == [2, 2]
    pictures = [*told["cameras"].values(), *(url for urls in told["future"].values() for url in urls)]
    assert all(url.startswith("data:image/jpeg;base64,") for url in pictures)
    assert np.array(told["chunk"]).shape == (5, 2)
    assert all(0 <= infer <= total for total, infer in told["delays"])


def test_nothing_is_kept_or_imagined_while_nobody_looks() -> None:
    policy = Dreaming()
    with running(policy, live=LIVE) as server, acting(server):
        with connect(f"{server.address}/live") as page:
            while "sessions" not in json.loads(page.recv(timeout=30)):
                pass
            assert until(lambda: policy.dreams > 0)
        assert until(lambda: server.live.viewers == 0)
        dreams, asked = policy.dreams, len(policy.calls)
        assert until(lambda: len(policy.calls) > asked + 20)
        assert policy.dreams == dreams
        assert server.live._seen == {}


def test_imagining_can_be_turned_off() -> None:
    policy = Dreaming()
    still = LiveConfig(hz=20.0, imagine_every_s=0)
    with running(policy, live=still) as server, acting(server), connect(f"{server.address}/live") as page:
        for _ in range(10):
            page.recv(timeout=30)
    assert policy.dreams == 0


def test_a_session_that_ends_leaves_the_page() -> None:
    with running(live=LIVE) as server, connect(f"{server.address}/live") as page:
        page.recv(timeout=30)
        with acting(server):
            while not json.loads(page.recv(timeout=30))["sessions"]:
                pass
        while json.loads(page.recv(timeout=30))["sessions"]:
            pass


def test_a_page_that_reads_nothing_holds_up_nobody() -> None:
    with running(live=LIVE) as server, connect(f"{server.address}/live", max_queue=1), acting(server):
        assert until(lambda: len(server.served.policy.calls) > 60)  # type: ignore[attr-defined]


def test_the_page_holds_no_address_and_may_load_none() -> None:
    page = PAGE.read_text()
    assert not re.search(r"(https?:)?//[a-z]|\bsrc=|\bhref=|@import|url\(", re.sub(r'"(ws|wss)://"', "", page))
    assert "default-src 'none'" in PAGE_MAY
    assert "innerHTML" not in page


class TestInABrowser:
    def test_the_page_shows_cameras_future_chunk_and_latency(self) -> None:
        chromium()
        with running(Dreaming(), live=LIVE) as server, acting(server), Page(f"http://127.0.0.1:{server.port}/") as page:
            page.until("document.querySelectorAll('.cameras img').length == 2")
            page.until("document.querySelectorAll('.frames img').length == 4")
            page.until("[...document.images].every((i) => i.complete && i.naturalWidth == 8)")
            assert page.evaluate("document.querySelector('.sentence').textContent") == SENTENCE
            assert page.evaluate("document.title") == "wam · live"
            assert page.evaluate("document.querySelector('.names').textContent") == "xy"
            assert "p50" in page.evaluate("document.querySelector('.times').textContent")
            for plot in ("chunk", "delays"):
                drawn = f"document.querySelector('.{plot}')"
                pixels = f"{drawn}.getContext('2d').getImageData(0, 0, {drawn}.width, {drawn}.height).data"
                assert page.evaluate(f"{pixels}.some((value) => value > 0)")
            assert page.evaluate("document.getElementById('state').textContent") == "live"
            loaded = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name).join(' ')")
            assert re.sub(r"data:\S+", "", loaded).split() == []

    def test_the_page_opens_with_the_token_as_password(self, tmp_path: Path) -> None:
        chromium()
        token = "0123456789abcdef0123456789abcdef"
        (tmp_path / "token").write_text(token)
        with running(live=LIVE, token_file=tmp_path / "token") as server:
            assert get(server, "/")[0] == 401
            with Page(f"http://me:{token}@127.0.0.1:{server.port}/") as page:
                page.until("document.getElementById('state')?.textContent == 'live'")
                assert page.until("document.getElementById('model').textContent == 'fake'")
