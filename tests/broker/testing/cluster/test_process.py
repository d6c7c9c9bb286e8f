"""A process of a loop: what is in it runs as in a loop of its own, and can stand still."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from fluffle.broker.testing.cluster.process import MakeProtocol, Process
from tests.support.deadlines import soon


async def nobody(make: MakeProtocol, host: str, port: int) -> object:
    raise ConnectionRefusedError(host, port, make)


@pytest.fixture
async def process() -> Process:
    return Process(nobody)


async def rounds(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def timers_run_out(process: Process) -> None:
    """All that are set for the next millisecond."""
    later = asyncio.Event()
    asyncio.get_running_loop().call_at(process.loop.time() + 0.002, later.set)
    await later.wait()


async def test_what_runs_in_it_sees_its_loop(process: Process) -> None:
    async def work() -> list[object]:
        here = [asyncio.get_running_loop()]
        await asyncio.sleep(0)
        async with soon():
            await asyncio.sleep(0.001)
        return [*here, asyncio.get_running_loop()]

    assert await process.do(work()) == [process.loop, process.loop]
    assert process.run(asyncio.get_running_loop) is process.loop.as_loop
    assert asyncio.get_running_loop() is not process.loop.as_loop


async def test_errors_and_cancellations_go_either_way(process: Process) -> None:
    async def fail() -> None:
        raise ValueError("it has failed")

    with pytest.raises(ValueError, match="it has failed"):
        await process.do(fail())
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    waiting = asyncio.ensure_future(process.do(wait()))
    await rounds()
    waiting.cancel()
    await ended.wait()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_is_due_while_it_stands_still_comes_in_order_afterwards(
    process: Process,
) -> None:
    seen: list[str] = []
    process.loop.call_later(0.001, seen.append, "timer")
    process.stop()
    process.loop.call_soon(seen.append, "soon")
    process.run(seen.append, "run")
    process.loop.call_soon(seen.append, "never").cancel()
    await timers_run_out(process)
    assert seen == []
    process.go_on()
    await rounds()
    assert seen == ["run", "soon", "timer"]


async def test_a_timer_that_is_called_off_is_not_called(process: Process) -> None:
    seen: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: seen.append(str(what)))
    process.loop.call_later(0.001, seen.append, "never").cancel()
    late = process.loop.call_later(0.001, seen.append, "nor this")
    process.stop()
    await timers_run_out(process)
    late.cancel()  # by what was due before it
    process.go_on()
    await rounds()
    assert seen == []


async def test_what_comes_from_other_threads_waits_as_well(process: Process) -> None:
    seen: list[object] = []

    async def work(threads: ThreadPoolExecutor) -> None:
        seen.append(await asyncio.get_running_loop().run_in_executor(threads, len, "four"))

    with ThreadPoolExecutor(1) as threads:
        working = asyncio.ensure_future(process.do(work(threads)))
        await rounds()
        process.stop()
        threads.submit(int).result()
        await rounds()
        assert seen == []
        process.go_on()
        await working
    assert seen == [4]


class Echo(asyncio.Protocol):
    """Says what it hears."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def test_its_sockets_are_open_and_nobody_answers_while_it_stands_still(
    process: Process,
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    server = await process.do(process.loop.create_server(Echo, sock=listening))
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    process.stop()
    writer.write(b"two")
    another, other = await asyncio.open_connection(*listening.getsockname())
    other.write(b"three")
    other.write_eof()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(1), 0.02)
    process.go_on()
    assert await reader.readexactly(3) == b"two"
    assert await another.read() == b"three"
    for each in (writer, other):
        each.close()
        await each.wait_closed()
    process.run(server.close)
    await rounds()
    assert process.transports == set()
