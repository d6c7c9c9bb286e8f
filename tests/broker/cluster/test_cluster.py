"""Three whole nodes: they find each other in any order, and all know what one was asked for."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path

import pytest

from fluffle.broker.access.access import User, put_user
from fluffle.broker.base.errors import StartFailed
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.cluster.raft_host import HostLoop
from fluffle.broker.definitions.changes import set_vhost
from fluffle.broker.node import Node
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.changes import declare_exchange
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.vhosts.queue_changes import bind, declare_queue
from fluffle.protocol.wire import to_table
from fluffle.raft.output import Role
from tests.support.cluster_nodes import ClusterNode, make_cluster, running_cluster, until

pytestmark = pytest.mark.usefixtures("hasty")


async def define(node: ClusterNode, word: str) -> None:
    """Define an object of each kind through this node."""
    vhost = node.node.catalogue.vhosts["/"]
    exchange, queue = f"x-{word}", f"q-{word}"
    await node.change(lambda: set_vhost(node.node.catalogue, f"v-{word}"))
    await node.change(lambda: put_user(User(f"u-{word}")))
    await node.change(lambda: declare_exchange(vhost.topology, ExchangeSpec(exchange, "topic")))
    await node.change(lambda: declare_queue(vhost, Declaration(queue, durable=True), None))
    binding = Binding(exchange, queue, DestinationKind.QUEUE, "a.#", {})
    await node.change(lambda: bind(vhost, binding, None))


def has(node: ClusterNode, word: str) -> bool:
    """True if it knows all of that."""
    catalogue = node.node.catalogue
    vhost = catalogue.vhosts["/"]
    return (
        f"v-{word}" in catalogue.vhosts
        and f"u-{word}" in catalogue.access.users
        and [queue.name for queue in vhost.route(f"x-{word}", ["a.b"], None)[0]] == [f"q-{word}"]
    )


async def test_what_one_node_accepts_all_know(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        for node in three:
            assert list(node.node.catalogue.vhosts) == ["/"]
            assert list(node.node.catalogue.access.users) == ["guest"]
        for node in three:
            await define(node, node.name)
        await three.agree()
        assert all(has(node, word) for node in three for word in "abc")


@pytest.mark.parametrize("order", ["abc", "bac", "acb", "cab"])
async def test_any_order_of_starting_forms_the_same_cluster(tmp_path: Path, order: str) -> None:
    """Two of the three founders are enough, if the first is one of them."""
    three = await make_cluster(tmp_path)
    for name in order[:2]:
        three[name].begin()
    for name in order[:2]:
        await three[name].started()
    await define(three[order[0]], "early")
    await three[order[2]].start()
    assert has(three[order[2]], "early")
    await three.stop()
    await three.start(order)
    await three.agree()
    assert all(has(node, "early") for node in three)
    await define(three[order[2]], "late")
    await three.agree()
    await three.stop()


@pytest.mark.parametrize("is_killed", [False, True])
async def test_each_may_be_away_and_catches_up(tmp_path: Path, is_killed: bool) -> None:
    async with running_cluster(tmp_path) as three:
        for node in three:
            await (node.kill() if is_killed else node.stop())
            for other in three.running:
                await define(other, f"{other.name}-without-{node.name}")
            await node.start()
            await three.agree()
        words = [f"{this}-without-{that}" for this, that in permutations("abc", 2)]
        assert all(has(node, word) for node in three for word in words)


async def test_all_may_die_at_once(tmp_path: Path) -> None:
    three = await make_cluster(tmp_path)
    for round_ in range(3):
        await three.start()
        await define(three["abc"[round_]], str(round_))
        for node in three:
            await node.kill()
    await three.start()
    assert all(has(node, str(round_)) for node in three for round_ in range(3))
    await three.stop()


async def test_who_stops_hands_over_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No node has to be suspected, and nobody to stand for election by himself."""
    async with running_cluster(tmp_path) as three:
        for _ in range(3):
            leader = next(node for node in three if node.cluster.metadata.leads)
            term = leader.cluster.running.host.group(METADATA_GROUP).status.term
            caplog.clear()
            caplog.set_level(logging.INFO)
            await leader.stop()
            said = [record.getMessage() for record in caplog.records]
            assert said.index("leadership_drained") < said.index("link_ended")
            others = three.running
            await until(lambda: any(node.cluster.metadata.leads for node in others))  # noqa: B023
            statuses = [node.cluster.running.host.group(METADATA_GROUP).status for node in others]
            assert {status.term for status in statuses} == {term + 1}
            await leader.start()


async def test_who_stops_hands_over_its_queues_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To all others alike, as far as they have members."""
    async with running_cluster(tmp_path) as three:
        vhost = three["a"].node.catalogue.vhosts["/"]
        arguments = to_table({"x-queue-type": "quorum"})
        for number in range(20):
            declared = Declaration(f"q{number}", durable=True, arguments=arguments)
            await three["a"].change(partial(declare_queue, vhost, declared, None))
        ids = [queue.definition.id for queue in vhost.queues.values()]

        def led_by(node: ClusterNode) -> int:
            groups = node.cluster.running.host.groups
            return sum(groups[each].status.role is Role.LEADER for each in ids if each in groups)

        await until(lambda: sum(map(led_by, three)) == 20)
        before = {node.name: led_by(node) for node in three}
        assert before["a"] > 10, "a is asked first for each"
        caplog.set_level(logging.INFO)
        await three["a"].stop()
        said = [record for record in caplog.records if record.getMessage() == "leadership_drained"]
        (numbers,) = [getattr(record, FIELDS_ATTRIBUTE) for record in said]
        assert numbers["groups"] in (before["a"], before["a"] + 1), "it may lead the definitions"
        assert numbers["still_led_here"] == 0
        await until(lambda: led_by(three["b"]) + led_by(three["c"]) == 20)
        more = [led_by(three[name]) - before[name] for name in "bc"]
        assert min(more) >= before["a"] // 4, "a slow one asks the other"


async def test_consensus_gets_the_dialler_of_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers over the node's earlier link may be lost."""
    reported: list[tuple[HostLoop, str]] = []
    accepted = HostLoop.link_accepted

    def note(running: HostLoop, node: str) -> None:
        reported.append((running, node))
        accepted(running, node)

    monkeypatch.setattr(HostLoop, "link_accepted", note)
    async with running_cluster(tmp_path) as three:
        reported.clear()
        three["a"].cluster.links.reset("b", "for a test")
        both = [(three["a"].cluster.running, "b"), (three["b"].cluster.running, "a")]
        await until(lambda: {*both} == {*reported})


async def test_a_directory_is_of_a_node_alone_or_of_a_cluster(tmp_path: Path) -> None:
    three = await make_cluster(tmp_path)
    in_cluster = three["b"].config
    alone = replace(in_cluster, cluster=None)
    node = Node(alone)
    await node.start()
    await node.stop("shutdown")
    with pytest.raises(StartFailed, match="the data of a node that was alone"):
        await Node(in_cluster).start()
    three["c"].begin()
    await until(lambda: "cluster" in three["c"].node.addresses)
    await three["c"].stop()
    with pytest.raises(StartFailed, match="the data of node 'c' of a cluster"):
        await Node(replace(three["c"].config, cluster=None)).start()
