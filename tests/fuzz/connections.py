"""Whole connections given any bytes, while another connection must not notice."""

from __future__ import annotations

from collections.abc import Sequence

from pamqp import commands

from fluffle.protocol.methods import Channel, Connection
from fluffle.protocol.spec import PROTOCOL_HEADER, ReplyCode
from tests.protocol.client_frames import method
from tests.support.edge import Arrival, Edge

GREETING = PROTOCOL_HEADER + b"".join(
    (
        method(0, commands.Connection.StartOk(mechanism="PLAIN", response="\0guest\0guest")),
        method(0, commands.Connection.TuneOk(2047, 131072, 60)),
        method(0, commands.Connection.Open("/")),
    )
)
PIECE_BYTES = 997


def talk(data: bytes) -> None:
    """Whatever a client says: it is closed once at most, never for a failure of ours; the queue
    of another connection stays as it is, and nothing is left when the client has gone.
    """
    edge = Edge()
    bystander = edge.connect()
    bystander.declare("safe", exclusive=True)
    bystander.publish(b"one", b"two", queue="safe")
    client = edge.accept()
    client.send(GREETING)
    for start in range(0, len(data), PIECE_BYTES):
        client.send(data[start : start + PIECE_BYTES])
    check(client.arrivals())
    assert bystander.declare("safe", passive=True, exclusive=True).message_count == 2
    bystander.expect_nothing()
    client.transport.lose()
    edge.run()
    assert list(edge.services.connections) == [bystander.connection]
    assert edge.services.connections.busy == set()


def check(arrivals: Sequence[Arrival]) -> None:
    """Check that what a client has received is consistent."""
    closes = [at for at, arrival in enumerate(arrivals) if is_close(arrival)]
    assert len(closes) <= 1, "a connection was closed twice"
    for arrival in arrivals[closes[0] + 1 :] if closes else ():
        assert isinstance(arrival.method, Connection.CloseOk), f"after the close: {arrival}"
    for arrival in arrivals:
        if isinstance(arrival.method, Connection.Close | Channel.Close):
            assert arrival.method.reply_code != ReplyCode.INTERNAL_ERROR, str(arrival)


def is_close(arrival: Arrival) -> bool:
    return isinstance(arrival.method, Connection.Close)
