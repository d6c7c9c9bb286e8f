"""How long one client of an `Edge` is not read while another is served."""

from __future__ import annotations

from fluffle.protocol.methods import Queue, encode_method
from tests.support.edge import Client, Edge


def turns(edge: Edge, flooder: Client, other: Client) -> int:
    """How many turns pass until the flooder is read again; the other is served in each."""
    passed = 0
    while not flooder.transport.is_reading():
        passed += 1
        other.feed(encode_method(1, Queue.Declare(queue="mine")))
        edge.scheduler.turn()
        edge.scheduler.turn()
        assert other.names() == ["Queue.DeclareOk"]
    return passed
