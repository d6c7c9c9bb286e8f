"""A node is restarted in order, under load: clients of the others see a pause, and no more."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aio_pika.abc import AbstractIncomingMessage

from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.cluster.queues.ports import LeaderCounts
from tests.broker.cluster.queues.test_membership import is_led_as_wanted
from tests.broker.cluster.queues.test_quorum_queues import Scene, publish
from tests.support.cluster_nodes import ClusterNode, running_cluster, until

QUEUES = [f"q{number}" for number in range(6)]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_cluster(tmp_path) as three, AsyncExitStack() as stack:
        yield Scene(three, stack)


class Work:
    """A publisher at one node and consumers at another, in all queues, that go on until asked."""

    def __init__(self, scene: Scene, publishes_at: str, consumes_at: str) -> None:
        self._scene = scene
        self._at = publishes_at, consumes_at
        self.confirmed = 0
        self.received: list[AbstractIncomingMessage] = []
        self._is_over = asyncio.Event()

    async def begin(self) -> None:
        publishes_at, consumes_at = self._at
        self._publishing = await self._scene.channel(publishes_at)
        self._consuming = await self._scene.channel(consumes_at)
        for name in QUEUES:
            queue = await self._consuming.get_queue(name)
            await queue.consume(self._take)
        self._task = asyncio.ensure_future(self._publish())

    async def _take(self, message: AbstractIncomingMessage) -> None:
        self.received.append(message)
        await message.ack()

    async def _publish(self) -> None:
        for number in itertools.count():
            if self._is_over.is_set():
                return
            await publish(self._publishing, b"%d" % number, to=QUEUES[number % len(QUEUES)])
            self.confirmed += 1

    async def goes_on(self) -> None:
        """Until more is confirmed and received than was before, through all queues."""
        goal = self.confirmed + 2 * len(QUEUES)
        await until(lambda: self._task.done() or self.confirmed >= goal)

    async def end(self) -> None:
        """All that was confirmed was received, once and never before; nobody was cut off."""
        self._is_over.set()
        await self._task
        await until(lambda: len(self.received) >= self.confirmed)
        bodies = [message.body for message in self.received]
        assert sorted(bodies) == sorted(b"%d" % number for number in range(self.confirmed))
        assert not any(message.redelivered for message in self.received)
        assert not self._publishing.is_closed
        assert not self._consuming.is_closed


def terms(scene: Scene) -> dict[int, int]:
    """Terms of all groups, the metadata group included."""
    found: dict[int, int] = {}
    for node in scene.nodes.running:
        for group, hosted in node.cluster.running.host.groups.items():
            found[group] = max(found.get(group, 0), hosted.status.term)
    return found


def led(node: ClusterNode) -> set[int]:
    return {
        group
        for group, hosted in node.cluster.running.host.groups.items()
        if hosted.status.leader == node.name
    }


@pytest.mark.parametrize("restarted", "abc")
async def test_a_node_is_restarted_and_clients_of_the_others_go_on(
    scene: Scene, restarted: str
) -> None:
    """Elections are held of what it leads, because it says so, and of nothing else."""
    for name, at in zip(QUEUES, itertools.cycle("abc"), strict=False):
        await scene.declare(at, name)
        assert await is_led_as_wanted(scene, name) == at
    publishes_at, consumes_at = sorted({*"abc"} - {restarted})
    work = Work(scene, publishes_at, consumes_at)
    await work.begin()
    await work.goes_on()
    node = scene.nodes[restarted]
    before, was_led = terms(scene), led(node)
    assert len(was_led - {METADATA_GROUP}) == 2
    await node.stop()
    await work.goes_on()
    await node.start()
    await work.goes_on()
    rise = {group: term - before[group] for group, term in terms(scene).items()}
    assert rise == {group: int(group in was_led) for group in before}
    await work.end()


@pytest.mark.parametrize("name", "ab")
async def test_what_was_acknowledged_before_a_stop_does_not_come_back(
    scene: Scene, name: str
) -> None:
    """Both a leader and a follower are stopped."""
    await scene.declare("a")
    await is_led_as_wanted(scene)
    await publish(await scene.channel("c"), b"1", b"2", b"3")
    queue = await (await scene.channel(name)).get_queue("q")
    got = [await queue.get() for _ in range(3)]
    node = scene.nodes[name]
    definition = node.node.catalogue.vhosts["/"].queues["q"].definition
    edge = node.cluster.node_sessions.routes._by_queue[definition.id].session
    assert got[2] is not None
    await got[2].ack(multiple=True)
    await until(lambda: edge.deferrable > 0)
    await node.stop()
    others = scene.nodes.running
    await until(lambda: scene.leader() != "")
    assert left_of(others, "q") == (0, 0, 0, 0), "nothing is in anybody's hands either"


def left_of(nodes: list[ClusterNode], queue: str) -> LeaderCounts:
    """Counts of a queue, from its leader."""
    definition = nodes[0].node.catalogue.vhosts["/"].queues[queue].definition
    counts = [node.cluster.node_sessions.counts_here(definition.id) for node in nodes]
    return next(each for each in counts if each is not None)
