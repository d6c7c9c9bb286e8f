"""A node that is drained before it is stopped: who leads then, and who notices."""

from __future__ import annotations

import pytest

from tests.broker.cluster.queues.test_membership import is_led_as_wanted
from tests.broker.cluster.queues.test_quorum_queues import Scene, scene
from tests.support.cluster_nodes import make_calm, until

__all__ = ["scene"]


@pytest.fixture
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    make_calm(monkeypatch)


async def maintained(scene: Scene, asked: str) -> set[str]:
    rows = [row async for row in scene.nodes[asked].listed("cluster.status")]
    return {row["node"] for row in rows if row["maintenance"]}


@pytest.mark.usefixtures("_calm")
async def test_others_lead_what_a_drained_node_led_until_it_is_revived(scene: Scene) -> None:
    await scene.declare("a")
    assert await is_led_as_wanted(scene) == "a"
    drained = scene.nodes["a"]
    assert await drained.ask("node.drain") == {"closed": 1}
    await until(lambda: scene.nodes["b"].cluster.room.is_set_aside("a"))
    await until(lambda: scene.leader() in ("b", "c"))
    assert await maintained(scene, "a") == await maintained(scene, "b") == {"a"}
    assert await drained.ask("node.revive") == {}
    await until(lambda: not scene.nodes["b"].cluster.room.is_set_aside("a"))
    await scene.is_led_by("a")


@pytest.mark.usefixtures("_calm")
async def test_what_a_majority_needs_is_critical(scene: Scene) -> None:
    await scene.declare("a")
    await is_led_as_wanted(scene)

    async def critical(name: str) -> list[str]:
        return [row["name"] async for row in scene.nodes[name].listed("queues.critical")]

    assert await critical("a") == []
    await scene.nodes["c"].stop()
    await until(lambda: not scene.nodes["a"].cluster.absent.is_alive("c"))
    assert await critical("a") == ["definitions", "q"]
