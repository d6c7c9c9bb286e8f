"""Changes of members that the simulator makes, and those that it does not."""

from fluffle.raft.config import AddLearner, Change, NodeId, Promote
from tests.simulation.registry import GroupSpec
from tests.simulation.run import Run
from tests.simulation.virtual_time import SECOND_US
from tests.simulation.workload import next_change


def begun() -> tuple[Run, GroupSpec]:
    """A group on one of three nodes, of which nothing goes wrong by itself."""
    run = Run(1, 3)
    run.cluster.network.profile = run.cluster.network.profile.calmed()
    for name in run.cluster.names:
        run.cluster.start(name)
    spec = run.cluster.registry.create(["a"])
    run.clockwork.run(SECOND_US)
    return run, spec


def change(run: Run, spec: GroupSpec, what: Change) -> None:
    leader = run.workload.leader(spec.group)
    assert leader is not None
    leader.feed(leader.multi.group(spec.group).change, what)
    run.clockwork.run(run.clockwork.now_us + SECOND_US)


def add(run: Run, spec: GroupSpec, node: NodeId) -> None:
    """Add a member, as a learner that has everything."""
    spec.wanted.add(node)
    change(run, spec, AddLearner(node))


def planned(run: Run, spec: GroupSpec, *, is_hurt: bool) -> Change | None:
    leader = run.workload.leader(spec.group)
    assert leader is not None
    return next_change(leader.multi.group(spec.group), spec, is_hurt=is_hurt)


def test_nobody_becomes_one_of_two_while_a_disk_is_hurt() -> None:
    """Its leader may not have heard of it yet; if it is lost then, who is left elects nobody."""
    run, spec = begun()
    add(run, spec, "b")
    assert planned(run, spec, is_hurt=False) == Promote("b")
    assert planned(run, spec, is_hurt=True) is None


def test_somebody_becomes_one_of_three_though_a_disk_is_hurt() -> None:
    run, spec = begun()
    add(run, spec, "b")
    change(run, spec, Promote("b"))
    add(run, spec, "c")
    assert planned(run, spec, is_hurt=True) == Promote("c")
