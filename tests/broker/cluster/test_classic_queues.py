"""Classic queues of three whole nodes: each lives on its home, and all clients may use it."""

from __future__ import annotations

from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractConnection

from tests.support.cluster_nodes import ClusterNode, running_cluster

PERSISTENT = aio_pika.DeliveryMode.PERSISTENT


async def connect(node: ClusterNode) -> AbstractConnection:
    return await aio_pika.connect(node.url)


async def publish(node: ClusterNode, queue: str, *bodies: bytes) -> None:
    """Confirmed."""
    async with await connect(node) as connection:
        channel = await connection.channel()
        for body in bodies:
            message = aio_pika.Message(body, delivery_mode=PERSISTENT)
            await channel.default_exchange.publish(message, queue)


async def declare(node: ClusterNode, queue: str, *, passive: bool = False) -> int:
    """A durable one; how many messages there are."""
    async with await connect(node) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, durable=True, passive=passive)
        return declared.declaration_result.message_count or 0


async def delete(node: ClusterNode, queue: str) -> None:
    async with await connect(node) as connection:
        await (await connection.channel()).queue_delete(queue)


def groups_of(node: ClusterNode) -> set[int]:
    """The logs of queues on a node's disk."""
    durability = node.node._durability
    return {group for groups in durability.journals_by_id._groups.values() for group in groups}


async def test_a_durable_queue_is_there_again_when_its_home_is(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        await declare(three["a"], "q")
        await publish(three["a"], "q", b"1", b"2")
        await three["a"].kill()
        await three["a"].start()
        assert await declare(three["a"], "q", passive=True) == 2


async def test_what_was_deleted_while_its_home_was_down_leaves_nothing(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        await declare(three["a"], "kept")
        await declare(three["a"], "gone")
        for queue in ("kept", "gone"):
            await publish(three["a"], queue, b"a message of " + queue.encode())
        assert len(groups_of(three["a"])) == 4
        await three["a"].stop()
        await delete(three["b"], "gone")
        await three["a"].start()
        assert len(groups_of(three["a"])) == 2
        assert await declare(three["a"], "kept", passive=True) == 1
