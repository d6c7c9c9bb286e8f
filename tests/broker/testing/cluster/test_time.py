"""Time passes for messages on all nodes, and for nobody else."""

from __future__ import annotations

import asyncio

import pytest
from pamqp.common import FieldTable

from fluffle.broker import Cluster
from tests.support.quorum_queue import ChannelAt, declare, publish


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_messages_expire_into_queues_that_are_led_elsewhere(
    queue_type: str, channel_at: ChannelAt
) -> None:
    async with Cluster() as cluster:
        targets = {"first": "second", "second": "third", "third": None}
        for node, (name, target) in enumerate(targets.items()):
            arguments: FieldTable = {"x-queue-type": queue_type}
            if target is not None:
                arguments |= {
                    "x-message-ttl": 600_000,
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": target,
                }
            channel = await channel_at(cluster, node)
            await channel.declare_queue(name, durable=True, arguments=arguments)
            if queue_type == "quorum" and await cluster.leader(name) != node:
                await cluster.move_leader(name, node)
        vhost = cluster.vhost()
        await vhost.publish("", "first", b"late")
        await vhost.expect("first", count=1)
        counts = []
        for minutes in (9, 2, 8, 2):
            await cluster.clock.advance(minutes=minutes)
            counts.append([len(await vhost.messages(name)) for name in targets])
        assert counts == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]


async def test_who_leads_later_goes_by_the_same_time(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        channel = await channel_at(cluster, 1)
        arguments: FieldTable = {"x-queue-type": "quorum", "x-message-ttl": 600_000}
        await channel.declare_queue("orders", durable=True, arguments=arguments)
        if await cluster.leader("orders") != 0:
            await cluster.move_leader("orders", 0)
        await publish(channel, b"first")
        await cluster.clock.advance(minutes=9)
        await cluster.kill(0)
        await cluster.vhost().expect("orders", count=1)
        await cluster.clock.advance(minutes=1)
        await cluster.vhost().expect("orders", count=0)


async def test_nodes_do_not_miss_each_other_meanwhile(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 0))
        terms = [node.parts.company.groups[1].status.term for node in cluster.nodes]
        for _ in range(10):
            await cluster.clock.advance(days=1)
            await asyncio.sleep(0)
        assert [node.parts.company.groups[1].status.term for node in cluster.nodes] == terms
        assert await cluster.leader("orders") == 0
        await publish(channel, b"first")


async def test_who_is_started_later_goes_by_the_time_of_all(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        await cluster.clock.advance(hours=1)
        await cluster.restart(0)
        channel = await channel_at(cluster, 1)
        arguments: FieldTable = {"x-queue-type": "quorum", "x-message-ttl": 60_000}
        await channel.declare_queue("orders", durable=True, arguments=arguments)
        await publish(channel, b"first")
        await cluster.move_leader("orders", 0)
        await cluster.vhost().expect("orders", count=1)
        await cluster.clock.advance(minutes=1)
        await cluster.vhost().expect("orders", count=0)
