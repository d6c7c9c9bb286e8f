"""Expectations of the simulator about whole queues, where not everything can be expected."""

from __future__ import annotations

from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.protocol.wire import FieldTable
from fluffle.raft.config import Member, NodeId
from tests.simulation.faults import may_be_hurt
from tests.simulation.queues.queue_cluster import QueueCluster
from tests.simulation.registry import GroupSpec
from tests.simulation.run import Run
from tests.simulation.virtual_time import SECOND_US
from tests.support.raft_memory import DiskImage


def begun() -> Run:
    """Three nodes that let clients in, and nothing that goes wrong by itself."""
    run = Run(1, 3, subject=QueueCluster)
    run.cluster.network.profile = run.cluster.network.profile.calmed()
    for name in run.cluster.names:
        run.cluster.start(name)
    assert isinstance(run.application, QueueCluster)
    run.application.installed_versions.stay()
    run.application.begin(run.workload)
    passes(run, seconds=3)
    return run


def passes(run: Run, seconds: float) -> None:
    run.clockwork.run(run.clockwork.now_us + int(seconds * SECOND_US))


def declared(run: Run, at: NodeId, size: int) -> GroupSpec:
    """A queue of so many members, which are all there soon, if they can be; it may be gone."""
    assert isinstance(run.application, QueueCluster)
    (queue_node,) = [each for each in run.application.queue_nodes() if each.process.node == at]
    arguments: FieldTable = {
        "x-queue-type": ("S", b"quorum"),
        "x-quorum-initial-group-size": ("l", size),
    }
    queue_node.defining.declare("q", arguments)
    passes(run, seconds=1)
    groups = run.cluster.registry.groups.values()
    (spec,) = [each for each in groups if each.group != METADATA_GROUP]
    return spec


def wipe(run: Run, node: NodeId) -> None:
    run.cluster.kill(node, is_silent=True)
    run.cluster.lose_disk(node, DiskImage())
    run.cluster.start(node)


def test_clients_of_definitions_stop_with_all_others() -> None:
    """A queue that they replace for ever, or a full window of changes, would never settle."""
    run = begun()
    queue_cluster = run.application
    assert isinstance(queue_cluster, QueueCluster)
    queue_cluster.topology_checks._rate = queue_cluster.redeclared_queues._rate = 20.0
    queue_cluster.topology_checks.begin(run.workload)
    queue_cluster.redeclared_queues.begin(run.workload)
    passes(run, seconds=2)
    run.workload.stop()
    passes(run, seconds=1)
    replaced, revision = len(queue_cluster.checkers), queue_cluster.definitions.last_revision
    assert replaced > 3
    passes(run, seconds=5)
    assert len(queue_cluster.checkers) == replaced
    assert queue_cluster.definitions.last_revision == revision


def test_it_is_known_for_whom_no_answer_has_waited() -> None:
    """A node that pauses is waited for a second, and then not until it has caught up."""
    run = begun()
    queue_cluster = run.application
    assert isinstance(queue_cluster, QueueCluster)
    (queue_node,) = [each for each in queue_cluster.queue_nodes() if each.process.node == "a"]
    unawaited, definitions = queue_node.applied_barrier.unawaited, queue_cluster.definitions
    answered: list[int] = []
    declared(run, "a", 1)
    before = definitions.last_revision
    run.cluster.pause("c")
    for name in ("first", "second"):
        queue_node.defining.declare(name, {}, answered.append)
        passes(run, seconds=0.5)
        assert unawaited.get("c", 0) <= before, "it is waited for"
    passes(run, seconds=0.7)
    assert len(answered) == 2
    assert unawaited["c"] == definitions.last_revision > before
    assert unawaited.get("b", 0) <= before
    run.cluster.resume("c")
    passes(run, seconds=1)
    late = unawaited["c"]
    queue_node.defining.declare("third", {}, answered.append)
    passes(run, seconds=0.5)
    assert len(answered) == 3
    assert unawaited["c"] == late < definitions.last_revision


