"""RequestBodies of requests, from contents that come as the test wants them."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web

from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Endpoint
from fluffle.broker.protocols.http.responses import Refusal
from fluffle.broker.protocols.http.rights import Right
from fluffle.broker.protocols.http.server import RequestBodies


async def nothing(_call: Call) -> None:
    """Is not called."""


ENDPOINT = Endpoint("POST", "p", Right.ANYBODY, nothing, "", body={}, body_bytes_max=10)


class Content:
    """Pieces, one after the other."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = [*pieces]

    async def readany(self) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece


def request(*pieces: bytes | Exception, transport: object = "open") -> web.BaseRequest:
    made = SimpleNamespace(content=Content(*pieces), transport=transport)
    return cast(web.BaseRequest, made)


def status_of(bodies: RequestBodies, asked: web.BaseRequest) -> int:
    """Status of the refusal."""

    async def ask() -> None:
        async with bodies.of(asked, ENDPOINT):
            pass

    with pytest.raises(Refusal) as refused:
        asyncio.run(ask())
    return refused.value.reply.status


async def body_in(bodies: RequestBodies, *pieces: bytes) -> bytes:
    async with bodies.of(request(*pieces), ENDPOINT) as body:
        return body


def test_what_cannot_be_read_is_refused() -> None:
    bodies = RequestBodies()
    assert status_of(bodies, request(b"12345", b"678901")) == 413
    assert status_of(bodies, request(b"1", web.RequestPayloadError("cannot decode"))) == 400
    assert status_of(bodies, request(b"1", TimeoutError())) == 408
    with pytest.raises(ConnectionError):
        status_of(bodies, request(transport=None))


def test_all_bodies_together_have_so_many_bytes() -> None:
    async def main() -> None:
        bodies = RequestBodies(15)
        async with bodies.of(request(b"1234", b"56789"), ENDPOINT) as body:
            assert body == b"123456789"
            assert await body_in(bodies, b"123456") == b"123456"
            with pytest.raises(Refusal) as refused:
                await body_in(bodies, b"1234567")
            assert refused.value.reply.status == 503
            assert await body_in(bodies, b"123456") == b"123456"
        assert await body_in(bodies, b"1234567890") == b"1234567890"

    asyncio.run(main())
