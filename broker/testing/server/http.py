"""A web server for one thing: JSON in, JSON out, by POST.

HTTP/1.1 (RFC 9112), one request of a connection after the other.  A client that sends anything
else gets an error and is hung up on, as is a slow one.  A path begins with a token: what may be
done here is not for every program on the machine, and not for pages in a browser.

It is not aiohttp, whose import alone takes half as long as the start of a broker, for one method,
one type of body and no headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from json import dumps
from secrets import compare_digest
from typing import NamedTuple, TypeAlias

from fluffle.broker.metrics.http import END_OF_HEAD, HEAD_BYTES_MAX, Request

HOST = "127.0.0.1"
BODY_BYTES_MAX = 1 << 24
CONNECTIONS_MAX = 256
"""A runner of tests may have some for each of its processes."""


class HttpTimeouts(NamedTuple):
    """How long a client is waited for."""

    idle_s: float = 120.0
    """Until its next request: longer than clients keep a connection that they do not use."""
    slow_s: float = 10.0
    """Until a request that has begun is whole, and until an answer is taken."""


PATIENCE = HttpTimeouts()


class HttpResponse(NamedTuple):
    """Response of the server: a status with a JSON body."""

    status: HTTPStatus
    body: bytes

    @classmethod
    def error(cls, status: HTTPStatus, why: str) -> HttpResponse:
        return cls(status, dumps({"error": why}).encode())


class BadRequest(Exception):
    """Request that this server does not take; the connection is not read any further."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.answer = HttpResponse.error(status, why)


Serve: TypeAlias = Callable[[str, bytes], Awaitable[HttpResponse]]
"""Answers a path, which is without the token and begins with no slash, and a body."""


class HttpServer:
    """Listens on loopback, on a free port."""

    def __init__(self, serve: Serve, token: str, patience: HttpTimeouts = PATIENCE) -> None:
        self._serve = serve
        self._token = token
        self._patience = patience
        self._open: set[asyncio.Task[None]] = set()
        """A task for each connection."""
        self._server: asyncio.Server

    async def start(self) -> str:
        """Start; return the URL, with the token.  OSError."""
        self._server = await asyncio.start_server(self._accept, HOST, 0, limit=HEAD_BYTES_MAX)
        _host, port = self._server.sockets[0].getsockname()
        return f"http://{HOST}:{port}/{self._token}"

    async def stop(self) -> None:
        """Accept no more, hang up, and give up what is being done."""
        self._server.close()
        for conversation in self._open:
            conversation.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        conversation = asyncio.create_task(self._converse(reader, writer))
        self._open.add(conversation)
        conversation.add_done_callback(self._open.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve requests until the client goes, or must."""
        try:
            is_last = False
            while not is_last:
                is_last = await self._exchange(reader, writer)
            writer.close()
        except (ConnectionError, EOFError, TimeoutError):
            pass  # it has gone, or is too slow
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; True if it was the last.  ConnectionError, EOFError, TimeoutError."""
        try:
            request, path, body = await self._read(reader)
            answer = await self._serve(path, body)
            is_last = not request.keeps_connection
        except BadRequest as refused:
            answer, is_last = refused.answer, True
        writer.write(head_of(answer, is_last=is_last) + answer.body)
        async with asyncio.timeout(self._patience.slow_s):
            await writer.drain()
        return is_last

    async def _read(self, reader: asyncio.StreamReader) -> tuple[Request, str, bytes]:
        """Read the next request, with path and body, which is read only of who may send one.

        Refused, EOFError, TimeoutError.
        """
        async with asyncio.timeout(self._patience.idle_s):
            head = await reader.readexactly(1)
        async with asyncio.timeout(self._patience.slow_s):
            try:
                head += await reader.readuntil(END_OF_HEAD)
            except asyncio.LimitOverrunError:
                raise BadRequest(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"the head of a request has {HEAD_BYTES_MAX} bytes at most",
                ) from None
            request = Request.parse(head.removesuffix(END_OF_HEAD).decode("latin-1"))
            size, path = body_bytes_of(request), self._path_in(request)
            return request, path, await reader.readexactly(size)

    def _path_in(self, request: Request) -> str:
        """Refused without the token, and for clients that are no programs."""
        token, _, path = request.path.removeprefix("/").partition("/")
        if not compare_digest(token.encode("latin-1"), self._token.encode()):
            raise BadRequest(
                HTTPStatus.FORBIDDEN,
                "paths begin with the token that is in the URL of this server",
            )
        if "origin" in request.headers:
            raise BadRequest(HTTPStatus.FORBIDDEN, "this is not for pages of a browser")
        if request.method != "POST":
            raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED, "everything here is a POST")
        return path


def body_bytes_of(request: Request) -> int:
    """Refused for what has no length, or too much of it."""
    if request.version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "this is no HTTP/1.1")
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers:
        raise BadRequest(
            HTTPStatus.LENGTH_REQUIRED, "send a body with its Content-Length, not chunks"
        )
    if not (length.isascii() and length.isdecimal()):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "this is no Content-Length")
    if len(length) > len(str(BODY_BYTES_MAX)) or int(length) > BODY_BYTES_MAX:
        raise BadRequest(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has {BODY_BYTES_MAX} bytes at most"
        )
    return int(length)


def head_of(answer: HttpResponse, *, is_last: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {answer.status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(answer.body)}",
    ]
    if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: POST")
    if is_last:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + END_OF_HEAD
