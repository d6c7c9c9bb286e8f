"""A cluster is started larger than it was: who is new joins it by itself, and founds no other."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import aio_pika
import pytest
from pamqp.common import FieldTable

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.cluster import LocalClusterNode
from fluffle.broker.cluster.data_directory import owner_of
from fluffle.broker.cluster.formation import Promise, Stage, mark_of_names, promise_of
from fluffle.broker.cluster.links.identity import HelloRefusal
from fluffle.broker.config.config import Config as NodeConfig
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.durability.node_identity import IDENTITY, StoreOwner, encode_store_owner
from fluffle.raft.config import Configuration, Member
from fluffle.storage.errors import StorageError
from fluffle.storage.store import Batch, open_store
from tests.broker.cluster.test_membership import let_in, only_by_hand
from tests.support.cluster_nodes import ClusterNode, ClusterNodes, node_at, ports_of_nodes, until
from tests.support.deadlines import soon
from tests.support.ports import LOOPBACK

pytestmark = pytest.mark.usefixtures("hasty")


ALARMS = ("majority_lost", "node_suspected", "link_lost", "link_down", "link_ended")
"""Events that a node logs about others that are away, or go."""


class Sizes:
    """Nodes of one set, each started with a size of its own."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._ports = ports_of_nodes(count)
        self.nodes = ClusterNodes({})

    def sized(self, name: str, size: int) -> None:
        """The node gets the addresses of the first `size` nodes when it is started next."""
        names = sorted(self._ports)[:size]
        peers = {each: ListenAddress(LOOPBACK, self._ports[each]) for each in names}
        known = self.nodes.nodes.get(name)
        if known is None:
            made = node_at(self._ports[name], name, self._directory, peers, NodeConfig())
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
        assert all(node.cluster.join.is_over for node in scene.nodes.running)
    finally:
        await scene.nodes.stop()


async def test_who_joins_raises_no_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No link is torn to who is let in, and no node suspected that has just been let in."""
    caplog.set_level(logging.INFO)
    scene = Sizes(tmp_path, 5)
    try:
        for names, size in (("a", 1), ("bc", 3), ("de", 5)):
            await scene.start(names, size)
            await scene.is_one()
        said = [
            f"{record.getMessage()} {getattr(record, FIELDS_ATTRIBUTE)}"
            for record in caplog.records
            if record.getMessage() in ALARMS
        ]
        assert said == []
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


def keep_no_founders(node: ClusterNode) -> None:
    """Act as an earlier version did."""
    owned = owner_of(node.config.data_dir)
    failed: list[StorageError] = []
    store = open_store(node.config.data_dir, call_soon=lambda _wake: None, on_fatal=failed.append)
    batch = Batch()
    batch.put(IDENTITY, b"", encode_store_owner(owned._replace(founders=())))
    store.submit(batch)
    store.close()
    assert not failed


async def test_a_founder_that_begins_after_an_upgrade_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three have founded the cluster with an earlier version, the third never ran."""
    monkeypatch.setattr(LocalClusterNode, "draw_mark", lambda _node: mark_of_names("cab"))
    scene = Sizes(tmp_path, 3)
    try:
        for name in "abc":
            scene.sized(name, 3)
        await scene.nodes.start(["a", "b"])
        for name in "ab":
            await scene.nodes[name].stop()
            keep_no_founders(scene.nodes[name])
        await scene.nodes.start(["a", "b", "c"])
        await scene.is_one()
    finally:
        await scene.nodes.stop()


def test_founders_of_an_earlier_version_are_known_while_all_of_them_are_members() -> None:
    at = {name: ListenAddress(LOOPBACK, 1) for name in "abcd"}
    owned = StoreOwner("c", f"fluffle {mark_of_names('abc')}", 1, (b"1",))
    config = Configuration.initial("abc")
    grown = replace(config, learners=(Member("d", 2),), top_incarnation=2)
    assert promise_of(owned, grown, at).founders == {name: at[name] for name in "abc"}
    for other in (Configuration(), Configuration.initial("ab"), Configuration.initial("abcd")):
        assert promise_of(owned, other, at) == Promise(mark_of_names("abc"))
    del at["b"]
    assert promise_of(owned, config, at).founders == {}


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
        reported = [scene.nodes[name].cluster.formation.standings for name in "bc"]
        await until(lambda: all(reported))
        assert [scene.nodes[name].cluster.formation.stage for name in "bc"] == [Stage.FREE] * 2
        await scene.start("a", 3)
        for name in "bc":
            await scene.nodes[name].started()
        await scene.is_one()
    finally:
        await scene.nodes.stop()


