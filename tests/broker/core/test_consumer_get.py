"""Messages that are got one by one, for a client of any protocol."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

import pytest

from fluffle.broker.base.errors import NotFound, ResourceLocked
from fluffle.broker.core.consumer import count_got, get_message, requeue
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.queue_api import DeliveryBatch, Holder
from tests.support.edge import Edge
from tests.support.sessions import session_of


def holder_of(queue: object, *, no_ack: bool = False) -> Holder:
    """A holder that nothing limits."""
    holder = Mock(Holder)
    holder.queue, holder.no_ack, holder.timeout_ms = queue, no_ack, None
    return cast(Holder, holder)


@pytest.fixture
def edge() -> Edge:
    """A node with a queue `q` that has two messages."""
    edge = Edge()
    client = edge.connect()
    client.declare("q")
    client.publish(b"1", b"2")
    return edge


def got(edge: Edge, *, no_ack: bool = False) -> DeliveryBatch:
    found = get_message(holder_of(edge.vhost.queues["q"], no_ack=no_ack), "/")
    assert isinstance(found, DeliveryBatch)
    return found


def test_what_nobody_waits_for_is_put_back_as_it_was(edge: Edge) -> None:
    first = got(edge)
    requeue(first)
    requeue(None)
    assert got(edge).sequences == first.sequences


def test_each_is_counted(edge: Edge) -> None:
    session, queue = session_of(edge), edge.vhost.queues["q"]
    for found in (got(edge), got(edge, no_ack=True), None):
        count_got(session, queue, found)
    counts = session.traffic.from_queues
    assert (counts.got_manual_ack, counts.got_auto_ack, counts.get_empty) == (1, 1, 1)


def test_a_quorum_queue_with_a_single_active_consumer_gives_none() -> None:
    spec = QueueSpec("q", queue_type=QueueType.QUORUM, single_active_consumer=True)
    with pytest.raises(ResourceLocked, match="locked queue 'q' in vhost '/'"):
        get_message(holder_of(SimpleNamespace(name="q", spec=spec, damage=None)), "/")


def test_a_queue_with_damage_gives_none() -> None:
    queue = SimpleNamespace(name="q", spec=QueueSpec("q"), damage="a bit")
    with pytest.raises(NotFound, match="queue 'q' in vhost '/' has crashed and failed to restart"):
        get_message(holder_of(queue), "/")
