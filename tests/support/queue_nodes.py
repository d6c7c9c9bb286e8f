"""Nodes that host quorum queues and serve them, in one thread and by hand, on disks in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from fluffle.broker.cluster.ports import FrameKind, Machine, Owner
from fluffle.broker.cluster.queues import hosting, hub
from fluffle.broker.cluster.queues.lines import Line
from fluffle.broker.cluster.queues.placement import draw_id
from fluffle.broker.cluster.streams.events import Event
from fluffle.broker.cluster.streams.messages import Boot
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.dead import DeadMessages
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.protocol.deaths import DeathReason
from fluffle.raft.config import NodeId
from fluffle.raft.records import DATA, Entry, GroupId
from tests.broker.cluster.streams.client import Client, Names
from tests.broker.cluster.streams.ghost import Ghost
from tests.support.hosts import HostCluster, Node

NONCE = 77


class HostClock:
    """The time of a cluster."""

    def __init__(self, cluster: HostCluster) -> None:
        self._cluster = cluster

    def now_ms(self) -> int:
        return self._cluster.now_ms

    def wall_ms(self) -> int:
        return 1_000_000 + self._cluster.now_ms


class Watched:
    """A `Machine` that tells of what is applied, before it is."""

    def __init__(self, machine: Machine, told: Callable[[Entry], None]) -> None:
        self._told = told
        self.restore, self.led, self.followed = machine.restore, machine.led, machine.followed
        self.snapshot = machine.snapshot
        self._apply = machine.apply

    def apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._told(entry)
        self._apply(entries)


class WatchedHosting(hosting.Hosting):
    """Whose machines are."""

    told: Callable[[GroupId, Entry], None]

    def make_machine(self, group: GroupId) -> Machine:  # type: ignore[override]
        return Watched(super().make_machine(group), lambda entry: self.told(group, entry))


class QueueNode(Node):
    """With what it takes to host and serve queues."""

    applied: Callable[[GroupId, Entry], None] = staticmethod(lambda _group, _entry: None)

    def make_owner(self) -> Owner:
        cluster = self.cluster
        self.dead: list[tuple[str, str, DeathReason, bytes]] = []
        """What was to be republished here: virtual host, queue, reason, content."""
        self._is_turn_due = self._is_host_due = False
        self._later: list[tuple[int, Callable[[], None]]] = []
        self.refusing: set[NodeId] = set()
        """Nodes whose hosts say that they do not run."""
        clock = HostClock(cluster)
        own = Boot(self.boot, NONCE)
        around = hub.Surroundings(
            node=self.name,
            boot=own,
            links=self.links,
            boot_of=lambda node: Boot(cluster.nodes[node].boot, NONCE),
            touch=self.touch,
            call_later=self.call_later,
            clock=clock,
            refused=self.told.refused,
            is_nobody_there=self.refusing.__contains__,
            queue_failed=self._queue_failed,
        )
        self.hub = hub.StreamHub(around)
        self.hosting = WatchedHosting(
            hosting.Surroundings(
                self.name, own, self.hub, clock, self.call_later, lambda: 1, self._dead_letter
            )
        )
        self.hosting.told = self.applied
        return self.hosting

    def _queue_failed(self, queue: int, error: Exception) -> None:
        """Mistakes are not to be outlived here, but where a test makes them."""
        del queue
        if not self.cluster.is_fatal_expected:
            raise error

    def _dead_letter(self, vhost: str, queue: QueueSpec, dead: DeadMessages) -> None:
        self.dead += [(vhost, queue.name, dead.reason, content) for content in dead.contents]

    def compose(self) -> None:
        self.hosting.host = self.host
        self.links.on_frame = self._on_frame
        self.links.on_link = self._on_link

    def _on_frame(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        takers = {
            FrameKind.CONSENSUS: self.host.receive,
            FrameKind.STREAM: self.hub.receive,
            FrameKind.QUESTION: self.hub.receive_question,
        }
        takers[kind](node, payload)

    def _on_link(self, node: NodeId, is_up: bool) -> None:
        self.host.link_changed(node, is_up)
        self.hub.link_changed(node, is_up)

    def call_later(self, delay_s: float, act: Callable[[], None]) -> None:
        self._later.append((self.cluster.now_ms + round(delay_s * 1_000), act))

    def touch(self) -> None:
        if not self._is_turn_due:
            self._is_turn_due = True
            self._soon.append(self._take_turn)

    def turn_soon(self) -> None:
        self._is_host_due = True
        self.touch()

    def _take_turn(self) -> None:
        self._is_turn_due = False
        self.hub.before_consensus()
        if self._is_host_due:
            self._is_host_due = False
            self.host.turn()
        self.hub.after_consensus()

    def step(self) -> bool:
        due = [act for at_ms, act in self._later if at_ms <= self.cluster.now_ms]
        self._later = [each for each in self._later if each[0] > self.cluster.now_ms]
        for act in due:
            act()
        return super().step() or bool(due)


class QueueCluster:
    """Some nodes, and the clients of one queue at each of them."""

    def __init__(self, names: str = "abc") -> None:
        self.nodes: dict[NodeId, QueueNode] = {}
        self.chance = Random(names)
        self.ghost = Ghost()
        self.seen = 0
        """The index of the last entry that the ghost has heard of."""
        self.hosts = HostCluster(names, make_node=self._make_node)
        self.names = Names()
        self.clients: dict[NodeId, Client] = {}
        self.lines: dict[NodeId, Line] = {}

    def _make_node(self, cluster: HostCluster, name: NodeId) -> Node:
        node = self.nodes[name] = QueueNode(cluster, name)
        node.applied = self._applied
        return node

    def _applied(self, group: GroupId, entry: Entry) -> None:
        """Of one queue."""
        if entry.index > self.seen:
            self.seen = entry.index
            if entry.kind == DATA:
                self.ghost.applied(entry.payload)

    def declare(self, members: str = "abc", leader: str = "a", **spec: Any) -> None:
        """All nodes hear of it, and have an edge for it."""
        self.queue = queue = draw_id(self.chance.getrandbits, leader, members)
        self.definition = QueueDefinition(
            QueueSpec("q", durable=True, queue_type=QueueType.QUORUM, **spec),
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
        self.nodes[name].hosting.sweep()
        self.open(name)

    def open(self, name: NodeId) -> None:
        """Clients of another life of the edge."""

        def told(events: list[Event]) -> None:
            self.clients[name].told(events)

        line = self.lines[name] = self.nodes[name].hub.open(self.definition, told)
        self.clients[name] = Client(name, line.edge, self.ghost, self.names)

    def ask(self, name: NodeId) -> Client:
        """What its clients ask for is sent in the next turn."""
        self.lines[name].touch()
        return self.clients[name]

    def leader(self) -> str:
        """The only one that serves."""
        nodes = [node for node in self.nodes.values() if node.is_running]
        found = [node.name for node in nodes if serves(node, self.queue)]
        assert len(found) == 1, f"{found} serve it"
        return found[0]


def serves(node: QueueNode, queue: int) -> bool:
    served = node.hub.leading.queues.get(queue)
    return served is not None and served.sessions is not None
