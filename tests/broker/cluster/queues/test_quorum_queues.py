"""Quorum queues on three whole nodes, with real clients: any node serves any client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from pamqp.common import FieldTable

from tests.support.cluster_nodes import (
    ClusterNode,
    ClusterNodes,
    make_calm,
    running_cluster,
    until,
)
from tests.support.deadlines import DEADLINE_S, soon

QUORUM: FieldTable = {"x-queue-type": "quorum"}


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

    async def disconnect(self) -> None:
        """Close all connections."""
        await self._stack.aclose()

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
    led = node.cluster.node_sessions.leaders.queues.get(served.definition.id)
    return led is not None and led.sessions is not None


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_cluster(tmp_path) as three, AsyncExitStack() as stack:
        yield Scene(three, stack)


async def publish(channel: AbstractChannel, *bodies: bytes, to: str = "q") -> None:
    """All at once; returns when all are confirmed."""
    messages = [aio_pika.Message(body, delivery_mode=2) for body in bodies]
    async with soon():
        await asyncio.gather(*(channel.default_exchange.publish(each, to) for each in messages))


class Inbox:
    """Messages received by a consumer."""

    def __init__(self) -> None:
        self.messages: list[AbstractIncomingMessage] = []

    async def take(self, message: AbstractIncomingMessage) -> None:
        self.messages.append(message)

    async def has(self, count: int) -> None:
        """Until it has received so many."""
        await until(lambda: len(self.messages) >= count)

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]


async def test_what_is_published_at_one_node_is_consumed_at_another(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("b"), b"1", b"2", b"3")
    queue = await (await scene.channel("c")).get_queue("q")
    inbox = Inbox()
    await queue.consume(inbox.take)
    await inbox.has(3)
    assert inbox.bodies == [b"1", b"2", b"3"]
    for message in inbox.messages:
        await message.ack()


async def test_every_node_tells_counts(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("b"), b"1", b"2")
    for name in "abc":
        result = (await scene.declare(name)).declaration_result
        assert (result.message_count, result.consumer_count) == (2, 0)


@pytest.fixture
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    make_calm(monkeypatch)


@pytest.mark.usefixtures("_calm")
async def test_the_leader_is_where_the_queue_was_declared(scene: Scene) -> None:
    for name in "abc":
        await scene.declare(name, f"q-{name}")
        await scene.is_led_by(name, f"q-{name}")


async def test_the_leader_is_killed_and_nothing_is_lost_or_comes_twice(scene: Scene) -> None:
    """Consumers keep what they hold, and can acknowledge it to the next leader."""
    await scene.declare("a")
    publisher = await scene.channel("b")
    channel = await scene.channel("c")
    await channel.set_qos(prefetch_count=5)
    queue = await channel.get_queue("q")
    inbox = Inbox()
    await queue.consume(inbox.take)
    await publish(publisher, *(b"%d" % number for number in range(10)))
    await inbox.has(5)
    publishing = asyncio.ensure_future(
        publish(publisher, *(b"%d" % number for number in range(10, 60)))
    )
    await scene.nodes["a"].kill()
    async with soon():
        await publishing
    assert scene.leader() in ("b", "c")
    for number in range(60):
        await inbox.has(number + 1)
        await inbox.messages[number].ack()
    assert inbox.bodies == [b"%d" % number for number in range(60)]
    assert not any(message.redelivered for message in inbox.messages)


async def test_a_node_that_was_away_has_it_all_again(scene: Scene) -> None:
    """Its member catches up: it can be one of the majority then."""
    await scene.declare("a")
    publisher = await scene.channel("b")
    await publish(publisher, *(b"%d" % number for number in range(5)))
    await scene.nodes["c"].kill()
    await publish(publisher, *(b"%d" % number for number in range(5, 10)))
    await scene.nodes["c"].start()
    await publish(publisher, b"10")
    await scene.nodes["a"].kill()
    await publish(publisher, b"11")
    queue = await (await scene.channel("c")).get_queue("q")
    for number in range(12):
        message = await queue.get(timeout=DEADLINE_S)
        assert message.body == b"%d" % number
        await message.ack()


async def test_all_are_killed_and_start_again_with_what_was_confirmed(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("b"), *(b"%d" % number for number in range(20)))
    for node in scene.nodes:
        await node.kill()
    await scene.nodes.start()
    queue = await (await scene.channel("c")).get_queue("q")
    for number in range(20):
        message = await queue.get(timeout=DEADLINE_S)
        assert message.body == b"%d" % number
        await message.ack()


async def test_a_queue_is_purged_counted_and_deleted_through_any_node(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("b"), b"1", b"2")
    for name in "abc":
        channel = await scene.channel(name)
        declared = await channel.declare_queue("q", durable=True, arguments=QUORUM)
        assert declared.declaration_result.message_count == 2
    queue = await (await scene.channel("c")).get_queue("q")
    purged = await queue.purge()
    assert purged.message_count == 2
    await queue.delete(if_unused=False, if_empty=False)
    await scene.nodes.agree()
    for node in scene.nodes:
        assert "q" not in node.node.catalogue.vhosts["/"].queues
    await until(lambda: all(len(node.cluster.running.host.groups) == 1 for node in scene.nodes))
