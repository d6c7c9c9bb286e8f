"""Bodies of requests: read in time, bounded in size, and not too many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from aiohttp import web

from fluffle.broker.protocols.http.endpoint_table import LONG_BODY_BYTES_MAX, Endpoint
from fluffle.broker.protocols.http.responses import Refusal, Reply, error_reply

BODY_TIMEOUT_S = 60.0
"""Until a request that has begun is whole."""
BODIES_BYTES_MAX = 4 * LONG_BODY_BYTES_MAX
"""Of all requests together: what is read of a body takes several times its size."""


class RequestBodies:
    """Bodies of all requests that are being answered."""

    __slots__ = ("_left_bytes",)

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self._left_bytes = bytes_max

    @asynccontextmanager
    async def of(self, request: web.BaseRequest, endpoint: Endpoint) -> AsyncIterator[bytes]:
        """That of a request, in memory as long as the block lasts; empty where none is read.

        Refusal for what is too long, comes too slowly, or is encoded wrongly; ConnectionError.
        """
        body = bytearray()
        try:
            if endpoint.body is not None:
                await self._read(request, endpoint.body_bytes_max, body)
            yield bytes(body)
        finally:
            self._left_bytes += len(body)

    async def _read(self, request: web.BaseRequest, bytes_max: int, body: bytearray) -> None:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                await self._take(request, bytes_max, body)
        except web.RequestPayloadError:
            raise Refusal(
                close_after(HTTPStatus.BAD_REQUEST, "the body cannot be decoded")
            ) from None
        except TimeoutError:
            raise Refusal(
                close_after(HTTPStatus.REQUEST_TIMEOUT, "the body has not come")
            ) from None

    async def _take(self, request: web.BaseRequest, bytes_max: int, body: bytearray) -> None:
        """Piece by piece."""
        if request.transport is None:
            raise ConnectionResetError
        while piece := await request.content.readany():
            body += piece
            self._left_bytes -= len(piece)
            if len(body) > bytes_max:
                reason = f"a body may have {bytes_max} bytes"
                raise Refusal(close_after(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason))
            if self._left_bytes < 0:
                reason = "too much is being sent by others"
                raise Refusal(close_after(HTTPStatus.SERVICE_UNAVAILABLE, reason))


def close_after(status: HTTPStatus, reason: str) -> Reply:
    """An answer after which nothing more is read."""
    return error_reply(status, "bad_request", reason, connection="close")
