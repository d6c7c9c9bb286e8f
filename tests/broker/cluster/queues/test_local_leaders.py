"""What one turn does for thousands of queues at once: some of it, and first what is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

from fluffle.broker.cluster.queue_sessions.messages import Boot, ClientFrame, Frame, Leader
from fluffle.broker.cluster.queue_sessions.requests import QueueRequests
from fluffle.broker.cluster.queues.leader_routes import TOLD_MAX as LINES_MAX
from fluffle.broker.cluster.queues.leader_routes import LeaderRoutes
from fluffle.broker.cluster.queues.local_leaders import TOLD_MAX, LocalLeaders
from fluffle.broker.cluster.queues.membership import LOOKS_MAX, MembershipCallbacks, QueueMembership
from fluffle.broker.cluster.queues.ports import (
    NO_LEADER,
    HostedQueue,
    KnownLeader,
    QueueId,
    SessionEnvironment,
)
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import NodeId

OWN, OTHER = Boot(1, 11), Boot(7, 77)
QUEUES = range(1, 501)


@dataclass
class Node:
    """What is around the streams of a node."""

    lives: dict[NodeId, Boot] = field(default_factory=lambda: {"a": OWN})
    timers: list[Callable[[], None]] = field(default_factory=list)
    sent: list[NodeId] = field(default_factory=list)
    hastened: list[QueueId] = field(default_factory=list)
    touches: int = 0

    def around(self) -> SessionEnvironment:
        return SessionEnvironment(
            node="a", boot=OWN, lives=self.lives, send=self._send, has_room=lambda _node: True,
            touch=self._touch, call_later=self._call_later, now_ms=lambda: 0,
            is_nobody_there=lambda _node: False, queue_failed=_failed,
            hasten=self.hastened.append,
        )  # fmt: skip

    def _send(self, node: NodeId, _frame: Frame) -> None:
        self.sent.append(node)

    def _touch(self) -> None:
        self.touches += 1

    def _call_later(self, _delay_s: float, act: Callable[[], None]) -> None:
        self.timers.append(act)


def _failed(named: Mapping[str, object], error: Exception) -> None:
    raise AssertionError(f"queue {named}") from error


@dataclass
class Told:
    """Sessions that remember what they were told; and the queue that has them."""

    heard: list[tuple[NodeId, Boot | None]] = field(default_factory=list)
    ticks: int = 0
    taken: int = 0
    silent: tuple[NodeId, ...] = ()
    excesses: tuple[NodeId, ...] = ()
    is_held_up: bool = False
    known: KnownLeader = NO_LEADER

    @property
    def sessions(self) -> Told:
        return self

    def linked(self, node: NodeId, boot: Boot) -> None:
        self.heard.append((node, boot))

    def unlinked(self, node: NodeId, _now_ms: int) -> None:
        self.heard.append((node, None))

    def take(self, _node: NodeId, _frame: ClientFrame) -> None:
        assert self.heard
        self.taken += 1

    def tick(self, _now_ms: int) -> bool:
        self.ticks += 1
        return False

    def pump(self) -> None: ...

    def output(self, _has_room: Callable[[NodeId], bool]) -> Iterator[tuple[NodeId, Frame]]:
        return iter(())


def led(node: Node) -> tuple[LocalLeaders, dict[QueueId, Told]]:
    leading, told = LocalLeaders(node.around()), {queue: Told() for queue in QUEUES}
    leading.queues.update(cast("dict[QueueId, HostedQueue]", told))
    return leading, told


def test_queues_that_are_led_here_hear_of_a_link_some_in_each_turn() -> None:
    leading, told = led(node := Node())
    leading.linked("b", OTHER)
    leading.unlinked("b")
    for turns in range(1, len(QUEUES) // TOLD_MAX + 2):
        assert node.touches
        node.touches = 0
        leading.pump()
        assert [*leading.output()] == []
        assert sum(map(bool, (each.heard for each in told.values()))) == min(
            turns * TOLD_MAX, len(QUEUES)
        )
    assert all(each.heard == [("b", OTHER), ("b", None)] for each in told.values())
    node.touches = 0
    leading.pump()
    assert not node.touches


def test_a_queue_that_is_spoken_to_has_heard_of_the_link_before() -> None:
    leading, told = led(Node())
    leading.linked("b", OTHER)
    last = QUEUES[-1]
    frame = ClientFrame(
        group=last, term=1, leadership=1, sender=OTHER, receiver=OWN, session=1, opening=1,
        received=0, known=1, messages=[],
    )  # fmt: skip
    leading.take("b", frame)
    assert told[last].taken == 1
    assert told[last].heard == [("b", OTHER)]
    assert not any(told[queue].heard for queue in QUEUES[:-1])


def test_the_clock_is_looked_at_for_some_in_each_turn() -> None:
    """Of those of which somebody is silent."""
    leading, told = led(node := Node())
    leading.unlinked("b")
    while not all(each.heard for each in told.values()):
        leading.pump()
    looked = []
    while node.timers:
        node.timers.pop(0)()
        looked.append(sum(each.ticks for each in told.values()))
    assert looked[-1] == len(QUEUES)
    assert not leading._timed
    assert max(after - before for before, after in pairwise([0, *looked])) <= TOLD_MAX


def test_lines_hear_of_a_link_some_in_each_turn_and_those_at_once_that_want_something() -> None:
    node = Node(lives={"a": OWN, "b": OTHER})
    lines = LeaderRoutes(node.around(), lambda _queue: KnownLeader(1, 1, "b"))
    opened = []
    for queue in QUEUES:
        definition = QueueDefinition(QueueSpec(f"q{queue}"), id=queue, members=(("b", 1),))
        line = lines.open(definition, lambda _events: None)
        line.edge.connect(Leader("b", OTHER, 1))
        opened.append(line)
    QueueRequests(opened[-1].edge).purge()
    del node.lives["b"]
    lines.unlinked("b")
    assert node.hastened == [QUEUES[-1]]
    for turns in range(1, len(QUEUES) // LINES_MAX + 2):
        assert node.touches
        node.touches = 0
        assert [*lines.output()] == []
        heard = sum(line.edge.leader is None for line in opened)
        assert heard == min(turns * LINES_MAX + 1, len(QUEUES))


def members_of(node: Node, looked: list[QueueId]) -> QueueMembership:
    def led_by_nobody(queue: QueueId) -> None:
        looked.append(queue)

    ports = MembershipCallbacks(
        node="a", led=led_by_nobody, leader=lambda _queue: None, lives=dict, settle=_settle,
        is_alive=lambda _node: True, may_lead=lambda _node: True,
        call_later=node.around().call_later,
    )  # fmt: skip
    members = QueueMembership(ports, {})
    for queue in QUEUES:
        members.define("/", QueueDefinition(QueueSpec(f"q{queue}"), id=queue))
    return members


def _settle(_decide: object, _done: object) -> None:
    raise AssertionError("nobody leads")


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
