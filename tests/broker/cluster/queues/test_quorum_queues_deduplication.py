"""Queues that take each message once, through any node of three, whoever leads: aio-pika."""

from __future__ import annotations

import asyncio

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue
from pamqp.common import FieldTable

from tests.broker.cluster.queues.test_quorum_queues import Scene, scene
from tests.support.deadlines import soon

__all__ = ["scene"]


async def declare(channel: AbstractChannel, queue_type: str) -> AbstractQueue:
    arguments: FieldTable = {"x-queue-type": queue_type, "x-message-deduplication": True}
    return await channel.declare_queue("q", durable=True, arguments=arguments)


async def publish(channel: AbstractChannel, *keys: str) -> None:
    """All at once; returns when all are confirmed."""
    messages = [
        aio_pika.Message(key.encode(), delivery_mode=2, headers={"x-deduplication-header": key})
        for key in keys
    ]
    async with soon():
        await asyncio.gather(*(channel.default_exchange.publish(each, "q") for each in messages))


async def count(channel: AbstractChannel) -> int:
    queue = await channel.declare_queue("q", passive=True)
    return queue.declaration_result.message_count or 0


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_what_comes_through_several_nodes_comes_in_once(
    scene: Scene, queue_type: str
) -> None:
    await declare(await scene.channel("a"), queue_type)
    await scene.nodes.agree()
    channels = [await scene.channel(name) for name in "abc"]
    async with soon():
        await asyncio.gather(*(publish(each, *"abcab") for each in channels))
    assert await count(channels[0]) == 3


async def test_the_next_leader_knows_what_the_last_one_has_taken(scene: Scene) -> None:
    await declare(await scene.channel("a"), "quorum")
    publisher = await scene.channel("b")
    await publish(publisher, *"abcab")
    leader = scene.leader()
    await scene.nodes[leader].kill()
    (other, *_) = [node.name for node in scene.nodes.running if node.name != "b"] or ["b"]
    channel = await scene.channel(other)
    await publish(channel, *"abcd")
    assert scene.leader() != leader
    assert await count(channel) == 4
    traffic = scene.nodes[scene.leader()].node._runtime.traffic
    assert traffic.duplicates["quorum"] == 3
