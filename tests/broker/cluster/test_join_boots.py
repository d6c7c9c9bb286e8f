"""Lives of a node: whose its data are, what ends with a process, and disks that are not what they
should be.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

import pytest

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster import node_monitor as absent_module
from fluffle.broker.cluster.data_directory import accept_moved
from fluffle.broker.cluster.join import BootRecord, DiskAtStart, begin_boot
from fluffle.broker.cluster.links.identity import WITHOUT_DATA
from fluffle.broker.cluster.node_monitor import DEAD_AFTER_MS, AbsentNodes
from fluffle.broker.config.config import ClusterConfig, Config, ListenAddress
from fluffle.broker.durability.durability import open_durability
from fluffle.broker.durability.node_identity import IDENTITY, store_owner_of
from fluffle.broker.process.environment import store_in
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.vhosts.queue_changes import bind, declare_queue
from fluffle.raft.output import LivenessVerdict
from fluffle.storage.environment import data_file
from fluffle.storage.errors import Corrupt
from fluffle.storage.file_mark import mark_of
from tests.support.cluster_nodes import (
    ClusterNode,
    ClusterNodes,
    make_cluster,
    running_cluster,
    until,
)
from tests.support.manual_clock import ManualClock

pytestmark = pytest.mark.usefixtures("hasty")


async def declare(node: ClusterNode, name: str, kind: str) -> None:
    """A durable queue, a transient one, or an exclusive one; bound to amq.fanout."""
    vhost = node.node.catalogue.vhosts["/"]
    owner = node.node._services.owners.of("a client") if kind == "exclusive" else None
    declared = Declaration(name, durable=kind == "durable", exclusive=owner is not None)
    await node.change(lambda: declare_queue(vhost, declared, owner))
    binding = Binding("amq.fanout", name, DestinationKind.QUEUE, "", {})
    await node.change(lambda: bind(vhost, binding, owner))


def queues(node: ClusterNode) -> list[str]:
    return sorted(node.node.catalogue.vhosts["/"].queues)


async def declare_all(nodes: ClusterNodes) -> None:
    for node in nodes:
        for kind in ("durable", "transient", "exclusive"):
            await declare(node, f"{kind}-{node.name}", kind)
    await nodes.agree()


DURABLE = [f"durable-{name}" for name in "abc"]


async def test_a_node_that_another_sees_is_not_dead_for_who_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absent_module, "DEAD_AFTER_MS", 100)
    async with running_cluster(tmp_path, is_cuttable=True) as three:
        await declare_all(three)
        await until(lambda: any(node.cluster.metadata.leads for node in three))
        (leader,) = (node for node in three if node.cluster.metadata.leads)
        lost, other = (node for node in three if node is not leader)
        three.cut(leader.name, lost.name)
        await until(lambda: leader.cluster.absent.is_dead(lost.name))
        await until(lambda: leader.cluster.peer_views.asked > 1)
        assert leader.cluster.absent.is_dead(lost.name)
        transient = f"transient-{lost.name}"
        assert all(transient in queues(node) for node in three)
        await lost.kill()
        await until(lambda: transient not in queues(other))


async def test_queues_that_end_with_a_process_go_when_it_is_dead(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        await declare_all(three)
        await three["b"].kill()
        await until(lambda: all("transient-b" not in queues(node) for node in three.running))
        assert queues(three["a"]) == sorted(
            [*DURABLE, "exclusive-a", "exclusive-c", "transient-a", "transient-c"]
        )
        routed = three["c"].node.catalogue.vhosts["/"].route("amq.fanout", [""], None)[0]
        assert sorted(queue.name for queue in routed) == queues(three["a"])
        await three["b"].start()
        await three.agree()
        assert queues(three["b"]) == queues(three["a"])


async def test_a_node_that_comes_back_removes_them_before_it_takes_clients(
    tmp_path: Path,
) -> None:
    three = await make_cluster(tmp_path)
    await three.start()
    await declare_all(three)
    for node in three:
        await node.kill()
    await three.start("ab")
    for node in three.running:
        assert not [name for name in queues(node) if name.endswith(node.name)][1:], queues(node)
    await three["c"].start()
    await three.agree()
    assert queues(three["a"]) == DURABLE
    await three.stop()


def refusals(caplog: pytest.LogCaptureFixture, peer: str) -> list[str]:
    """Logged reasons of refused links with that node."""
    fields = [
        getattr(record, FIELDS_ATTRIBUTE)
        for record in caplog.records
        if record.getMessage() == "link_refused"
    ]
    return [
        f"{each['reason']}: {each['advice']}"
        for each in fields
        if peer in (each["peer"], each.get("node"))
    ]


@pytest.mark.parametrize("starts", [1, 3])
async def test_a_node_with_a_wiped_disk_is_not_let_in(
    tmp_path: Path, starts: int, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it is started, and if all others were started anew since: it could elect one
    that lacks what it had."""
    caplog.set_level(logging.WARNING)
    three = await make_cluster(tmp_path)
    await three.start()
    for _ in range(starts - 1):
        await three["c"].kill()
        await three["c"].start()
    for node in three:
        await node.kill()
    three["c"].wipe()
    three["a"].begin()
    for _ in range(starts + 2):
        if three["c"].is_running:
            await three["c"].kill()
        caplog.clear()
        three["c"].begin()
        await until(lambda: len(refusals(caplog, "a")) > 1)  # of both links
        assert {*refusals(caplog, "a")} == {f"forgotten: {WITHOUT_DATA}"}
        assert not three["a"].node.addresses.get("amqp")
    await three["b"].start()
    await three["a"].started()
    assert not three["c"].node.addresses.get("amqp")
    await three.stop()


