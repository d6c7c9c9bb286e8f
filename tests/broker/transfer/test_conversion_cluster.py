"""A classic queue becomes a quorum queue in a cluster, through any node, whoever ends then."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import aio_pika
import pytest

from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.metadata.nodes import CHANGES_TYPES
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.transfer.conversion import Conversion
from tests.broker.cluster.queues.test_quorum_queues import Inbox, Scene, publish, scene
from tests.broker.transfer.test_conversion import (
    BODIES,
    COUNT,
    Steps,
    bodies,
    converted,
    steps,
    type_of,
)
from tests.support.cluster_nodes import Killed, until
from tests.support.deadlines import soon

__all__ = ["scene", "steps"]


async def filled(scene: Scene, *contents: bytes) -> None:
    """A classic queue whose home is a."""
    channel = await scene.channel("a")
    await channel.declare_queue("q", durable=True)
    await publish(channel, *contents)


async def consumed(scene: Scene, count: int, name: str = "b") -> list[bytes]:
    """All that is there, which are so many."""
    channel, inbox = await scene.channel(name), Inbox()
    queue = await channel.get_queue("q")
    await queue.consume(inbox.take, no_ack=True)
    await inbox.has(count)
    assert (await channel.get_queue("q")).declaration_result.message_count == 0
    return inbox.bodies


@pytest.mark.parametrize("name", ["a", "c"])
async def test_through_any_node(scene: Scene, name: str) -> None:
    await filled(scene, *BODIES)
    reported = await converted(scene.nodes[name])
    assert reported[-1]["ready"] == COUNT
    await scene.nodes.agree()
    assert {type_of(node) for node in scene.nodes} == {QueueType.QUORUM}
    for node in scene.nodes:
        assert await bodies(node) == BODIES
    members = [row async for row in scene.nodes["b"].listed("queues.members", name="q", vhost="/")]
    assert [row["wanted"] for row in members] == [True] * 3
    await publish(await scene.channel("b"), b"more")
    await scene.nodes["a"].kill()
    assert await consumed(scene, COUNT + 1) == [*BODIES, b"more"]


class Beat:
    """Stepper of a conversion: it waits before each step until it may go on."""

    def __init__(self, steps: Steps) -> None:
        self.is_over = False
        self._next = asyncio.Event()
        steps.at = lambda _count: self._wake()

    def _wake(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    def end(self) -> None:
        """Let the conversion run without waiting."""
        self.is_over = True
        self._wake()

    async def next(self) -> None:
        if not self.is_over:
            await self._next.wait()


@pytest.mark.slow("nodes of a cluster start anew for each step")
async def test_publishers_of_all_nodes_go_on_and_nothing_is_lost(
    scene: Scene, steps: Steps
) -> None:
    await filled(scene, *BODIES)
    beat = Beat(steps)

    async def publish_on(name: str) -> int:
        channel, count = await scene.channel(name), 0
        while not beat.is_over or count < 50:
            message = aio_pika.Message(f"{name} {count}".encode(), delivery_mode=2)
            await channel.default_exchange.publish(message, "q")
            count += 1
        return count

    async def publish_unconfirmed(name: str) -> int:
        connection = await aio_pika.connect(scene.nodes[name].url)
        channel = await connection.channel(publisher_confirms=False)
        count = 0
        while not beat.is_over or count < 50:
            for _ in range(10):
                message = aio_pika.Message(f"un{name} {count}".encode(), delivery_mode=2)
                await channel.default_exchange.publish(message, "q")
                count += 1
            await beat.next()
        await channel.get_queue("q")
        await connection.close()
        return count

    publishing = [asyncio.ensure_future(publish_on(name)) for name in "abc"]
    publishing += [asyncio.ensure_future(publish_unconfirmed(name)) for name in "abc"]
    await converted(scene.nodes["b"])
    beat.end()
    async with soon():
        counts = await asyncio.gather(*publishing)
    found = await consumed(scene, COUNT + sum(counts))
    assert found[:COUNT] == BODIES
    names = ["a", "b", "c", "una", "unb", "unc"]
    for name, count in zip(names, counts, strict=True):
        of_it = [body for body in found[COUNT:] if body.startswith(f"{name} ".encode())]
        assert of_it == [f"{name} {number}".encode() for number in range(count)]


async def test_consumers_of_other_nodes_are_cancelled(scene: Scene) -> None:
    await filled(scene)
    channel, inbox = await scene.channel("b"), Inbox()
    queue = await channel.get_queue("q")
    underlying = await channel.get_underlay_channel()
    await queue.consume(inbox.take, consumer_tag="c")
    await converted(scene.nodes["c"])
    await until(lambda: "c" not in underlying.consumers)  # type: ignore[attr-defined]
    await queue.consume(inbox.take)
    await publish(channel, b"1")
    await inbox.has(1)


async def test_a_purge_that_comes_too_late_is_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Purged messages do not come back: the queue may be purged again."""
    await filled(scene, *BODIES[:100])
    settle, refused = Conversion._settle, []

    def settle_and_purge(self: Conversion, decide: Any) -> None:
        settle(self, decide)
        assert type_of(scene.nodes["a"]) is QueueType.CLASSIC, "it takes the nodes a while"
        with pytest.raises(
            PreconditionFailed, match="queue 'q' in vhost '/' is becoming"
        ) as reported:
            self._queue.purge()
        refused.append(reported.value)

    monkeypatch.setattr(Conversion, "_settle", settle_and_purge)
    await converted(scene.nodes["b"])
    assert len(refused) == 1
    await scene.nodes.agree()
    assert await bodies(scene.nodes["a"]) == BODIES[:100]
    purged = await scene.nodes["a"].ask("queues.purge", name="q", vhost="/")
    assert (purged, await bodies(scene.nodes["a"])) == ({"messages": 100}, [])


