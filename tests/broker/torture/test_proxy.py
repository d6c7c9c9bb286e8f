"""A link that is cut says nothing, not even that an end has closed; one that is reset says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import pytest

from fluffle.broker.torture.proxy import (
    CHUNK_BYTES,
    CHUNKS_UNDER_WAY_MAX,
    Mesh,
    Proxy,
    ProxyDirection,
    mesh,
)

Link: TypeAlias = tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def through_proxy() -> AsyncIterator[Link]:
    """A connection to somebody who says again what he hears."""
    is_over = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()
        is_over.set()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Proxy("127.0.0.1", port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        yield proxy, reader, writer
        writer.close()
    await is_over.wait()
    server.close()


async def nothing_comes(reader: asyncio.StreamReader) -> bool:
    """However often the loop turns."""
    reading = asyncio.ensure_future(reader.read(1))
    for _ in range(50):
        await asyncio.sleep(0)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        return not await reading
    return True


@pytest.mark.parametrize("direction", ["forth", "back"])
async def test_what_is_sent_while_it_is_cut_arrives_afterwards(direction: str) -> None:
    async with through_proxy() as (proxy, reader, writer):
        flow: ProxyDirection = getattr(proxy, direction)
        flow.cut()
        flow.cut()
        writer.write(b"later")
        flow.mend()
        assert await nothing_comes(reader)
        flow.mend()
        assert await reader.readexactly(5) == b"later"


async def test_what_is_slowed_is_late_and_not_slow() -> None:
    """Each piece is as late as the others, however many there are; the last one says the end."""
    loop = asyncio.get_running_loop()
    async with through_proxy() as (proxy, reader, writer):
        proxy.forth.delay_s = 0.2
        began_s = loop.time()
        size = 200 * CHUNK_BYTES
        writer.write(bytes(size))
        assert len(await reader.readexactly(size)) == size
        assert 0.2 <= loop.time() - began_s < 200 * 0.2
        writer.write(b"last")
        writer.write_eof()
        assert await reader.read() == b"last"


async def test_a_way_that_is_slowed_no_more_lets_go_of_what_is_under_way() -> None:
    async with through_proxy() as (proxy, reader, writer):
        proxy.forth.cut()
        proxy.forth.delay_s = 1_000.0
        writer.write(b"soon")
        assert await nothing_comes(reader)
        proxy.forth.restore()
        assert await reader.readexactly(4) == b"soon"


async def test_a_reset_does_not_wait_for_what_is_under_way() -> None:
    async with through_proxy() as (proxy, reader, writer):
        proxy.forth.cut()
        writer.write(bytes((CHUNKS_UNDER_WAY_MAX + 10) * CHUNK_BYTES))
        assert await nothing_comes(reader)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_an_end_that_closes_is_not_heard_of_through_a_cut() -> None:
    async with through_proxy() as (proxy, reader, writer):
        proxy.back.cut()
        writer.write_eof()
        assert await nothing_comes(reader)
        proxy.back.restore()
        assert await reader.read() == b""


async def test_a_reset_is_heard_of_at_both_ends() -> None:
    async with through_proxy() as (proxy, reader, _writer):
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_who_connects_to_a_peer_that_is_away_is_hung_up_on() -> None:
    async with Proxy("127.0.0.1", 1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


async def test_a_mesh_cuts_one_direction_of_both_connections() -> None:
    async with mesh({"a": 1, "b": 2, "c": 3}) as links:
        assert len(links.proxies) == 6
        links.cut("a", "b")
        assert are_cut(links) == {("a", "b", "forth"), ("b", "a", "back")}
        links.mend("a", "b")
        await links.isolate("c")
        assert are_cut(links) == {
            (*pair, flow) for pair in links.proxies if "c" in pair for flow in ("forth", "back")
        }
        await links.rejoin("c")
        assert are_cut(links) == set()


def are_cut(links: Mesh) -> set[tuple[str, str, str]]:
    return {
        (*pair, name)
        for pair, proxy in links.proxies.items()
        for name, flow in (("forth", proxy.forth), ("back", proxy.back))
        if flow.is_cut
    }
