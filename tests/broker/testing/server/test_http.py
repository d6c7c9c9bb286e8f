"""The web server of the control API: what it takes, and whom it hangs up on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from urllib.parse import urlsplit

import pytest

from fluffle.broker.testing.server.http import (
    BODY_BYTES_MAX,
    CONNECTIONS_MAX,
    PATIENCE,
    HttpResponse,
    HttpServer,
    HttpTimeouts,
)

TOKEN = "secret"
ECHO = f"POST /{TOKEN}/echo HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}".encode()
ECHOED = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n"echo:2"'


async def echo(path: str, body: bytes) -> HttpResponse:
    """Or never an answer."""
    if path == "never":
        await asyncio.Event().wait()
    return HttpResponse(HTTPStatus.OK, f'"{path}:{len(body)}"'.encode())


@asynccontextmanager
async def serving(patience: HttpTimeouts = PATIENCE) -> AsyncIterator[int]:
    """The port of a server."""
    server = HttpServer(echo, TOKEN, patience)
    url = await server.start()
    port = urlsplit(url).port
    assert (url, port is not None) == (f"http://127.0.0.1:{port}/{TOKEN}", True)
    assert port is not None
    try:
        yield port
    finally:
        await server.stop()


async def said(port: int, request: bytes) -> bytes:
    """All that is answered until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def is_hung_up_on(reader: asyncio.StreamReader) -> bool:
    """Once the other side has ended the connection."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def test_one_request_after_the_other_on_a_connection() -> None:
    async with serving() as port:
        last = ECHO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        answers = await said(port, ECHO + ECHO + last)
    closed = ECHOED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert answers == ECHOED + ECHOED + closed


async def test_a_request_in_pieces_is_one() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.set_write_buffer_limits(0)
        for byte in ECHO:
            writer.write(bytes([byte]))
            await writer.drain()
        assert await reader.readexactly(len(ECHOED)) == ECHOED
        writer.close()


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        ("POST /wrong/echo HTTP/1.1", 403),
        ("POST /echo HTTP/1.1", 403),
        ("POST / HTTP/1.1", 403),
        ("POST /secret/echo HTTP/1.1\r\nOrigin: http://localhost", 403),
        ("GET /secret/echo HTTP/1.1", 405),
        ("OPTIONS /secret/echo HTTP/1.1", 405),
        ("POST /secret/echo HTTP/2", 400),
        ("nonsense", 400),
        ("POST /secret/echo HTTP/1.1\r\nContent-Length: -1", 400),
        ("POST /secret/echo HTTP/1.1\r\nContent-Length: ²", 400),
        (f"POST /secret/echo HTTP/1.1\r\nContent-Length: {BODY_BYTES_MAX + 1}", 413),
        ("POST /secret/echo HTTP/1.1\r\nContent-Length: " + "9" * 5000, 413),
        ("POST /secret/echo HTTP/1.1\r\nTransfer-Encoding: chunked", 411),
        ("POST /secret/echo HTTP/1.1\r\nX: " + "x" * 10_000, 431),
    ],
)
async def test_what_is_no_request_is_reported_so_and_hung_up_on(
    request_head: str, status: int
) -> None:
    async with serving() as port:
        answer = await said(port, request_head.encode("latin-1") + b"\r\n\r\n" + ECHO)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"\r\n\r\n") == 1
    assert b'{"error": "' in answer
    assert b'"echo:' not in answer


@pytest.mark.parametrize("path", ["/wrong/echo", f"/{TOKEN}/echo"])
async def test_who_may_not_send_a_body_is_notified_before_it(path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nOrigin: http://localhost\r\nContent-Length: 9\r\n\r\n"
    async with asyncio.timeout(PATIENCE.slow_s / 2), serving() as port:
        answer = await said(port, head.encode())
    assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("begun", [b"", b"P", ECHO[:-1]])
async def test_who_is_slow_is_hung_up_on(begun: bytes) -> None:
    async with serving(HttpTimeouts(idle_s=0.01, slow_s=0.01)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        assert await is_hung_up_on(reader)
        writer.close()


async def test_who_does_not_take_an_answer_is_hung_up_on() -> None:
    async with serving(HttpTimeouts(slow_s=0.01)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        while not writer.is_closing():
            writer.write(ECHO * 1_000)
            with suppress(ConnectionError):
                await writer.drain()
        assert await is_hung_up_on(reader)


async def test_what_is_being_done_ends_with_the_server() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ECHO + ECHO.replace(b"/echo", b"/never"))
        await reader.readexactly(len(ECHOED))
    assert await is_hung_up_on(reader)
    writer.close()


async def test_there_are_only_so_many_connections() -> None:
    async with serving() as port:
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)]
        for reader, writer in clients:
            writer.write(ECHO)
            await reader.readexactly(len(ECHOED))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await is_hung_up_on(reader)
        for _, each in [*clients, (reader, writer)]:
            each.close()
