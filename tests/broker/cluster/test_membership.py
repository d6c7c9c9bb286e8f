"""Nodes come, go and are replaced, and whatever was agreed on stays."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from fluffle.broker.admin.dispatch import VERBS
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cli.node import for_people
from fluffle.broker.cluster.links.identity import HelloRefusal
from fluffle.broker.cluster.membership import MetadataMembership, steps
from fluffle.broker.cluster.ports import FrameKind
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.metadata.nodes import RegisteredNode, dismiss
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.vhosts.queue_changes import declare_queue
from fluffle.protocol.wire import to_table
from fluffle.raft.config import AddLearner, Configuration, Member, Promote, Remove
from tests.broker.cluster.test_cluster import define, has
from tests.broker.cluster.test_join_boots import declare, queues
from tests.support.cluster_nodes import (
    ClusterNode,
    ClusterNodes,
    make_cluster,
    running_cluster,
    until,
)

pytestmark = pytest.mark.usefixtures("hasty")


def test_steps_lead_from_the_members_to_the_nodes() -> None:
    config = Configuration.initial("abc")
    assert steps(config, "abc") == []
    assert steps(config, "abd") == [Remove("c"), AddLearner("d")]
    config = Configuration(config.voters, (Member("d", 4), Member("e", 5)), 5)
    assert steps(config, "abcd") == [Remove("e"), Promote("d")]


async def are_voters(node: ClusterNode, names: str) -> None:
    """Until all of these, and nobody else, run and decide."""

    def is_so() -> bool:
        roles = node.roles()
        return sorted(roles) == sorted(names) and sorted(roles.values()) == [
            *["running follower"] * (len(names) - 1), "running leader",
        ]  # fmt: skip

    await until(is_so)


def only_by_hand(nodes: ClusterNodes) -> None:
    """From their next start on they let nobody in by themselves."""
    for node in nodes:
        assert node.config.cluster is not None
        node.config = replace(node.config, cluster=replace(node.config.cluster, admit=False))


async def let_in(nodes: ClusterNodes, name: str, by: str) -> None:
    await nodes[by].ask("cluster.add", name=name, address=nodes[name].listens_at)


@pytest.mark.parametrize("is_started_first", [False, True])
async def test_a_node_joins(tmp_path: Path, is_started_first: bool) -> None:
    async with running_cluster(tmp_path) as nodes:
        await define(nodes["a"], "before")
        fourth = nodes.grow("d")
        if is_started_first:
            fourth.begin()
            await until(lambda: "cluster" in fourth.node.addresses)
        await let_in(nodes, "d", by="b")
        if not is_started_first:
            fourth.begin()
        await fourth.started()
        assert has(fourth, "before")
        await are_voters(nodes["a"], "abcd")
        await define(fourth, "after")
        await nodes.agree()
        assert all(has(node, "after") for node in nodes)
        await fourth.kill()
        await define(nodes["c"], "meanwhile")
        await fourth.start()
        await nodes.agree()
        assert has(fourth, "meanwhile")


async def test_a_node_that_joined_counts(tmp_path: Path) -> None:
    """With four, three are a majority, whichever they are; with two of them nothing is agreed."""
    async with running_cluster(tmp_path) as nodes:
        nodes.grow("d")
        await let_in(nodes, "d", by="a")
        await nodes["d"].start()
        await are_voters(nodes["a"], "abcd")
        await nodes["a"].kill()
        await define(nodes["d"], "with-three")
        for node in nodes.running:
            await node.kill()
        await nodes.start("bcd")
        assert all(has(node, "with-three") for node in nodes.running)


@pytest.mark.parametrize(("founders", "let", "left"), [("a", "b", "a"), ("abc", "de", "ab")])
async def test_nobody_waits_for_nodes_that_were_only_let_in(
    tmp_path: Path, founders: str, let: str, left: str
) -> None:
    """The deciding node is up; nodes that never started have no vote on the time."""
    async with running_cluster(tmp_path, len(founders)) as nodes:
        for name in let:
            nodes.grow(name)
            await let_in(nodes, name, by="a")
        await nodes.agree()
        for node in nodes.running:
            await node.kill()
        await nodes.start(left)
        assert all(node.cluster.common_time.is_known for node in nodes.running)


async def is_seen_by_nobody(nodes: ClusterNodes, name: str) -> None:
    """Until all that run know that it does not."""
    others = [node for node in nodes.running if node.name != name]
    await until(lambda: not any(node.cluster.absent.is_alive(name) for node in others))


async def declare_quorum(node: ClusterNode, name: str, size: int) -> None:
    """With so many members, of which one is there."""
    vhost = node.node.catalogue.vhosts["/"]
    arguments = to_table({"x-queue-type": "quorum", "x-quorum-initial-group-size": size})
    declared = Declaration(name, durable=True, arguments=arguments)
    await node.change(lambda: declare_queue(vhost, declared, None))


async def refusal(node: ClusterNode, verb: str, **arguments: str) -> str:
    with pytest.raises(BrokerError) as refused:
        await node.ask(verb, **arguments)
    return refused.value.explanation


async def test_nothing_new_is_put_on_a_node_that_is_on_its_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All have agreed that it goes; the members of the metadata group follow later."""
    monkeypatch.setattr(MetadataMembership, "look", lambda _membership: None)
    async with running_cluster(tmp_path) as nodes:
        await nodes["c"].kill()
        await is_seen_by_nobody(nodes, "c")
        node = nodes["a"].node
        await nodes["a"].change(lambda: dismiss(node.catalogue.nodes.entries, "c"))
        assert nodes["a"].cluster.metadata_config.member_on("c") is not None
        await declare_quorum(nodes["a"], "q", size=3)
        definition = node.catalogue.vhosts["/"].queues["q"].definition
        assert sorted(dict(definition.members)) == ["a", "b"]


