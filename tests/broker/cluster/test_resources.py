"""Limits of users and virtual hosts, where their connections are at several nodes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import permutations
from pathlib import Path

import aio_pika
import aiormq
import pytest
from aiormq.abc import AbstractConnection
from aiormq.exceptions import AMQPError
from pika import BlockingConnection, URLParameters
from pika.exceptions import ProbableAccessDeniedError

from fluffle.broker.access.limits import LimitedResource, Usage
from fluffle.broker.alarms import Alarms
from fluffle.broker.cluster.codec import BadFrame, pack
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from fluffle.broker.cluster.resources import SharedAlarms, SharedUsage
from tests.support.cluster_nodes import ClusterNode, ClusterNodes, running_cluster, until
from tests.support.fakes import Scheduler
from tests.support.frames import FakeSender


class Scene:
    def __init__(self, nodes: ClusterNodes, stack: AsyncExitStack) -> None:
        self.nodes = nodes
        self._stack = stack

    async def connection(self, node: str) -> AbstractConnection:
        connection = await aiormq.connect(self.nodes[node].url)
        self._stack.push_async_callback(connection.close)
        return connection

    async def counted(self, node: str, what: LimitedResource, name: str, count: int) -> None:
        """Until that node knows of so many on all."""
        usage = self.nodes[node].node.parts.access.usage
        await until(lambda: usage.in_all(what, name) == count)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_cluster(tmp_path) as three, AsyncExitStack() as stack:
        await three.meet()
        yield Scene(three, stack)


@pytest.mark.parametrize(
    ("verb", "name", "what", "refused"),
    [
        (
            "vhosts.limits",
            "/",
            LimitedResource.CONNECTIONS_TO_VHOST,
            r"access to vhost '/' refused for user 'guest': connection limit \(2\) is reached",
        ),
        (
            "users.limits",
            "guest",
            LimitedResource.CONNECTIONS_OF_USER,
            r"connection refused for user 'guest': user connection limit \(2\) is reached",
        ),
    ],
)
async def test_connections_of_all_nodes_count(
    scene: Scene, verb: str, name: str, what: LimitedResource, refused: str
) -> None:
    first, _second = [await scene.connection(node) for node in "ab"]
    await scene.nodes["b"].ask(verb, name=name, limits={"max-connections": 2})
    await scene.nodes.agree()
    for node in "abc":
        await scene.counted(node, what, name, 2)
        with pytest.raises(ProbableAccessDeniedError, match=refused):
            await asyncio.to_thread(BlockingConnection, URLParameters(scene.nodes[node].url))
    await first.close()
    await scene.counted("c", what, name, 1)
    await scene.connection("c")
    await scene.counted("b", what, name, 2)
    await scene.nodes["c"].kill()
    await scene.counted("b", what, name, 1)
    await scene.nodes["c"].start()
    await scene.counted("c", what, name, 1)


async def test_channels_of_all_nodes_count(scene: Scene) -> None:
    here, there = [await scene.connection(node) for node in "ab"]
    await here.channel()
    await scene.nodes["b"].ask("users.limits", name="guest", limits={"max-channels": 2})
    await scene.nodes.agree()
    await scene.counted("b", LimitedResource.CHANNELS_OF_USER, "guest", 1)
    await there.channel()
    refused = r"number of channels opened for user 'guest' has reached the maximum .*\(2\)"
    await scene.counted("a", LimitedResource.CHANNELS_OF_USER, "guest", 2)
    with pytest.raises(AMQPError, match=refused):
        await here.channel()


# Without nodes


class Node:
    """Node with the frames that it has sent and the other has not received."""

    def __init__(self, name: str, other: str) -> None:
        self.name = name
        self.usage = Usage()
        self.sent: list[tuple[str, str, bytes]] = []
        self.loop = Scheduler()
        self.shared = SharedUsage(
            self.usage, FakeSender(name, self.sent.append, [other]), self.loop
        )

    def turn(self) -> list[bytes]:
        """Frames that it sends in one turn."""
        self.loop.turn()
        sent, self.sent[:] = [payload for _, _, payload in self.sent], []
        return sent


def test_what_has_changed_is_reported_once_a_turn() -> None:
    a, b = Node("a", "b"), Node("b", "a")
    for _ in range(3):
        a.usage.opened("u", "v\udcff")
    a.usage.closed("u", "v\udcff")
    [frame] = a.turn()
    b.shared.receive("a", frame)
    assert b.usage.in_all(LimitedResource.CONNECTIONS_TO_VHOST, "v\udcff") == 2
    b.usage.opened("u", "w")
    assert b.usage.in_all(LimitedResource.CONNECTIONS_OF_USER, "u") == 3
    for _ in range(2):
        a.usage.closed("u", "v\udcff")
    [frame] = a.turn()
    b.shared.receive("a", frame)
    assert not any(b.usage.elsewhere["a"].values()), "nothing is kept of nobody"


def test_over_a_new_link_both_say_all() -> None:
    a, b = Node("a", "b"), Node("b", "a")
    a.usage.channel_opened("u")
    b.usage.channel_opened("u")
    a.turn(), b.turn()
    b.shared.receive("a", pack(False, False, [(2, "gone", 7)]))
    a.shared.link_changed("b", True)
    [asking] = a.turn()
    b.shared.receive("a", asking)
    [answer] = b.turn()
    a.shared.receive("b", answer)
    assert a.turn() == []
    for node in (a, b):
        assert node.usage.in_all(LimitedResource.CHANNELS_OF_USER, "u") == 2
        assert node.usage.in_all(LimitedResource.CHANNELS_OF_USER, "gone") == 0
    a.shared.link_changed("b", False)
    assert a.usage.in_all(LimitedResource.CHANNELS_OF_USER, "u") == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        pack(1),
        pack(0, 0, 5),
        pack(0, 0, [5]),
        pack(0, 0, [(3, "u", 1)]),
        pack(0, 0, [(0, 1, 1)]),
        pack(0, 0, [(0, "u", -1)]),
        pack(0, 0, [(0, "u", "1")]),
    ],
)
def test_what_cannot_be_read_is_refused(payload: bytes) -> None:
    node = Node("a", "b")
    with pytest.raises(BadFrame, match="its numbers cannot be read"):
        node.shared.receive("b", payload)
    assert node.usage.elsewhere == {}


class AlarmNode:
    """Node a or b with its alarms, and what it has sent to the other."""

    def __init__(self, name: str, other: str) -> None:
        self.sent: list[tuple[str, str, bytes]] = []
        self.alarms = Alarms()
        self.shared = SharedAlarms(
            FakeSender(name, self.sent.append, [other]), self.alarms, lambda *_: None
        )

    def turn(self) -> list[bytes]:
        sent, self.sent[:] = [payload for _, _, payload in self.sent], []
        return sent


@pytest.mark.parametrize("steps", [*permutations(["b is dialled", "b dials", "b hears"])])
def test_an_alarm_is_known_in_whatever_order_links_come(steps: tuple[str, ...]) -> None:
    """Alarms of a are lost until b has accepted its link, and are not before its own has come."""
    a, b = AlarmNode("a", "b"), AlarmNode("b", "a")
    a.alarms.set("memory", low=True)
    a.sent.clear()  # there was no link to b
    is_accepted = False
    for step in (*steps, "b hears"):
        if step == "b is dialled":
            is_accepted = True
            b.shared.link_accepted("a")
            a.shared.link_changed("b", True)
        elif step == "b dials":
            b.shared.link_changed("a", True)
            a.shared.link_accepted("b")
        for frame in a.turn() if step == "b hears" and is_accepted else ():
            b.shared.receive("a", frame)
    assert b.alarms.reason == "low on memory"


def test_an_alarm_of_a_node_whose_link_was_lost_is_reported_again_though_its_own_was_not() -> None:
    a, b = AlarmNode("a", "b"), AlarmNode("b", "a")
    a.alarms.set("disk", low=True)
    [frame] = a.turn()
    b.shared.receive("a", frame)
    b.shared.link_changed("a", False)
    assert b.alarms.reason == ""
    b.shared.link_changed("a", True)
    a.shared.link_accepted("b")
    [frame] = a.turn()
    b.shared.receive("a", frame)
    assert b.alarms.reason == "low on disk"


def test_what_a_node_was_low_on_in_another_life_counts_no_more() -> None:
    b = AlarmNode("b", "a")
    b.shared.receive("a", pack_alarms("memory"))
    b.shared.link_accepted("a")
    assert b.alarms.reason == ""


def pack_alarms(*resources: str) -> bytes:
    a = AlarmNode("a", "b")
    for resource in resources:
        a.alarms.set(resource, low=True)
    return a.turn()[-1]


def alarms(node: ClusterNode) -> Alarms:
    return node.node._services.alarms


def set_disk_low(node: ClusterNode, *, low: bool) -> None:
    """Raise or clear the disk alarm of a node by its watermark: an alarm without that would end
    with the next look."""
    alarms(node).move_disk_watermark(sys.maxsize if low else 0)


async def test_an_alarm_of_one_node_is_one_of_all_while_there_is_a_link(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        alarms(three["a"]).move_memory_watermark(0)
        await until(lambda: all(alarms(node).reason == "low on memory" for node in three))
        assert [alarms(node).raised for node in three] == [("memory",), (), ()]
        set_disk_low(three["b"], low=True)
        await until(lambda: alarms(three["c"]).reason == "low on disk & memory")
        await three["c"].kill()
        await three["c"].start()
        await until(lambda: alarms(three["c"]).reason == "low on disk & memory")
        await three["a"].kill()
        await until(lambda: alarms(three["c"]).reason == "low on disk")
        set_disk_low(three["b"], low=False)
        await until(lambda: all(alarms(node).reason == "" for node in three.running))


async def test_a_publisher_of_another_node_is_held_back(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        connection = await aio_pika.connect(three["b"].url)
        async with connection:
            channel = await connection.channel()
            await channel.declare_queue("q", durable=True)
            set_disk_low(three["a"], low=True)
            await until(lambda: bool(alarms(three["b"]).reason))
            message = aio_pika.Message(b"m", delivery_mode=2)
            publish = asyncio.ensure_future(channel.default_exchange.publish(message, "q"))
            connections = three["b"].node._services.connections
            await until(lambda: any(each.state == "blocked" for each in connections))
            assert not publish.done()
            set_disk_low(three["a"], low=False)
            await publish


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\xa6memory", b"\x91\xa4time", b"\x91\x01"])
async def test_what_is_no_alarm_is_refused(
    tmp_path: Path, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_cluster(tmp_path, 2) as two:
        links = two["a"].cluster.links
        await until(lambda: links.is_up("b"))
        links.send("b", FrameKind.ALARM, payload, traffic=TrafficClass.URGENT)
        await until(lambda: "frame_rejected" in [each.getMessage() for each in caplog.records])
        assert alarms(two["b"]).reason == ""
