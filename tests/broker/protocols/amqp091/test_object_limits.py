"""How many queues, exchanges and consumers of a channel there may be."""

from __future__ import annotations

from fluffle.broker.config.config import Limits
from fluffle.protocol.methods import Basic, Exchange, Queue, encode_method, make
from tests.support.edge import Edge


def test_queues_of_all_virtual_hosts_count() -> None:
    edge = Edge(Limits(queues_max=2))
    client = edge.connect()
    for name in ("a", "b", "a"):
        client.declare(name)
    client.send(encode_method(1, make(Queue.Declare, queue="c")))
    text = "cannot declare queue 'c': queue limit in cluster (2) is reached"
    client.expect_channel_closed(406, text)


def test_exchanges_that_are_there_from_the_start_count() -> None:
    there = len(list(Edge().vhost.topology))
    edge = Edge(Limits(exchanges_max=there + 1))
    client = edge.connect()
    for _ in range(2):
        client.declare_exchange("a")
    client.send(encode_method(1, make(Exchange.Declare, exchange="b")))
    text = f"cannot declare exchange 'b' in vhost '/': exchange limit of {there + 1} is reached"
    client.expect_channel_closed(406, text)


def test_who_uses_a_tag_again_is_notified_before_consumers_count() -> None:
    client = Edge(Limits(consumers_max=1)).connect()
    client.declare("q")
    consume = make(Basic.Consume, queue="q", consumer_tag="a")
    client.call(consume, Basic.ConsumeOk)
    client.send(encode_method(1, consume))
    client.expect_closed(530, "attempt to reuse consumer tag 'a'")


def test_consumers_of_one_channel_count() -> None:
    edge = Edge(Limits(consumers_max=2))
    client = edge.connect()
    client.declare("q")
    for tag in ("a", "b"):
        client.call(make(Basic.Consume, queue="q", consumer_tag=tag), Basic.ConsumeOk)
    client.call(Basic.Cancel("a"), Basic.CancelOk)
    client.call(make(Basic.Consume, queue="q", consumer_tag="c"), Basic.ConsumeOk)
    client.open_channel(2)
    client.call(make(Basic.Consume, queue="q", consumer_tag="d"), Basic.ConsumeOk, 2)
    replies = make(Basic.Consume, queue="amq.rabbitmq.reply-to", consumer_tag="e", no_ack=True)
    client.send(encode_method(1, replies))
    client.expect_closed(530, "reached maximum (2) of consumers per channel")