async def refuses(node: ClusterNode, count: int) -> None:
    """Wait until it has refused so many who remember what was on its disk."""
    refused = node.cluster.links.counters.refused
    await until(lambda: refused[HelloRefusal.FORGOTTEN] >= count)


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
            await refuses(scene.nodes["a"], count=len(others))
            formation = scene.nodes["a"].cluster.formation
            formation.look()
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
        await until(lambda: refused[HelloRefusal.UNKNOWN_NODE] > 0)
        assert "d" not in scene.nodes["a"].roles()
        await let_in(scene.nodes, "d", by="b")
        await scene.nodes["d"].started()
        await scene.is_one()
    finally:
        await scene.nodes.stop()


LAST = b"last"


class Clients:
    """A publisher on the first node and a consumer, who work while nodes come and go."""

    def __init__(self, scene: Sizes, queue: str) -> None:
        self._scene = scene
        self._queue = queue
        self._is_over = False
        self.confirmed: list[bytes] = []
        self.got: set[bytes] = set()

    async def publish(self) -> None:
        connection = await aio_pika.connect(self._scene.nodes["a"].url)
        async with connection:
            channel = await connection.channel()
            while LAST not in self.confirmed:
                body = LAST if self._is_over else b"%d" % len(self.confirmed)
                message = aio_pika.Message(body, delivery_mode=2)
                await channel.default_exchange.publish(message, self._queue)
                self.confirmed.append(body)

    async def consume(self) -> None:
        connection = await aio_pika.connect(self._scene.nodes["a"].url)
        async with connection:
            queue = await (await connection.channel()).get_queue(self._queue)
            async for message in queue.iterator():
                self.got.add(message.body)
                await message.ack()
                if message.body == LAST:
                    return

    async def more(self, count: int) -> None:
        """Until so many more are confirmed."""
        wanted = len(self.confirmed) + count
        await until(lambda: len(self.confirmed) >= wanted)

    def end(self) -> None:
        self._is_over = True


async def shrink(scene: Sizes, names: str) -> None:
    """Shrink as an operator does: one at a time, the last first."""
    for name in names:
        await scene.nodes["a"].rows("queues.shrink", node=name)
        await until(lambda: name not in members_of(scene, "q"))  # noqa: B023
        await scene.nodes[name].stop()
        others = scene.nodes.running
        await until(lambda: not any(each.cluster.absent.is_alive(name) for each in others))  # noqa: B023
        await scene.nodes["a"].ask("cluster.forget", name=name)
        await scene.is_one()


def members_of(scene: Sizes, queue: str) -> list[str]:
    found = scene.nodes["a"].node.catalogue.vhosts["/"].queues[queue]
    return [node for node, _incarnation in found.definition.members]


async def test_it_grows_and_shrinks_while_clients_work(tmp_path: Path) -> None:
    """1, 3, 5, 7, 3: what was confirmed is there, and nobody is served by another cluster."""
    scene = Sizes(tmp_path, 7)
    arguments: FieldTable = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 1}
    try:
        await scene.start("a", 1)
        connection = await aio_pika.connect(scene.nodes["a"].url)
        async with connection:
            await (await connection.channel()).declare_queue("q", durable=True, arguments=arguments)
        clients = Clients(scene, "q")
        async with soon(), asyncio.TaskGroup() as working:
            for work in (clients.publish(), clients.consume()):
                working.create_task(work)
            size_before = 1
            for size in (3, 5, 7):
                names = "abcdefg"[size_before:size]
                await scene.start(names, size)
                await scene.is_one()
                for name in names:
                    await scene.nodes["a"].rows("queues.grow", node=name)
                await until(lambda: len(members_of(scene, "q")) == size)  # noqa: B023
                await clients.more(20)
                size_before = size
            await shrink(scene, "gfed")
            await clients.more(20)
            clients.end()
        assert clients.got == {*clients.confirmed}
        assert members_of(scene, "q") == ["a", "b", "c"]
        for name in "bc":
            assert list(scene.nodes[name].roles()) == ["a", "b", "c"]
    finally:
        await scene.nodes.stop()
