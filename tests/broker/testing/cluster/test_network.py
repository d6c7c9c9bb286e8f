"""Faults between the nodes of a cluster, seen by real clients."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random

import pytest

from fluffle.broker import Cluster
from fluffle.broker.testing.cluster.network import RESENDS_MAX, LinkDirection, StreamDirection
from tests.support.quorum_queue import ChannelAt, bodies, declare, publish


async def test_a_minority_confirms_nothing_until_it_is_healed_and_then_once(
    channel_at: ChannelAt,
) -> None:
    async with Cluster() as cluster:
        await declare(cluster, minority := await channel_at(cluster, 0))
        majority = await channel_at(cluster, 1)
        await publish(minority, b"before")
        await cluster.partition({0}, {1, 2})
        publishing = asyncio.ensure_future(publish(minority, b"of the minority"))
        assert await cluster.leader("orders", other_than=0) in {1, 2}
        await publish(majority, b"of the majority")
        assert not publishing.done()
        await cluster.heal()
        await publishing
        assert await bodies(cluster) == [b"before", b"of the majority", b"of the minority"]


async def test_what_is_cut_one_way_leaves_a_majority(channel_at: ChannelAt) -> None:
    """Its leader hears node 2 and is not heard by it."""
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 0))
        await cluster.cut(0, 2)
        await publish(channel, *(b"%d" % number for number in range(10)))
        await cluster.heal()
        await cluster.kill(0)
        await cluster.vhost().expect("orders", count=10)


async def test_all_apart_nobody_can_declare_and_afterwards_everybody_can(
    channel_at: ChannelAt,
) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 0))
        await cluster.partition({0}, {1}, {2})
        declaring = asyncio.ensure_future(channel.declare_queue("more"))
        publishing = asyncio.ensure_future(publish(await channel_at(cluster, 1), b"first"))
        done, _ = await asyncio.wait({declaring, publishing}, timeout=0.1)
        assert done == set()
        await cluster.heal()
        await asyncio.gather(declaring, publishing)
        assert await bodies(cluster) == [b"first"]


async def test_what_is_delayed_is_confirmed_later(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 0))
        await cluster.net.delay(ms=30)
        began = asyncio.get_running_loop().time()
        await publish(channel, b"first")
        assert asyncio.get_running_loop().time() - began >= 0.06  # there and back
        await cluster.heal()
        await publish(channel, b"second")


async def test_what_is_dropped_is_sent_again(channel_at: ChannelAt) -> None:
    async with Cluster(seed=7) as cluster:
        await declare(cluster, channel := await channel_at(cluster, 0))
        await cluster.net.drop(0.2)
        sent = [b"%d" % number for number in range(10)]
        await publish(channel, *sent)
        assert await bodies(cluster) == sent


async def test_who_is_dead_behind_a_partition_is_not_known_to_be(channel_at: ChannelAt) -> None:
    """The end of the process is not reported: the node is missed by its silence."""
    async with Cluster() as cluster:
        await declare(cluster, await channel_at(cluster, 1))
        await cluster.partition({0}, {1, 2})
        await cluster.kill(0)
        assert await cluster.leader("orders") in {1, 2}
        other = cluster[1].node.cluster
        assert other is not None
        assert not other.links.is_not_running("node0")


async def test_what_is_no_network_is_refused() -> None:
    async with Cluster(nodes=2) as cluster:
        for sides in ([{0}], [{0, 1}, {1}]):
            with pytest.raises(ValueError, match="not the sides of a partition"):
                await cluster.partition(*sides)
        with pytest.raises(ValueError, match="no way from node 0 to node 2"):
            await cluster.cut(0, 2)
        with pytest.raises(ValueError, match="no way from node 0 to node 0"):
            await cluster.cut(0, 0)
        with pytest.raises(ValueError, match=r"1.5 is no share"):
            await cluster.net.drop(1.5)
        with pytest.raises(ValueError, match="1 ms before"):
            await cluster.net.delay(ms=-1)


class Seen:
    """A flow, and what has arrived over it."""

    def __init__(self) -> None:
        self.way = LinkDirection(Random(7))
        self.busy: list[bool] = []
        self.arrived: list[int] = []
        self.flow = StreamDirection(self.way, asyncio.get_running_loop(), self._look)

    def _look(self) -> None:
        self.busy.append(self.flow.is_busy)

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.flow.put(partial(self.arrived.append, number))


@pytest.fixture
async def seen() -> Seen:
    return Seen()


async def test_where_nothing_is_wrong_all_arrives_at_once(seen: Seen) -> None:
    seen.put(1, 2)
    assert (seen.arrived, seen.busy) == ([1, 2], [])


async def test_a_cut_holds_up_and_loses_nothing(seen: Seen) -> None:
    seen.way.cut()
    seen.put(1, 2)
    assert (seen.arrived, seen.busy) == ([], [True])
    seen.way.mend()
    seen.put(3)
    assert (seen.arrived, seen.busy) == ([1, 2, 3], [True, False])


async def test_what_is_delayed_arrives_in_order(seen: Seen) -> None:
    seen.way.delay_s = 0.01
    seen.put(1)
    seen.way.delay_s = 0.0
    seen.put(2)
    last = asyncio.Event()
    seen.flow.put(last.set)
    assert seen.arrived == []
    await last.wait()
    assert (seen.arrived, seen.busy) == ([1, 2], [True, False])


async def test_what_is_dropped_takes_longer_by_a_seed_and_arrives_at_last(seen: Seen) -> None:
    seen.way.loss = 0.5
    taken = [seen.way.taken_s() for _ in range(1000)]
    again = LinkDirection(Random(7))
    again.loss = 0.5
    assert taken == [again.taken_s() for _ in range(1000)]
    assert min(taken) == 0
    assert max(taken) == pytest.approx(0.2 * (2**RESENDS_MAX - 1))
    assert 450 < taken.count(0) < 550


async def test_over_a_connection_that_is_gone_nothing_arrives(seen: Seen) -> None:
    seen.way.cut()
    seen.put(1)
    seen.flow.end()
    seen.way.mend()
    assert seen.arrived == []
    assert seen.way.flows == set()
