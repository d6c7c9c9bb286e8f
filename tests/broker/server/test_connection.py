"""What sockets make hard to test of a connection: ends, timers, holding back, fairness, bugs."""

from __future__ import annotations

from fluffle.protocol.methods import Queue, encode_method
from tests.support.edge import Edge

# Ends


def test_nothing_is_written_to_a_socket_that_is_lost() -> None:
    edge = Edge()
    lost, other = edge.connect(), edge.connect()
    lost.feed(encode_method(1, Queue.Declare(queue="a")))
    other.feed(encode_method(1, Queue.Declare(queue="b")))
    lost.transport.lose()
    edge.run()
    assert other.names() == ["Queue.DeclareOk"]