async def test_the_caller_gets_the_reason_of_giving_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(scene, b"1")
    message = await (await (await scene.channel("b")).get_queue("q")).get()
    assert message is not None
    monkeypatch.setattr("fluffle.broker.transfer.conversion.PATIENCE_MS", 0)
    with pytest.raises(PreconditionFailed, match="the log of node 'a' says why"):
        await converted(scene.nodes["c"])
    assert type_of(scene.nodes["a"]) is QueueType.CLASSIC
    await message.reject(requeue=True)
    assert await consumed(scene, 1) == [b"1"]


@pytest.mark.slow("nodes of a cluster start anew for each step")
async def test_a_node_of_an_older_version_is_waited_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(scene, b"1")
    monkeypatch.setattr("fluffle.broker.metadata.nodes.KNOWS", 0)
    await scene.nodes["b"].stop()
    await scene.nodes["b"].start()
    await scene.nodes.agree()
    with pytest.raises(PreconditionFailed, match="node 'b' is of a version that knows nothing"):
        await converted(scene.nodes["a"])
    monkeypatch.setattr("fluffle.broker.metadata.nodes.KNOWS", CHANGES_TYPES)
    await scene.nodes["b"].stop()
    await scene.nodes["b"].start()
    await scene.nodes.agree()
    await converted(scene.nodes["a"])


@pytest.mark.slow("nodes of a cluster start anew for each step")
async def test_the_node_that_has_the_queue_is_killed_at_some_steps(
    scene: Scene, steps: Steps
) -> None:
    published = BODIES[:1_200]
    await filled(scene, *published)
    for step in (1, 2, 4, 6):
        steps.count = 0

        def kill(count: int, step: int = step) -> None:
            if count == step:
                scene.nodes["a"].node.fail(Killed())

        steps.at = kill
        converting = asyncio.ensure_future(converted(scene.nodes["c"]))
        await until(lambda: scene.nodes["a"].node.failure is not None or converting.done())  # noqa: B023
        steps.at = lambda _count: None
        if scene.nodes["a"].node.failure is None:
            break
        await scene.nodes["a"].kill()
        await scene.nodes["a"].start()
        with suppress(BrokerError):
            await converting
        await scene.nodes.agree()
        assert await bodies(scene.nodes["b"]) == published
        if type_of(scene.nodes["b"]) is QueueType.QUORUM:
            break
        await until(lambda: not scene.nodes["b"].node.catalogue.vhosts["/"].successors)
    else:
        await converted(scene.nodes["c"])
    assert {type_of(node) for node in scene.nodes} == {QueueType.QUORUM}
    assert await bodies(scene.nodes["b"]) == published
    for node in scene.nodes:
        await until(lambda node=node: len(node.node.parts.cluster_view.groups) == 2)  # type: ignore[misc]


@pytest.mark.slow("nodes of a cluster start anew for each step")
async def test_the_leader_of_what_it_becomes_is_killed(scene: Scene, steps: Steps) -> None:
    """Another member leads, and it goes on."""
    await filled(scene, *BODIES)

    def kill(count: int) -> None:
        successor = scene.nodes["a"].node.catalogue.vhosts["/"].successors["q"].definition
        served = scene.nodes["c"].cluster.node_sessions.leaders.queues.get(successor.id)
        if count >= 2 and served is not None and served.sessions is not None:
            steps.at = lambda _count: None
            scene.nodes["c"].node.fail(Killed())

    steps.at = kill
    # whoever is asked leads what it becomes at first
    asked = asyncio.ensure_future(converted(scene.nodes["c"]))
    await until(lambda: scene.nodes["c"].node.failure is not None)
    await scene.nodes["c"].kill()
    asked.cancel()
    await until(lambda: type_of(scene.nodes["a"]) is QueueType.QUORUM)
    assert await bodies(scene.nodes["a"]) == BODIES
    await scene.nodes["c"].start()
    await scene.nodes.agree()
    assert await consumed(scene, COUNT) == BODIES


async def test_a_node_that_was_away_hears_of_it(scene: Scene) -> None:
    await filled(scene, *BODIES[:100])
    await scene.nodes["c"].stop()
    await converted(scene.nodes["b"])
    await scene.nodes["c"].start()
    await scene.nodes.agree()
    assert type_of(scene.nodes["c"]) is QueueType.QUORUM
    await until(lambda: len(scene.nodes["c"].node.parts.cluster_view.groups) == 2)
    assert await bodies(scene.nodes["c"]) == BODIES[:100]
