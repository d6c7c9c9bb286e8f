"""Members of quorum queues on whole nodes: they come, go, lead and are replaced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from pamqp.common import FieldTable

from fluffle.broker.admin import member_changes
from fluffle.broker.admin.members import former_or_node_of
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.queues import membership
from fluffle.broker.cluster.queues.membership import refused, steps
from fluffle.raft.config import AddLearner, Configuration
from fluffle.raft.config import Change as Step
from fluffle.raft.log import GroupId
from fluffle.storage.disk import WriteTransaction
from fluffle.storage.environment import open_environment
from fluffle.storage.heads import HEAD
from fluffle.storage.layout import Table, raft_key
from tests.broker.cluster.queues.test_quorum_queues import Scene, publish, scene
from tests.broker.cluster.test_membership import are_voters, is_seen_by_nobody, let_in
from tests.support.cluster_nodes import ClusterNode, running_cluster, until
from tests.support.deadlines import DEADLINE_S, soon

__all__ = ["scene"]

Q = {"name": "q", "vhost": "/"}


def voters(node: ClusterNode) -> list[str]:
    """Voters of queue q, as this node's member knows them; none if it has none."""
    queue = node.node.catalogue.vhosts["/"].queues.get("q")
    host = node.cluster.running.host
    if queue is None or queue.definition.id not in host:
        return []
    return [each.node for each in host.group(queue.definition.id).status.config.voters]


async def is_on(scene: Scene, names: Sequence[str]) -> None:
    """Until these have the queue, all of them know it, and nobody else has anything of it."""

    def is_so() -> bool:
        nodes = scene.nodes.running
        have = {node.name for node in nodes if voters(node)}
        return have == set(names) and all(voters(node) in ([], list(names)) for node in nodes)

    await until(is_so)


async def is_led_as_wanted(scene: Scene, name: str = "q") -> str:
    """Until who is to lead it does, and all know; on a busy machine another may be first."""
    nodes = scene.nodes.running
    definition = nodes[0].node.catalogue.vhosts["/"].queues[name].definition
    leader = definition.leader
    await nodes[0].ask("queues.transfer", name=name, vhost="/", node=leader)
    await scene.is_led_by(leader, name)
    node_sessions = [node.cluster.node_sessions for node in nodes]
    await until(
        lambda: {each.routes.leader_of(definition.id).node for each in node_sessions} == {leader}
    )
    membership = [each.leaders for each in node_sessions if definition.id in each.leaders.queues]
    await until(lambda: {each.leader_of(definition.id).node for each in membership} == {leader})
    return leader


async def drained(scene: Scene, name: str, count: int) -> list[bytes]:
    """Take `count` messages through this node."""
    queue = await (await scene.channel(name)).get_queue("q")
    bodies = []
    for _ in range(count):
        message = await queue.get(timeout=DEADLINE_S)
        assert message is not None
        bodies.append(message.body)
        await message.ack()
    return bodies


async def test_a_queue_grows_and_shrinks(scene: Scene) -> None:
    channel = await scene.channel("a")
    arguments = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 1}
    await channel.declare_queue("q", durable=True, arguments=arguments)  # type: ignore[arg-type]
    await publish(channel, b"1", b"2")
    await is_on(scene, "a")
    await scene.nodes["b"].ask("queues.add_member", **Q, node="b")
    await is_on(scene, "ab")
    assert await scene.nodes["b"].rows("queues.grow", node="c") == has_changed(3)
    await is_on(scene, "abc")
    await scene.nodes["a"].ask("queues.delete_member", **Q, node="a")
    await is_on(scene, "bc")
    assert scene.leader() in ("b", "c")
    assert await drained(scene, "a", 2) == [b"1", b"2"]


async def test_growing_onto_a_node_that_never_ran_is_under_way(scene: Scene) -> None:
    nodes = scene.nodes
    await scene.declare("a")
    await nodes["a"].ask("cluster.add", name="y", address="127.0.0.1:1")
    (row,) = await nodes["a"].rows("queues.grow", node="y")
    assert row["result"] == "under_way"
    assert "that node does not run, and gets one once it does" in row["error"]
    with pytest.raises(BrokerError, match="that node does not run, and gets one once it does"):
        await nodes["b"].ask("queues.add_member", **Q, node="y")


def said(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, object]]:
    records = [record for record in caplog.records if record.getMessage() == name]
    return [getattr(record, FIELDS_ATTRIBUTE) for record in records]


