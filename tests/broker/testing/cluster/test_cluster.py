"""Clusters in the loop of a test, with real clients, and what becomes of their processes."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from time import process_time

import aio_pika
import pytest

from fluffle.broker import Cluster
from fluffle.broker.base.errors import NotFound
from fluffle.broker.node import NodeFailed
from fluffle.broker.testing.cluster.node import ProcessState
from fluffle.broker.testing.faults.clients import do
from tests.support.quorum_queue import QUORUM, ChannelAt, bodies, declare, publish

START_S_MAX = 5.0
"""Of a processor; it is a tenth of a second."""


async def test_it_starts_in_a_moment_and_all_nodes_take_clients(channel_at: ChannelAt) -> None:
    began_s = process_time()
    async with Cluster(nodes=3) as cluster:
        assert process_time() - began_s < START_S_MAX
        for node in range(3):
            channel = await channel_at(cluster, node)
            await channel.declare_queue(f"of {node}", durable=True, arguments=QUORUM)
        assert set(await cluster.vhost().queues()) == {"of 0", "of 1", "of 2"}
        assert {len(await cluster.members(f"of {node}")) for node in range(3)} == {3}


async def test_what_is_confirmed_outlives_its_leader(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 1))
        confirmed = [b"%d" % number for number in range(50)]
        await publish(channel, *confirmed)
        await cluster.kill(0)
        assert await cluster.leader("orders") in {1, 2}
        await publish(channel, b"after")
        assert await bodies(cluster) == [*confirmed, b"after"]
        await cluster.start(0)
        await cluster.move_leader("orders", 0)
        assert await bodies(cluster) == [*confirmed, b"after"]


async def test_nothing_is_lost_when_all_are_killed_at_once(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 1))
        await publish(channel, b"first", b"second")
        await cluster.kill(0, 1, 2)
        await cluster.start()
        await cluster.vhost().expect("orders", ready=2)


async def test_who_is_paused_leads_no_more_and_comes_back_as_a_follower(
    channel_at: ChannelAt,
) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 1))
        await publish(channel, b"before")
        await cluster.pause(0)
        assert cluster[0].state is ProcessState.PAUSED
        assert await cluster.leader("orders") in {1, 2}
        await publish(channel, b"meanwhile")
        await cluster.resume(0)
        await cluster.move_leader("orders", 0)
        assert await bodies(cluster) == [b"before", b"meanwhile"]


async def test_who_is_paused_answers_when_it_goes_on(channel_at: ChannelAt) -> None:
    async with Cluster(nodes=1) as cluster:
        channel = await channel_at(cluster, 0)
        await cluster.pause(0)
        declaring = asyncio.ensure_future(channel.declare_queue("orders"))
        connecting = asyncio.ensure_future(aio_pika.connect(cluster.url))
        done, _ = await asyncio.wait({declaring, connecting}, timeout=0.1)
        assert done == set()
        await cluster.resume(0)
        await declaring
        await (await connecting).close()


async def test_a_restart_in_order_keeps_messages_and_addresses(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        urls = cluster.urls
        await declare(cluster, channel := await channel_at(cluster, 0))
        await publish(channel, b"first")
        await cluster.restart(0, 1, 2)
        assert cluster.urls == urls
        channel = await channel_at(cluster, 0)
        await publish(channel, b"second")
        assert await bodies(cluster) == [b"first", b"second"]


async def test_an_orderly_stop_tells_clients() -> None:
    async with Cluster() as cluster:
        connection = await aio_pika.connect(cluster.urls[2])
        closed: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        connection.close_callbacks.add(lambda _sender, error: closed.set_result(error))
        await cluster.stop(2)
        assert "CONNECTION_FORCED" in str(await closed)
        assert cluster[2].state is ProcessState.DOWN


async def test_a_node_whose_disk_is_gone_is_no_member_any_more(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 0))
        await publish(channel, b"first")
        await cluster.kill(2)
        await cluster.wipe(2)
        assert await bodies(cluster) == [b"first"]
        with pytest.raises(RuntimeError, match="node 1 is running; kill it first"):
            await cluster.wipe(1)


async def test_a_node_whose_disk_is_gone_is_let_in_anew(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 0))
        await publish(channel, b"first")
        await cluster.kill(2)
        await cluster.wipe(2)
        await cluster.start(2)
        assert cluster[2].state is ProcessState.RUNS
        await publish(await channel_at(cluster, 2), b"second")
        assert await bodies(cluster) == [b"first", b"second"]


async def test_nodes_all_of_whose_disks_are_gone_begin_anew() -> None:
    async with Cluster(nodes=2) as cluster:
        await cluster.kill(0, 1)
        await cluster.wipe(0, 1)
        await cluster.start()
        assert [node.state for node in cluster.nodes] == [ProcessState.RUNS, ProcessState.RUNS]


async def test_users_virtual_hosts_and_a_directory_are_as_for_a_broker(
    tmp_path: Path, channel_at: ChannelAt
) -> None:
    async with Cluster(data_dir=tmp_path, users={"app": "secret"}, vhosts=["shop"]) as cluster:
        assert cluster.url.startswith("amqp://app:secret@127.0.0.1:")
        await declare(cluster, channel := await channel_at(cluster, 0))
        await publish(channel, b"first")
        await cluster.kill(0)
        await cluster.start(0)
        await cluster.vhost("shop").expect("orders", count=1)
        await cluster.add_vhost("more")
        await cluster.delete_vhost("more")
        with pytest.raises(NotFound):
            cluster.vhost("more")
    async with Cluster(data_dir=tmp_path, users={"app": "secret"}, vhosts=["shop"]) as cluster:
        await cluster.vhost().expect("orders", count=1)


async def test_what_goes_wrong_in_a_virtual_host_ends_with_it() -> None:
    async with Cluster(nodes=2) as cluster:
        await cluster.add_vhost("more")
        first, second = cluster[0], cluster[1]
        do(first.scope("more"), "unkind", seed=1)
        do(first.scope("more"), "block")
        do(second.scope(), "logins.refuse")
        with pytest.raises(NotFound):
            await cluster.delete_vhost("missing")
        assert second.scope().in_effect
        async with await aio_pika.connect(cluster.url_of("more")) as connection:
            closed = asyncio.get_running_loop().create_future()
            connection.close_callbacks.add(lambda _of, why: closed.set_result(why))
            await cluster.delete_vhost("more")
            assert "the test is over" in str(await closed)
        await cluster.settle()
        await cluster.add_vhost("more")
        assert not first.scope("more").in_effect
        assert not second.scope().in_effect
        for node in range(2):
            async with await aio_pika.connect(cluster.url_of("more", node)) as connection:
                channel = await connection.channel()
                await channel.declare_queue("orders", exclusive=True)
                await publish(channel, b"first")


async def test_classic_queues_are_seen_where_they_are(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        channel = await channel_at(cluster, 2)
        await channel.declare_queue("orders")
        await cluster.vhost().publish("", "orders", b"first")
        await cluster.vhost().expect("orders", count=1)
        assert await cluster.leader("orders") == 2
        assert await cluster.members("orders") == {2}
        assert await bodies(cluster) == [b"first"]
        assert await cluster.vhost().purge("orders") == 1


async def test_messages_are_taken_where_their_queue_is_led(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        await declare(cluster, channel := await channel_at(cluster, 0))
        await cluster.move_leader("orders", 2)
        await publish(channel, b"first", b"second")
        taken = await cluster.vhost().get("orders")
        await cluster.vhost().expect("orders", unacked=1)
        taken.ack()
        await cluster.vhost().expect("orders", count=1)
        assert [each.body for each in await cluster.vhost().consume("orders")] == [b"second"]
        assert (await cluster.vhost().explain("", "orders")).queues == ("orders",)


async def test_waits_end_and_say_what_they_have_seen(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        with pytest.raises(TimeoutError, match=r"there is no queue 'orders' .*node 2 is running"):
            await cluster.leader("orders", within=0.01)
        await declare(cluster, await channel_at(cluster, 1))
        with pytest.raises(AssertionError, match="has not had 1 messages; it has 0 messages"):
            await cluster.vhost().expect("orders", count=1, within=0.01)
        await cluster.kill(0, 2)
        with pytest.raises(TimeoutError, match=r"nobody leads queue 'orders' .*node 0 is down"):
            await cluster.leader("orders", within=0.01)


async def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match="a cluster of 0 nodes"):
        Cluster(nodes=0)
    async with Cluster() as cluster:
        with pytest.raises(ValueError, match="there is no node 3, but 0 to 2"):
            await cluster.kill(3)
        with pytest.raises(RuntimeError, match="node 0 is running"):
            await cluster.start(0)
        with pytest.raises(RuntimeError, match="node 0 is running"):
            await cluster.resume(0)
        await cluster.kill(0)
        with pytest.raises(RuntimeError, match="node 0 is down"):
            await cluster.kill(0)


async def test_a_node_that_ends_by_itself_ends_the_test() -> None:
    with pytest.raises(NodeFailed, match="a node has failed: something is wrong"):
        async with Cluster() as cluster:
            cluster[1].process.run(cluster[1].node.fail, AssertionError("something is wrong"))


async def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was done to it: no task, no thread, no directory; pytest looks for sockets."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tasks, threads = asyncio.all_tasks(), threading.enumerate()
    async with Cluster() as cluster:
        assert is_used(tmp_path)
        await cluster.partition({0}, {1, 2})
        await cluster.pause(1)
        await cluster.kill(2)
    assert asyncio.all_tasks() == tasks
    assert threading.enumerate() == threads
    assert not is_used(tmp_path)


def is_used(folder: Path) -> bool:
    return any(folder.iterdir())
