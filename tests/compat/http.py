"""A broker's management API, asked as any client asks, and the shapes of what it answers."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

PATIENCE_S = 60.0
GUEST = "guest:guest"


class HttpAnswer(NamedTuple):
    """Answer to a request: its status and content."""

    status: int
    content: Any
    """JSON as a value; None for nothing."""
    location: str = ""


class Http:
    """Client of the management API of a node."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/api/"

    def ask(self, method: str, path: str, body: object = None, user: str = GUEST) -> HttpAnswer:
        """`body` as JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        login = base64.b64encode(user.encode()).decode()
        request = urllib.request.Request(
            self._base + path,
            data=data,
            method=method,
            headers={"authorization": f"Basic {login}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                content, location = response.read(), response.headers.get("location", "")
                return HttpAnswer(response.status, json.loads(content or b"null"), location)
        except urllib.error.HTTPError as error:
            with error:
                return HttpAnswer(error.code, json.loads(error.read() or b"null"))

    def get(self, path: str) -> Any:
        told = self.ask("GET", path)
        assert told.status == 200, (path, told)
        return told.content

    def wait_for(self, path: str, *columns: str) -> None:
        """Ask until there is such an object, with all that is measured of it: of that neither
        broker tells an event."""
        deadline = time.monotonic() + PATIENCE_S
        while missing := set(columns) - keys_of(self.ask("GET", path).content):
            assert time.monotonic() < deadline, f"{path} has no {missing}"


def keys_of(content: Any) -> set[str]:
    rows = content if isinstance(content, list) else [content]
    return {key for row in rows if isinstance(row, dict) for key in row}


def shape_of(content: Any, path: str = "") -> dict[str, set[str]]:
    """Types by path; elements of a list are all at `[]`."""
    found: dict[str, set[str]] = {}
    for at, kind in walk(content, path):
        found.setdefault(at, set()).add(kind)
    return found


def walk(content: Any, path: str) -> Iterator[tuple[str, str]]:
    yield path, kind_of(content)
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from walk(value, f"{path}.{key}")
    elif isinstance(content, list):
        for value in content:
            yield from walk(value, f"{path}[]")


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if value is None:
        return "null"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "object"


def segment(name: str) -> str:
    """A name in a path."""
    return quote(name, safe="")