async def test_another_member_leads_when_somebody_says_so(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.declare("a")
    assert await is_led_as_wanted(scene) == "a"
    caplog.set_level(logging.INFO)
    await scene.nodes["b"].ask("queues.transfer", **Q, node="c")
    await scene.is_led_by("c")
    await publish(await scene.channel("b"), b"1")
    await until(lambda: len(said(caplog, "queue_leader_changed")) == len("abc"))
    group = scene.nodes["a"].node.catalogue.vhosts["/"].queues["q"].definition.id
    for fields in said(caplog, "queue_leader_changed"):
        assert fields.items() >= {"vhost": "/", "queue": "q", "group": group, "leader": "c"}.items()
        assert fields["former"] == "a"


async def test_a_member_that_goes_is_logged_by_the_name_of_its_queue(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.declare("a")
    assert await is_led_as_wanted(scene) == "a"
    group = scene.nodes["a"].node.catalogue.vhosts["/"].queues["q"].definition.id
    caplog.set_level(logging.INFO)
    assert await scene.nodes["a"].rows("queues.shrink", node="b") == has_changed(2)
    await is_on(scene, "ac")
    changed = {"vhost": "/", "queue": "q", "group": group, "node": "b", "step": "Remove"}
    assert changed in said(caplog, "queue_members_changed")
    assert await scene.nodes["a"].rows("queues.shrink", node="b") == []


async def test_leaders_are_balanced(scene: Scene) -> None:
    names = [f"q{number}" for number in range(6)]
    for name in names:
        await scene.declare("a", name)
        assert await is_led_as_wanted(scene, name) == "a"
    assert await scene.nodes["a"].ask("queues.rebalance") == {"queues": 4}
    await until(lambda: sorted(scene.leader(name) for name in names) == [*"aabbcc"])


async def test_who_is_to_lead_leads_again_though_that_was_said_before(scene: Scene) -> None:
    """Another has led since, for whatever reason."""
    await scene.declare("a")
    assert await is_led_as_wanted(scene) == "a"
    for node, other in ("ab", "bc"):
        await scene.nodes["b"].ask("queues.transfer", **Q, node=node)
        await scene.is_led_by(node)
        group = scene.nodes["a"].node.catalogue.vhosts["/"].queues["q"].definition.id
        scene.nodes[node].cluster.running.host.group(group).transfer(other, refused)
        await scene.is_led_by(other)
        await scene.nodes["b"].ask("queues.transfer", **Q, node=node)
        await scene.is_led_by(node)


async def test_leaders_are_balanced_onto_a_node_that_was_restarted(scene: Scene) -> None:
    names = [f"q{number}" for number in range(6)]
    for name in names:
        await scene.declare("a", name)
        await until(lambda: all(map(scene.leader, names[: names.index(name) + 1])))  # noqa: B023
    await scene.nodes["a"].stop()
    await until(lambda: {*map(scene.leader, names)} <= {"b", "c"})
    await scene.nodes["a"].start()
    await scene.nodes["a"].ask("queues.rebalance")
    await until(lambda: sorted(map(scene.leader, names)) == [*"aabbcc"])


async def test_what_makes_no_sense_is_refused(scene: Scene) -> None:
    await scene.declare("a")
    for verb, node, why in (
        ("queues.add_member", "x", "there is no node 'x'"),
        ("queues.delete_member", "x", "there is no node 'x'"),
        ("queues.transfer", "x", "there is no node 'x'"),
    ):
        with pytest.raises(BrokerError, match=why):
            await scene.nodes["a"].ask(verb, **Q, node=node)
    for verb in ("queues.grow", "queues.shrink"):
        with pytest.raises(BrokerError, match="there is no node 'x'"):
            await scene.nodes["a"].rows(verb, node="x")


async def test_who_is_no_node_any_more_can_be_taken_from_a_queue(scene: Scene) -> None:
    await scene.declare("a")
    parts = scene.nodes["a"].node.parts
    vhost = scene.nodes["a"].node.catalogue.vhosts["/"]
    definition = vhost.queues["q"].definition._replace(wanted=("gone",))
    assert former_or_node_of(parts, "gone", [definition]) == "gone"
    with pytest.raises(BrokerError, match="there is no node 'x'"):
        former_or_node_of(parts, "x", [definition])


async def test_a_lost_disk_is_replaced_and_the_queue_is_whole_again(scene: Scene) -> None:
    """The new node of that name has nothing, and must not count as if it had."""
    nodes = scene.nodes
    await scene.declare("a")
    await publish(await scene.channel("b"), b"1", b"2", b"3")
    await nodes["c"].kill()
    nodes["c"].wipe()
    await is_seen_by_nobody(nodes, "c")
    await nodes["a"].ask("cluster.forget", name="c")
    queue = nodes["a"].node.catalogue.vhosts["/"].queues["q"]
    await until(lambda: [node for node, _ in queue.definition.members] == ["a", "b"])
    await let_in(nodes, "c", by="a")
    await nodes["c"].start()
    await are_voters(nodes["a"], "abc")
    await until(lambda: voters(nodes["c"]) == ["a", "b", "c"])
    await nodes["a"].kill()
    assert await drained(scene, "c", 3) == [b"1", b"2", b"3"]


async def test_a_node_that_is_gone_is_replaced_by_another(tmp_path: Path, scene: Scene) -> None:
    nodes = scene.nodes
    nodes.grow("d")
    await let_in(nodes, "d", by="a")
    await nodes["d"].start()
    await are_voters(nodes["a"], "abcd")
    await scene.declare("a")
    (gone, *_) = sorted({"b", "c", "d"} & set(voters(nodes["a"])))
    await nodes[gone].stop()
    await is_seen_by_nobody(nodes, gone)
    await nodes["a"].ask("cluster.forget", name=gone)
    await is_on(scene, sorted({*"abcd"} - {gone}))


def lose_head(node: ClusterNode, group: GroupId) -> None:
    """While it does not run."""
    disk = open_environment(node.config.data_dir)
    disk.commit(WriteTransaction(puts=[(Table.RAFT, raft_key(HEAD, group), b"no head")]))
    disk.close()


def has_head(node: ClusterNode, group: GroupId) -> bool:
    """Likewise; whatever it is like."""
    disk = open_environment(node.config.data_dir)
    with closing(disk), disk.view() as view:
        return view.get(Table.RAFT, raft_key(HEAD, group)) is not None


async def test_a_member_whose_data_cannot_be_read_begins_anew(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old member must not vote again; the node joins as another by itself."""
    monkeypatch.setattr(membership, "UNKNOWN_MAX", 0)  # it is believed at once
    nodes = scene.nodes
    await scene.declare("a")
    await publish(await scene.channel("b"), b"1", b"2", b"3")
    queue = nodes["a"].node.catalogue.vhosts["/"].queues["q"]
    group = queue.definition.id
    assert dict(queue.definition.members)["c"] == 1
    await nodes["c"].stop()
    lose_head(nodes["c"], group)
    await nodes["c"].start()
    await publish(await scene.channel("b"), b"4")
    await until(lambda: dict(queue.definition.members).get("c", 0) > 1)
    await until(lambda: voters(nodes["c"]) == ["a", "b", "c"])
    await nodes["a"].kill()
    assert await drained(scene, "c", 4) == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("is_taken_first", [True, False])
async def test_what_cannot_be_read_goes_once_its_node_is_no_member_any_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, is_taken_first: bool
) -> None:
    """Both orders are tried: the queue is taken from the node before it finds out, or after."""
    monkeypatch.setattr(membership, "UNKNOWN_MAX", 1_000_000)  # nobody replaces it
    nodes, c = scene.nodes, scene.nodes["c"]
    await scene.declare("a")
    await is_on(scene, "abc")
    definition = nodes["a"].node.catalogue.vhosts["/"].queues["q"].definition
    await c.stop()
    lose_head(c, definition.id)
    if not is_taken_first:
        await c.start()
    await nodes["a"].ask("queues.delete_member", **Q, node="c")
    await is_on(scene, "ab")
    if is_taken_first:
        await c.start()
    await publish(await scene.channel("c"), b"1")
    await until(lambda: not c.cluster.quorum_members._lost)
    await c.stop()
    assert not has_head(c, definition.id)


def committed(node: ClusterNode) -> list[str]:
    """The voters of the queue q that its group has agreed on, as far as this node knows."""
    queue = node.node.catalogue.vhosts["/"].queues["q"]
    config = node.cluster.running.host.group(queue.definition.id).configs[0]
    return [voter.node for voter in config.voters]


def has_changed(size: int) -> list[dict[str, object]]:
    """The row of the queue q."""
    return [{"vhost": "/", "name": "q", "size": size, "result": "changed", "error": ""}]


async def test_a_node_may_be_stopped_as_soon_as_no_queue_is_said_to_be_there(scene: Scene) -> None:
    """Else the queue would be left with two members, of which one is gone."""
    nodes = scene.nodes
    await scene.declare("a")
    await publish(await scene.channel("a"), b"1")
    for name, left in (("c", 2), ("b", 1)):
        assert await nodes["a"].rows("queues.shrink", node=name) == has_changed(left)
        assert committed(nodes["a"]) == [*"abc"[:left]]
        await nodes[name].kill()
    await scene.is_led_by("a")
    assert await drained(scene, "a", 1) == [b"1"]


async def test_a_member_that_is_said_to_be_there_votes(scene: Scene) -> None:
    nodes = scene.nodes
    channel = await scene.channel("a")
    arguments: FieldTable = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 1}
    await channel.declare_queue("q", durable=True, arguments=arguments)
    await publish(channel, *(b"%d" % number for number in range(100)))
    assert await nodes["c"].rows("queues.grow", node="b") == has_changed(2)
    assert committed(nodes["b"]) == [*"ab"]
    await nodes["c"].ask("queues.add_member", **Q, node="c")
    assert committed(nodes["c"]) == [*"abc"]
    await nodes["a"].ask("queues.delete_member", **Q, node="a")
    assert voters(nodes["b"]) == [*"bc"]
    row = {"vhost": "/", "name": "q", "size": 2, "result": "unchanged", "error": ""}
    assert await nodes["c"].rows("queues.grow", node="b") == [row]


async def lead_and_die(scene: Scene, name: str) -> None:
    """A queue that is on three nodes is left with two members, of which one is gone."""
    nodes = scene.nodes
    (other,) = {"b", "c"} - {name}
    await nodes["a"].rows("queues.shrink", node=other)
    await nodes["a"].ask("queues.transfer", **Q, node=name)
    await scene.is_led_by(name)
    await nodes[name].kill()
    await is_seen_by_nobody(nodes, name)


async def test_what_cannot_be_agreed_on_is_still_under_way(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal comes in a bounded time, and the change comes true when it can."""
    nodes = scene.nodes
    await scene.declare("a")
    await lead_and_die(scene, "b")
    monkeypatch.setattr(member_changes, "GIVE_UP_MS", 300)
    (row,) = await nodes["c"].rows("queues.shrink", node="b")
    assert row["result"] == "under_way"
    assert "still has its member on 'b': too few" in row["error"]
    with pytest.raises(BrokerError, match="'q' in vhost '/' still has its member on 'b'"):
        await nodes["c"].ask("queues.delete_member", **Q, node="b")
    monkeypatch.undo()
    await nodes["b"].start()
    assert await nodes["c"].rows("queues.shrink", node="b") != []
    assert committed(nodes["a"]) == ["a"]


async def test_a_node_is_not_forgotten_while_a_queue_needs_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data would be refused from then on, and the queue have no majority any more."""
    nodes = scene.nodes
    await scene.declare("a")
    await lead_and_die(scene, "b")
    monkeypatch.setattr(member_changes, "GIVE_UP_MS", 100)
    assert (await nodes["c"].rows("queues.shrink", node="b"))[0]["result"] == "under_way"
    for by in "ac":
        with pytest.raises(BrokerError, match=r"without node 'b' too few members .* queue 'q'"):
            await nodes[by].ask("cluster.forget", name="b")
    await nodes["a"].ask("queues.force_shrink", **Q)
    assert await nodes["a"].ask("cluster.forget", name="b") == {"queues": 0}
    await publish(await scene.channel("c"), b"1")


async def test_many_are_waited_for_some_at_a_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one is deleted meanwhile, and one is on no other node."""
    monkeypatch.setattr(member_changes, "QUEUES_PER_TURN", 2)
    nodes, channel = scene.nodes, await scene.channel("a")
    for name in "vwxyz":
        arguments: FieldTable = {"x-queue-type": "quorum"}
        if name == "z":
            arguments["x-quorum-initial-group-size"] = 1
        await channel.declare_queue(name, durable=True, arguments=arguments)
    rows, is_deleted = [], False
    async for row in nodes["a"].listed("queues.shrink", node="a"):
        rows.append(row)
        if not is_deleted:  # the first is what is refused at once
            await nodes["b"].ask("queues.delete", name="y", vhost="/")
            is_deleted = True
    assert {row["name"]: row["result"] for row in rows} == {
        **dict.fromkeys("vwx", "changed"), "z": "refused",
    }  # fmt: skip
    assert "'a' has the only member of queue 'z'" in rows[0]["error"]
    some = [{"vhost": "/", "name": name} for name in ("w", "nosuch")]
    grown = await nodes["b"].rows("queues.grow", node="a", queues=some)
    assert [(row["name"], row["size"]) for row in grown] == [("w", 3)]


def have_leaders_take(monkeypatch: pytest.MonkeyPatch, *kinds: type[Step]) -> None:
    """Steps of these kinds alone, as if the others took for ever."""

    def some(config: Configuration, wanted: Collection[str], lost: Collection[str]) -> list[Step]:
        return [step for step in steps(config, wanted, lost) if isinstance(step, kinds)]

    monkeypatch.setattr(membership, "steps", some)


async def test_who_only_copies_counts_for_nobody_who_is_to_be_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Voter a or b is gone, and a node without a member must ask for the voters."""
    async with running_cluster(tmp_path, 4) as nodes, AsyncExitStack() as stack:
        channel = await Scene(nodes, stack).channel("a")
        arguments: FieldTable = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 1}
        await channel.declare_queue("q", durable=True, arguments=arguments)
        assert await nodes["d"].rows("queues.grow", node="b") == has_changed(2)
        monkeypatch.setattr(member_changes, "GIVE_UP_MS", 100)
        have_leaders_take(monkeypatch, AddLearner)
        (row,) = await nodes["a"].rows("queues.grow", node="c")
        assert row["result"] == "under_way"
        queue = nodes["d"].node.catalogue.vhosts["/"].queues["q"]
        await until(lambda: [node for node, _ in queue.definition.members] == [*"abc"])
        await nodes["b"].kill()
        await is_seen_by_nobody(nodes, "b")
        for by in "acd":
            with pytest.raises(BrokerError, match=r"without node 'b' too few members .* queue 'q'"):
                await nodes[by].ask("cluster.forget", name="b")
        await nodes["b"].start()
        await publish(channel, b"1")


async def test_a_node_is_not_forgotten_while_it_is_not_known_who_votes(scene: Scene) -> None:
    """A silent node may have lost its member."""
    a, c = scene.nodes["a"], scene.nodes["c"]
    await scene.declare("a")
    await is_on(scene, "abc")
    await scene.nodes["b"].kill()
    await is_seen_by_nobody(scene.nodes, "b")
    reply_timeout_s, a.cluster.rpc_client.reply_timeout_s = (
        a.cluster.rpc_client.reply_timeout_s,
        0.0,
    )
    with pytest.raises(BrokerError, match=r"'c' does not say whether it votes in queue 'q' .* try"):
        await a.ask("cluster.forget", name="b")
    a.cluster.rpc_client.reply_timeout_s = reply_timeout_s
    await a.ask("cluster.forget", name="b")
    await until(lambda: "b" not in voters(c))


async def test_of_two_who_take_each_others_member_one_is_refused(scene: Scene) -> None:
    """The refused change never happens later by itself."""
    await scene.declare("a")
    await is_on(scene, "abc")
    await scene.nodes["a"].rows("queues.shrink", node="c")
    outcomes = await asyncio.gather(
        *(scene.nodes["c"].rows("queues.shrink", node=node) for node in "ab")
    )
    rows = sorted((row for (row,) in outcomes), key=lambda row: str(row["result"]))
    assert [row["result"] for row in rows] == ["changed", "refused"]
    assert "has the only member of queue 'q'" in rows[1]["error"]


@pytest.mark.parametrize("is_grown", [True, False])
async def test_what_somebody_asks_the_contrary_of_is_not_waited_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, is_grown: bool
) -> None:
    await scene.declare("a")
    await is_on(scene, "abc")
    if is_grown:
        await scene.nodes["a"].rows("queues.shrink", node="c")
    have_leaders_take(monkeypatch)
    monkeypatch.setattr(member_changes, "GIVE_UP_MS", 600_000)
    verbs = ("queues.grow", "queues.shrink") if is_grown else ("queues.shrink", "queues.grow")
    queue = scene.nodes["b"].node.catalogue.vhosts["/"].queues["q"]
    first = asyncio.ensure_future(scene.nodes["a"].rows(verbs[0], node="c"))
    await until(lambda: ("c" in queue.definition.wanted) is is_grown)
    (contrary,) = await scene.nodes["b"].rows(verbs[1], node="c")
    assert contrary["result"] == "changed"
    async with soon():
        (row,) = await first
    assert row["result"] == "superseded"
    assert "the contrary has been asked for since" in row["error"]
