"""A cluster is started larger than it was: who is new joins it by itself, and founds no other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from fluffle.broker.cluster.formation import Stage
from fluffle.broker.cluster.links.identity import Reason
from fluffle.broker.config import Config, ListenAddress
from tests.broker.cluster.test_membership import let_in, only_by_hand
from tests.support.cluster_nodes import (
    LOOPBACK,
    ClusterNodes,
    node_at,
    ports_of_nodes,
    until,
)

pytestmark = pytest.mark.usefixtures("hasty")


class Sizes:
    """Nodes of one set, each started with a size that it was told."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._ports = ports_of_nodes(count)
        self.nodes = ClusterNodes({})

    def sized(self, name: str, size: int) -> None:
        """It is told of the first `size` nodes when it is started next."""
        names = sorted(self._ports)[:size]
        peers = {each: ListenAddress(LOOPBACK, self._ports[each]) for each in names}
        known = self.nodes.nodes.get(name)
        if known is None:
            made = node_at(self._ports[name], name, self._directory, peers, Config())
            self.nodes.nodes[name] = made
        else:
            assert known.config.cluster is not None
            cluster = replace(known.config.cluster, peers=peers)
            known.config = replace(known.config, cluster=cluster)

    async def start(self, names: str, size: int) -> None:
        for name in names:
            self.sized(name, size)
        await self.nodes.start(list(names))

    async def is_one(self) -> None:
        """Until all that run are voters of one group of definitions."""
        running = {node.name for node in self.nodes.running}

        def voters(name: str) -> set[str]:
            config = self.nodes[name].cluster.metadata_config
            return {member.node for member in config.voters}

        await until(lambda: all(voters(name) == running for name in running))
        await self.nodes.agree()


@pytest.mark.parametrize("sizes", [(1, 3), (3, 7), (3, 5), (1, 3, 5, 7)], ids=str)
async def test_who_is_new_joins(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    scene, size_before = Sizes(tmp_path, sizes[-1]), 0
    names = "abcdefg"
    try:
        for size in sizes:
            await scene.start(names[size_before:size], size)
            await scene.is_one()
            size_before = size
        assert all(node.cluster.entering.is_over for node in scene.nodes.running)
    finally:
        await scene.nodes.stop()


async def test_a_size_that_has_grown_stops_nobody_who_restarts(tmp_path: Path) -> None:
    """Before anybody new is there, and after."""
    scene = Sizes(tmp_path, 5)
    try:
        await scene.start("abc", 3)
        for name in "cba":
            await scene.nodes[name].stop()
            await scene.start(name, 5)
        await scene.is_one()
        await scene.start("de", 5)
        await scene.is_one()
        for name in "ea":
            await scene.nodes[name].kill()
            await scene.start(name, 3)
        await scene.is_one()
    finally:
        await scene.nodes.stop()


async def test_who_is_new_waits_while_the_first_is_away(tmp_path: Path) -> None:
    """Two of three find nobody else, and found nothing."""
    scene = Sizes(tmp_path, 3)
    try:
        await scene.start("a", 1)
        await scene.nodes["a"].kill()
        for name in "bc":
            scene.sized(name, 3)
            scene.nodes[name].begin()
        links = {name: lambda name=name: scene.nodes[name].cluster.links for name in "bc"}
        await until(lambda: "cluster" in scene.nodes["c"].node.addresses)
        await until(lambda: links["b"]().is_up("c") and links["c"]().is_up("b"))
        told = [scene.nodes[name].cluster.formation.told for name in "bc"]
        await until(lambda: all(told))
        assert [scene.nodes[name].cluster.formation.stage for name in "bc"] == [Stage.FREE] * 2
        await scene.start("a", 3)
        for name in "bc":
            await scene.nodes[name].started()
        await scene.is_one()
    finally:
        await scene.nodes.stop()


async def test_the_first_founder_with_an_empty_disk_founds_nothing_else(tmp_path: Path) -> None:
    scene = Sizes(tmp_path, 3)
    try:
        await scene.start("abc", 3)
        await scene.is_one()
        await scene.nodes["a"].kill()
        scene.nodes["a"].wipe()
        for others in ("bc", ""):  # they are there; and cannot be reached
            scene.nodes["a"].begin()
            await until(lambda: "cluster" in scene.nodes["a"].node.addresses)
            formation = scene.nodes["a"].cluster.formation
            for _ in range(3):
                formation.look()
                await asyncio.sleep(0.02)
            assert formation.stage is Stage.FREE
            if others:
                for name in "bc":
                    await scene.nodes[name].kill()
                await scene.nodes["a"].kill()
    finally:
        await scene.nodes.stop()


async def test_nobody_is_let_in_by_itself_where_that_is_not_wanted(tmp_path: Path) -> None:
    scene = Sizes(tmp_path, 4)
    try:
        for name in "abc":
            scene.sized(name, 3)
            only_by_hand(scene.nodes)
        await scene.nodes.start()
        scene.sized("d", 4)
        only_by_hand(scene.nodes)
        scene.nodes["d"].begin()
        await until(lambda: "cluster" in scene.nodes["d"].node.addresses)
        refused = scene.nodes["a"].cluster.links.counters.refused
        await until(lambda: refused[Reason.UNKNOWN_NODE] > 0)
        assert "d" not in scene.nodes["a"].roles()
        await let_in(scene.nodes, "d", by="b")
        await scene.nodes["d"].started()
        await scene.is_one()
    finally:
        await scene.nodes.stop()
