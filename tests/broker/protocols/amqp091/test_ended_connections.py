"""The remains of a connection that has ended: nothing, and without the garbage collector.

A storm of connections must not stay in memory until the collector comes, which may be never: where
an alarm blocks publishers nothing is allocated any more.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from functools import partial
from weakref import ref

import pytest

from fluffle.broker.core.consumer import Subscription
from fluffle.broker.core.output_buffer import OutputBuffer
from fluffle.broker.core.session import Session
from fluffle.broker.protocols.amqp091.channel import Channel
from fluffle.broker.queues.queue_api import Consumer
from fluffle.broker.statistics.observer import ChannelStatistics, ConnectionStatistics
from fluffle.broker.vhosts.queue_changes import delete_queue
from fluffle.protocol.methods import Basic, Connection, Queue, Tx, encode_method, make
from tests.support.edge import Client, Edge, publish_frames
from tests.support.leaks import garbage, without_collector

PARTS = (
    Session,
    Channel,
    Consumer,
    Subscription,
    OutputBuffer,
    ChannelStatistics,
    ConnectionStatistics,
)

MINUTES_S = 120
"""Longer than anything waits for a client, or is kept to be counted."""


pytestmark = pytest.mark.usefixtures(without_collector.__name__)


def edge_that_counts() -> Edge:
    edge = Edge()
    edge.count()
    edge.clockwork.start()
    return edge


def work(client: Client) -> None:
    """Use everything a little, and leave much open."""
    client.confirm_select()
    client.declare("q")
    client.declare("own", exclusive=True)
    client.bind("own", "amq.topic", "k")
    for queue, tag in (("q", "t"), ("q", "u"), ("own", "v")):
        client.call(make(Basic.Consume, queue=queue, consumer_tag=tag), Basic.ConsumeOk)
    replies = make(Basic.Consume, queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True)
    client.call(replies, Basic.ConsumeOk)
    client.send(publish_frames(b"one"), publish_frames(b"two"), publish_frames(b"own", "own"))
    client.send(
        encode_method(1, make(Basic.Ack, delivery_tag=1)),
        encode_method(1, make(Basic.Cancel, consumer_tag="u")),
    )
    client.arrivals()
    client.open_channel(2)
    client.call(Tx.Select(), Tx.SelectOk, channel=2)
    client.send(publish_frames(b"in a transaction", channel=2))
    client.open_channel(3)
    client.send(encode_method(3, make(Basic.Get, queue="none")))
    client.arrivals()


def parts_there() -> Counter[str]:
    """How many there are of what a connection is made of."""
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, PARTS))


def close(client: Client) -> None:
    bye = make(Connection.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
    client.send(encode_method(0, bye))


def break_a_rule(client: Client) -> None:
    client.send(encode_method(9, make(Queue.Declare, queue="q")))


def lose(client: Client) -> None:
    client.transport.lose()


def delete_its_queue(client: Client) -> None:
    edge = client.edge
    edge.editor.have(partial(delete_queue, edge.vhost, edge.vhost.queues["q"]))
    edge.run()


def fall_silent(client: Client) -> None:
    client.edge.advance(MINUTES_S)


@pytest.mark.parametrize("end", [close, break_a_rule, lose, delete_its_queue, fall_silent])
@pytest.mark.parametrize("make_edge", [Edge, edge_that_counts])
def test_nothing_keeps_a_connection_alive_that_has_ended(
    make_edge: Callable[[], Edge], end: Callable[[Client], None]
) -> None:
    edge = make_edge()
    gc.collect()
    before = parts_there()
    client = edge.connect(heartbeat_s=10)
    work(client)
    left = ref(client.connection)
    end(client)
    if not client.transport.is_lost:
        lose(client)
    edge.advance(MINUTES_S)
    del client
    assert left() is None
    assert parts_there() == before
    assert garbage() == []


def test_nothing_keeps_a_connection_alive_that_never_logged_in() -> None:
    edge = Edge()
    client = edge.accept()
    left = ref(client.connection)
    client.send(b"GET / HTTP")
    lose(client)
    edge.advance(MINUTES_S)
    del client
    assert left() is None
