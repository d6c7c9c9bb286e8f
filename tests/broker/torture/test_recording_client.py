"""Recording of a run's client."""

from __future__ import annotations

import asyncio

import pytest

from fluffle.broker.amqp_client import ClientOptions, InvalidBytes, open_streams
from fluffle.broker.torture.history import Event, Strange
from fluffle.broker.torture.recording_client import RecordedConnection
from fluffle.protocol.methods import Connection, encode_method, make
from tests.support.peer import peer


async def test_invalid_bytes_are_noted_when_they_come() -> None:
    """A role may go on to other work, or be called off, and the error reach no end."""

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_method(0, make(Connection.Tune))[:-1] + b"\x00")

    history: list[Event] = []
    options = ClientOptions()
    async with peer(talk) as address:
        streams = await open_streams(address, options)
        connection = RecordedConnection(streams, options, "witness", history.append)
        with pytest.raises(InvalidBytes) as failed:
            await connection.receive()
        noted = [each for each in history if isinstance(each, Strange)]
        assert noted == [Strange(f"witness heard {failed.value}")]
        connection.end(failed.value)
    assert [each for each in history if isinstance(each, Strange)] == noted
