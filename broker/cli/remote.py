"""A node that is elsewhere: verbs over its management API, as a user who is an administrator.

The password is in no message, and stands in the URL only if it was written there.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import click

from fluffle.broker.cli.client import ANSWER_WAIT_S_MAX, NodeUnreachable, RequestRefused
from fluffle.broker.cli.output import Row, shown

PASSWORD_VARIABLE = "FLUFFLE_PASSWORD_FILE"
PATH = "/api/fluffle/verbs/"
PORT = 15672
UNAUTHORIZED = 401


class UserCredentials(NamedTuple):
    """Name and password of the user that sends the requests."""

    user: str
    password: str

    @property
    def header(self) -> str:
        """Header of HTTP for basic authentication (RFC 7617)."""
        octets = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(octets).decode()}"


class RemoteClient:
    """The node that serves the management API at a URL."""

    def __init__(self, url: str) -> None:
        """UsageError for what is no such URL; the password may be asked for."""
        parts = parsed(url)
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or PORT
        self._prefix = parts.path.rstrip("/")
        user = unquote(parts.username or "guest")
        self._login = UserCredentials(user, password_of(parts, user, self._host))

    @property
    def data_dir(self) -> Path:
        raise RequestRefused(f"the data of the node at {self._host} are not on this machine")

    @property
    def pid(self) -> int:
        raise RequestRefused(f"the node at {self._host} is not on this machine")

    def call(self, verb: str, **arguments: object) -> Row:
        """Call a verb as `Client.call` does."""
        result: Row = self._request(verb, arguments)["result"]
        return result

    def rows(self, verb: str, **arguments: object) -> Iterator[Row]:
        """Return rows as `Client.rows` does; they come all at once."""
        yield from self._request(verb, arguments)["rows"]

    def _request(self, verb: str, arguments: Row) -> Row:
        given = {name: value for name, value in arguments.items() if value is not None}
        status, body = self._post(verb, json.dumps(given).encode())
        if status == UNAUTHORIZED:
            raise RequestRefused(f"{self._host} does not let user '{shown(self._login.user)}' in")
        try:
            answer: Any = json.loads(body)
        except ValueError as error:
            raise self._not_a_node(status) from error
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise RequestRefused(shown(answer["error"]["text"]), answer["error"]["code"])
        if status != http.client.OK or not isinstance(answer, dict):
            reason = answer.get("reason") if isinstance(answer, dict) else None
            if reason is None:
                raise self._not_a_node(status)
            raise RequestRefused(shown(str(reason)), status)
        row: Row = answer
        return row

    def _post(self, verb: str, body: bytes) -> tuple[int, bytes]:
        kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=ANSWER_WAIT_S_MAX)
        headers = {"Authorization": self._login.header, "Content-Type": "application/json"}
        try:
            connection.request("POST", f"{self._prefix}{PATH}{verb}", body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError as error:
            raise NodeUnreachable(f"{self._host}:{self._port} does not answer") from error
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise NodeUnreachable(f"cannot reach {self._host}:{self._port} ({why})") from error
        finally:
            connection.close()

    def _not_a_node(self, status: int) -> NodeUnreachable:
        return NodeUnreachable(
            f"{self._host}:{self._port} is no management API of fluffle (it answers with {status})"
        )


def parsed(url: str) -> SplitResult:
    """Parse a URL.  UsageError."""
    wrong = click.UsageError("write the URL as http://USER@HOST:15672, or https://…")
    try:
        parts = urlsplit(url)
        is_known = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_known = is_known and parts.port != 0
    except ValueError as error:  # a port that is no number, a bracket that is not closed
        raise wrong from error
    if not is_known:
        raise wrong
    return parts


def password_of(parts: SplitResult, user: str, host: str) -> str:
    """Read the password from a file that a variable names, the URL or the terminal.  UsageError."""
    file = os.environ.get(PASSWORD_VARIABLE)
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise click.UsageError(f"cannot read {file}: {error.strerror}") from error
    if parts.password is not None:
        return unquote(parts.password)
    if user == "guest":
        return "guest"
    if not sys.stdin.isatty():
        raise click.UsageError(f"name a file with the password in {PASSWORD_VARIABLE}")
    return str(click.prompt(f"Password of {user} at {host}", hide_input=True, err=True))
