"""Who may ask: anyone on this machine, else whoever sends the token; and no web page of somebody else's."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from hmac import compare_digest
from pathlib import Path
from urllib.parse import urlsplit

from websockets.datastructures import Headers, MultipleValuesError

from wam.contracts import expected

SHORTEST_TOKEN = 16


def read_token(path: Path | None) -> str | None:
    """The token in a file, blanks around it removed; None without a file. Raises WamError if it can be guessed."""
    if path is None:
        return None
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise expected(f"a token in {path}", got=error, do="write one line of letters and digits there") from error
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise expected(
            f"a token of {SHORTEST_TOKEN} characters or more, no blanks, in {path}",
            got=f"{len(token)} characters",
            do="make one, say by `openssl rand -hex 32`",
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Access:
    """Decides on a request by its headers. Raises WamError if a host that others reach is to be served without a token."""

    def __init__(self, host: str, token: str | None) -> None:
        if token is None and not is_loopback(host):
            raise expected(
                "a token for an address that other machines reach",
                got=repr(host),
                do="give token_file=, or host=127.0.0.1",
            )
        self._token = None if token is None else token.encode()

    def refusal(self, headers: Headers) -> tuple[int, str] | None:
        """The status and the words that a request is turned away with, or None if it may come in.

        A browser says which page a request is of (`Origin`). A page of another host must not ride on its reader's access
        to this one; without a token, nor must one whose name was made to point here.
        """
        try:
            said, origin, host = (headers.get(name, "") for name in ("Authorization", "Origin", "Host"))
        except MultipleValuesError:
            return 400, "expected each header once"
        if self._token is not None and not self._knows_token(said):
            return 401, "expected the token, as Authorization: Api-Key TOKEN or Bearer TOKEN"
        if origin and (urlsplit(origin).netloc != host or (self._token is None and not is_loopback(_name(host)))):
            return 403, "expected a page of this server"
        return None

    def _knows_token(self, said: str) -> bool:
        """A browser asks its user for a name and a password, and sends them as Basic: the password is the token."""
        assert self._token is not None
        scheme, _, given = said.strip().partition(" ")
        given = given.strip()
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode("latin-1").partition(":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() not in ("api-key", "bearer"):
            return False
        return compare_digest(given.encode("latin-1", "replace"), self._token)


def _name(host: str) -> str:
    """A Host header without its port."""
    return urlsplit(f"//{host}").hostname or ""
