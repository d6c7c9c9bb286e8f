"""Nodes that host quorum queues and serve them, in one thread and by hand, on disks in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from fluffle.broker.base.traffic import Traffic
from fluffle.broker.cluster.ports import FrameKind, GroupOwner, Machine
from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queues import node_sessions, quorum_members
from fluffle.broker.cluster.queues.leader_routes import LeaderRoute
from fluffle.broker.cluster.queues.placement import draw_id
from fluffle.broker.cluster.queues.quorum_member import QuorumServices
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.config.config import QuorumConfig
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.quorum.entry_codec import VERSION
from fluffle.broker.queues.quorum.messages import SessionBoot
from fluffle.broker.queues.settings import QueueSettings, by_arguments
from fluffle.broker.runtime.timers import QueueTiming, Timers
from fluffle.broker.runtime.turn import raise_it
from fluffle.protocol.headers import DeathReason
from fluffle.protocol.wire import PlainValue
from fluffle.raft.config import NodeId
from fluffle.raft.log import DATA, Entry, GroupId
from tests.broker.cluster.queue_sessions.queue_client import QueueClient, UniqueNames
from tests.broker.cluster.queue_sessions.reference_model import ReferenceModel
from tests.support.cluster_view import FakeClusterView
from tests.support.fakes import Timer
from tests.support.queue_arguments import queue_arguments
from tests.support.raft_hosts import HostCluster, Node

NONCE = 77


class ObservedMember:
    """A `Machine` that tells of what is applied, before it is."""

    def __init__(self, machine: Machine, reported: Callable[[Entry], None]) -> None:
        self._reported = reported
        self.restore, self.led, self.followed = machine.restore, machine.led, machine.followed
        self.snapshot = machine.snapshot
        self._apply = machine.apply

    def apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._reported(entry)
        self._apply(entries)


class ObservedMembers(quorum_members.QuorumMembers):
    """Members whose machines a test looks at."""

    reported: Callable[[GroupId, Entry], None]

    def make_machine(self, group: GroupId) -> Machine:  # type: ignore[override]
        return ObservedMember(
            super().make_machine(group), lambda entry: self.reported(group, entry)
        )


class QueueNodeView(FakeClusterView):
    """The cluster of such a node, which all its nodes are of."""

    def __init__(self, node: QueueNode) -> None:
        super().__init__(node.name, SessionBoot(node.boot, NONCE))
        self.queue_node = node

    def boot_of(self, node: NodeId) -> SessionBoot:
        return SessionBoot(self.queue_node.cluster.nodes[node].boot, NONCE)

    def is_not_running(self, node: NodeId) -> bool:
        return node in self.queue_node.refusing

    def reads_of(self, node: NodeId) -> int:
        return self.queue_node.reads_of(node)


class QueueNode(Node):
    """With what it takes to host and serve queues."""

    applied: Callable[[GroupId, Entry], None] = staticmethod(lambda _group, _entry: None)
    reads = VERSION
    """The newest version of logs that the fluffle on it reads."""

    def make_owner(self) -> GroupOwner:
        self.dead: list[tuple[str, str, DeathReason, bytes]] = []
        """Messages to be republished here: virtual host, queue, reason, content."""
        self.queue_expired: list[str] = []
        """Queues that were to be deleted because nobody has used them."""
        self._is_turn_due = self._is_host_due = self._is_host_coming = False
        self._later: list[tuple[int, Timer]] = []
        self.reads_known: dict[NodeId, int] = {}
        self.refusing: set[NodeId] = set()
        """Nodes whose hosts say that they do not run."""
        clock = self.common_time
        timers = Timers(clock, self.call_later, raise_it)
        timers.start()
        view = QueueNodeView(self)
        transport = SessionTransport(view, self.links, self, self, clock)
        self.node_sessions = node_sessions.NodeSessions(transport, queue_failed=self._queue_failed)
        services = QuorumServices(
            self._dead_letter, by_arguments, Traffic(), QuorumConfig(consumer_timeout_ms=None)
        )
        self.hosting = ObservedMembers(
            self.node_sessions, view, clock, self,
            aging=QueueTiming(timers, self._queue_expired), services=services,
        )  # fmt: skip
        self.hosting.reported = self.applied
        return self.hosting

    def reads_of(self, node: NodeId) -> int:
        """Version that a node reads, as known from the last link with it."""
        other = self.cluster.nodes.get(node, self)
        assert isinstance(other, QueueNode)
        if other is self or (other.is_running and self.links.is_up(node)):
            self.reads_known[node] = other.reads
        return self.reads_known.get(node, 0)

    def _queue_failed(self, named: Mapping[str, object], error: Exception) -> None:
        """Mistakes are not to be outlived here, but where a test makes them."""
        del named
        if not self.cluster.is_fatal_expected:
            raise error

    def _dead_letter(
        self, vhost: str, queue: str, _settings: QueueSettings, dead: DeadMessages
    ) -> None:
        self.dead += [(vhost, queue, dead.reason, content) for content in dead.contents]

    def _queue_expired(
        self, vhost: str, definition: QueueDefinition, is_queue_expired: Callable[[], bool]
    ) -> None:
        del vhost
        if is_queue_expired():
            self.queue_expired.append(definition.spec.name)

    def compose(self) -> None:
        self.hosting.host = self.host
        self.links.on_frame = self._on_frame
        self.links.on_link = self._on_link

    def _on_frame(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        takers = {
            FrameKind.CONSENSUS: self.host.receive,
            FrameKind.SESSION: self.node_sessions.transport.receive,
            FrameKind.QUESTION: self.node_sessions.receive_question,
        }
        takers[kind](node, payload)

    def _on_link(self, node: NodeId, is_up: bool) -> None:
        self.host.link_changed(node, is_up)
        self.node_sessions.transport.link_changed(node, is_up)

    def call_soon(self, act: Callable[[], None]) -> None:
        self.call_later(0.0, act)

    @property
    def timer_count(self) -> int:
        """How many calls are yet to come."""
        return sum(timer.act is not None for _, timer in self._later)

    def call_later(self, delay_s: float, act: Callable[[], None]) -> Timer:
        timer = Timer(act)
        self._later.append((self.cluster.now_ms + round(delay_s * 1_000), timer))
        return timer

    def touch_consensus(self) -> None:
        if not self._is_turn_due:
            self._is_turn_due = True
            self._soon.append(self._take_turn)

    def turn_soon(self) -> None:
        self._is_host_due = True
        if not self._is_host_coming:
            self.touch_consensus()

    def _take_turn(self) -> None:
        self._is_turn_due = False
        self._is_host_coming = True
        self.node_sessions.before_consensus()
        self._is_host_coming = False
        if self._is_host_due:
            self._is_host_due = False
            self.host.turn()
        self.node_sessions.after_consensus()

    def step(self) -> bool:
        due = [
            timer.act
            for at_ms, timer in self._later
            if at_ms <= self.cluster.now_ms and timer.act is not None
        ]
        self._later = [each for each in self._later if each[0] > self.cluster.now_ms]
        for act in due:
            act()
        return super().step() or bool(due)


class QueueCluster:
    """Some nodes, and the clients of one queue at each of them."""

    def __init__(self, names: str = "abc", **ahead_ms: int) -> None:
        """`ahead_ms`: by node, how far its clock is."""
        self._ahead_ms = ahead_ms
        self.nodes: dict[NodeId, QueueNode] = {}
        self.chance = Random(names)
        self.model = ReferenceModel()
        self.seen = 0
        """The index of the last entry that the model has heard of."""
        self.hosts = HostCluster(names, make_node=self._make_node)
        self.names = UniqueNames()
        self.clients: dict[NodeId, QueueClient] = {}
        self.routes: dict[NodeId, LeaderRoute] = {}

    def _make_node(self, cluster: HostCluster, name: NodeId) -> Node:
        node = self.nodes[name] = QueueNode(cluster, name)
        node.clock.ahead_ms = self._ahead_ms.get(name, 0)
        node.applied = self._applied
        return node

    def _applied(self, group: GroupId, entry: Entry) -> None:
        """Apply an entry of one queue to the model."""
        if entry.index > self.seen:
            self.seen = entry.index
            if entry.kind == DATA:
                self.model.applied(entry.payload)

    def declare(self, members: str = "abc", leader: str = "a", **said: PlainValue) -> None:
        """All nodes hear of it, and have an edge for it."""
        self.queue = queue = draw_id(self.chance.getrandbits, leader, members)
        self.definition = QueueDefinition(
            QueueSpec(
                "q", durable=True, queue_type=QueueType.QUORUM, arguments=queue_arguments(**said)
            ),
            id=queue,
            founders=tuple(members),
            members=tuple((name, 1) for name in members),
            lives=tuple((name, 1) for name in members),
            leader=leader,
        )
        for name, node in self.nodes.items():
            if node.is_running:
                self.hear_of_it(name)

    def hear_of_it(self, name: NodeId) -> None:
        self.nodes[name].hosting.define(self.definition, "/")
        for _ in self.nodes[name].hosting.sweep():
            pass
        self.open(name)

    def open(self, name: NodeId) -> None:
        """Clients of another life of the edge."""

        def reported(events: list[Event]) -> None:
            self.clients[name].reported(events)

        route = self.routes[name] = self.nodes[name].node_sessions.open(self.definition, reported)
        self.clients[name] = QueueClient(name, route.session, self.model, self.names)

    def ask(self, name: NodeId) -> QueueClient:
        """Client of a node, whose requests are sent in the next turn."""
        self.routes[name].touch()
        return self.clients[name]

    def leader(self) -> str:
        """The only one that serves."""
        nodes = [node for node in self.nodes.values() if node.is_running]
        found = [node.name for node in nodes if serves(node, self.queue)]
        assert len(found) == 1, f"{found} serve it"
        return found[0]


def serves(node: QueueNode, queue: int) -> bool:
    served = node.node_sessions.leaders.queues.get(queue)
    return served is not None and served.sessions is not None
