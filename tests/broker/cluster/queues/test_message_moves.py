"""Messages of a cluster are moved between queues of any kind through any node, also if it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.broker.cluster.queues.test_quorum_queues import Scene, publish, scene
from tests.broker.cluster.queues.test_quorum_queues_any_node import counts
from tests.support.cluster_nodes import until
from tests.support.deadlines import soon

__all__ = ["scene"]

COUNT = 300
BODIES = {f"{number}" for number in range(COUNT)}


async def declare(scene: Scene, name: str, queue: str, queue_type: str) -> None:
    channel = await scene.channel(name)
    arguments: dict[str, Any] = {"x-queue-type": queue_type}
    await channel.declare_queue(queue, durable=True, arguments=arguments)


async def bodies(scene: Scene, name: str, queue: str) -> list[str]:
    return [
        row["payload"]
        async for row in scene.nodes[name].listed(
            "queues.peek", name=queue, vhost="/", count=9 * COUNT
        )
    ]


@pytest.mark.parametrize(("source", "target"), [("classic", "quorum"), ("quorum", "classic")])
async def test_through_a_node_that_has_neither_queue(
    scene: Scene, source: str, target: str
) -> None:
    await declare(scene, "a", "q", source)
    await declare(scene, "b", "w", target)
    await publish(await scene.channel("c"), *(b"%d" % number for number in range(COUNT)))
    rows = [
        row async for row in scene.nodes["c"].listed("queues.move", name="q", to="w", vhost="/")
    ]
    assert rows[-1] == {"moved": COUNT, "skipped": 0, "ready": COUNT, "is_over": True}
    assert await bodies(scene, "a", "w") == [f"{number}" for number in range(COUNT)]
    assert await counts(scene, "b") == (0, 0)


async def test_it_goes_on_when_the_source_is_led_by_another(scene: Scene) -> None:
    await declare(scene, "a", "q", "quorum")
    await declare(scene, "b", "w", "quorum")
    await publish(await scene.channel("a"), *(b"%d" % number for number in range(COUNT)))
    await scene.is_led_by("a")
    rows = []
    async for row in scene.nodes["c"].listed("queues.move", name="q", to="w", vhost="/", rate=100):
        rows.append(row)
        if len(rows) == 1:
            await scene.nodes["a"].kill()
    assert rows[-1]["is_over"]
    assert rows[0]["moved"] < COUNT, "it was in the middle"
    assert rows[-1]["moved"] == COUNT
    assert {*await bodies(scene, "b", "w")} == BODIES


async def test_the_end_of_the_node_that_moves_loses_nothing(scene: Scene) -> None:
    await declare(scene, "a", "q", "quorum")
    await declare(scene, "b", "w", "quorum")
    await publish(await scene.channel("a"), *(b"%d" % number for number in range(COUNT)))
    moved = 0

    async def move() -> None:
        nonlocal moved
        async for row in scene.nodes["c"].listed(
            "queues.move", name="q", to="w", vhost="/", rate=50
        ):
            moved = row["moved"]

    moving = asyncio.ensure_future(move())
    await until(lambda: moved > 0)
    await scene.nodes["c"].kill()
    moving.cancel()
    async with soon():
        while {*await bodies(scene, "a", "q"), *await bodies(scene, "a", "w")} != BODIES:
            pass
    assert 0 < len(await bodies(scene, "a", "w")) < COUNT, "it was in the middle"
