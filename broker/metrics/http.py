"""A web server for one thing: GET and HEAD of a few pages, made when they are asked for.

HTTP/1.1 (RFC 9112) with connections that are kept; who sends anything else, or nothing for long, is
hung up on.  Nothing that comes in is kept beyond a request's head.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, TypeAlias, cast

HEAD_BYTES_MAX = 8_192
IDLE_S_MAX = 75.0
"""Longer than scrapes are apart, so that a scraper keeps its connection."""
END_OF_HEAD = b"\r\n\r\n"
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered with 200."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head."""

    method: str
    path: str
    """The target without its query, as it was written."""
    version: str
    headers: Mapping[str, str]
    """By name in lower case."""

    @classmethod
    def parse(cls, head: str) -> Request:
        """Takes anything: what is missing is empty."""
        request_line, *lines = head.split("\r\n")
        method, _, rest = request_line.partition(" ")
        target, _, version = rest.rpartition(" ")
        fields = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        return cls(method, target.partition("?")[0], version, headers)

    @property
    def is_sound(self) -> bool:
        """Whether it is HTTP/1, and has no body, which nothing here would read."""
        return (
            self.version in ("HTTP/1.1", "HTTP/1.0")
            and "transfer-encoding" not in self.headers
            and self.headers.get("content-length", "0") == "0"
        )

    @property
    def keeps_connection(self) -> bool:
        wish = self.headers.get("connection", "").lower()
        return wish != "close" if self.version == "HTTP/1.1" else wish == "keep-alive"


Pages: TypeAlias = Mapping[str, Callable[[str], Page]]
"""By path; each is called with the Accept header of the request."""


class Timer(Protocol):
    def cancel(self) -> None: ...


class HttpConnection(asyncio.Protocol):
    """One connection: request after request, each answered before the next is looked at."""

    def __init__(
        self,
        pages: Pages,
        open_connections: set[HttpConnection],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        """It is in `open_connections` while its socket is open."""
        self._pages = pages
        self._open_connections = open_connections
        self._call_later = call_later
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = self._call_later(IDLE_S_MAX, self.drop)
        self._open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._open_connections.discard(self)

    def drop(self) -> None:
        """Hang up."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._data += data
        while END_OF_HEAD in self._data and not self._transport.is_closing():
            head, _, self._data = self._data.partition(END_OF_HEAD)
            self._timer.cancel()
            self._timer = self._call_later(IDLE_S_MAX, self.drop)
            self._answer(Request.parse(head.decode("latin-1")))
        if len(self._data) > HEAD_BYTES_MAX and not self._transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, with_body=True)

    def _answer(self, request: Request) -> None:
        with_body = request.method != "HEAD"
        if not request.is_sound:
            self._refuse(HTTPStatus.BAD_REQUEST, with_body=with_body)
        elif request.method not in ("GET", "HEAD"):
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, with_body=with_body)
        elif request.path not in self._pages:
            self._refuse(HTTPStatus.NOT_FOUND, with_body=with_body)
        else:
            page = self._pages[request.path](request.headers.get("accept", ""))
            self._write(HTTPStatus.OK, page, with_body=with_body)
            if not request.keeps_connection:
                self._transport.close()

    def _refuse(self, status: HTTPStatus, *, with_body: bool) -> None:
        """Say what is wrong, and hang up."""
        self._write(status, Page(PLAIN, f"{status.phrase}\n".encode()), with_body=with_body)
        self._transport.close()

    def _write(self, status: HTTPStatus, page: Page, *, with_body: bool) -> None:
        lines = [
            f"HTTP/1.1 {status} {status.phrase}",
            f"Content-Type: {page.content_type}",
            f"Content-Length: {len(page.body)}",
        ]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET, HEAD")
        if status is not HTTPStatus.OK:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode("latin-1") + END_OF_HEAD
        self._transport.write(head + page.body if with_body else head)
