"""Before a websocket opens: who is let in, and the plain pages: /, /healthz and /metrics."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from websockets.datastructures import Headers
from websockets.http11 import Response

from wam.contracts import expected
from wam.control.server.access import Access, read_token
from wam.control.server.config import ServeConfig
from wam.control.server.metrics import TEXT, Metrics

STOPS = "the server stops"
PAGE = Path(__file__).with_name("live.html")
REASONS = {400: "headers", 401: "token", 403: "origin", 404: "path", 503: "full"}
PAGE_MAY = (  # Content-Security-Policy: scripts and styles of the page itself, pictures in its own data, its own server
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, kw_only=True)
class State:
    """How a server is: sessions and live pages open, how long the policy's present call has been running."""

    sessions: int = 0
    viewers: int = 0
    busy_s: float = 0.0
    draining: bool = False


class Door:
    """Answers plain requests and turns away who may not come in."""

    def __init__(self, config: ServeConfig, metrics: Metrics, state: Callable[[], State]) -> None:
        self.config, self.metrics, self.state = config, metrics, state
        self.access = Access(config.host, read_token(config.token_file))

    def answer(self, path: str, headers: Headers) -> Response | None:
        """The response to a request, or None if its websocket may open."""
        path = path.partition("?")[0]
        if path == "/healthz":
            return self._health()
        opens = "websocket" in headers.get("Upgrade", "").lower()
        refused = self.access.refusal(headers) or self._no_room(path, opens)
        if refused is not None:
            status, words = refused
            self.metrics.turned_away.labels(REASONS[status]).inc()
            extra = {"WWW-Authenticate": 'Basic realm="wam", charset="UTF-8"'} if status == 401 else {}
            return response(status, f"{words}\n".encode(), **extra)
        if opens:
            return None
        if path == "/metrics":
            return response(200, self.metrics.text(), **{"Content-Type": TEXT})
        page = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": PAGE_MAY}
        return response(200, PAGE.read_bytes(), **page)

    def _health(self) -> Response:
        state = self.state()
        if state.draining:
            return response(503, b"draining\n")
        if state.busy_s > self.config.stuck_s:
            return response(503, b"stuck\n")
        return response(200, b"OK\n")

    def _no_room(self, path: str, opens: bool) -> tuple[int, str] | None:
        c, state = self.config, self.state()
        pages = {"/", "/metrics"} if c.live.enabled else {"/metrics"}
        sockets = {"/", "/live"} if c.live.enabled else {"/"}
        if path not in (sockets if opens else pages):
            return 404, f"expected one of {', '.join(sorted({*pages, '/healthz'}))}"
        if state.draining:
            return 503, STOPS
        if opens and path == "/" and state.sessions >= c.sessions:
            return 503, f"expected at most {c.sessions} sessions; try again when one has ended"
        if opens and path == "/live" and state.viewers >= c.live.viewers:
            return 503, f"expected at most {c.live.viewers} live pages"
        return None


def response(status: int, body: bytes, **headers: str) -> Response:
    told: dict[str, str] = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
        **headers,
    }
    return Response(status, HTTPStatus(status).phrase, Headers(told), body)


def tls_context(config: ServeConfig) -> ssl.SSLContext | None:
    """Of the config's certificate, if it names one. Raises WamError if the files are no pair."""
    if config.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as error:
        raise expected(
            f"a certificate and its key in {config.certificate} and {config.key}",
            got=error,
            do="give PEM files of one pair",
        ) from error
    return context
