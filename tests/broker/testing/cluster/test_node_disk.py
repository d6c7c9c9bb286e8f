"""Faults of a node's disk, seen by real clients."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fluffle.broker import Cluster
from fluffle.broker.testing.cluster.node import ProcessState
from tests.support.quorum_queue import ChannelAt, bodies, declare, publish


async def test_what_a_slow_disk_has_not_written_is_gone_when_its_process_is(
    channel_at: ChannelAt,
) -> None:
    async with Cluster(nodes=1) as cluster:
        await declare(cluster, channel := await channel_at(cluster, 0))
        await publish(channel, b"written")
        await cluster[0].disk.slow(ms=60_000)
        publishing = asyncio.ensure_future(publish(channel, b"not written"))
        await asyncio.wait({publishing}, timeout=0.1)
        assert not publishing.done()
        await cluster.kill(0)
        (outcome,) = await asyncio.gather(publishing, return_exceptions=True)
        assert isinstance(outcome, BaseException)
        await cluster[0].disk.repair()
        await cluster.start(0)
        assert await bodies(cluster) == [b"written"]


async def test_one_slow_disk_of_three_holds_nobody_up(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 0))
        await cluster[2].disk.slow(ms=60_000)
        await publish(channel, b"first")


async def test_a_full_disk_has_others_lead(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 1))
        await cluster[0].disk.full()
        assert await cluster.leader("orders", other_than=0) in {1, 2}
        await publish(channel, b"first")
        await cluster[0].disk.repair()
        await cluster.move_leader("orders", 0)
        assert await bodies(cluster) == [b"first"]


async def test_publishers_are_blocked_when_the_disks_of_a_majority_are_full(
    channel_at: ChannelAt,
) -> None:
    async with Cluster() as cluster:
        await declare(cluster, await channel_at(cluster, 0))
        for node in (0, 1):
            await cluster[node].disk.full()

        def is_blocked() -> bool:
            return all(node.parts.alarms.reason for node in cluster.nodes)

        await cluster.nodes.until(is_blocked, 10, lambda: "no alarm on all nodes")
        for node in (0, 1):
            await cluster[node].disk.repair()
        await cluster.nodes.until(lambda: not is_blocked(), 10, lambda: "still an alarm")


@pytest.mark.parametrize("is_in_memory", [True, False])
async def test_a_disk_that_fails_ends_its_node_and_nothing_that_was_confirmed(
    is_in_memory: bool, channel_at: ChannelAt, tmp_path: Path
) -> None:
    async with Cluster(data_dir=None if is_in_memory else tmp_path) as cluster:
        await declare(cluster, channel := await channel_at(cluster, 1))
        await publish(channel, b"before")
        await cluster[0].disk.fail()
        await publish(channel, b"after")
        assert cluster[0].state is ProcessState.FAILED
        assert await bodies(cluster) == [b"before", b"after"]
        await cluster[0].disk.repair()
        await cluster.start(0)
        await cluster.move_leader("orders", 0)
        assert await bodies(cluster) == [b"before", b"after"]


@pytest.mark.parametrize("is_in_memory", [True, False])
async def test_a_corrupt_entry_is_repaired_from_the_others(
    is_in_memory: bool, channel_at: ChannelAt, tmp_path: Path
) -> None:
    async with Cluster(data_dir=None if is_in_memory else tmp_path) as cluster:
        await declare(cluster, channel := await channel_at(cluster, 1))
        await publish(channel, b"first", b"second")
        for _ in range(2):  # the second time it is what the leader has sent
            await cluster[2].disk.corrupt(b"second")
            await cluster.kill(2)
            await cluster.start(2)
            await cluster.move_leader("orders", 2)
            assert await bodies(cluster) == [b"first", b"second"]


async def test_what_is_on_no_disk_cannot_be_corrupt() -> None:
    async with Cluster(nodes=1) as cluster:
        with pytest.raises(ValueError, match="no entry on this disk holds 'nothing'"):
            await cluster[0].disk.corrupt("nothing")
