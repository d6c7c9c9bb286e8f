"""The host of a node's groups: what comes in, what goes out in which order, what is reported to
whom."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest

from fluffle.broker.cluster.codec import encode
from fluffle.broker.cluster.group_background import HostLimits
from fluffle.broker.cluster.hosted_group import (
    SNAPSHOT_PIECES,
    UNKNOWN_OUTCOME,
    ProposalLost,
)
from fluffle.broker.cluster.ports import TrafficClass
from fluffle.broker.cluster.raft_host import STEPS_MAX
from fluffle.raft.config import AddLearner, Configuration, Member, Promote, Remove
from fluffle.raft.group import Position
from fluffle.raft.leader import ProposalRefused, RefusalReason
from fluffle.raft.log import Entry
from fluffle.raft.messages import LeaderQuery, Ping
from fluffle.raft.ranges import Ranges
from fluffle.raft.tuning import Tuning
from tests.simulation.toy import put
from tests.support.payloads import joined
from tests.support.raft_hosts import HostCluster, ToyMachine

GROUP = 7


@pytest.fixture
def cluster() -> HostCluster:
    cluster = HostCluster()
    cluster.create(GROUP)
    return cluster


def reason_of(outcome: object) -> RefusalReason:
    assert isinstance(outcome, ProposalLost)
    assert outcome.refused is not None
    return outcome.refused.reason


# How much a turn takes


def test_a_turn_takes_in_so_much_and_the_next_the_rest(cluster: HostCluster) -> None:
    """In order; what groups are asked for does not wait for all of what has come in."""
    node, done = cluster.leader(GROUP), list[int]()
    for number in range(2 * STEPS_MAX):
        node.host.feed(done.append, number)
    outcomes: list[object] = []
    node.host.group(GROUP).propose(put(1, 0), outcomes.append)
    node.step()
    assert done == [*range(STEPS_MAX)]
    assert node.store.happened[-1] == "submit"
    node.step()
    assert done == [*range(2 * STEPS_MAX)]
    cluster.settle()
    assert outcomes == [Position(1, 2)]


def test_the_messages_of_a_frame_count_each(cluster: HostCluster) -> None:
    node, done = cluster.leader(GROUP), list[str]()
    query = LeaderQuery(GROUP, 1, 1, 1)
    for name in ("first", "second"):
        node.host.receive("c", joined(encode([query] * STEPS_MAX)))
        node.host.feed(done.append, name)
    node.step()
    assert not done
    node.step()
    assert done == ["first"]
    node.step()
    assert done == ["first", "second"]


def test_who_has_sent_what_is_unread_yet_is_not_silent() -> None:
    """Much waits in front of the ping of one; of another there is none."""
    cluster = HostCluster()
    a = cluster.nodes["a"]
    for _ in range(8 * STEPS_MAX):
        a.host.feed(len, "")
    ping = Ping(1, 99, 1, 1, is_answer_wanted=False)
    a.host.receive("b", joined(encode([ping])))
    a.reported.verdicts.clear()
    for _ in range(6):
        cluster.now_ms += Tuning().ping_interval_ms  # no turn of ours is late
        a.step()
        cluster.network.frames.clear()
    assert [(reported.node, reported.is_alive) for reported in a.reported.verdicts] == [
        ("c", False)
    ]


# Proposals


def test_what_is_proposed_is_applied_everywhere_and_reported_once(cluster: HostCluster) -> None:
    outcomes = cluster.propose(GROUP, put(1, 0), put(2, 0))
    assert outcomes == [Position(1, 2), Position(1, 3)]
    cluster.advance(100)
    live = {node.name: list(node.machine(GROUP).toy.live) for node in cluster.running()}
    assert live == {name: [2, 3] for name in "abc"}
    assert len(outcomes) == 2


def test_the_image_has_an_entry_before_its_proposer_is_reported(cluster: HostCluster) -> None:
    leader = cluster.leader(GROUP)
    applied: list[int] = []
    leader.host.group(GROUP).propose(
        put(1, 0), lambda outcome: applied.append(leader.machine(GROUP).toy.applied)
    )
    cluster.settle()
    assert applied == [2]


def test_a_follower_refuses_and_says_who_leads(cluster: HostCluster) -> None:
    follower = cluster.followers(GROUP)[0]
    outcomes: list[object] = []
    follower.host.group(GROUP).propose(put(1, 0), outcomes.append)
    assert outcomes == []
    cluster.settle()
    assert reason_of(outcomes[0]) is RefusalReason.NOT_LEADER
    assert isinstance(outcomes[0], ProposalLost)
    assert outcomes[0].refused is not None
    assert outcomes[0].refused.leader == cluster.leader(GROUP).name
    assert len(outcomes) == 1


def test_without_room_nothing_is_taken(cluster: HostCluster) -> None:
    store = cluster.leader(GROUP).store
    store.has_room = store.takes_entries = False
    assert [reason_of(outcome) for outcome in cluster.propose(GROUP, put(1, 0))] == [
        RefusalReason.NO_ROOM
    ]


def test_where_there_is_room_again_all_is_taken_though_others_see_it_first(
    cluster: HostCluster,
) -> None:
    """Alarms and `DiskFullHandover` look at the same disk between turns."""
    leader = cluster.leader(GROUP)
    leader.store.has_room = leader.store.takes_entries = False
    cluster.propose(GROUP, put(1, 0))
    snapshots = leader.host.snapshots
    assert (snapshots.is_short, snapshots.is_full) == (True, True)
    leader.store.has_room = leader.store.takes_entries = True
    leader.host.space.look()
    assert cluster.propose(GROUP, put(2, 0)) == [Position(1, 2)]
    assert (snapshots.is_short, snapshots.is_full) == (False, False)


def test_nothing_is_taken_behind_what_was_not_until_that_is_known(cluster: HostCluster) -> None:
    big = b"x" * Tuning().uncommitted_bytes_max
    *refused, taken = cluster.propose(GROUP, put(1, 0), big, put(2, 0))
    assert [reason_of(outcome) for outcome in refused] == [
        RefusalReason.BEHIND,
        RefusalReason.BEHIND,
    ]
    assert taken == Position(1, 2)
    assert isinstance(cluster.propose(GROUP, put(3, 0))[0], Position)


def test_who_waits_hears_that_leadership_has_ended(cluster: HostCluster) -> None:
    leader = cluster.leader(GROUP)
    for other in "abc":
        if other != leader.name:
            cluster.network.cut(leader.name, other)
    outcomes: list[object] = []
    reported: list[int | None] = []
    leader.host.group(GROUP).propose(put(1, 0), outcomes.append)
    leader.host.group(GROUP).read_index(reported.append)
    cluster.settle()
    assert (outcomes, reported) == ([], [])
    cluster.advance(1_000)
    assert (outcomes, reported) == ([UNKNOWN_OUTCOME], [None])
    for other in "abc":
        if other != leader.name:
            cluster.network.connect(leader.name, other)
    cluster.advance(3_000)
    assert cluster.propose(GROUP, put(2, 0)) != []
    assert outcomes == [UNKNOWN_OUTCOME]


def test_a_proposal_from_within_a_turn_is_one_of_the_next(cluster: HostCluster) -> None:
    group = cluster.led(GROUP)
    outcomes: list[object] = []

    def propose_another(outcome: object) -> None:
        outcomes.append(outcome)
        if len(outcomes) < 3:
            group.propose(put(len(outcomes), 0), propose_another)

    group.propose(put(0, 0), propose_another)
    cluster.settle()
    assert outcomes == [Position(1, 2), Position(1, 3), Position(1, 4)]


# Reads


def test_a_read_is_answered_when_what_was_committed_is_applied(cluster: HostCluster) -> None:
    cluster.propose(GROUP, put(1, 0))
    reported: list[int | None] = []
    cluster.led(GROUP).read_index(reported.append)
    cluster.followers(GROUP)[0].host.group(GROUP).read_index(reported.append)
    cluster.settle()
    assert reported in ([None, 2], [2, None])


# Groups come and go


def test_a_group_that_is_deleted_answers_everybody(cluster: HostCluster) -> None:
    leader, group = cluster.leader(GROUP), cluster.led(GROUP)
    for other in "abc":
        if other != leader.name:
            cluster.network.cut(leader.name, other)
    answers: list[object] = []
    group.propose(put(1, 0), answers.append)
    group.read_index(answers.append)
    cluster.settle()
    leader.host.delete(GROUP)
    group.propose(put(2, 0), answers.append)
    cluster.settle()
    assert answers[:2] == [UNKNOWN_OUTCOME, None]
    assert reason_of(answers[2]) is RefusalReason.NOT_LEADER
    assert GROUP not in leader.host
    assert leader.image.groups == {}
    group.read_index(answers.append)
    cluster.settle()
    assert answers[3:] == [None]


def test_a_group_is_deleted_and_here_again_as_another_member(cluster: HostCluster) -> None:
    node = cluster.followers(GROUP)[0]
    cluster.propose(GROUP, put(1, 0))
    cluster.led(GROUP).change(Remove(node.name), lambda outcome: None)
    cluster.settle()
    cluster.led(GROUP).change(AddLearner(node.name), lambda outcome: None)
    cluster.settle()
    node.host.delete(GROUP)
    node.host.create(GROUP, 2, Configuration())
    cluster.advance(3_000)
    outcomes: list[object] = []
    cluster.led(GROUP).change(Promote(node.name), outcomes.append)
    cluster.advance(1_000)
    assert isinstance(outcomes[0], Position)
    assert Member(node.name, 2) in cluster.led(GROUP).status.config.voters
    assert list(node.machine(GROUP).toy.live) == [2]
    configs = [change.config for change in node.reported.configs if change.index > 0]
    assert configs[-1] == cluster.led(GROUP).status.config


def test_leadership_is_handed_over(cluster: HostCluster) -> None:
    target = cluster.followers(GROUP)[0]
    refusals: list[ProposalRefused] = []
    cluster.led(GROUP).transfer(target.name, refusals.append)
    cluster.advance(500)
    assert cluster.leader(GROUP) is target
    target.host.group(GROUP).transfer("nobody", refusals.append)
    cluster.settle()
    assert [refused.reason for refused in refusals] == [RefusalReason.BAD_CHANGE]


def test_an_unknown_group_is_reported_to_who_knows_groups(cluster: HostCluster) -> None:
    config = Configuration.initial("ab")
    cluster.nodes["a"].host.create(9, 1, config)
    cluster.advance(1_000)
    assert ("b", 9) in cluster.nodes["a"].reported.unknowns


def test_a_node_that_may_not_have_heard_of_a_group_does_not_say_that_it_is_not_there(
    cluster: HostCluster,
) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    b.reported.knows = False
    config = Configuration.initial("ab")
    a.host.create(9, 1, config)
    cluster.advance(1_000)
    assert a.reported.unknowns == []
    assert [group for group, _act in b.reported.asked] == [9], "it is asked once"
    b.host.create(9, 1, config)
    cluster.settle()
    b.reported.asked[0][1]()
    cluster.advance(1_000)
    assert a.reported.unknowns == []
    assert cluster.leader(9) is not None


# Images


def test_what_an_image_hears_and_in_which_order(cluster: HostCluster) -> None:
    leader = cluster.leader(GROUP)
    follower = cluster.followers(GROUP)[0]
    cluster.advance(100)
    for node, last in ((leader, "led"), (follower, "apply 1-1")):
        calls = node.machine(GROUP).calls
        assert calls[:2] == ["restore 0", "followed None"]
        is_led = node is leader
        assert calls[-2 - is_led :] == [f"followed {leader.name}", "apply 1-1", "led"][: 2 + is_led]
        assert calls[-1] == last
    cluster.network.cut(leader.name, follower.name)
    third = next(node for node in cluster.followers(GROUP) if node is not follower)
    cluster.network.cut(leader.name, third.name)
    cluster.advance(1_000)
    assert leader.machine(GROUP).leads is None
    assert cluster.leader(GROUP) is not leader


class Broken(ToyMachine):
    def apply(self, entries: Sequence[Entry]) -> None:
        if any(entry.payload for entry in entries):
            raise AssertionError("this does not fit")
        super().apply(entries)


def test_an_image_that_contradicts_the_log_ends_the_node() -> None:
    cluster = HostCluster("a", make=Broken)
    cluster.create(GROUP)
    node = cluster.nodes["a"]
    cluster.is_fatal_expected = True
    outcomes = cluster.propose(GROUP, put(1, 0))
    assert [str(error) for error in node.fatal] == ["this does not fit"]
    assert outcomes == [UNKNOWN_OUTCOME]
    turns = node.turns
    node.host.group(GROUP).propose(put(2, 0), outcomes.append)
    cluster.advance(1_000)
    assert node.turns == turns
    assert len(node.fatal) == 1
    assert reason_of(outcomes[1]) is RefusalReason.NOT_LEADER


def test_a_host_that_stops_answers_everybody(cluster: HostCluster) -> None:
    leader, group = cluster.leader(GROUP), cluster.led(GROUP)
    answers: list[object] = []
    group.propose(put(1, 0), answers.append)
    leader.step()
    group.propose(put(2, 0), answers.append)
    group.read_index(answers.append)
    leader.host.stop()
    assert answers[0] == UNKNOWN_OUTCOME
    assert reason_of(answers[1]) is RefusalReason.NOT_LEADER
    assert answers[2] is None
    group.propose(put(3, 0), answers.append)
    assert reason_of(answers[3]) is RefusalReason.NOT_LEADER
    leader.host.stop()
    assert len(answers) == 4


# Restarts and damage


def test_one_restarts_and_all_restart(cluster: HostCluster) -> None:
    cluster.propose(GROUP, *(put(number, 10) for number in range(5)))
    leader = cluster.leader(GROUP)
    leader.kill()
    cluster.advance(1_000)
    cluster.propose(GROUP, put(5, 10))
    leader.start()
    cluster.advance(1_000)
    for node in cluster.running():
        node.kill()
    for node in cluster.nodes.values():
        assert node.start() == []
    cluster.advance(3_000)
    cluster.propose(GROUP, put(6, 10))
    cluster.advance(100)
    digests = {node.machine(GROUP).toy.digest for node in cluster.running()}
    assert len(digests) == 1
    assert len(cluster.leader(GROUP).machine(GROUP).toy.live) == 7


def test_a_state_that_cannot_be_read_is_sent_again(cluster: HostCluster) -> None:
    cluster.propose(GROUP, put(1, 10), put(2, 10))
    cluster.advance(100)
    node = cluster.followers(GROUP)[0]
    for each in cluster.running():
        each.snapshot(GROUP)
    cluster.settle()
    node.kill()
    node.image.groups[GROUP].is_state_damaged = True
    node.start()
    node.step()
    assert node.machine(GROUP).calls == []
    cluster.advance(5_000)
    assert node.reported.damages == [(GROUP, 3)]
    assert node.fatal == []
    assert list(node.machine(GROUP).toy.live) == [2, 3]
    assert not node.host.group(GROUP).status.is_quarantined


def test_a_lost_group_is_reported_and_can_be_deleted(cluster: HostCluster) -> None:
    node = cluster.followers(GROUP)[0]
    node.kill()
    node.image.groups[GROUP].is_head_damaged = True
    assert node.start() == [GROUP]
    assert GROUP not in node.host
    node.host.delete(GROUP)
    cluster.settle()
    assert node.image.groups == {}


# The turn


def test_an_output_is_done_in_order() -> None:
    """Messages leave before the write they do not wait for; images hear after both."""
    cluster = HostCluster("ab")
    cluster.create(GROUP)
    leader = cluster.leader(GROUP)
    happened = leader.store.happened = leader.machine(GROUP).calls = []
    cluster.network.wake = lambda: happened.append("message")
    cluster.leader(GROUP).host.group(GROUP).propose(put(1, 0), lambda outcome: None)
    leader.step()
    assert happened == ["message", "submit"]
    cluster.settle()
    assert happened.index("apply 2-2") > happened.index("submit")


def test_what_waits_for_the_disk_leaves_after_it(cluster: HostCluster) -> None:
    follower = cluster.followers(GROUP)[0]
    cluster.led(GROUP).propose(put(1, 0), lambda outcome: None)
    cluster.leader(GROUP).step()
    while cluster.network.deliver():
        pass
    cluster.network.sent.clear()
    follower.step()
    assert cluster.network.sent == []
    follower.store.sync()
    follower.step()
    assert [(sender, traffic) for sender, _, traffic, _ in cluster.network.sent] == [
        (follower.name, TrafficClass.URGENT)
    ]


def test_idle_groups_cost_no_turn_and_no_message() -> None:
    cluster = HostCluster()
    cluster.create(*range(1, 101))
    cluster.advance(5_000)
    turns = sum(node.turns for node in cluster.running())
    cluster.network.sent.clear()
    cluster.advance(10_000)
    assert {traffic for *_, traffic, _ in cluster.network.sent} == {TrafficClass.URGENT}
    # Four pings a second to each of two others, and those of the others that come in.
    assert sum(node.turns for node in cluster.running()) - turns <= 3 * 40 * 4


# Catching up


def test_a_catch_up_is_read_in_slices_while_others_have_their_turns() -> None:
    settings = HostLimits(slice_bytes=1, scrub=None)
    tuning = Tuning(append_bytes_max=2_000, cached_bytes=0)
    cluster = HostCluster(settings=settings, tuning=tuning)
    cluster.create(GROUP, GROUP + 1)
    behind = cluster.followers(GROUP)[0]
    behind.kill()
    cluster.advance(2_000)
    cluster.propose(GROUP, *(put(number, 900) for number in range(50)))
    leader = cluster.leader(GROUP)
    behind.start()
    most = 0
    for _ in range(300):
        before = leader.store.happened.count("read")
        cluster.step()
        most = max(most, leader.store.happened.count("read") - before)
        cluster.now_ms += 10
    cluster.network.sent = [item for item in cluster.network.sent if item[2] is TrafficClass.BULK]
    assert most == 1
    assert leader.store.happened.count("read") >= 20
    assert cluster.network.sent != []
    cluster.advance(1_000)
    assert behind.machine(GROUP).toy.digest == leader.machine(GROUP).toy.digest


def test_snapshots_are_taken_a_few_at_a_time() -> None:
    settings = HostLimits(slice_bytes=1 << 18, snapshot_bytes_min=1_000, scrub=None)
    cluster = HostCluster("a", settings=settings)
    groups = range(1, 101)
    cluster.create(*groups)
    node = cluster.nodes["a"]
    for group in groups:
        node.host.group(group).propose(put(1, 1_000), lambda outcome: None)
    taken = [0]
    while cluster.step():
        taken.append(sum(machine.snapshots for machine in node.reported.machines.values()))
    steps = [after - before for before, after in pairwise(taken)]
    assert taken[-1] == 100
    assert max(steps) == 4  # each counts 64 KiB of a slice of 256
    assert all(image.meta.index == 2 for image in node.image.groups.values())


class Large(ToyMachine):
    """An image whose state is made in many pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def snapshot(self) -> tuple[Ranges, Iterator[bytes]]:
        live, (state,) = super().snapshot()
        return live, self.pieces(state)

    def pieces(self, state: bytes) -> Iterator[bytes]:
        for at in range(0, len(state), 40):
            self.made += 1
            yield state[at : at + 40]


