"""Quorum queues on three whole nodes, with real clients: any node serves any client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from pamqp.common import FieldTable

from tests.support.cluster_nodes import ClusterNode, ClusterNodes, running_cluster, until

QUORUM: FieldTable = {"x-queue-type": "quorum"}
WAIT_S = 20


class Scene:
    """Three nodes and the connections to them."""

    def __init__(self, nodes: ClusterNodes, stack: AsyncExitStack) -> None:
        self.nodes = nodes
        self._stack = stack

    async def channel(self, name: str) -> AbstractChannel:
        """Through this node, with confirms."""
        connection = await aio_pika.connect(self.nodes[name].url)
        self._stack.push_async_callback(connection.close)
        return await connection.channel()

    async def declare(self, name: str, queue: str = "q") -> AbstractQueue:
        channel = await self.channel(name)
        return await channel.declare_queue(queue, durable=True, arguments=QUORUM)

    def leader(self, queue: str = "q") -> str:
        """The node that leads a queue; empty if none does."""
        found = [node.name for node in self.nodes.running if leads(node, queue)]
        return found[0] if len(found) == 1 else ""

    async def is_led_by(self, name: str, queue: str = "q") -> None:
        """Until it is."""
        await until(lambda: self.leader(queue) == name)


def leads(node: ClusterNode, queue: str) -> bool:
    served = node.node.catalogue.vhosts["/"].queues.get(queue)
    if served is None:
        return False
    led = node.cluster.hub.leading.queues.get(served.definition.id)
    return led is not None and led.sessions is not None


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_cluster(tmp_path) as three, AsyncExitStack() as stack:
        yield Scene(three, stack)


@asynccontextmanager
async def soon() -> AsyncIterator[None]:
    async with asyncio.timeout(WAIT_S):
        yield


async def publish(channel: AbstractChannel, *bodies: bytes, to: str = "q") -> None:
    """All at once; returns when all are confirmed."""
    messages = [aio_pika.Message(body, delivery_mode=2) for body in bodies]
    async with soon():
        await asyncio.gather(*(channel.default_exchange.publish(each, to) for each in messages))


class Inbox:
    """What a consumer has received."""

    def __init__(self) -> None:
        self.messages: list[AbstractIncomingMessage] = []

    async def take(self, message: AbstractIncomingMessage) -> None:
        self.messages.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]


async def test_what_is_published_at_one_node_is_consumed_at_another(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("b"), b"1", b"2", b"3")
    queue = await (await scene.channel("c")).get_queue("q")
    inbox = Inbox()
    await queue.consume(inbox.take)
    await until(lambda: len(inbox.messages) == 3)
    assert inbox.bodies == [b"1", b"2", b"3"]
    for message in inbox.messages:
        await message.ack()


async def test_every_node_tells_counts(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("b"), b"1", b"2")
    for name in "abc":
        result = (await scene.declare(name)).declaration_result
        assert (result.message_count, result.consumer_count) == (2, 0)


async def test_the_leader_is_where_the_queue_was_declared(scene: Scene) -> None:
    for name in "abc":
        await scene.declare(name, f"q-{name}")
        await scene.is_led_by(name, f"q-{name}")
