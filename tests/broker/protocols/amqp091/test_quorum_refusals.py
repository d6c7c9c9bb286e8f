"""Requests that quorum queues refuse, with the texts of RabbitMQ 4.0.5."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fluffle.broker.queues.arguments import QueueType
from fluffle.protocol.methods import Basic, Channel, Connection, Method, Queue, encode_method, make
from tests.support.definitions import engine_of
from tests.support.edge import Client, Edge


@pytest.fixture
def edge() -> Edge:
    """With a queue q, of which channels believe that it is a quorum queue."""
    edge = Edge()
    edge.connect().call(make(Queue.Declare, queue="q"), Queue.DeclareOk)
    believe(edge)
    return edge


def believe(edge: Edge, **spec: Any) -> None:
    queue = engine_of(edge.vhost, "q")
    queue.spec = replace(queue.spec, queue_type=QueueType.QUORUM, **spec)


def refusal(
    client: Client, method: Method, closing: type[Any] = Connection.Close, channel: int = 0
) -> tuple[int, str]:
    client.send(encode_method(1, method))
    closed = client.expect(closing, channel)
    return closed.reply_code, closed.reply_text


@pytest.mark.parametrize("flag", ["if_unused", "if_empty"])
def test_deletes_with_a_condition(edge: Edge, flag: str) -> None:
    client = edge.connect()
    assert refusal(client, make(Queue.Delete, queue="q", **{flag: True})) == (
        540,
        "NOT_IMPLEMENTED - cannot delete queue 'q' in vhost '/'. queue.delete operations with"
        f" {flag.replace('_', '-')} flag set are not supported by quorum queues",
    )


def test_a_shared_prefetch(edge: Edge) -> None:
    client = edge.connect()
    client.call(make(Basic.Qos, prefetch_count=5, global_=True), Basic.QosOk)
    assert refusal(client, make(Basic.Consume, queue="q")) == (
        540,
        "NOT_IMPLEMENTED - queue 'q' in vhost '/' does not support global qos",
    )


def test_a_get_beside_a_single_active_consumer(edge: Edge) -> None:
    believe(edge, single_active_consumer=True)
    client = edge.connect()
    assert refusal(client, make(Basic.Get, queue="q"), Channel.Close, 1) == (
        405,
        "RESOURCE_LOCKED - cannot obtain access to locked queue 'q' in vhost '/'. basic.get"
        " operations are not supported by quorum queues with single active consumer",
    )


def test_exclusive_consumers_are_like_others(edge: Edge) -> None:
    client = edge.connect()
    for tag in ("a", "b", "c"):
        client.call(
            make(Basic.Consume, queue="q", consumer_tag=tag, exclusive=tag != "c"), Basic.ConsumeOk
        )