def test_nobody_serves_who_may_let_no_clients_in() -> None:
    run = begun()
    spec = declared(run, "b", 1)
    assert run._can_serve(spec, {"b", "c"})
    wipe(run, "c")
    assert not run._can_serve(spec, {"b", "c"})
    assert run._can_serve(spec, {"a", "b"})


def test_who_loses_its_disk_is_forgotten_and_let_in_as_another_member() -> None:
    run = begun()
    spec = declared(run, "a", 3)
    wipe(run, "c")
    passes(run, seconds=20)
    definitions = run.cluster.registry.groups[METADATA_GROUP]
    assert definitions.config.member_on("c") == Member("c", 2)
    assert definitions.wanted == {"a", "b", "c"}
    there = spec.config.member_on("c")
    assert there is not None
    assert there.incarnation > 1


def test_a_queue_whose_founders_were_lost_before_is_given_up() -> None:
    run = begun()
    wipe(run, "b")
    spec = declared(run, "a", 2)
    assert [voter.node for voter in spec.initial.voters] == ["a", "b"]
    passes(run, seconds=3)
    assert spec.is_deleted


def test_a_queue_whose_founders_are_there_is_not_given_up() -> None:
    run = begun()
    spec = declared(run, "a", 2)
    passes(run, seconds=3)
    assert not spec.is_deleted


def test_who_was_lost_as_a_founder_is_hurt_until_the_queue_has_another_in_its_place() -> None:
    run = begun()
    wipe(run, "b")
    spec = declared(run, "a", 3)
    assert spec.burnt == {Member("b", 1)}


def test_who_loses_its_disk_is_lost_also_where_it_had_nothing_yet() -> None:
    run = begun()
    run.cluster.network.cut("a", "b")
    run.cluster.network.cut("c", "b")
    spec = declared(run, "a", 3)
    assert spec.group not in run.cluster.machines["b"].disk.image.groups
    wipe(run, "b")
    assert spec.burnt == {Member("b", 1)}


def test_nobody_may_be_hurt_while_another_founder_has_not_heard_of_the_queue() -> None:
    run = begun()
    run.cluster.network.cut("a", "b")
    run.cluster.network.cut("c", "b")
    spec = declared(run, "a", 3)
    passes(run, seconds=1)
    assert [may_be_hurt(run.cluster, name) for name in "abc"] == [False, True, False]
    run.cluster.network.mend("a", "b")
    run.cluster.network.mend("c", "b")
    passes(run, seconds=5)
    assert spec.config.voters == spec.initial.voters
    assert [may_be_hurt(run.cluster, name) for name in "abc"] == [True, True, True]


def test_nobody_may_be_hurt_while_a_queue_is_to_have_fewer_members() -> None:
    """Its leader would send one away after another was lost, of which it has not heard."""
    run = begun()
    spec = declared(run, "a", 3)
    passes(run, seconds=1)
    assert all(may_be_hurt(run.cluster, name) for name in "abc")
    spec.wanted.discard("c")
    assert not any(may_be_hurt(run.cluster, name) for name in "abc")


def test_who_has_just_started_leads_nothing_before_it_knows_what_all_know() -> None:
    """The queue waits like in a daemon, even one that is on this node alone."""
    run = begun()
    spec = declared(run, "c", 1)
    leader = run.workload.leader(METADATA_GROUP)
    assert leader is not None
    if leader.node == "c":
        leader.feed(leader.multi.group(METADATA_GROUP).transfer, "a")
        passes(run, seconds=1)
    run.cluster.kill("c", is_silent=False)
    for other in "ab":
        run.cluster.network.cut("c", other)
        run.cluster.network.cut(other, "c")
    run.cluster.start("c")
    passes(run, seconds=5)
    assert run.workload.leader(spec.group) is None
    assert not run._can_serve(spec, {"b", "c"})
    for other in "ab":
        run.cluster.network.mend("c", other)
        run.cluster.network.mend(other, "c")
    passes(run, seconds=5)
    led = run.workload.leader(spec.group)
    assert led is not None
    assert led.node == "c"
    assert run._can_serve(spec, {"b", "c"})