async def test_a_node_with_a_rolled_back_disk_is_not_let_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    three = await make_cluster(tmp_path)
    await three.start()
    await three["c"].stop()
    shutil.copytree(tmp_path / "c", tmp_path / "backup")
    await three["c"].start()
    await three["c"].kill()
    await three["c"].start()
    await three["c"].kill()
    shutil.rmtree(tmp_path / "c")
    shutil.copytree(tmp_path / "backup", tmp_path / "c")
    accept_moved(tmp_path / "c")  # as if the whole disk had been put back, its files the same
    three["c"].begin()
    for _ in range(3):
        await until(lambda: any(said.startswith("forgotten") for said in refusals(caplog, "a")))
        assert not three["c"].node.addresses.get("amqp")
        await three["c"].kill()
        caplog.clear()
        three["c"].begin()
    await three.stop()


def test_a_node_is_dead_if_its_host_says_so_or_after_long() -> None:
    clock, refusing = ManualClock(), {"d"}
    absent = AbsentNodes("a", clock.now_ms, refusing.__contains__)
    absent.judged(LivenessVerdict("b", True, 1))
    absent.judged(LivenessVerdict("d", True, 1))
    assert not any(map(absent.is_dead, "abcd"))
    absent.judged(LivenessVerdict("b", False, 1))
    absent.judged(LivenessVerdict("d", False, 1))
    assert [node for node in "bcd" if absent.is_dead(node)] == ["d"]
    clock.advance(DEAD_AFTER_MS - 1)
    absent.judged(LivenessVerdict("b", False, 1))
    assert [node for node in "bcd" if absent.is_dead(node)] == ["d"]
    clock.advance(1)
    assert [node for node in "abcd" if absent.is_dead(node)] == ["b", "c", "d"]
    absent.judged(LivenessVerdict("b", True, 1))
    assert not absent.is_dead("b")
    assert absent.is_alive("b")


async def begun(
    place: Path, drawn: int, *, node: str = "a", cluster: str = "c", peers: str = "ab"
) -> BootRecord:
    """A life that is on disk, and has ended."""
    durability = open_durability(
        store_in(place, asyncio.get_running_loop().call_soon_threadsafe),
        Turn(lambda _act: None, _raise),
        on_fatal=_raise,
    )
    try:
        listen = ListenAddress("127.0.0.1", 0)
        configured = ClusterConfig(
            name=cluster, listen=listen, peers=dict.fromkeys(peers, listen), secret=b"secret"
        )
        config = Config(node_name=node, data_dir=place, cluster=configured)
        disk = DiskAtStart(durability.store.disk.commit_number, mark_of(data_file(place)))
        life = begin_boot(durability.identity, config, configured, drawn.to_bytes(16), disk)
        await durability.durable()
        return life
    finally:
        durability.close(())


def _raise(error: Exception) -> None:
    raise error


async def test_each_start_is_another_life_and_all_are_remembered(tmp_path: Path) -> None:
    lives = [await begun(tmp_path, drawn) for drawn in (7, 8, 9)]
    assert [life.identity.boot.count for life in lives] == [1, 2, 3]
    assert all(lives[-1].lives.remember(life.identity.boot) for life in lives)
    assert not lives[0].lives.remember(lives[1].identity.boot)


async def test_the_data_of_another_are_left_alone(tmp_path: Path) -> None:
    await begun(tmp_path, 7)
    with pytest.raises(StartFailed, match="the data of node 'a', not of 'b'; correct --node"):
        await begun(tmp_path, 8, node="b")
    with pytest.raises(StartFailed, match="cluster 'c', not of 'd'; correct --cluster-name"):
        await begun(tmp_path, 8, cluster="d")
    assert (await begun(tmp_path, 8)).identity.boot.count == 2


async def test_the_cluster_of_a_node_depends_on_no_option(tmp_path: Path) -> None:
    """A node that was started with more founders than before is of the cluster that it was of."""
    for peers in ("ab", "abc", "b"):
        assert (await begun(tmp_path, 8, peers=peers)).identity.cluster == "c"


@pytest.mark.parametrize("value", [b"", b"\xff", b"\xc1", b"\x90", b"\x94\xa1a\xa1c\x01\x02"])
def test_what_cannot_be_read_is_damage(value: bytes) -> None:
    with pytest.raises(Corrupt, match=f"catalog {IDENTITY}"):
        store_owner_of([(b"", value)])
