"""Classic queues of three whole nodes: each lives on its home, and all clients may use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError, QueueEmpty
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from fluffle.broker.admin.queues import queue_row
from tests.support.cluster_nodes import ClusterNode, ClusterNodes, running_cluster, until
from tests.support.deadlines import soon

AWAY = "home node 'a' of durable queue 'q' in vhost '/' is down or inaccessible"


class Scene:
    """Three nodes, and clients of them that last as long."""

    def __init__(self, nodes: ClusterNodes, stack: AsyncExitStack) -> None:
        self.nodes = nodes
        self._stack = stack

    async def channel(self, name: str) -> AbstractChannel:
        """Through this node, with confirms."""
        connection = await aio_pika.connect(self.nodes[name].url)
        self._stack.push_async_callback(connection.close)
        return await connection.channel()

    async def declare(self, queue: str = "q", **how: bool) -> str:
        """On a; returns when all nodes know it."""
        channel = await self.channel("a")
        durable = how.get("durable", True)
        auto_delete, exclusive = how.get("auto_delete", False), how.get("exclusive", False)
        declared = await channel.declare_queue(
            queue or None, durable=durable, auto_delete=auto_delete, exclusive=exclusive
        )
        await self.nodes.agree()
        return declared.name

    async def count(self, name: str, queue: str = "q") -> tuple[int, int]:
        """Messages and consumers, as a passive declare says through this node."""
        channel = await self.channel(name)
        declared = (await channel.declare_queue(queue, passive=True)).declaration_result
        await channel.close()
        return declared.message_count or 0, declared.consumer_count or 0

    async def refused(self, name: str, kind: type[AMQPError], asked: str, queue: str = "q") -> str:
        """Error that a client gets for this request through this node."""
        channel = await self.channel(name)
        there = await channel.get_queue(queue, ensure=False)
        ask: dict[str, Awaitable[object]] = {}
        match asked:
            case "declare":
                ask[asked] = channel.declare_queue(queue, durable=True)
            case "passive":
                ask[asked] = channel.declare_queue(queue, passive=True)
            case "consume":
                ask[asked] = there.consume(ignore)
            case "consume alone":
                ask[asked] = there.consume(ignore, exclusive=True)
            case "get":
                ask[asked] = there.get(fail=False)
            case "purge":
                ask[asked] = there.purge()
            case "delete":
                ask[asked] = there.delete(if_unused=False, if_empty=False)
            case "delete unused":
                ask[asked] = there.delete(if_unused=True, if_empty=False)
            case "delete empty":
                ask[asked] = there.delete(if_unused=False, if_empty=True)
        with pytest.raises(kind) as caught:
            async with soon():
                await ask[asked]
        return str(caught.value)


async def ignore(_message: AbstractIncomingMessage) -> None:
    """Ignore the message."""


class Inbox:
    """Messages received by consumers and not acknowledged."""

    def __init__(self) -> None:
        self.messages: list[AbstractIncomingMessage] = []

    async def take(self, message: AbstractIncomingMessage) -> None:
        self.messages.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]

    async def wait(self, count: int) -> None:
        await until(lambda: len(self.messages) >= count)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_cluster(tmp_path) as three, AsyncExitStack() as stack:
        yield Scene(three, stack)


async def publish(channel: AbstractChannel, *bodies: bytes, to: str = "q") -> None:
    """All at once; returns when all are confirmed."""
    messages = [aio_pika.Message(body, delivery_mode=2) for body in bodies]
    async with soon():
        await asyncio.gather(*(channel.default_exchange.publish(each, to) for each in messages))


async def consume(channel: AbstractChannel, queue: str = "q", *, prefetch: int = 0) -> Inbox:
    inbox = Inbox()
    await channel.set_qos(prefetch_count=prefetch)
    await (await channel.get_queue(queue, ensure=False)).consume(inbox.take)
    return inbox


# Any node serves any client


async def test_what_comes_in_at_one_node_goes_out_at_another(scene: Scene) -> None:
    await scene.declare()
    bodies = [b"%d" % number for number in range(300)]
    await publish(await scene.channel("b"), *bodies)
    inbox = await consume(await scene.channel("c"), prefetch=20)
    for at in range(0, 300, 20):
        await inbox.wait(at + 20)
        await inbox.messages[at + 19].ack(multiple=True)
    assert inbox.bodies == bodies
    assert not any(message.redelivered for message in inbox.messages)
    queue = scene.nodes["a"].node.catalogue.vhosts["/"].queues["q"]
    await until(lambda: queue.in_flight == 0)
    assert await scene.count("b") == (0, 1)


@pytest.mark.parametrize("durable", [False, True])
async def test_get_purge_and_delete_from_elsewhere(scene: Scene, durable: bool) -> None:
    await scene.declare(durable=durable)
    b = await scene.channel("b")
    await publish(b, *[b"%d" % number for number in range(5)])
    queue = await b.get_queue("q", ensure=False)
    got = await queue.get()
    assert (got.body, got.message_count, got.redelivered) == (b"0", 4, False)
    await got.reject(requeue=True)
    again = await queue.get()
    assert (again.body, again.redelivered) == (b"0", True)
    await again.ack()
    assert await scene.count("c") == (4, 0)
    c = await (await scene.channel("c")).get_queue("q", ensure=False)
    assert (await c.purge()).message_count == 4
    with pytest.raises(QueueEmpty):
        await queue.get()
    await publish(b, b"last")
    assert (await c.delete(if_unused=False, if_empty=False)).message_count == 1
    for name in "abc":
        text = await scene.refused(name, ChannelNotFoundEntity, "passive")
        assert "no queue 'q' in vhost '/'" in text


async def test_consumers_of_all_nodes_take_fair_turns(scene: Scene) -> None:
    await scene.declare()
    inboxes = [await consume(await scene.channel(name)) for name in "abc"]
    await until(lambda: True)
    await publish(await scene.channel("b"), *[b"%d" % number for number in range(30)])
    await until(lambda: sum(len(inbox.messages) for inbox in inboxes) == 30)
    assert [len(inbox.messages) for inbox in inboxes] == [10, 10, 10]


async def test_what_a_client_held_comes_back_when_its_channel_ends(scene: Scene) -> None:
    await scene.declare()
    await publish(await scene.channel("a"), b"1", b"2", b"3")
    c = await scene.channel("c")
    inbox = await consume(c)
    await inbox.wait(3)
    await c.close()
    other = await consume(await scene.channel("b"))
    await other.wait(3)
    assert other.bodies == [b"1", b"2", b"3"]
    assert all(message.redelivered for message in other.messages)


async def test_what_a_dead_node_held_comes_back(scene: Scene) -> None:
    await scene.declare()
    await publish(await scene.channel("a"), b"1", b"2", b"3")
    inbox = await consume(await scene.channel("c"))
    await inbox.wait(3)
    await scene.nodes["c"].kill()
    other = await consume(await scene.channel("b"))
    await scene.nodes["c"].start()
    await other.wait(3)
    assert other.bodies == [b"1", b"2", b"3"]


# Who may use it, and until when


@pytest.mark.parametrize("asked", ["declare", "passive", "consume", "get", "purge", "delete"])
async def test_an_exclusive_queue_is_for_its_own_connection(scene: Scene, asked: str) -> None:
    await scene.declare(durable=False, exclusive=True)
    text = await scene.refused("b", ChannelLockedResource, asked)
    assert "cannot obtain exclusive access to locked queue 'q' in vhost '/'." in text


async def test_an_exclusive_queue_can_be_published_to_from_everywhere(scene: Scene) -> None:
    name = await scene.declare("", durable=False, exclusive=True)
    await publish(await scene.channel("c"), b"1", to=name)
    queue = scene.nodes["a"].node.catalogue.vhosts["/"].queues[name]
    assert queue.ready_count == 1


async def test_an_exclusive_consumer_is_alone_on_all_nodes(scene: Scene) -> None:
    await scene.declare()
    await consume(await scene.channel("b"))
    text = await scene.refused("c", ChannelAccessRefused, "consume alone")
    assert "queue 'q' in vhost '/' in exclusive use" in text


async def test_others_are_refused_beside_an_exclusive_consumer(scene: Scene) -> None:
    await scene.declare()
    channel = await scene.channel("b")
    await (await channel.get_queue("q", ensure=False)).consume(ignore, exclusive=True)
    for name in "abc":
        text = await scene.refused(name, ChannelAccessRefused, "consume")
        assert "queue 'q' in vhost '/' in exclusive use" in text
    await channel.close()
    await consume(await scene.channel("c"))


async def test_a_queue_goes_with_its_last_consumer_wherever_that_was(scene: Scene) -> None:
    await scene.declare(durable=False, auto_delete=True)
    b, c = await scene.channel("b"), await scene.channel("c")
    await consume(b)
    await consume(c)
    await b.close()
    await scene.nodes.agree()
    assert await scene.count("a") == (0, 1)
    await c.close()
    await until(lambda: all(has_not(node, "q") for node in scene.nodes))


async def test_conditions_of_a_delete_are_asked_of_the_home(scene: Scene) -> None:
    await scene.declare()
    c = await scene.channel("c")
    await publish(c, b"1")
    text = await scene.refused("b", ChannelPreconditionFailed, "delete empty")
    assert "queue 'q' in vhost '/' not empty" in text
    await consume(c)
    text = await scene.refused("b", ChannelPreconditionFailed, "delete unused")
    assert "queue 'q' in vhost '/' in use" in text


def has_not(node: ClusterNode, queue: str) -> bool:
    return queue not in node.node.catalogue.vhosts["/"].queues


# The home is down


@pytest.mark.parametrize("is_killed", [False, True])
async def test_what_clients_get_when_the_home_goes(scene: Scene, is_killed: bool) -> None:
    three = scene.nodes
    b, c = await scene.channel("b"), await scene.channel("c")
    await scene.declare()
    await publish(b, b"1", b"2")
    await consume(b)
    await (three["a"].kill() if is_killed else three["a"].stop())
    await until(lambda: absent(three["b"], "q") and absent(three["c"], "q"))
    vhost = three["b"].node.catalogue.vhosts["/"]
    assert vhost.queues["q"].consumers == ()
    row = queue_row(three["b"].node.parts, vhost, vhost.queues["q"])
    assert (row["state"], row["messages"], row["consumers"]) == ("down", None, None)
    for asked in ("declare", "passive", "consume", "get", "purge", "delete empty"):
        assert AWAY in await scene.refused("c", ChannelNotFoundEntity, asked)
    with pytest.raises(DeliveryError):
        await publish(c, b"lost")
    await three["a"].start()
    await until(lambda: not absent(three["c"], "q"))
    assert await scene.count("c") == (2, 0)
    await publish(c, b"3")
    inbox = await consume(await scene.channel("b"))
    await inbox.wait(3)
    assert inbox.bodies == [b"1", b"2", b"3"]


def absent(node: ClusterNode, queue: str) -> bool:
    return node.node.catalogue.vhosts["/"].queues[queue].unreachable_error is not None


@pytest.mark.parametrize("asked", ["declare", "passive", "consume", "get", "purge"])
async def test_who_asks_before_it_is_known_is_notified_once_it_is(scene: Scene, asked: str) -> None:
    await scene.declare()
    await scene.nodes["a"].kill()
    assert not absent(scene.nodes["c"], "q")
    assert AWAY in await scene.refused("c", ChannelNotFoundEntity, asked)


async def test_nobody_uses_a_queue_whose_home_is_down(scene: Scene) -> None:
    await scene.declare()
    await consume(await scene.channel("b"))
    await scene.nodes["a"].kill()
    channel = await scene.channel("c")
    await channel.queue_delete("q", if_unused=True)
    await until(lambda: has_not(scene.nodes["b"], "q"))


async def test_a_queue_can_be_deleted_and_made_anew_while_its_home_is_down(scene: Scene) -> None:
    await scene.declare()
    await publish(await scene.channel("b"), b"old")
    await scene.nodes["a"].kill()
    b = await scene.channel("b")
    await b.queue_delete("q")
    await b.declare_queue("q", durable=True)
    await publish(b, b"new")
    await scene.nodes["a"].start()
    assert await scene.count("a") == (1, 0)
    assert groups_of(scene.nodes["a"]) == set()


async def test_transient_queues_of_a_dead_node_vanish(scene: Scene) -> None:
    await scene.declare("gone", durable=False)
    await scene.declare("own", durable=False, exclusive=True)
    await publish(await scene.channel("b"), b"1", to="gone")
    await scene.nodes["a"].kill()
    await until(lambda: all(has_not(scene.nodes[name], "gone") for name in "bc"))
    await until(lambda: all(has_not(scene.nodes[name], "own") for name in "bc"))
    await (await scene.channel("c")).declare_queue("gone")
    await scene.nodes["a"].start()
    assert await scene.count("a", "gone") == (0, 0)


# Journals


def groups_of(node: ClusterNode) -> set[int]:
    """The logs of queues on a node's disk."""
    durability = node.node._durability
    return {group for groups in durability.journals_by_id._groups.values() for group in groups}


async def test_a_durable_queue_is_there_again_when_its_home_is(scene: Scene) -> None:
    await scene.declare()
    await publish(await scene.channel("a"), b"1", b"2")
    await scene.nodes["a"].kill()
    await scene.nodes["a"].start()
    assert await scene.count("a") == (2, 0)


async def test_what_was_deleted_while_its_home_was_down_leaves_nothing(scene: Scene) -> None:
    a = scene.nodes["a"]
    channel = await scene.channel("a")
    for queue in ("kept", "gone"):
        await scene.declare(queue)
        await publish(channel, b"a message", to=queue)
    assert len(groups_of(a)) == 4
    await a.stop()
    await (await scene.channel("b")).queue_delete("gone")
    await a.start()
    assert len(groups_of(a)) == 2
    assert await scene.count("a", "kept") == (1, 0)
