"""Long answers that wait to be read."""

import asyncio
from http import HTTPStatus

import pytest
from aiohttp import ClientSession

from fluffle.broker.protocols.http import server
from fluffle.broker.protocols.http.response_budget import SHORT_BYTES, ResponseBudget
from fluffle.broker.protocols.http.responses import Refusal, Reply
from fluffle.broker.runtime.turn import raise_it
from tests.support.management import GUEST, Api, authorization

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG_BYTES = 32 << 20
"""More than two sockets take."""


async def test_long_ones_have_so_many_bytes_together() -> None:
    answers, long = ResponseBudget(4 * SHORT_BYTES), 3 * SHORT_BYTES
    with answers.holding(10 * SHORT_BYTES):  # which is longer than all, and alone
        with answers.holding(SHORT_BYTES):
            pass
        with pytest.raises(Refusal) as refused, answers.holding(long):
            pass
    assert refused.value.reply.status == 503
    with answers.holding(long), pytest.raises(Refusal), answers.holding(long):
        pass
    with answers.holding(long):
        pass


async def test_who_does_not_read_leaves_others_short_answers(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def long(_answer: object, _call: object, path: str) -> Reply:
        return Reply(HTTPStatus.OK, b" " * (1 if path == "/api/whoami" else LONG_BYTES))

    monkeypatch.setattr(server, "reply_of", long)
    served = server.make_endpoint(api.node.parts, api.node._services, raise_it)
    host, port = await served.listen("127.0.0.1", 0)
    served._answers = ResponseBudget(LONG_BYTES)
    head = f"GET /api/queues HTTP/1.1\r\nHost: a\r\nAuthorization: {said()}\r\n\r\n"
    reader, writer = await asyncio.open_connection(host, port, limit=1024)
    writer.write(head.encode())
    await reader.readuntil(b"\r\n\r\n")  # and no more
    async with ClientSession(f"http://{host}:{port}", headers=authorization(GUEST)) as session:

        async def status_of(path: str) -> int:
            async with session.get(path) as response:
                await response.read()
                return response.status

        assert await status_of("/api/queues") == 503
        assert await status_of("/api/whoami") == 200
        await reader.readexactly(LONG_BYTES)
        assert await status_of("/api/queues") == 200
    writer.close()
    await writer.wait_closed()
    served.stop()


def said() -> str:
    return authorization(GUEST)["authorization"]
