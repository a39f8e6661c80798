"""Who is let in: anyone on this machine, else whoever has the token, and nobody else's web page."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")

from websockets.datastructures import Headers

from wam.contracts import WamError
from wam.control.server.access import Access, is_loopback, read_token
from wam.control.server.config import LiveConfig, ServeConfig
from wam.control.server.door import Door, State
from wam.control.server.metrics import Metrics

TOKEN = "0123456789abcdef0123456789abcdef"
OPENS = {"Upgrade": "websocket", "Host": "robot:8000"}


def door(state: State | None = None, **settings: object) -> Door:
    return Door(ServeConfig(**settings), Metrics(), lambda: state or State())  # type: ignore[arg-type]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "", "robot", "128.0.0.1"])
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(WamError, match="a token for an address"):
        Access(host, None)
    Access(host, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.8.9.10"])
def test_loopback_needs_none(host: str) -> None:
    assert is_loopback(host)
    assert Access(host, None).refusal(Headers()) is None


@pytest.mark.parametrize("said", [f"Api-Key {TOKEN}", f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic(TOKEN)])
@pytest.mark.parametrize("path", ["/", "/live"])
def test_whoever_has_the_token_may_come_in(said: str, path: str, token_file: Path) -> None:
    assert door(host="0.0.0.0", token_file=token_file).answer(path, Headers({**OPENS, "Authorization": said})) is None


@pytest.mark.parametrize(
    "said",
    ["", TOKEN, "Api-Key", "Api-Key ", f"Api-Key {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Digest {TOKEN}", basic("guess"),
     "Basic !!!", "Basic", "Bearer \xe9\xe9"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/live", "/metrics", "/nowhere"])
@pytest.mark.parametrize("opens", [True, False])
def test_whoever_has_not_is_turned_away_from_every_path(said: str, path: str, opens: bool, token_file: Path) -> None:
    headers = Headers({**(OPENS if opens else {}), **({"Authorization": said} if said else {})})
    response = door(host="0.0.0.0", token_file=token_file).answer(path, headers)
    assert response is not None
    assert response.status_code == 401
    assert TOKEN.encode() not in bytes(response.body)


def test_a_header_said_twice_is_refused(token_file: Path) -> None:
    twice = Headers([*OPENS.items(), ("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")])
    response = door(host="0.0.0.0", token_file=token_file).answer("/", twice)
    assert response is not None
    assert response.status_code == 400


def test_health_is_told_without_a_token(token_file: Path) -> None:
    response = door(host="0.0.0.0", token_file=token_file).answer("/healthz", Headers())
    assert response is not None
    assert (response.status_code, response.body) == (200, b"OK\n")


def test_health_says_when_the_server_stops_or_the_policy_hangs() -> None:
    for state in (State(draining=True), State(busy_s=61.0)):
        response = door(state).answer("/healthz", Headers())
        assert response is not None
        assert response.status_code == 503


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://localhost:8000", "localhost:8000", None),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", None),
        ("http://[::1]:8000", "[::1]:8000", None),
        ("https://elsewhere.example", "127.0.0.1:8000", 403),
        ("http://127.0.0.1:9000", "127.0.0.1:8000", 403),
        ("null", "127.0.0.1:8000", 403),
        ("http://rebound.example:8000", "rebound.example:8000", 403),
    ],
)
def test_a_web_page_of_somebody_elses_may_not_ask_in_its_readers_name(
    origin: str, host: str, status: int | None
) -> None:
    response = door().answer("/", Headers({"Upgrade": "websocket", "Host": host, "Origin": origin}))
    assert (response and response.status_code) == status


def test_robots_do_not_say_where_they_come_from_and_may_use_any_name() -> None:
    """openpi's client connects to 0.0.0.0 by default."""
    assert door().answer("/", Headers({"Upgrade": "websocket", "Host": "0.0.0.0:8000"})) is None


def test_sessions_and_pages_are_limited() -> None:
    full = State(sessions=64, viewers=8)
    for path in ("/", "/live"):
        response = door(full).answer(path, Headers(OPENS))
        assert response is not None
        assert response.status_code == 503
        assert door(State(sessions=63, viewers=7)).answer(path, Headers(OPENS)) is None


@pytest.mark.parametrize("path", ["/nowhere", "/../etc/passwd", "//", "/live"])
def test_there_are_no_other_pages(path: str) -> None:
    response = door().answer(path, Headers())
    assert response is not None
    assert response.status_code == 404


def test_a_server_without_a_page_has_none() -> None:
    closed = door(live=LiveConfig(enabled=False))
    for path, headers in (("/", Headers()), ("/live", Headers(OPENS))):
        response = closed.answer(path, headers)
        assert response is not None
        assert response.status_code == 404
    assert closed.answer("/", Headers(OPENS)) is None


@pytest.mark.parametrize("content", ["", "short", "sixteen chars and blanks", "é" * 20])
def test_a_token_that_can_be_guessed_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(WamError, match="token"):
        read_token(path)


def test_a_token_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(WamError, match="no-token"):
        read_token(tmp_path / "no-token")
    assert read_token(None) is None