def test_a_large_state_is_made_a_few_pieces_at_a_time() -> None:
    """The state is that of the beginning, though the image goes on; the next snapshot counts what
    came since."""
    settings = HostLimits(snapshot_bytes_min=60_000, scrub=None)
    cluster = HostCluster("a", settings=settings, make=Large)
    cluster.create(GROUP)
    node = cluster.nodes["a"]
    for number in range(100):
        node.host.group(GROUP).propose(put(number, 1_000), lambda outcome: None)
    machine = node.machine(GROUP)
    assert isinstance(machine, Large)
    made = [0]
    while cluster.step():
        made.append(machine.made)
        if made[-1] and not node.image.groups[GROUP].meta.index:
            node.host.group(GROUP).propose(put(1_000 + made[-1], 1_000), lambda outcome: None)
    meta, applied = node.image.groups[GROUP].meta, node.host.group(GROUP).applied
    assert machine.snapshots == 1
    assert 0 < meta.index < applied
    assert max(after - before for before, after in pairwise(made)) == SNAPSHOT_PIECES
    assert node.host.snapshots.owed_bytes > 1_000 * (applied - meta.index)
    node.kill()
    node.start()
    cluster.advance(2_000)
    assert node.machine(GROUP).toy.live == machine.toy.live


def test_who_is_behind_the_floor_gets_a_snapshot_by_the_bulk_lane(cluster: HostCluster) -> None:
    behind = cluster.followers(GROUP)[0]
    behind.kill()
    cluster.advance(2_000)
    cluster.propose(GROUP, *(put(number, 10) for number in range(5)))
    cluster.advance(100)
    for node in cluster.running():
        node.snapshot(GROUP)
    cluster.settle()
    assert cluster.led(GROUP).status.floor > 0
    cluster.network.sent.clear()
    behind.start()
    cluster.advance(3_000)
    assert behind.machine(GROUP).calls[-1] == "restore 6"
    assert TrafficClass.BULK in {traffic for *_, traffic, _ in cluster.network.sent}
    assert list(behind.machine(GROUP).toy.live) == [2, 3, 4, 5, 6]


def test_a_snapshot_that_a_follower_needs_is_made(cluster: HostCluster) -> None:
    cluster.propose(GROUP, *(put(number, 10) for number in range(5)))
    cluster.advance(100)
    hurt = cluster.followers(GROUP)[0]
    hurt.snapshot(GROUP)
    cluster.settle()
    assert cluster.led(GROUP).status.floor == 0
    hurt.kill()
    hurt.image.groups[GROUP].is_state_damaged = True
    hurt.start()
    cluster.advance(5_000)
    assert cluster.led(GROUP).status.floor > 0
    assert not hurt.host.group(GROUP).status.is_quarantined
    assert list(hurt.machine(GROUP).toy.live) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("frame", [b"", b"\x90", b"\x91\x91\x05", b"not a frame", b"\xc1" * 40])
def test_garbage_is_refused_and_hurts_nobody(cluster: HostCluster, frame: bytes) -> None:
    node = cluster.leader(GROUP)
    node.host.receive("b", frame)
    node.host.receive("a stranger", frame)
    cluster.settle()
    assert len(node.reported.refusals) == (0 if frame == b"\x90" else 2)
    assert node.fatal == []
    assert isinstance(cluster.propose(GROUP, put(1, 0))[0], Position)