async def test_a_node_that_is_gone_is_forgotten_with_its_queues(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as nodes:
        for node in nodes:
            await declare(node, f"durable-{node.name}", "durable")
            await declare_quorum(node, f"quorum-{node.name}", size=1)
        await declare_quorum(nodes["c"], "quorum", size=3)
        assert "runs; stop it first" in await refusal(nodes["a"], "cluster.forget", name="c")
        for address in ("127.0.0.1:0", ":25672"):
            assert "where the other nodes reach" in await refusal(
                nodes["a"], "cluster.add", name="e", address=address
            )
        assert "no node 'x'" in await refusal(nodes["a"], "cluster.forget", name="x")
        assert "is this node" in await refusal(nodes["a"], "cluster.forget", name="a")
        await nodes["c"].stop()
        await until(lambda: nodes["a"].roles()["c"].startswith("stopped"))
        await is_seen_by_nobody(nodes, "c")
        assert await nodes["b"].ask("cluster.forget", name="c") == {"queues": 2}
        await are_voters(nodes["a"], "ab")
        left = ["durable-a", "durable-b", "quorum", "quorum-a", "quorum-b"]
        await until(lambda: queues(nodes["a"]) == left)
        await nodes.agree()


async def test_the_other_one_of_two_is_forgotten_while_it_runs(tmp_path: Path) -> None:
    """The last node remains usable; what was on both is on it."""
    async with running_cluster(tmp_path, 2) as nodes:
        a, b = nodes["a"], nodes["b"]
        await declare_quorum(a, "q", size=2)
        await declare(b, "classic", "durable")
        assert "`fluffle node drain` there" in await refusal(a, "cluster.forget", name="b")
        await b.ask("node.drain")
        await until(lambda: a.cluster.room.is_set_aside("b") and a.cluster.leader == "a")
        assert "`queues shrink b`" in await refusal(a, "cluster.forget", name="b")
        assert [row async for row in a.listed("queues.shrink", node="b")]
        (going,) = [row async for row in a.listed("cluster.check_forget", name="b")]
        assert going == {"vhost": "/", "name": "classic", "type": "classic"}
        assert await a.ask("cluster.forget", name="b") == {"queues": 1}
        await until(lambda: b.node.failure is not None)
        await are_voters(a, "a")
        await define(a, "alone")
        assert queues(a) == ["q", "q-alone"]
        b.forget_process()


async def test_of_two_nodes_none_is_forgotten_that_is_away(tmp_path: Path) -> None:
    """That cannot be agreed on; nobody has to wait to hear that, and what to do."""
    async with running_cluster(tmp_path, 2) as nodes:
        await nodes["b"].stop()
        await is_seen_by_nobody(nodes, "b")
        text = await refusal(nodes["a"], "cluster.forget", name="b")
        assert text.startswith("start node 'b'")
        assert "`fluffle salvage`" in text


async def test_a_queue_goes_with_the_last_node_that_had_a_member(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, 5) as nodes:
        await declare_quorum(nodes["a"], "q", size=3)
        members = dict(nodes["a"].node.catalogue.vhosts["/"].queues["q"].definition.members)
        others = sorted(members.keys() - {"a"})
        by, *_ = sorted({*"abcde"} - members.keys())
        for name in others:
            await nodes[name].kill()
            await is_seen_by_nobody(nodes, name)
        for name in others:
            assert "too few members" in await refusal(nodes[by], "cluster.forget", name=name)
        await nodes["a"].ask("queues.force_shrink", name="q", vhost="/")
        for name in others:
            assert await nodes[by].ask("cluster.forget", name=name) == {"queues": 0}
        await nodes["a"].kill()
        await is_seen_by_nobody(nodes, "a")
        assert await nodes[by].ask("cluster.forget", name="a") == {"queues": 1}
        await until(lambda: not any(queues(node) for node in nodes.running))


async def test_a_node_that_any_other_sees_is_not_forgotten(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, is_cuttable=True) as nodes:
        await declare(nodes["c"], "durable", "durable")
        nodes.cut("a", "c")
        await until(lambda: not nodes["a"].cluster.absent.is_alive("c"))
        assert "'b' sees it" in await refusal(nodes["a"], "cluster.forget", name="c")
        assert queues(nodes["a"]) == ["durable"]
        assert nodes["c"].node.failure is None
        nodes.isolate("c")
        await is_seen_by_nobody(nodes, "c")
        assert await nodes["a"].ask("cluster.forget", name="c") == {"queues": 1}


async def test_who_cannot_ask_all_forgets_nobody(tmp_path: Path) -> None:
    """Another link of five is cut, so that only reachable nodes say that they do not see it."""
    async with running_cluster(tmp_path, 5, is_cuttable=True) as nodes:
        for one, other in ("ad", "ae", "be", "ce"):
            nodes.cut(one, other)

        def see(name: str, others: str) -> bool:
            return not any(map(nodes[name].cluster.absent.is_alive, others))

        await until(lambda: see("a", "de") and see("b", "e") and see("c", "e"))
        text = await refusal(nodes["a"], "cluster.forget", name="e")
        assert "no link to node 'd'" in text
        assert nodes["d"].cluster.absent.is_alive("e")


async def test_who_does_not_answer_may_see_a_node(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as nodes:
        await nodes["c"].stop()
        await is_seen_by_nobody(nodes, "c")
        takers = nodes["b"].cluster.running.switch.takers
        answering = takers.pop(FrameKind.PEER_VIEW)
        text = await refusal(nodes["a"], "cluster.forget", name="c")
        assert "'b' does not say" in text
        takers[FrameKind.PEER_VIEW] = answering
        await nodes["a"].ask("cluster.forget", name="c")


async def test_a_node_that_was_forgotten_stays_out(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as nodes:
        await nodes["c"].stop()
        await is_seen_by_nobody(nodes, "c")
        await nodes["a"].ask("cluster.forget", name="c")
        await are_voters(nodes["a"], "ab")
        nodes["c"].begin()
        refusals = nodes["a"].cluster.links.counters.refused
        await until(lambda: refusals[HelloRefusal.FORMER_NODE] > 0)
        assert "amqp" not in nodes["c"].node.addresses
        await are_voters(nodes["a"], "ab")


@pytest.mark.parametrize("is_b_away", [False, True])
async def test_a_lost_disk_is_replaced(tmp_path: Path, is_b_away: bool) -> None:
    """The node is started with the same as before, also that it is one of those that found the
    cluster."""
    async with running_cluster(tmp_path) as nodes:
        for _ in range(3):
            await nodes["c"].stop()
            await nodes["c"].start()
        await define(nodes["c"], "before")
        await nodes["c"].kill()
        nodes["c"].wipe()
        await is_seen_by_nobody(nodes, "c")
        if is_b_away:
            for name in "de":
                nodes.grow(name)
                await let_in(nodes, name, by="a")
                await nodes[name].start()
            await until(lambda: set(map(nodes["a"].roles().get, "de")) == {"running follower"})
            await nodes["b"].stop()
            await is_seen_by_nobody(nodes, "b")
        await nodes["a"].ask("cluster.forget", name="c")
        await until(lambda: "c" not in nodes["a"].roles())
        await let_in(nodes, "c", by="a")
        await nodes["c"].start()
        if is_b_away:
            await nodes["b"].start()
        await are_voters(nodes["a"], "abcde" if is_b_away else "abc")
        await define(nodes["c"], "after")
        await nodes.agree()
        assert all(has(node, "after") for node in nodes)
        await nodes["a"].kill()
        await define(nodes["c"], "without-a")


async def test_what_a_former_node_of_its_name_was_is_nothing_to_who_joins(tmp_path: Path) -> None:
    """The log shows a later start of the node before it was let in again, however slowly that is
    applied."""
    nodes = await make_cluster(tmp_path)
    only_by_hand(nodes)
    await nodes.start()
    try:
        for _ in range(3):
            await nodes["c"].stop()
            await nodes["c"].start()
        await nodes["c"].stop()
        nodes["c"].wipe()
        await is_seen_by_nobody(nodes, "c")
        await nodes["a"].ask("cluster.forget", name="c")
        joining = nodes["c"]
        joining.begin()
        await until(lambda: "cluster" in joining.node.addresses)
        registry = joining.node.catalogue.nodes
        registry.put("c", RegisteredNode(ListenAddress("h", 1), 4, b"another life"))()
        registry.put("a", RegisteredNode(ListenAddress("h", 1)))()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not joining.cluster.join.is_over
        assert joining.node.failure is None
        for name in "ac":
            registry.remove(name)()
        await let_in(nodes, "c", by="a")
        await joining.started()
    finally:
        await nodes.stop()


async def test_a_node_says_how_its_cluster_is(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as nodes:

        def said() -> str:
            row = VERBS["status"].act(nodes["a"].node.parts)
            assert isinstance(row, dict)
            return str(for_people(row)["cluster"])

        leader = nodes["a"].cluster.metadata.leader
        await until(lambda: said() == f"fluffle, 3 of 3 nodes, led by {leader}")
        for name in "bc":
            await nodes[name].kill()
        await until(lambda: said() == "fluffle, 1 of 3 nodes, without a leader")
        only_by_hand(nodes)
        waiting = nodes.grow("d")
        waiting.begin()
        await until(lambda: "cluster" in waiting.node.addresses)
        row = VERBS["status"].act(waiting.node.parts)
        assert for_people(row)["cluster"] == (
            "fluffle, waiting to be one of it; linked: none of a, b, c; let it in: on another "
            "node, `fluffle cluster add d=HOST:PORT`"
        )
        assert [row async for row in waiting.listed("cluster.status")] == []


async def test_a_node_says_soon_that_it_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = await make_cluster(tmp_path)
    nodes["a"].begin()
    await until(lambda: "waiting_for_cluster" in caplog.messages)
    await nodes["a"].stop()


async def test_a_name_is_let_in_once(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as nodes:
        text = await refusal(nodes["a"], "cluster.add", name="b", address="h:1")
        assert "is one of the cluster already" in text
        for name, address in (("a b", "h:1"), ("d", "nowhere"), ("d" * 256, "h:1")):
            text = await refusal(nodes["a"], "cluster.add", name=name, address=address)
            assert text.startswith("cannot use")
            assert "port 0" not in text


async def test_who_comes_with_an_empty_disk_is_another_member_of_queues(tmp_path: Path) -> None:
    """Votes and confirmations of its former disk do not count any more."""
    async with running_cluster(tmp_path) as nodes:
        await declare_quorum(nodes["a"], "q", size=3)
        queue = nodes["a"].node.catalogue.vhosts["/"].queues["q"].definition.id
        await nodes["c"].kill()
        nodes["c"].wipe()
        await is_seen_by_nobody(nodes, "c")
        await nodes["a"].ask("cluster.forget", name="c")
        await let_in(nodes, "c", by="a")
        await nodes["c"].start()

        def voters(node: ClusterNode) -> dict[str, int]:
            groups = node.cluster.running.host.groups
            members = groups[queue].status.config.voters if queue in groups else ()
            return dict(members)

        await until(lambda: all(voters(node).keys() == {*"abc"} for node in nodes))
        assert {node.name: voters(node)["c"] for node in nodes} == dict.fromkeys("abc", 2)
        assert nodes["c"].cluster.running.host.group(queue).incarnation == 2
