"""A line between a transport that does not write and a connection that is a test's."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from fluffle.broker.core.socket_connection import WRITE_BUFFER_BYTES_MAX
from fluffle.broker.protocols.amqp091.connection import (
    Connection,
    ConnectionState,
)
from fluffle.broker.testing.faults.tapped_transport import TappedConnection


class Slow(asyncio.Transport):
    """A transport whose client does not read: what was written before it closes is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ends: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")

    def is_closing(self) -> bool:
        return bool(self.ends)

    def pause_reading(self) -> None:
        """Ignore the call: the protocol gets all input."""

    def resume_reading(self) -> None:
        """Ignore the call, as above."""


class Hearing:
    """A connection."""

    phase = ConnectionState.RUNNING

    def __init__(self) -> None:
        self.heard = b""
        self.reported: list[str] = []

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.transport.write(b"answer")

    def pause_writing(self) -> None:
        self.reported.append("pause")

    def resume_writing(self) -> None:
        self.reported.append("resume")


class Harness:
    """A line, and its two ends."""

    def __init__(self) -> None:
        self.transport, self.connection = Slow(), Hearing()
        self.line = TappedConnection(
            cast(Connection, self.connection), self._nothing, self._nothing
        )
        self.line.connection_made(self.transport)

    def _nothing(self, _line: TappedConnection) -> None:
        """Ignore the call."""


@pytest.fixture
async def harness() -> Harness:
    return Harness()


async def test_a_client_that_reads_slowly_gets_no_more_than_that(harness: Harness) -> None:
    harness.line.cut_after(5, sent_by="broker")
    for data in (b"0123456789", b"abcdefghij", b"KLMNOPQRSTUV"):
        harness.line.write(data)
    harness.line.data_received(b"nobody hears that")
    assert (harness.transport.written, harness.transport.ends) == (b"01234", ["close"])


async def test_what_is_cut_between_two_writes_ends_with_the_first(harness: Harness) -> None:
    harness.line.cut_after(10, sent_by="broker")
    harness.line.write(b"0123456789")
    harness.line.write(b"abc")
    assert (harness.transport.written, harness.transport.ends) == (b"0123456789", ["close"])


async def test_nothing_is_heard_behind_the_cut(harness: Harness) -> None:
    harness.line.cut_after(5, sent_by="client")
    harness.connection.transport.pause_reading()
    for data in (b"0123", b"456789", b"abcdefghij"):
        harness.line.data_received(data)
    harness.connection.transport.resume_reading()
    harness.line.data_received(b"KLMNOPQRSTUV")
    assert harness.connection.heard == b"01234"
    assert harness.transport.written == b"answer"  # to what came before
    assert harness.transport.ends == ["abort"]


async def test_what_goes_in_pieces_fills_the_line(harness: Harness) -> None:
    data = bytes(WRITE_BUFFER_BYTES_MAX // 4)
    harness.line.pieces = lambda data: (data[:1], data[1:])
    for _ in range(4):
        harness.line.write(data)
    assert harness.connection.reported == []
    harness.line.write(data)
    assert harness.connection.reported == ["pause"]
    harness.line.pause_writing()  # the socket's, which has not written it yet
    for _ in range(10):
        await asyncio.sleep(0)  # a piece goes out
    assert harness.transport.written == data * 5
    assert harness.connection.reported == ["pause"]
    harness.line.resume_writing()
    assert harness.connection.reported == ["pause", "resume"]
