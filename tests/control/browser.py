"""A headless Chromium, told what to do by its own protocol (Chrome DevTools) over the websocket that it opens."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from typing import Any

import pytest
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")


def chromium() -> str:
    """Its program; skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine ({', '.join(NAMES)})")
    return found


class Page:
    """`with Page(address) as page: page.until("document.title == 'x'")`."""

    def __init__(self, address: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={self._folder.name}", "about:blank"]
        self._process = subprocess.Popen(
            [chromium(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self._numbers = itertools.count(1)
        try:
            self._socket = connect(self._target(), compression=None, max_size=None)
            self.call("Page.enable")
            self.call("Page.navigate", url=address)
        except BaseException:
            self.__exit__()
            raise

    def _target(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"DevTools listening on ws://([^/]+)/", line):
                with urllib.request.urlopen(f"http://{found[1]}/json") as listed:
                    return next(t["webSocketDebuggerUrl"] for t in json.load(listed) if t["type"] == "page")
        raise AssertionError("Chromium ended before it opened its protocol")

    def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.recv(timeout=120))
            if told.get("id") == number:
                assert "error" not in told, told["error"]
                return told["result"]

    def evaluate(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, *, seconds: float = 120.0) -> Any:
        """Wait until an expression holds; returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"{expression} does not hold: {self.evaluate('document.body.innerText')}"
            time.sleep(0.1)
        return value

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # what is started may be a script, and the browser its child
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._folder.cleanup()
