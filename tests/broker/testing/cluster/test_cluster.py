"""Clusters in the loop of a test, with real clients, and what becomes of their processes."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from time import process_time

import aio_pika
import pytest
from aio_pika import DeliveryMode, Message
from pamqp.common import FieldTable

from fluffle.broker import Cluster
from fluffle.broker.base.errors import NotFound
from fluffle.broker.core import publisher
from fluffle.broker.node import NodeFailed
from fluffle.broker.runtime import turn
from fluffle.broker.testing.cluster.node import ProcessState
from fluffle.broker.testing.faults.faults import do
from tests.support.quorum_queue import QUORUM, ChannelAt, bodies, declare, publish

START_S_MAX = 5.0
"""Most processor time; it is a tenth of a second."""


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
        await cluster.wait_until_idle()
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
        with pytest.raises(TimeoutError, match=r"no node leads queue 'orders' .*node 0 is down"):
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
        terms = [node.parts.cluster_view.groups[1].status.term for node in cluster.nodes]
        for _ in range(10):
            await cluster.clock.advance(days=1)
            await asyncio.sleep(0)
        assert [node.parts.cluster_view.groups[1].status.term for node in cluster.nodes] == terms
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


QUORUM_QUEUES = [f"quorum {number}" for number in range(4)]
CLASSIC_QUEUES = [f"classic {number}" for number in range(publisher.TARGETS_AT_ONCE)]
MESSAGE = Message(b"x", delivery_mode=DeliveryMode.PERSISTENT)
ANSWER_S_MAX = 30.0


@pytest.fixture
def some_queues_take_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limit, so that replicas have answered before the last queue is asked."""
    monkeypatch.setattr(publisher, "TARGETS_AT_ONCE", 32)
    monkeypatch.setattr(turn, "SHARE_S", 0.00005)
    monkeypatch.setattr(turn, "SHARE_S_MIN", 0.00005)


async def bind_all(cluster: Cluster, channel_at: ChannelAt) -> None:
    """The replicated ones come first, each led by one of the nodes, and the others from two."""
    for number, name in enumerate(QUORUM_QUEUES):
        channel = await channel_at(cluster, number % 3)
        queue = await channel.declare_queue(name, durable=True, arguments=QUORUM)
        await cluster.move_leader(name, number % 3)
        await queue.bind("amq.fanout")
    for node in range(2):
        channel = await channel_at(cluster, node)
        for name in CLASSIC_QUEUES[node::2]:
            queue = await channel.declare_queue(name, auto_delete=True)
            await queue.bind("amq.fanout")


@pytest.mark.usefixtures("some_queues_take_a_turn")
@pytest.mark.slow("a cluster learns of hundreds of queues, one after the other")
async def test_a_publisher_hears_of_hundreds_of_queues_of_which_some_are_replicated(
    channel_at: ChannelAt,
) -> None:
    async with Cluster() as cluster:
        await bind_all(cluster, channel_at)
        confirming = await channel_at(cluster, 0)
        exchange = await confirming.get_exchange("amq.fanout")
        await asyncio.wait_for(exchange.publish(MESSAGE, ""), ANSWER_S_MAX)

        connection = await aio_pika.connect(cluster.urls[0])
        async with connection, connection.channel(publisher_confirms=False) as transactional:
            exchange = await transactional.get_exchange("amq.fanout")
            transaction = transactional.transaction()
            await transaction.select()
            await exchange.publish(MESSAGE, "")
            await asyncio.wait_for(transaction.commit(), ANSWER_S_MAX)

        for name in (*QUORUM_QUEUES, CLASSIC_QUEUES[0], CLASSIC_QUEUES[-1]):
            await cluster.vhost().expect(name, ready=2)


async def test_the_way_of_a_message_from_one_node_to_another(channel_at: ChannelAt) -> None:
    async with Cluster() as cluster:
        vhost = cluster.vhost()
        await declare(cluster, channel := await channel_at(cluster, 0))
        await publish(channel, b"first", b"second")
        queue = await (await channel_at(cluster, 2)).declare_queue("orders", passive=True)
        await (await queue.get()).ack()
        await queue.get()
        first, second = await vhost.history("orders")
        assert [step.what for step in first.steps] == ["published", "delivered", "acked"]
        assert first.steps[0].who != first.steps[1].who
        assert second.state == "unacked"
        with pytest.raises(AssertionError, match="1 not acknowledged"):
            await vhost.assert_no_unacked(within=0.1)
        await cluster.kill(0)
        assert await cluster.leader("orders") in {1, 2}
        assert [each.state for each in await vhost.history("orders")] == ["acked", "unacked"]
        assert "left in queue 'orders': 0 ready, 1 unacknowledged" in await vhost.timeline()
