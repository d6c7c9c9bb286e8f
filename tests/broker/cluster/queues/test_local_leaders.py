"""Work of one turn for thousands of queues: a part of it, most urgent first."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import cast

from fluffle.broker.cluster.queue_sessions.session_client import SessionRequests
from fluffle.broker.cluster.queues.leader_routes import NOTIFIED_MAX as LINES_MAX
from fluffle.broker.cluster.queues.leader_routes import LeaderRoutes
from fluffle.broker.cluster.queues.local_leaders import (
    NOTIFIED_MAX,
    FaultGuard,
    LocalLeaders,
)
from fluffle.broker.cluster.queues.membership import LOOKS_MAX, LedGroups, QueueMembership
from fluffle.broker.cluster.queues.ports import (
    NO_LEADER,
    HostedQueue,
    KnownLeader,
    QueueId,
)
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum.messages import ClientFrame, Frame, Leader, SessionBoot
from fluffle.broker.runtime.turn import do_nothing
from fluffle.raft.config import NodeId
from tests.support.cluster_view import FakeClusterView, NoLinks
from tests.support.fakes import Timer
from tests.support.manual_clock import ManualClock

OWN, OTHER = SessionBoot(1, 11), SessionBoot(7, 77)
QUEUES = range(1, 501)


@dataclass
class Node:
    """Environment of a node's sessions."""

    lives: dict[NodeId, SessionBoot] = field(default_factory=lambda: {"a": OWN})
    timers: list[Callable[[], None]] = field(default_factory=list)
    sent: list[NodeId] = field(default_factory=list)
    hastened: list[QueueId] = field(default_factory=list)
    touches: int = 0

    def transport(self) -> SessionTransport:
        transport = SessionTransport(HastenedView(self), NoLinks(), self, self, ManualClock())
        transport.boots = self.lives
        return transport

    def touch_consensus(self) -> None:
        self.touches += 1

    def call_soon(self, act: Callable[[], None]) -> None:
        self.timers.append(act)

    def call_later(self, _delay_s: float, act: Callable[[], None]) -> Timer:
        self.timers.append(act)
        return Timer(act)


class HastenedView(FakeClusterView):
    """The cluster of such a node, which is asked for leaders."""

    def __init__(self, node: Node) -> None:
        super().__init__("a", OWN, {"a": 1})
        self.hastened = node.hastened

    def hasten(self, queue: QueueId) -> None:
        self.hastened.append(queue)


def _failed(named: Mapping[str, object], error: Exception) -> None:
    raise AssertionError(f"queue {named}") from error


@dataclass
class Reported:
    """Sessions that remember what they heard; and the queue that has them."""

    heard: list[tuple[NodeId, SessionBoot | None]] = field(default_factory=list)
    ticks: int = 0
    taken: int = 0
    silent: tuple[NodeId, ...] = ()
    excesses: tuple[NodeId, ...] = ()
    is_held_up: bool = False
    known: KnownLeader = NO_LEADER

    @property
    def sessions(self) -> Reported:
        return self

    def linked(self, node: NodeId, boot: SessionBoot) -> None:
        self.heard.append((node, boot))

    def unlinked(self, node: NodeId, _now_ms: int) -> None:
        self.heard.append((node, None))

    def receive(self, _node: NodeId, _frame: ClientFrame) -> None:
        assert self.heard
        self.taken += 1

    def tick(self, _now_ms: int) -> bool:
        self.ticks += 1
        return False

    def pump(self) -> None: ...

    def output(self, _has_room: Callable[[NodeId], bool]) -> Iterator[tuple[NodeId, Frame]]:
        return iter(())


def led(node: Node) -> tuple[LocalLeaders, dict[QueueId, Reported]]:
    leaders, reported = (
        LocalLeaders(node.transport(), _failed),
        {queue: Reported() for queue in QUEUES},
    )
    leaders.queues.update(cast("dict[QueueId, HostedQueue]", reported))
    return leaders, reported


