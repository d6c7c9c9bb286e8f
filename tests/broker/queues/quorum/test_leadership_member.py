"""Members of a queue on the nodes of a cluster: real hosts and Raft groups, disks in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from fluffle.broker.cluster.hosted_group import EntryOutcome
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.facts import SessionId
from fluffle.broker.queues.quorum.holders import Terms
from fluffle.broker.queues.quorum.leadership import Leadership, QueueReplica
from fluffle.raft.group import Position
from tests.broker.queues.quorum.image_digest import image_digest
from tests.broker.queues.quorum.sample_facts import ORIGIN
from tests.support.leader_services import FakeLeaderServices
from tests.support.manual_clock import ManualClock
from tests.support.raft_hosts import HostCluster, Node, ToyMachine

GROUP = 7
EDGE = SessionId("edge", 1, 1, 1)


class Seat(FakeLeaderServices):
    """A member, and its host on its node."""

    def __init__(self) -> None:
        super().__init__(QueueSpec("q"), [], ManualClock(now_ms=1_000, wall_ms=1_000), GROUP)
        self.node: Node
        self.reported: list[m.Effect] = []
        self.bodies: list[list[bytes]] = []
        """Bodies of each delivery."""
        self.member = QueueReplica(self)

    def release(self, effects: list[m.Effect]) -> None:
        self.reported += effects
        self.bodies += [
            message.contents for _, message in effects if isinstance(message, m.Deliver)
        ]

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        def reported(outcome: EntryOutcome) -> None:
            on_outcome(isinstance(outcome, Position))

        self.node.host.group(GROUP).propose(payload, reported)

    def read_entry(self, index: int) -> bytes:
        (entry,) = self.node.store.read(GROUP, index, index + 1, 1 << 30)
        return entry.payload

    def ended(self) -> None:
        """Another leadership may begin."""

    def wake(self, delay_ms: int) -> None:
        raise AssertionError(f"nothing is due, but something in {delay_ms} ms")

    def turn(self) -> None:
        while self.is_touched:
            self.is_touched = False
            if (led := self.member.leadership) is not None:
                led.pump()


class Cluster:
    """Three nodes with a member each."""

    def __init__(self) -> None:
        self.seats: dict[int, Seat] = {}
        self.hosts = HostCluster(make=cast(Callable[[], ToyMachine], self.make))
        self.hosts.create(GROUP)
        self.hosts.settle()

    def make(self) -> QueueReplica:
        seat = Seat()
        self.seats[id(seat.member)] = seat
        return seat.member

    def seat(self, node: Node) -> Seat:
        seat = self.seats[id(node.machine(GROUP))]
        seat.node = node
        return seat

    def all(self) -> list[Seat]:
        return [self.seat(node) for node in self.hosts.running()]

    def leader(self) -> Seat:
        (leader,) = [seat for seat in self.all() if seat.member.leadership is not None]
        return leader

    def settle(self) -> None:
        """Until nobody has anything to do."""
        self.hosts.settle()
        while any(seat.is_touched for seat in self.all()):
            for seat in self.all():
                seat.turn()
            self.hosts.settle()
        self.hosts.advance(100)


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    for node in cluster.hosts.running():
        cluster.seat(node)
    cluster.settle()
    return cluster


def led_by(seat: Seat) -> Leadership:
    assert seat.member.leadership is not None
    return seat.member.leadership


def work(cluster: Cluster) -> tuple[Seat, int, int]:
    """A consumer that holds two of five messages: the leader, its session and its key."""
    leader = cluster.leader()
    led = led_by(leader)
    session = led.sessions.open(EDGE)
    led.attach(session, 1, Terms(1, "tag", prefetch=2))
    contents = [b"body %d" % number for number in range(5)]
    led.publish(session, 2, [ORIGIN] * 5, contents)
    cluster.settle()
    (answer,) = [message for _, message in leader.reported if isinstance(message, m.AnswerReply)]
    return leader, session, answer.answer


def test_all_members_come_to_the_same(cluster: Cluster) -> None:
    leader, _session, _key = work(cluster)
    assert leader.bodies == [[b"body 0", b"body 1"]]
    assert len({image_digest(seat.member.image) for seat in cluster.all()}) == 1
    followers = [seat for seat in cluster.all() if seat is not leader]
    assert [seat.reported for seat in followers] == [[], []]


def test_the_next_leader_goes_on_where_the_log_ends(cluster: Cluster) -> None:
    before, session, key = work(cluster)
    before.node.kill()
    cluster.hosts.advance(3_000)
    cluster.settle()
    leader = cluster.leader()
    assert leader is not before
    led = led_by(leader)
    assert led.sessions.key_of(EDGE) == session
    assert led.on_record.holds(session) == [(key, 0, range(1, 3))]
    led.settle(session, 7, key, [(0, range(1, 3))], outcome=Outcome.ACKED)
    cluster.settle()
    done, delivery = leader.reported
    assert done == m.Effect(session, m.DoneReply(7, 1))
    assert isinstance(delivery.message, m.Deliver)
    assert (leader.bodies, delivery.message.redelivered) == ([[b"body 2", b"body 3"]], False)


def test_a_node_that_starts_again_has_what_it_had(cluster: Cluster) -> None:
    leader, _session, _key = work(cluster)
    (node, *_others) = [seat.node for seat in cluster.all() if seat is not leader]
    node.snapshot(GROUP)
    cluster.settle()
    node.kill()
    node.start()
    cluster.seat(node)
    cluster.settle()
    assert len({image_digest(seat.member.image) for seat in cluster.all()}) == 1


def test_a_leader_whose_entry_was_not_taken_leads_anew_from_its_image(cluster: Cluster) -> None:
    leader, session, _key = work(cluster)
    first, before = led_by(leader), leader.member.leader_epoch
    leader.node.store.has_room = leader.node.store.takes_entries = False
    first.publish(session, 7, [ORIGIN], [b"refused"])
    leader.reported.clear()
    cluster.settle()
    again = led_by(leader)
    assert first.is_over
    assert again is not first
    assert leader.member.leader_epoch == (before[0], before[1] + 1)
    assert leader.reported == []
    leader.node.store.has_room = leader.node.store.takes_entries = True
    again.publish(session, 7, [ORIGIN], [b"taken"])
    cluster.settle()
    assert leader.reported == [m.Effect(session, m.DoneReply(7, 1))]


def test_a_leader_that_is_deposed_with_entries_under_way_does_not_begin_anew(
    cluster: Cluster,
) -> None:
    leader, session, key = work(cluster)
    for other in cluster.hosts.running():
        if other is not leader.node:
            cluster.hosts.network.cut(leader.node.name, other.name)
    leader_epoch = leader.member.leader_epoch
    led_by(leader).settle(session, 7, key, [(0, range(1, 3))], outcome=Outcome.ACKED)
    leader.turn()
    cluster.hosts.advance(3_000)
    assert leader.member.leadership is None
    assert leader.member.leader_epoch == leader_epoch


def test_a_deposed_leader_hands_out_nothing(cluster: Cluster) -> None:
    leader, session, key = work(cluster)
    led = led_by(leader)
    for other in cluster.hosts.running():
        if other is not leader.node:
            cluster.hosts.network.cut(leader.node.name, other.name)
    leader.reported.clear()
    led.settle(session, 7, key, [(0, range(1, 3))], outcome=Outcome.ACKED)
    cluster.hosts.settle()
    leader.turn()
    cluster.hosts.advance(3_000)
    cluster.hosts.settle()
    assert leader.reported == []
    assert leader.member.leadership is None
    assert led.is_over


def test_a_member_whose_image_does_not_fit_is_quarantined_until_it_is_made_anew(
    cluster: Cluster,
) -> None:
    leader, session, _key = work(cluster)
    (seat, *_others) = [seat for seat in cluster.all() if seat is not leader]
    seat.member.image.state.next_sequence += 1
    led_by(leader).publish(session, 7, [ORIGIN], [b"more"])
    cluster.settle()
    assert [group for group, _index in seat.node.reported.damages] == [GROUP]
    cluster.hosts.advance(3_000)
    assert not seat.node.host.group(GROUP).status.is_quarantined
    assert len({image_digest(seat.member.image) for seat in cluster.all()}) == 1


def test_a_leader_whose_image_does_not_fit_leads_no_more(cluster: Cluster) -> None:
    before, session, _key = work(cluster)
    led = led_by(before)
    before.member.image.state.next_sequence += 1
    before.reported.clear()
    led.publish(session, 7, [ORIGIN], [b"more"])
    cluster.settle()
    assert led.is_over
    assert before.reported == []
    cluster.hosts.advance(3_000)
    cluster.settle()
    leader = cluster.leader()
    assert leader is not before
    led_by(leader).publish(session, 7, [ORIGIN], [b"more"])
    cluster.settle()
    assert leader.reported == [m.Effect(session, m.DoneReply(7, 1))]
    assert len({image_digest(seat.member.image) for seat in cluster.all()}) == 1
