"""A web server for one thing: GET and HEAD of a few pages, made when they are asked for.

HTTP/1.1 (RFC 9112) with connections that are kept; a client that sends anything else, or nothing
for long, is hung up on, and so is one that does not wait for an answer before it asks again.  A
page costs the node time: it is made piece by piece, in turns of the event loop, for few clients,
and none for one that does not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias, cast

from fluffle.broker.base.clock import Timer
from fluffle.broker.runtime.background import BackgroundTasks, Task

HEAD_BYTES_MAX = 8_192
CONNECTIONS_MAX = 32
"""Scrapers are few.  Beyond these the connection that was idle for longest makes room: a client
that probes the health of a node must not be kept out by others."""
IDLE_S_MAX = 75.0
"""Longer than scrapes are apart, so that a scraper keeps its connection."""
END_OF_HEAD = b"\r\n\r\n"
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """An answer: status, content type, body in pieces."""

    content_type: str
    pieces: Iterator[bytes]
    """The body; each piece is made when it is asked for, and takes a moment."""
    status: HTTPStatus = HTTPStatus.OK
    """Any that leaves the connection as it is."""


@dataclass(frozen=True, slots=True)
class Request:
    """The head of an HTTP request."""

    method: str
    path: str
    """The target without its query, as it was written."""
    query: str
    version: str
    headers: Mapping[str, str]
    """Headers by name in lower case."""

    @classmethod
    def parse(cls, head: str) -> Request:
        """Takes anything: what is missing is empty."""
        request_line, *lines = head.split("\r\n")
        method, _, rest = request_line.partition(" ")
        target, _, version = rest.rpartition(" ")
        fields = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        path, _, query = target.partition("?")
        return cls(method, path, query, version, headers)

    @property
    def accept(self) -> str:
        """Value of the Accept header, or ""."""
        return self.headers.get("accept", "")

    @property
    def is_sound(self) -> bool:
        """True if it is HTTP/1, and has no body, which nothing here would read."""
        return (
            self.version in ("HTTP/1.1", "HTTP/1.0")
            and "transfer-encoding" not in self.headers
            and self.headers.get("content-length", "0") == "0"
        )

    @property
    def keeps_connection(self) -> bool:
        wish = self.headers.get("connection", "").lower()
        return wish != "close" if self.version == "HTTP/1.1" else wish == "keep-alive"


Pages: TypeAlias = Mapping[str, Callable[[Request], MetricsPage]]
"""Pages by path."""


class HttpConnection(asyncio.Protocol):
    """A connection of an HTTP client; each request is answered after the one before."""

    def __init__(
        self,
        pages: Pages,
        open_connections: dict[HttpConnection, None],
        call_later: Callable[[float, Callable[[], None]], Timer],
        background_tasks: BackgroundTasks,
    ) -> None:
        """Serve one client, listed in `open_connections` while its socket is open, latest request
        last."""
        self._pages = pages
        self._open_connections = open_connections
        self._call_later = call_later
        self._background_tasks = background_tasks
        self._data = b""
        self._is_answering = False
        """True if a page is being made."""
        self._is_full = False
        """True if the client does not read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = self._call_later(IDLE_S_MAX, self.drop)
        if len(self._open_connections) >= CONNECTIONS_MAX:
            next(iter(self._open_connections)).drop()
        self._open_connections[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._open_connections.pop(self, None)

    def drop(self) -> None:
        """Hang up."""
        self._open_connections.pop(self, None)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer a request once it is complete; what is behind it cannot be meant for us."""
        if self._transport.is_closing():
            return
        head, end, rest = (self._data + data).partition(END_OF_HEAD)
        if len(head) > HEAD_BYTES_MAX:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, with_body=True)
            return
        if not end:
            self._data = head
            return
        self._data = b""
        self._timer.cancel()
        self._timer = self._call_later(IDLE_S_MAX, self.drop)
        if self in self._open_connections:
            del self._open_connections[self]
            self._open_connections[self] = None
        self._answer(Request.parse(head.decode("latin-1")), is_last=bool(rest))

    def pause_writing(self) -> None:
        """Stop reading a client that does not read."""
        self._is_full = True
        self._listen()

    def resume_writing(self) -> None:
        self._is_full = False
        self._listen()

    def _listen(self) -> None:
        """Read, or do not for now."""
        if self._is_answering or self._is_full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _answer(self, request: Request, *, is_last: bool) -> None:
        with_body = request.method != "HEAD"
        if not request.is_sound:
            self._refuse(HTTPStatus.BAD_REQUEST, with_body=with_body)
        elif request.method not in ("GET", "HEAD"):
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, with_body=with_body)
        elif request.path not in self._pages:
            self._refuse(HTTPStatus.NOT_FOUND, with_body=with_body)
        else:
            page = self._pages[request.path](request)
            is_last |= not request.keeps_connection
            self._is_answering = True
            self._listen()
            self._background_tasks.add(
                self._make(page, with_body=with_body, is_last=is_last), lambda _error: self.drop()
            )

    def _make(self, page: MetricsPage, *, with_body: bool, is_last: bool) -> Task:
        """Make a page and send it, unless the client is gone."""
        body = []
        for piece in page.pieces:
            body.append(piece)
            yield None
            if self._transport.is_closing():
                return
        self._is_answering = False
        self._write(page.status, page.content_type, body, with_body=with_body, stays=not is_last)
        if is_last:
            self._transport.close()
        else:
            self._listen()

    def _refuse(self, status: HTTPStatus, *, with_body: bool) -> None:
        """Say what is wrong, and hang up."""
        body = [f"{status.phrase}\n".encode()]
        self._write(status, PLAIN, body, with_body=with_body, stays=False)
        self._transport.close()

    def _write(
        self,
        status: HTTPStatus,
        content_type: str,
        body: list[bytes],
        *,
        with_body: bool,
        stays: bool,
    ) -> None:
        lines = [
            f"HTTP/1.1 {status} {status.phrase}",
            f"Content-Type: {content_type}",
            f"Content-Length: {sum(map(len, body))}",
        ]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET, HEAD")
        if status is not HTTPStatus.OK and not stays:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode("latin-1") + END_OF_HEAD
        self._transport.writelines([head, *body] if with_body else [head])
