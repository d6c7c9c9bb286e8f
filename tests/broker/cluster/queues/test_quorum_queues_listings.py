"""Listings of quorum queues of whole nodes, unusable ones included."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pamqp.common import FieldTable

from fluffle.broker.cluster.hosted_group import HostedGroup
from fluffle.broker.cluster.queues.quorum_member import counts_kept
from fluffle.raft.config import Configuration, Member
from tests.broker.cluster.queues.test_membership import is_led_as_wanted
from tests.broker.cluster.queues.test_quorum_queues import Inbox, Scene, publish, scene
from tests.broker.cluster.queues.test_quorum_queues_any_node import until_counts
from tests.broker.cluster.test_membership import declare_quorum, is_seen_by_nobody
from tests.support.cluster_nodes import ClusterNode, make_calm, until
from tests.support.deadlines import soon
from tests.support.queue_nodes import QueueCluster, QueueNode

__all__ = ["scene"]

Q = {"name": "q", "vhost": "/"}


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    make_calm(monkeypatch)


async def shown(node: ClusterNode) -> dict[str, Any]:
    """The only queue there is, in the list and by itself."""
    (listed,) = [row async for row in node.listed("queues.list")]
    assert await node.ask("queues.show", **Q) == listed
    return listed


async def roles(node: ClusterNode) -> dict[str, str]:
    return {row["node"]: row["role"] async for row in node.listed("queues.members", **Q)}


async def test_a_queue_without_a_majority_is_not_running(scene: Scene) -> None:
    """Its messages are those that the member here knows of."""
    await scene.declare("a")
    assert await is_led_as_wanted(scene) == "a"
    await publish(await scene.channel("b"), b"1", b"2", b"3")
    await until_counts(scene, "a", (3, 0))
    row = await shown(scene.nodes["b"])
    assert (row["state"], row["leader"]) == ("running", "a")
    assert (row["members"], row["online"]) == (["a", "b", "c"], ["a", "b", "c"])
    node = scene.nodes["b"]
    queue = node.node.catalogue.vhosts["/"].queues["q"].definition.id
    hosted = node.cluster.running.host.group(queue)
    await until(lambda: counts_kept(hosted) == (3, 0, 0))
    for name in "ca":
        await scene.nodes[name].kill()
        await is_seen_by_nobody(scene.nodes, name)
    row = await shown(node)
    assert (row["state"], row["leader"], row["online"]) == ("minority", None, ["b"])
    assert (row["messages"], row["messages_ready"], row["consumers"]) == (3, 3, None)
    hosted.applied -= 1  # an entry that may be agreed on, or not
    row = await shown(node)
    assert (row["state"], row["messages"], row["consumers"]) == ("minority", None, None)


async def test_a_queue_whose_only_member_is_away_is_down(scene: Scene) -> None:
    await declare_quorum(scene.nodes["c"], "q", size=1)
    await scene.nodes.agree()
    await publish(await scene.channel("c"), b"1")
    for name in "abc":
        assert (await shown(scene.nodes[name]))["messages"] == 1
    await scene.nodes["c"].kill()
    await is_seen_by_nobody(scene.nodes, "c")
    row = await shown(scene.nodes["a"])
    assert (row["state"], row["leader"], row["members"], row["online"]) == ("down", None, ["c"], [])
    assert (row["messages"], row["messages_ready"], row["consumers"]) == (None, None, None)
    assert await roles(scene.nodes["a"]) == {"c": "follower"}
    deleted = await scene.nodes["a"].ask("queues.delete", **Q)
    assert deleted == {"messages": None}, "nobody can tell how many are gone"


async def test_every_node_knows_who_leads(scene: Scene) -> None:
    """Also those that have no member, and have asked for nothing yet."""
    await declare_quorum(scene.nodes["c"], "q", size=1)
    await scene.nodes.agree()
    for name in "abc":
        assert await roles(scene.nodes[name]) == {"c": "leader"}
        assert (await shown(scene.nodes[name]))["leader"] == "c"


async def test_a_node_that_was_forgotten_is_not_among_them(scene: Scene) -> None:
    """Where nobody is left to come in its place, it is wanted on."""
    await scene.declare("a")
    await scene.nodes["c"].kill()
    await is_seen_by_nobody(scene.nodes, "c")
    await scene.nodes["a"].ask("cluster.forget", name="c")
    queue = scene.nodes["b"].node.catalogue.vhosts["/"].queues["q"]
    await until(lambda: sorted(dict(queue.definition.members)) == ["a", "b"])
    assert "c" in queue.definition.wanted
    assert sorted(await roles(scene.nodes["b"])) == ["a", "b"]


def hosted_on(node: QueueNode, group: int) -> HostedGroup:
    """Hosted group of a queue, without a watcher."""
    hosted = node.host.group(group)
    hosted.machine = node.hosting.groups[group]
    return hosted


@pytest.mark.parametrize(
    "config", [Configuration(), Configuration.initial("abc")], ids=["later", "founder"]
)
def test_without_reports_no_counts_are_known(config: Configuration) -> None:
    """Neither who came later, nor a founder whom nobody has led yet."""
    cluster = QueueCluster()
    node = cluster.nodes["b"]
    node.host.create(99, 1 if config.voters else 2, config)
    cluster.hosts.settle()
    hosted = hosted_on(node, 99)
    assert hosted.is_restored
    assert counts_kept(hosted) is None


def test_learners_and_the_damaged_know_no_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = QueueCluster()
    cluster.declare()
    cluster.hosts.settle()
    cluster.ask("b").publish(3, 10)
    cluster.hosts.advance(1_000)
    hosted = hosted_on(cluster.nodes["b"], cluster.queue)
    status = hosted.status

    def kept(**changed: Any) -> tuple[int, int, int] | None:
        """Were its status another."""
        changed_status = status._replace(**changed)
        monkeypatch.setattr(HostedGroup, "status", property(lambda _hosted: changed_status))
        return counts_kept(hosted)

    assert kept() == (3, 0, 0)
    assert kept(is_quarantined=True) is None
    a, b, c = status.config.voters
    assert kept(config=Configuration((a, c), (b,), 1)) is None
    assert kept(config=Configuration((a, Member("b", 2), c), (), 2)) is None, (
        "that is another member"
    )


async def until_known(node: ClusterNode, tag: str) -> None:
    """Until it shows the single active consumer of the queue, which followers hear of later."""
    async with soon():
        while (await node.ask("queues.show", **Q))["single_active_consumer_tag"] != tag:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert (await shown(node))["single_active_consumer_tag"] == tag


async def test_who_is_served_alone_is_shown(scene: Scene) -> None:
    """Whatever node its client and whoever asks are at."""
    arguments: FieldTable = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    channels = {name: await scene.channel(name) for name in "abc"}
    for name in "bca":
        queue = await channels[name].declare_queue("q", durable=True, arguments=arguments)
        await queue.consume(Inbox().take, consumer_tag=f"at-{name}")

    async def active(asked: str) -> dict[str, bool]:
        rows = [row async for row in scene.nodes[asked].listed("consumers.list")]
        return {row["consumer_tag"]: row["active"] for row in rows}

    assert await active("b") == {"at-b": True}
    assert await active("c") == {"at-c": False}
    assert await active("a") == {"at-a": False}
    for name in "abc":
        await until_known(scene.nodes[name], "at-b")
    await channels["b"].close()
    for name in "abc":
        await until_known(scene.nodes[name], "at-c")
    assert await active("c") == {"at-c": True}