def test_queues_that_are_led_here_hear_of_a_link_some_in_each_turn() -> None:
    leaders, reported = led(node := Node())
    leaders.linked("b", OTHER)
    leaders.unlinked("b")
    for turns in range(1, len(QUEUES) // NOTIFIED_MAX + 2):
        assert node.touches
        node.touches = 0
        leaders.pump(do_nothing)
        leaders.send()  # nothing: `NoLinks` would fail
        assert sum(map(bool, (each.heard for each in reported.values()))) == min(
            turns * NOTIFIED_MAX, len(QUEUES)
        )
    assert all(each.heard == [("b", OTHER), ("b", None)] for each in reported.values())
    node.touches = 0
    leaders.pump(do_nothing)
    assert not node.touches


def test_a_queue_that_is_spoken_to_has_heard_of_the_link_before() -> None:
    leaders, reported = led(Node())
    leaders.linked("b", OTHER)
    last = QUEUES[-1]
    frame = ClientFrame(
        group=last, term=1, leadership=1, sender=OTHER, receiver=OWN, session=1, opening=1,
        received=0, known=1, messages=[],
    )  # fmt: skip
    leaders.receive("b", frame)
    assert reported[last].taken == 1
    assert reported[last].heard == [("b", OTHER)]
    assert not any(reported[queue].heard for queue in QUEUES[:-1])


def test_the_clock_is_looked_at_for_some_in_each_turn() -> None:
    """Clocks matter only for queues with silent client nodes."""
    leaders, reported = led(node := Node())
    leaders.unlinked("b")
    while not all(each.heard for each in reported.values()):
        leaders.pump(do_nothing)
    looked = []
    while node.timers:
        node.timers.pop(0)()
        looked.append(sum(each.ticks for each in reported.values()))
    assert looked[-1] == len(QUEUES)
    assert not leaders._timed
    assert max(after - before for before, after in pairwise([0, *looked])) <= NOTIFIED_MAX


def test_lines_hear_of_a_link_some_in_each_turn_and_those_at_once_that_want_something() -> None:
    node = Node(lives={"a": OWN, "b": OTHER})
    routes = LeaderRoutes(node.transport(), lambda _queue: KnownLeader(1, 1, "b"))
    opened = []
    for queue in QUEUES:
        definition = QueueDefinition(QueueSpec(f"q{queue}"), id=queue, members=(("b", 1),))
        route = routes.open(definition, lambda _events: None)
        route.session.connect(Leader("b", OTHER, 1))
        opened.append(route)
    SessionRequests(opened[-1].session).purge()
    del node.lives["b"]
    routes.unlinked("b")
    assert node.hastened == [QUEUES[-1]]
    for turns in range(1, len(QUEUES) // LINES_MAX + 2):
        assert node.touches
        node.touches = 0
        routes.send()
        heard = sum(route.session.leader is None for route in opened)
        assert heard == min(turns * LINES_MAX + 1, len(QUEUES))


class LedByNobody(LedGroups):
    """Groups that are looked at, and led elsewhere."""

    def __init__(self, node: Node, looked: list[QueueId]) -> None:
        super().__init__(LocalLeaders(node.transport(), _failed))
        self.looked = looked

    def led(self, queue: QueueId) -> None:
        self.looked.append(queue)


def members_of(node: Node, looked: list[QueueId]) -> QueueMembership:
    members = QueueMembership(HastenedView(node), LedByNobody(node, looked), node, {})
    for queue in QUEUES:
        members.define("/", QueueDefinition(QueueSpec(f"q{queue}"), id=queue))
    return members


def test_members_are_looked_at_some_in_each_turn_when_nodes_change() -> None:
    node, looked = Node(), list[QueueId]()
    members = members_of(node, looked)
    members.look_at_all()
    assert looked == [*QUEUES[:LOOKS_MAX]]
    members.look_at_all()
    turns = 0
    while node.timers:
        before = len(looked)
        node.timers.pop(0)()
        turns += 1
        assert len(looked) - before <= LOOKS_MAX
    assert {*looked} == {*QUEUES}
    assert len(looked) == len(QUEUES) + LOOKS_MAX
    assert turns == -(-len(QUEUES) // LOOKS_MAX)


class Failing:
    """A queue that is led here, and fails."""

    named: Mapping[str, object] = MappingProxyType({})

    def __init__(self) -> None:
        self.led_again = 0

    def fail(self) -> None: ...

    def lead_again(self) -> None:
        self.led_again += 1


def guard_of(queues: dict[QueueId, Failing], node: Node) -> FaultGuard:
    return FaultGuard(
        cast("dict[QueueId, HostedQueue]", queues), node.call_later, lambda _named, _error: None
    )


def test_a_queue_that_has_failed_is_led_again_after_a_while() -> None:
    queues = {1: Failing()}
    guard = guard_of(queues, node := Node())
    guard.run(1, failure)
    assert queues[1].led_again == 0
    node.timers.pop()()
    assert (queues[1].led_again, node.timers) == (1, [])


def test_a_queue_that_has_failed_and_gone_is_not_kept() -> None:
    """Neither by the timer after which it was to be led again, nor by the count of its failures
    once that is over; the next queue of its id fails for the first time."""
    queues = {1: Failing()}
    guard, was_there = guard_of(queues, node := Node()), weakref.ref(queues[1])
    guard.run(1, failure)
    guard.run(1, failure)
    del queues[1]
    assert was_there() is None
    for timer in node.timers:
        timer()
    assert not guard._failures


def failure() -> None:
    raise ValueError("it fails")
