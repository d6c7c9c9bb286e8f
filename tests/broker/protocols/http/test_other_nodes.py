"""Listings by one node of clients and queues of the others, and of nodes that die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import NamedTuple
from urllib.parse import quote

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aiohttp import ClientSession

from fluffle.broker import Cluster
from fluffle.broker.config.config import Config
from tests.support.management import HERE, Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODIES = (b"one", b"two", b"three")


class Scene(NamedTuple):
    """A publisher at one node, a consumer at another; who asks is at the third."""

    cluster: Cluster
    api: Api
    publisher: AbstractConnection
    consumer: AbstractConnection


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    config = Config(listen=HERE, management_listen=HERE)
    async with AsyncExitStack() as opened:
        cluster = await opened.enter_async_context(Cluster(config, nodes=3))
        for node in map(cluster.__getitem__, range(3)):
            assert node.node.cluster is not None
            node.node.cluster.rpc_client.reply_timeout_s = 60.0
        session = await opened.enter_async_context(ClientSession())
        publisher, consumer = [await aio_pika.connect(url) for url in cluster.urls[1:]]
        for connection in (publisher, consumer):
            await opened.enter_async_context(connection)
        channel = await publisher.channel()
        await channel.declare_queue("orders", durable=True, arguments={"x-queue-type": "quorum"})
        for body in BODIES:
            await channel.default_exchange.publish(aio_pika.Message(body), "orders")
        taking = await consumer.channel()
        queue = await taking.get_queue("orders")
        got = asyncio.Queue[bytes]()

        async def take(message: AbstractIncomingMessage) -> None:
            await got.put(message.body)

        await queue.consume(take, consumer_tag="taker")
        assert [await got.get() for _ in BODIES] == [*BODIES]
        yield Scene(cluster, Api(cluster[0].node, session), publisher, consumer)


async def test_what_clients_of_others_have_done_is_reported(scene: Scene) -> None:
    (queue,) = await scene.api.get("queues")
    stats = queue["message_stats"]
    assert (stats["publish"], stats["deliver"], stats["deliver_get"]) == (3, 3, 3)
    assert queue["consumer_capacity"] == queue["consumer_utilisation"] == 1.0
    detail = await scene.api.get("queues/%2F/orders")
    assert detail["message_stats"]["publish"] == 3
    (taker,) = detail["consumer_details"]
    assert (taker["consumer_tag"], taker["channel_details"]["node"]) == ("taker", "node2")
    (delivery,) = detail["deliveries"]
    assert delivery["channel_details"] == taker["channel_details"]
    assert (delivery["stats"]["deliver"], delivery["stats"]["ack"]) == (3, 0)
    default = await scene.api.get("exchanges/%2F/amq.default")
    (incoming,) = default["incoming"]
    assert incoming["channel_details"]["node"] == "node1"
    assert incoming["stats"]["publish"] == 3
    assert (await scene.api.get("exchanges/%2F/amq.topic"))["incoming"] == []
    assert default["message_stats"]["publish_in"] == 3
    overview = await scene.api.get("overview")
    assert overview["object_totals"]["connections"] == 2
    assert overview["message_stats"]["publish"] == 3
    assert {each["node"] for each in overview["listeners"]} == {"node0", "node1", "node2"}


async def test_where_clients_are_is_reported(scene: Scene) -> None:
    connections = await scene.api.get("connections")
    assert sorted(row["node"] for row in connections) == ["node1", "node2"]
    assert all(row["recv_oct"] > 0 for row in connections)
    channels = await scene.api.get("channels")
    assert sorted(row["node"] for row in channels) == ["node1", "node2"]
    for row in channels:
        one = await scene.api.get(f"channels/{quote(row['name'], safe='')}")
        assert len(one["consumer_details"]) == row["consumer_count"]
    (consumer,) = await scene.api.get("consumers")
    assert consumer["channel_details"]["node"] == "node2"


async def test_all_nodes_are_reported(scene: Scene) -> None:
    nodes = await scene.api.get("nodes")
    assert [row["name"] for row in nodes] == ["node0", "node1", "node2"]
    assert all(row["running"] and row["mem_used"] > 0 for row in nodes)
    assert (await scene.api.get("nodes/node2/memory"))["memory"]["total"]["rss"] > 0


async def test_a_connection_of_another_is_closed_and_a_node_that_dies_is_named(
    scene: Scene,
) -> None:
    gone = asyncio.Event()
    scene.consumer.close_callbacks.add(lambda *_: gone.set())
    rows = await scene.api.get("connections")
    (name,) = [row["name"] for row in rows if row["node"] == "node2"]
    path = f"connections/{quote(name, safe='')}"
    assert await scene.api.ask("DELETE", path) == (204, None)
    await gone.wait()
    assert (await scene.api.ask("GET", path))[0] == 404
    await scene.cluster.kill(1)
    assert await scene.api.get("connections") == []
    nodes = {row["name"]: row for row in await scene.api.get("nodes")}
    assert "mem_used" not in nodes["node1"]
    assert (await scene.api.get("nodes/node1/memory"))["memory"] == "not_available"
