"""Ways to a classic queue that stands still, for all of it has been copied but what comes now."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import aio_pika
import pytest

from fluffle.broker.queues.conversion_buffer import ConversionBuffer
from fluffle.broker.transfer.conversion import Conversion
from tests.broker.cluster.queues.test_quorum_queues import publish
from tests.broker.composition.test_single_node import Scene, scene
from tests.broker.transfer.test_conversion import bodies, converted, filled
from tests.support.cluster_nodes import until
from tests.support.deadlines import soon

__all__ = ["scene"]


@pytest.mark.parametrize("is_published_before", [True, False])
async def test_what_is_committed_while_it_stands_still_is_not_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, is_published_before: bool
) -> None:
    """Wherever the way led when it was published."""
    await filled(scene, b"1")
    vhost, settle = scene.node.node.catalogue.vhosts["/"], Conversion._settle
    waits: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Conversion, "_settle", lambda *asked: waits.append(asked))
    connection = await aio_pika.connect(scene.node.url)
    channel = await connection.channel(publisher_confirms=False)
    transaction = channel.transaction()
    await transaction.select()
    if is_published_before:
        await publish(channel, b"2")
        await channel.get_queue("q")  # a reply vouches for what came before
    converting = asyncio.ensure_future(converted(scene.node))
    await until(lambda: bool(waits))
    if not is_published_before:
        await publish(channel, b"2")
    committing = asyncio.ensure_future(transaction.commit())
    standstill = cast(ConversionBuffer, vhost.redirects["q"])
    await until(lambda: committing.done() or bool(standstill._held))
    settle(*waits[0])
    async with soon():
        await converting
        await committing
    assert await bodies(scene.node) == [b"1", b"2"]
    await connection.close()


async def test_what_an_exchange_has_kept_for_it_comes_to_what_it_becomes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the queue is bound while it stands still."""
    channel, waits = await filled(scene, b"1"), list[tuple[Any, ...]]()
    settle = Conversion._settle
    monkeypatch.setattr(Conversion, "_settle", lambda *asked: waits.append(asked))
    kept = await channel.declare_exchange("kept", "x-recent-history", durable=True)
    await kept.publish(aio_pika.Message(b"2", delivery_mode=2), "k", mandatory=False)
    converting = asyncio.ensure_future(converted(scene.node))
    await until(lambda: bool(waits))
    await (await channel.get_queue("q")).bind(kept)
    settle(*waits[0])
    async with soon():
        await converting
    async with soon():  # a bind does not wait for what its exchange has kept
        while await bodies(scene.node) != [b"1", b"2"]:
            pass


async def test_what_is_moved_there_while_it_stands_still_is_in_one_queue(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, waits = await filled(scene, b"1"), list[tuple[Any, ...]]()
    vhost, settle = scene.node.node.catalogue.vhosts["/"], Conversion._settle
    monkeypatch.setattr(Conversion, "_settle", lambda *asked: waits.append(asked))
    await channel.declare_queue("other", durable=True)
    await publish(channel, b"2", to="other")
    converting = asyncio.ensure_future(converted(scene.node))
    await until(lambda: bool(waits))

    async def moved() -> list[dict[str, Any]]:
        listed = scene.node.listed("queues.move", name="other", to="q", vhost="/")
        return [row async for row in listed]

    moving = asyncio.ensure_future(moved())
    standstill = cast(ConversionBuffer, vhost.redirects["q"])
    await until(lambda: bool(standstill._held))
    settle(*waits[0])
    async with soon():
        await converting
        assert (await moving)[-1]["moved"] == 1
    assert (await bodies(scene.node), await bodies(scene.node, "other")) == ([b"1", b"2"], [])
