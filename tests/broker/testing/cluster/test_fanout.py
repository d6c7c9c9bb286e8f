"""Messages for hundreds of queues, of which some are replicated: some queues answer before the last
has been asked."""

from __future__ import annotations

import asyncio

import aio_pika
import pytest
from aio_pika import DeliveryMode, Message

from fluffle.broker import Cluster
from fluffle.broker.core import connections, enqueue
from tests.support.quorum_queue import QUORUM, ChannelAt

QUORUM_QUEUES = [f"quorum {number}" for number in range(4)]
CLASSIC_QUEUES = [f"classic {number}" for number in range(enqueue.TARGETS_AT_ONCE)]
MESSAGE = Message(b"x", delivery_mode=DeliveryMode.PERSISTENT)
ANSWER_S_MAX = 30.0


@pytest.fixture(autouse=True)
def some_queues_take_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that replicas have answered before the last queue is asked."""
    monkeypatch.setattr(enqueue, "TARGETS_AT_ONCE", 32)
    monkeypatch.setattr(connections, "SHARE_S", 0.00005)
    monkeypatch.setattr(connections, "SHARE_S_MIN", 0.00005)


async def bind_all(cluster: Cluster, channel_at: ChannelAt) -> None:
    """The replicated ones come first, each led by one of the nodes, and the others from two."""
    for number, name in enumerate(QUORUM_QUEUES):
        channel = await channel_at(cluster, number % 3)
        queue = await channel.declare_queue(name, durable=True, arguments=QUORUM)
        await cluster.move_leader(name, number % 3)
        await queue.bind("amq.fanout")
    for node in range(2):
        channel = await channel_at(cluster, node)
        for name in CLASSIC_QUEUES[node::2]:
            queue = await channel.declare_queue(name, auto_delete=True)
            await queue.bind("amq.fanout")


@pytest.mark.slow("a cluster is told of hundreds of queues, one after the other")
async def test_a_publisher_hears_of_hundreds_of_queues_of_which_some_are_replicated(
    channel_at: ChannelAt,
) -> None:
    async with Cluster() as cluster:
        await bind_all(cluster, channel_at)
        confirming = await channel_at(cluster, 0)
        exchange = await confirming.get_exchange("amq.fanout")
        await asyncio.wait_for(exchange.publish(MESSAGE, ""), ANSWER_S_MAX)

        connection = await aio_pika.connect(cluster.urls[0])
        async with connection, connection.channel(publisher_confirms=False) as transactional:
            exchange = await transactional.get_exchange("amq.fanout")
            transaction = transactional.transaction()
            await transaction.select()
            await exchange.publish(MESSAGE, "")
            await asyncio.wait_for(transaction.commit(), ANSWER_S_MAX)

        for name in (*QUORUM_QUEUES, CLASSIC_QUEUES[0], CLASSIC_QUEUES[-1]):
            await cluster.vhost().expect(name, ready=2)
