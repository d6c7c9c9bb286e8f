"""A node that was forgotten and let in anew is another one: what it has from before counts nowhere.

The worst case is a queue that could not agree on removing it, as most of its members were away.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fluffle.broker.cluster.data_directory import accept_moved
from fluffle.broker.cluster.links.identity import ADVICE, UNPROVED, HelloRefusal
from fluffle.broker.cluster.membership import INCARNATION_BYTES, NodeRemoved, begun_as, is_former
from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.metadata.nodes import dismiss
from fluffle.raft.config import Configuration, Member
from fluffle.raft.log import GroupId
from tests.broker.cluster.queues.test_membership import drained, is_on
from tests.broker.cluster.queues.test_queue_queries_positions import is_lost
from tests.broker.cluster.queues.test_quorum_queues import Scene, leads, publish
from tests.broker.cluster.test_join_boots import refusals
from tests.broker.cluster.test_membership import is_seen_by_nobody
from tests.support.cluster_nodes import running_cluster, until

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Five nodes, of which the queue has three: without two of these all is still agreed on."""
    async with running_cluster(tmp_path, 5) as nodes, AsyncExitStack() as stack:
        scene = Scene(nodes, stack)
        await scene.declare("a")
        await is_on(scene, "abc")
        yield scene


async def test_a_rolled_back_disk_of_a_former_node_elects_nobody(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Node a and the disk of c are a majority without what b and c have confirmed."""
    caplog.set_level(logging.WARNING)
    nodes = scene.nodes
    await nodes["c"].stop()
    shutil.copytree(tmp_path / "c", tmp_path / "backup")
    await nodes["c"].start()
    await is_lost(scene, "a")
    await until(lambda: scene.leader() in ("b", "c"))
    await publish(await scene.channel("d"), b"1", b"2")
    await is_lost(scene, "b", "c")
    await nodes["a"].start()
    nodes["c"].wipe()
    shutil.copytree(tmp_path / "backup", tmp_path / "c", dirs_exist_ok=True)
    accept_moved(tmp_path / "c")  # as if the whole disk had been put back, its files the same
    await is_seen_by_nobody(nodes, "c")
    known = nodes["a"].node.catalogue.nodes.entries
    await nodes["a"].change(lambda: dismiss(known, "c"))  # `forget` would refuse that by now
    await until(lambda: "c" not in nodes["a"].roles())
    caplog.clear()
    nodes["c"].begin()
    for name in "ade":
        counted = nodes[name].cluster.links.counters.refused
        await until(lambda counted=counted: counted[HelloRefusal.FORMER_NODE] > 0)  # type: ignore[misc]
        await until(lambda name=name: bool(refusals(caplog, name)))  # type: ignore[misc]
        (said,) = {*refusals(caplog, name)}
        assert said == f"refused by it: former_node: {UNPROVED}"
    proved = f"former_node: {ADVICE[HelloRefusal.FORMER_NODE]}"
    assert proved in refusals(caplog, "c"), "the nodes of the cluster say what to do"
    assert not nodes["c"].node.addresses.get("amqp")
    assert not leads(nodes["a"], "q")
    await nodes["c"].kill()
    await nodes["b"].start()
    assert await drained(scene, "d", 2) == [b"1", b"2"]
    nodes["c"].wipe()
    await nodes["c"].start()
    assert begun_as(nodes["c"].cluster.running.host) > 1


class Group(NamedTuple):
    configs: list[Configuration]


class Host(dict[GroupId, Group]):
    """A `RaftHost`, as far as somebody reads in its metadata group."""

    def group(self, group: GroupId) -> Group:
        return self[group]


BEFORE = Configuration.initial("abc")
WITHOUT = Configuration(BEFORE.voters[:2], (), 1)
LET_IN = Configuration(WITHOUT.voters, (Member("c", 2),), 2)


@pytest.mark.parametrize(
    ("configs", "incarnation", "is_so"),
    [
        ([Configuration()], 1, False),
        ([BEFORE], 0, False),
        ([BEFORE], 1, False),
        ([BEFORE], 2, False),
        ([BEFORE, WITHOUT], 1, True),
        ([BEFORE, WITHOUT, LET_IN], 1, True),
        ([BEFORE, WITHOUT, LET_IN], 2, False),
        ([WITHOUT], 1, True),
        ([WITHOUT], 2, False),
        ([LET_IN], 1, True),
        ([LET_IN], 2, False),
    ],
)
def test_who_is_former(configs: list[Configuration], incarnation: int, *, is_so: bool) -> None:
    """The node may not have heard of all entries, and does not know which are committed."""
    host: Any = Host({METADATA_GROUP: Group(configs)})
    assert is_former(host, "c", incarnation) is is_so
    assert not is_former(Host(), "c", incarnation)  # type: ignore[arg-type]


async def test_a_node_with_data_does_not_begin_anew(tmp_path: Path) -> None:
    """Should it be asked to all the same."""
    async with running_cluster(tmp_path) as nodes:
        reported = (9).to_bytes(INCARNATION_BYTES, "big")
        nodes["c"].cluster.membership.receive("a", reported)
        failure = nodes["c"].node.failure
        assert isinstance(failure, NodeRemoved)
        assert "start with an empty --data-dir" in str(failure)
        await nodes["c"].kill()
