"""A node that is alone: quorum queues as in a cluster of one, and nothing of it without them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue
from pamqp.common import FieldTable

from fluffle.broker.composition.single_node import SingleNode
from fluffle.broker.config.config import Config, ListenAddress, MqttConfig
from fluffle.broker.queues.quorum.dead_letter_outbox import CONFIRM_TIMEOUT_MS
from tests.broker.cluster.queues.test_quorum_queues import Inbox, publish
from tests.broker.cluster.test_mqtt_sessions import connected
from tests.support.cluster_nodes import ClusterNode, until
from tests.support.deadlines import soon
from tests.support.ports import LOOPBACK

QUORUM: FieldTable = {"x-queue-type": "quorum"}

IS_NOT_LOADED = """
import asyncio, sys
from pathlib import Path
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.node import Node

async def serve():
    here = ListenAddress("127.0.0.1", 0)
    node = Node(Config(data_dir=Path(sys.argv[1]), listen=here, metrics_listen=here))
    await node.start()
    reader, writer = await asyncio.open_connection(*node.addresses["metrics"])
    writer.write(b"GET /metrics HTTP/1.0\\r\\n\\r\\n")
    assert b"rabbitmq_build_info" in await reader.read()
    writer.close()
    await node.stop("shutdown")

asyncio.run(serve())
print(*sorted(name for name in sys.modules if name.startswith(tuple(sys.argv[2:]))))
"""
"""Not ssl: asyncio imports that itself."""


class Scene:
    """Node and the connections to it."""

    def __init__(self, node: ClusterNode, stack: AsyncExitStack) -> None:
        self.node = node
        self._stack = stack

    async def channel(self) -> AbstractChannel:
        """With confirms."""
        connection = await aio_pika.connect(self.node.url)
        self._stack.push_async_callback(connection.close)
        return await connection.channel()

    async def declare(self, queue: str = "q", **arguments: object) -> AbstractQueue:
        channel = await self.channel()
        table: FieldTable = {**QUORUM, **arguments}  # type: ignore[dict-item]
        return await channel.declare_queue(queue, durable=True, arguments=table)

    async def restart(self, *, kill: bool) -> None:
        await (self.node.kill() if kill else self.node.stop())
        await self.node.start()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    node = ClusterNode(Config(listen=ListenAddress(LOOPBACK, 0), data_dir=tmp_path / "node"))
    await node.start()
    async with AsyncExitStack() as stack:
        yield Scene(node, stack)
    await node.stop()


async def taken(queue: AbstractQueue, count: int) -> list[bytes]:
    """Take `count` messages, each acknowledged; a later answer vouches for that."""
    found = []
    for _ in range(count):
        async with soon():
            message = await queue.get()
        assert message is not None
        await message.ack()
        found.append(message.body)
    await queue.channel.declare_queue(queue.name, passive=True)
    return found


@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
async def test_what_is_confirmed_is_there_after_a_restart(scene: Scene, *, kill: bool) -> None:
    queue = await scene.declare()
    await publish(queue.channel, b"1", b"2", b"3")
    assert await taken(queue, 1) == [b"1"]
    await scene.restart(kill=kill)
    queue = await scene.declare()
    assert queue.declaration_result.message_count == 2
    assert await taken(queue, 2) == [b"2", b"3"]
    assert await queue.get(fail=False) is None


async def test_what_a_consumer_held_comes_back_when_the_node_does(scene: Scene) -> None:
    queue = await scene.declare()
    inbox = Inbox()
    await queue.consume(inbox.take)
    await publish(queue.channel, b"1", b"2")
    await inbox.has(2)
    await scene.restart(kill=True)
    queue = await scene.declare()
    inbox = Inbox()
    await queue.consume(inbox.take)
    async with soon():
        await inbox.has(2)
    assert inbox.bodies == [b"1", b"2"]
    assert [message.redelivered for message in inbox.messages] == [True, True]


async def test_what_was_acknowledged_does_not_come_back_after_a_stop(scene: Scene) -> None:
    queue = await scene.declare()
    await publish(queue.channel, b"1", b"2")
    got = [await queue.get() for _ in range(2)]
    assert got[1] is not None
    cluster_view = scene.node.node.parts.cluster_view
    assert isinstance(cluster_view, SingleNode)
    assert cluster_view._lone is not None
    [line] = cluster_view._lone.node_sessions.routes._by_queue.values()
    await got[1].ack(multiple=True)
    await until(lambda: line.session.deferrable > 0)
    await scene.restart(kill=False)
    assert (await scene.declare()).declaration_result.message_count == 0


async def test_what_must_arrive_does_as_soon_as_it_leads_somewhere(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fluffle.broker.queues.quorum.dead_letter_outbox.PAUSE_MS", CONFIRM_TIMEOUT_MS
    )
    queue = await scene.declare(
        "dying",
        **{
            "x-dead-letter-exchange": "later",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    await publish(queue.channel, b"1", to="dying")
    message = await queue.get()
    assert message is not None
    await message.reject()
    letters = scene.node.node._begun.dead_letters
    await until(lambda: bool(letters._stranded))
    exchange = await queue.channel.declare_exchange("later", "fanout", durable=True)
    await until(lambda: bool(letters._stranded))
    dead = await scene.declare("dead")
    await publish(dead.channel, b"0", to="dead")  # its log says by then what may be in it
    assert await dead.get(no_ack=True) is not None
    await dead.bind(exchange)
    inbox = Inbox()
    await dead.consume(inbox.take)
    async with soon():
        await inbox.has(1)


async def test_what_is_neither_ready_nor_in_hands_counts_as_a_message(scene: Scene) -> None:
    """A message that waits for its retry, and one that is dead and cannot arrive."""
    waits = {"x-delayed-retry-type": "all", "x-delayed-retry-min": 600_000}
    arrives = {
        "x-dead-letter-exchange": "none",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    for name, arguments in (("waits", waits), ("arrives", arrives)):
        queue = await scene.declare(name, **arguments)
        await publish(queue.channel, b"1", b"2", to=name)
        message = await queue.get()
        assert message is not None
        await message.reject(requeue=name == "waits")
        await queue.channel.declare_queue(name, passive=True)
        [row] = [row async for row in scene.node.listed("queues.list") if row["name"] == name]
        counts = row["messages"], row["messages_ready"], row["messages_unacknowledged"]
        assert counts == (2, 1, 0)


async def test_a_deleted_queue_stays_deleted_and_its_name_is_free(scene: Scene) -> None:
    queue = await scene.declare()
    await publish(queue.channel, b"1")
    await queue.delete(if_unused=False, if_empty=False)
    await scene.restart(kill=True)
    assert scene.node.node.parts.cluster_view.groups == {}
    queue = await scene.declare()
    assert queue.declaration_result.message_count == 0
    assert len(scene.node.node.parts.cluster_view.groups) == 1


async def test_purging_and_the_default_type_of_a_virtual_host(scene: Scene) -> None:
    queue = await scene.declare()
    await publish(queue.channel, b"1", b"2")
    assert (await queue.purge()).message_count == 2
    assert await queue.get(fail=False) is None


async def test_its_members_are_shown_under_the_name_of_the_node(scene: Scene) -> None:
    await scene.declare()
    row = {"node": scene.node.name, "role": "leader", "wanted": True, "running": True}
    cluster_view = scene.node.node.parts.cluster_view
    (group,) = cluster_view.groups
    await until(lambda: cluster_view.leader_of(group) != "")
    assert [each async for each in scene.node.listed("queues.members", name="q", vhost="/")] == [
        row
    ]
    assert await scene.node.ask("queues.rebalance") == {"queues": 0}


@pytest.mark.parametrize(
    ("wanted", "queue_type"), [(None, "classic"), ("classic", "classic"), ("quorum", "quorum")]
)
async def test_sessions_of_mqtt_that_last_have_queues_of_the_type_that_is_wanted(
    tmp_path: Path, wanted: str | None, queue_type: str
) -> None:
    here = ListenAddress(LOOPBACK, 0)
    mqtt = MqttConfig(listen=(here,), durable_queue_type=wanted)
    node = ClusterNode(Config(listen=here, data_dir=tmp_path / "node", mqtt=mqtt))
    await node.start()
    async with connected(node, "s") as client:
        await client.subscribe(0, "zero")
        await client.subscribe(2)
        await client.subscribe(1, "$share/g/one")
    async with connected(node, "p") as publisher:
        await publisher.publish(b"kept", 2)
    types = {
        name.removeprefix("mqtt-")[:6]: queue.spec.queue_type.shown
        for name, queue in node.node.catalogue.vhosts["/"].queues.items()
        if not name.endswith("qos0")
    }
    assert types == {"subscr": queue_type, "shared": queue_type}
    spec = node.node.catalogue.vhosts["/"].queues["mqtt-subscription-sqos0"].spec
    assert spec.queue_type.shown == "classic"
    await node.kill()
    await node.start()
    async with connected(node, "s") as client:
        assert client.connack.session_present
        assert await client.messages(1) == [(b"t", b"kept", 2)]
    await node.stop()


async def test_without_quorum_queues_nothing_of_them_is_loaded(tmp_path: Path) -> None:
    unwanted = ("fluffle.broker.cluster.", "fluffle.broker.process.certificates", "fluffle.raft")
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", IS_NOT_LOADED, str(tmp_path), *unwanted],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["fluffle.raft", "fluffle.raft.ranges"], "sets of numbers alone"
