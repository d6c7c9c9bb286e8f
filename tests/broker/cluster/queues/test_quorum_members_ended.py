"""The remains of quorum queues, members and leaderships that have ended: nothing that waits for the
garbage collector, at leaders and followers, and where clients are."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.broker.cluster.queue_sessions.session_server import SessionServer
from fluffle.broker.cluster.queues.leader_routes import LeaderRoute
from fluffle.broker.cluster.queues.quorum_member import GroupLog, QuorumQueueMember
from fluffle.broker.cluster.queues.session_queue import SessionQueue
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.quorum.leadership import Leadership, QueueReplica
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.raft.group import Group
from tests.broker.cluster.queues.test_membership import Q, is_led_as_wanted, is_on
from tests.broker.cluster.queues.test_quorum_queues import Inbox, Scene, publish, scene
from tests.support.cluster_nodes import until
from tests.support.leaks import without_collector

__all__ = ["scene"]

pytestmark = pytest.mark.usefixtures(without_collector.__name__)

MEMBER_PARTS = Group, GroupLog, HostedGroup, QuorumQueueMember, QueueImage, QueueReplica
CLIENT_PARTS = SessionQueue, LeaderRoute
PARTS = (*MEMBER_PARTS, *CLIENT_PARTS, Leadership, Queue, SessionServer)


def parts_there() -> Counter[str]:
    """How many there are of what quorum queues are made of, on all nodes."""
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, PARTS))


async def use(scene: Scene) -> None:
    """Declare a queue, led by a; publish, get, purge, and consume at the followers, whose clients
    hold messages."""
    await scene.declare("a")
    await is_led_as_wanted(scene)
    channel = await scene.channel("b")
    await publish(channel, b"1", b"2", b"3")
    queue = await channel.get_queue("q")
    got = await queue.get()
    assert got is not None
    await got.ack()
    await queue.purge()
    for name in "bc":
        channel = await scene.channel(name)
        await channel.set_qos(prefetch_count=2)
        inbox = Inbox()
        await (await channel.get_queue("q")).consume(inbox.take)
        await publish(channel, b"4", b"5", b"6")
        await inbox.has(2)
        await inbox.messages[0].ack()


async def delete(scene: Scene) -> None:
    channel = await scene.channel("c")
    await channel.queue_delete("q")
    await scene.nodes.agree()


async def test_a_deleted_queue_needs_no_collector(scene: Scene) -> None:
    """Its messages that a client holds, and the route it has published by, go with its
    connection."""
    before = parts_there()
    await use(scene)
    assert parts_there() - before
    await delete(scene)
    await until(lambda: {*(parts_there() - before)} <= {part.__name__ for part in CLIENT_PARTS})
    await scene.disconnect()
    await until(lambda: parts_there() == before)


async def test_a_leadership_that_moves_needs_no_collector(scene: Scene) -> None:
    await use(scene)
    before = parts_there()
    for name in "bca":
        await scene.nodes["b"].ask("queues.transfer", **Q, node=name)
        await scene.is_led_by(name)
    await until(lambda: scene.leader() == "a")
    await until(lambda: parts_there() == before)


async def test_a_member_that_goes_needs_no_collector(scene: Scene) -> None:
    """Be it the leader, or not; and when it comes again all is as before."""
    await use(scene)
    before = parts_there()
    one = Counter({part.__name__: 1 for part in MEMBER_PARTS})
    for name in "ab":
        await scene.nodes["c"].ask("queues.delete_member", **Q, node=name)
        await is_on(scene, "abc".replace(name, ""))
        await until(lambda: parts_there() == before - one)
        await scene.nodes["c"].ask("queues.add_member", **Q, node=name)
        await is_on(scene, "abc")
        await until(lambda: parts_there() == before)
