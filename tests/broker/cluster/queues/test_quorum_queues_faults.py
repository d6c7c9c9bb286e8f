"""Faults that three whole nodes with quorum queues must bear while clients work at them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random

import aio_pika
import pytest
from aio_pika.exceptions import (
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)

from fluffle.broker.cluster.links.handshake import VERSIONS, LinkCredentials, LinkHandshake
from fluffle.broker.cluster.links.identity import (
    BOOT_NONCE_BYTES,
    Boot,
    Boots,
    HelloRefusal,
    Identity,
    LinkRefused,
    PeerBoots,
)
from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.config.config import Config, Limits, ListenAddress
from tests.broker.cluster.links.raw_sockets import raw_to
from tests.broker.cluster.queues.test_quorum_queues import QUORUM, Inbox, Scene, publish, scene
from tests.suite.seeds import is_night
from tests.support.cluster_nodes import SECRET, ClusterNode, running_cluster, until
from tests.support.deadlines import soon

__all__ = ["scene"]

NODES = "abc"
LIMIT_BYTES = 10_000
ROUNDS = 15
KNOCKS = 10
MANY = 10_000 if is_night() else 1_000
AT_ONCE = 50


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Scene]:
    """Nodes that take small messages only."""
    config = Config(limits=Limits(message_bytes_max=LIMIT_BYTES))
    async with running_cluster(tmp_path, config=config) as three, AsyncExitStack() as stack:
        yield Scene(three, stack)


async def test_a_message_beyond_the_limit_costs_its_channel_alone(strict: Scene) -> None:
    """At whatever node; what was published before it counts, what came behind it does not."""
    await strict.declare("a")
    for name in NODES:
        channel = await strict.channel(name)
        beside = await strict.channel(name)
        await publish(channel, b"m" * LIMIT_BYTES)
        with pytest.raises(ChannelPreconditionFailed, match="larger than configured max size"):
            await publish(channel, b"m" * (LIMIT_BYTES + 1))
        await publish(beside, b"still here")
    inbox = Inbox()
    await (await (await strict.channel("c")).get_queue("q")).consume(inbox.take, no_ack=True)
    await inbox.has(6)
    assert [len(body) for body in inbox.bodies] == [LIMIT_BYTES, len(b"still here")] * 3


async def test_a_queue_is_deleted_and_declared_again_under_load(scene: Scene) -> None:
    """Every publish comes to an end, and nothing of a former queue is in the one that follows."""
    number, is_over = 0, False
    ended: dict[str, int] = dict.fromkeys(NODES, 0)

    async def load(name: str) -> None:
        while not is_over:
            channel = await scene.channel(name)
            with suppress(DeliveryError, PublishError, ChannelInvalidStateError):
                while not is_over:
                    await publish(channel, *[b"%d" % number] * 5)
                    ended[name] += 5

    async def consume(name: str) -> None:
        """Consume again and again; a message with an earlier number must not come."""
        while not is_over:
            channel = await scene.channel(name)
            with suppress(ChannelNotFoundEntity, ChannelInvalidStateError):
                queue = await channel.get_queue("q")
                while not is_over:
                    oldest = number
                    message = await queue.get(no_ack=True, fail=False)
                    assert message is None or int(message.body) >= oldest - 1, "it was deleted"

    await scene.declare("a")
    async with soon(), asyncio.TaskGroup() as clients:
        for name in NODES:
            clients.create_task(load(name))
            clients.create_task(consume(name))
        chance = Random(1)
        for _ in range(ROUNDS):
            count = sum(ended.values())
            await until(lambda: sum(ended.values()) > count)  # noqa: B023 - waited for here
            channel = await scene.channel(chance.choice(NODES))
            await channel.queue_delete("q")
            number += 1
            await channel.declare_queue("q", durable=True, arguments=QUORUM)
        is_over = True
    await scene.nodes.agree()
    await until(lambda: all(len(groups_of(node)) == 2 for node in scene.nodes))
    assert len({frozenset(groups_of(node)) for node in scene.nodes}) == 1


def groups_of(node: ClusterNode) -> set[int]:
    """Groups whose log the node has."""
    return {*node.cluster.running.host.groups}


async def test_strangers_at_the_links_do_not_matter(scene: Scene) -> None:
    """Garbage, an older format and a wrong secret, while clients of all nodes are served."""
    await scene.declare("a")
    inbox = Inbox()
    await (await (await scene.channel("c")).get_queue("q")).consume(inbox.take, no_ack=True)
    is_over = False

    async def knock(node: ClusterNode, as_whom: str) -> None:
        address = ListenAddress(*node.node.addresses["cluster"])
        for count in range(1, 1_000):
            if is_over and count > KNOCKS:
                return
            async with raw_to(address) as raw:
                raw.writer.write(b"\xff" * 1_000)
                await raw.is_closed()
            for secret, versions in ((b"guess", VERSIONS), (SECRET, (0, 0))):
                async with raw_to(address) as raw:
                    credentials = LinkCredentials(
                        us := identity(node, as_whom), secret, PeerBoots(), {*NODES},
                        Boots.since(us.boot), versions=versions,
                    )  # fmt: skip
                    handshake = LinkHandshake(credentials, node.name, challenge=count.to_bytes(32))
                    raw.writer.write(handshake.start())
                    with pytest.raises(LinkRefused):
                        await raw.finish(handshake)

    async with soon(), asyncio.TaskGroup() as clients:
        for name, as_whom in zip(NODES, "bca", strict=True):
            clients.create_task(knock(scene.nodes[name], as_whom))
        for name in NODES * 5:
            await publish(await scene.channel(name), *(b"m" for _ in range(20)))
        is_over = True
    await inbox.has(300)
    assert not any(message.redelivered for message in inbox.messages)
    for node in scene.nodes:
        refused = node.cluster.links.counters.refused
        for reason in (HelloRefusal.NOT_A_HELLO, HelloRefusal.VERSION, HelloRefusal.SECRET):
            assert refused[reason] >= KNOCKS
        assert node.roles().keys() == {*NODES}


def identity(node: ClusterNode, name: str) -> Identity:
    """Identity of another node of its cluster, in a later boot."""
    config = node.config.cluster
    assert config is not None
    cluster = node.cluster.links.cluster
    return Identity(cluster, name, Boot(99, bytes(BOOT_NONCE_BYTES)))


@pytest.mark.slow("thousands of queues are declared and deleted")
async def test_many_queues_come_and_go_and_leave_nothing(scene: Scene) -> None:
    """At all nodes at once, some of them with a message in them."""
    numbers = iter(range(MANY))

    async def come_and_go(name: str) -> None:
        channel = await scene.channel(name)
        for number in numbers:
            queue = await channel.declare_queue(f"q{number}", durable=True, arguments=QUORUM)
            if number % 10 == 0:
                await channel.default_exchange.publish(aio_pika.Message(b"m"), queue.name)
            await queue.delete(if_unused=False, if_empty=False)

    async with asyncio.TaskGroup() as clients:
        for name in NODES:
            for _ in range(AT_ONCE // 3):
                clients.create_task(come_and_go(name))
    await scene.nodes.agree()
    await until(lambda: all(groups_of(node) == {METADATA_GROUP} for node in scene.nodes))
    for node in scene.nodes:
        assert not node.node.catalogue.vhosts["/"].queues
        assert not node.cluster.node_sessions.leaders.queues
