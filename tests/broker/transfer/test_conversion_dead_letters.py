"""Dead letters on their way while a queue changes its type: those it gets, and its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

import aio_pika
import pytest

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.conversion_buffer import ConversionBuffer
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.transfer.conversion import Conversion, give_up
from tests.broker.cluster.queues.test_quorum_queues import publish
from tests.broker.composition.test_single_node import Scene, scene
from tests.broker.transfer.test_conversion import (
    bodies,
    converted,
    declare,
    filled,
    type_of,
)
from tests.support.cluster_nodes import until

__all__ = ["scene"]


@pytest.mark.parametrize(("leaders", "comes"), [(1, 1), (2, 2)])
async def test_a_dead_letter_that_must_arrive_elsewhere_too_comes_again_only_of_another_leader(
    scene: Scene, leaders: int, comes: int
) -> None:
    """Messages of the classic queue are known to the leader of the source queue, and to no
    other."""
    channel = await filled(scene)
    vhost = scene.node.node.catalogue.vhosts["/"]
    full: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
    dying: dict[str, Any] = {
        "x-queue-type": "quorum", "x-dead-letter-exchange": "dlx",
        "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
    }  # fmt: skip
    await channel.declare_queue("dying", durable=True, arguments=dying)
    await channel.declare_queue("full", durable=True, arguments=full)
    await publish(channel, b"fills", to="full")
    dlx = await channel.declare_exchange("dlx", aio_pika.ExchangeType.FANOUT, durable=True)
    for name in ("q", "full"):
        await (await channel.get_queue(name)).bind(dlx)
    await publish(channel, b"once", to="dying")
    await (await (await channel.get_queue("dying")).get()).reject()
    await until(lambda: vhost.queues["q"].ready_count == 1)
    await converted(scene.node)
    group = scene.node.node.parts.cluster_view.groups[vhost.queues["dying"].definition.id].machine
    assert isinstance(group, QuorumQueueMember)
    for _ in range(leaders - 1):
        group.fail()
        group.lead_again()
    await (await channel.get_queue("full")).purge()
    await until(lambda: vhost.queues["full"].ready_count == 1)
    await publish(channel, b"next")
    assert await bodies(scene.node) == [b"once"] * comes + [b"next"]
    assert len(vhost.predecessors) == 1
    await (await channel.get_queue("q")).delete(if_unused=False, if_empty=False)
    assert vhost.predecessors == {}


async def test_a_dead_letter_that_is_held_back_keeps_its_number(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it comes once, whoever leads the queue where it died and tries it again."""
    channel, waits = await filled(scene), []
    vhost, settle = scene.node.node.catalogue.vhosts["/"], Conversion._settle
    monkeypatch.setattr(Conversion, "_settle", lambda *asked: waits.append(asked))
    dying: dict[str, Any] = {
        "x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q",
        "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
    }  # fmt: skip
    await channel.declare_queue("dying", durable=True, arguments=dying)
    await publish(channel, b"once", to="dying")
    converting = asyncio.ensure_future(converted(scene.node))
    await until(lambda: bool(waits))
    await (await (await channel.get_queue("dying")).get()).reject()
    await until(lambda: bool(cast(ConversionBuffer, vhost.redirects["q"])._held))
    settle(*waits[0])
    await converting
    await until(lambda: len(numbers_of(scene, vhost.queues["q"])) > 0)
    dying_id = vhost.queues["dying"].definition.id
    assert numbers_of(scene, vhost.queues["q"]) == {dying_id: [(1, 2)]}
    assert await bodies(scene.node) == [b"once"]


def numbers_of(scene: Scene, queue: QueueHandle) -> dict[int, list[tuple[int, int]]]:
    """Remembered dead letters by source queue."""
    machine = scene.node.node.parts.cluster_view.groups[queue.definition.id].machine
    assert isinstance(machine, QuorumQueueMember)
    sources = machine.replica.image.state.sources
    return {source: [*known.arrived] for source, known in sources.items()}


@pytest.mark.parametrize("is_given_up", [True, False])
async def test_what_expires_meanwhile_dies_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, is_given_up: bool
) -> None:
    """In the queue that has the messages in the end."""
    channel = await scene.channel()
    await channel.declare_queue("d", durable=True)
    vhost, settle = scene.node.node.catalogue.vhosts["/"], Conversion._settle
    dead = vhost.queues["d"]
    seen: list[int] = []

    def settle_later(self: Conversion, decide: Any) -> None:
        group = scene.node.node.parts.cluster_view.groups[vhost.successors["q"].definition.id]
        assert isinstance(group.machine, QuorumQueueMember)
        assert group.machine.replica.leadership is not None
        successor = group.machine.replica.leadership.queue
        seen.extend((len(successor.pump()), successor.ready_count, dead.ready_count))
        settle(self, give_up if is_given_up else decide)

    monkeypatch.setattr(Conversion, "_settle", settle_later)
    await declare(channel, **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d"})
    await publish(channel, b"held")
    held = await (await channel.get_queue("q")).get()
    converting = asyncio.ensure_future(converted(scene.node))
    await until(lambda: bool(vhost.successors))
    message = aio_pika.Message(b"dies", delivery_mode=2, expiration=0)
    await channel.default_exchange.publish(message, "q")
    assert held is not None
    await held.ack()
    with suppress(PreconditionFailed):
        await converting
    await until(lambda: dead.ready_count > 0)
    await publish(channel, b"next")
    assert (type_of(scene.node) is QueueType.CLASSIC) == is_given_up
    assert (seen, await bodies(scene.node)) == ([0, 1, 0], [b"next"])
    assert await bodies(scene.node, "d") == [b"dies"]
