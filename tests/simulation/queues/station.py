"""What a node does for clients of queues: definitions, members, leaderships, edges, clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fluffle.broker import deciding
from fluffle.broker.access.access import Access
from fluffle.broker.cluster.metadata import Ports, ReplicatedMetadata
from fluffle.broker.cluster.ports import FrameKind, Lane, Links
from fluffle.broker.cluster.streams import messages as m
from fluffle.broker.cluster.streams.codec import decode, encode
from fluffle.broker.cluster.streams.events import Event
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.deciding import set_vhost
from fluffle.broker.errors import BrokerError
from fluffle.broker.local_queues import LocalQueues
from fluffle.broker.queues.arguments import Declaration, QueueSpec, QueueType
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.served import ServedQueue
from fluffle.broker.recording.changes import digest_of
from fluffle.broker.vhost import VirtualHost
from fluffle.raft.config import NodeId
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import Entry, GroupId, SnapshotMeta
from tests.broker.cluster.streams.client import Client
from tests.simulation.clockwork import MS_US
from tests.simulation.process import Process, Simulated
from tests.simulation.queues.edges import Connected, Edges
from tests.simulation.queues.leading import Leading

if TYPE_CHECKING:
    from tests.simulation.queues.town import Town

METADATA = 1
VHOST = "/"
TICK_MS = 200


class Station:
    """A `Tenant`, and the `QueueMaker` of its definitions."""

    types = frozenset(QueueType)

    def __init__(self, process: Process, links: Links, boot: m.Boot, town: Town) -> None:
        self.process = process
        self.boot = boot
        self.clients: dict[GroupId, Client] = {}
        self.ports: dict[GroupId, Connected] = {}
        self._links = links
        self._town = town
        self._local = LocalQueues(lambda _queue: None)
        self.catalogue = Catalogue(Access(), {}, lambda image: VirtualHost(image, self))
        self.metadata = ReplicatedMetadata(
            process.node, process.boot, self.catalogue.apply, self._metadata_ports()
        )
        self.leading = Leading(process, boot, self._led)
        chance = town.cluster.clockwork.chance(f"edges {process.node} {process.boot}")
        self.edges = Edges(boot, self.leading.boots, chance, self.leading.touch)
        self._call_later(0.0, self._begin)
        self._call_later(TICK_MS / 1_000, self._tick)

    def _metadata_ports(self) -> Ports:
        def propose(payload: bytes, on_fate: Callable[..., None]) -> None:
            if METADATA in self.process.host:
                self.process.host.group(METADATA).propose(payload, on_fate)

        def send(node: NodeId, payload: bytes) -> None:
            self._links.send(node, FrameKind.METADATA, payload, lane=Lane.NORMAL)

        return Ports(
            propose=propose,
            send=send,
            call_soon=partial(self._call_later, 0.0),
            call_later=self._call_later,
            now_ms=lambda: self.leading.now_ms,
        )

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        def act() -> None:
            if self.process.is_alive:
                call()

        self._town.cluster.clockwork.after(int(seconds * 1_000 * MS_US), act)

    def _begin(self) -> None:
        self.metadata.settle(lambda: set_vhost(self.catalogue, VHOST))

    def _tick(self) -> None:
        self.leading.tick()
        self.edges.tick(self.leading.now_ms)
        self._call_later(TICK_MS / 1_000, self._tick)

    # As tenant

    def make_machine(self, group: GroupId) -> Simulated:
        return Definitions(self.metadata) if group == METADATA else self.leading.make_machine(group)

    def has_heard(self, group: GroupId, *, is_gone: bool) -> bool:
        return group == METADATA or (group not in self.clients) == is_gone

    def receive(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        if kind is FrameKind.METADATA:
            self.metadata.receive(node, payload)
        else:
            self._take(node, payload)

    def _take(self, node: NodeId, payload: bytes) -> None:
        frame = decode(payload)
        if isinstance(frame, m.LeaderFrame):
            self.edges.hear(frame)
            return
        answer = self.leading.take(node, frame)
        if answer is not None:
            self._send(node, answer)

    def _send(self, node: NodeId, frame: m.Frame) -> None:
        """Of the own node without a network, but as bytes all the same."""
        self._town.frames += 1
        payload = encode(frame)
        if node == self.process.node:
            self._call_later(0.0, partial(self._take, node, payload))
        else:
            self._links.send(node, FrameKind.STREAM, payload, lane=Lane.NORMAL)

    def link_changed(self, node: NodeId, is_up: bool) -> None:
        self.metadata.link_changed(node, is_up)
        boot = self._town.boot_of(node) if is_up else None
        if boot is not None:
            self.leading.linked(node, boot)
        else:
            self.leading.unlinked(node)
        self.edges.link_changed(node)

    def begin_turn(self) -> None:
        for node, frame in self.edges.output():
            self._send(node, frame)
        self.leading.pump()

    def end_turn(self) -> None:
        for group, node, frame in self.leading.output():
            self._town.book(group).said(self.leading.members[group].member, node, frame)
            self._send(node, frame)

    def _led(self, group: GroupId, leader: m.Leader) -> None:
        self.edges.led(group, leader)

    # As maker of queues

    def define(self, spec: QueueSpec, owner: Owner | None) -> QueueDefinition:
        group, members = self._town.draw_group()
        return QueueDefinition(spec, id=group, members=members)

    def make(self, definition: QueueDefinition, vhost: str) -> Queue:
        group = definition.id
        self.ports[group] = port = self.edges.open(definition, partial(self._told, group))
        self.clients[group] = self._town.book(group).client(self.process.node, port.edge)
        self._town.defined(definition)
        return self._local.make(definition, vhost)

    def _told(self, group: GroupId, events: list[Event]) -> None:
        self.clients[group].told(events)

    def reopen(self, definition: QueueDefinition, vhost: str) -> Queue:
        raise AssertionError("nothing but the log is read at a start")

    def end(self, queue: ServedQueue) -> None:
        group = queue.definition.id
        client = self.clients.pop(group)
        client.ghost.died(client.node)  # nothing that it sees from now on means anything
        self.edges.ports.pop(group).edge.deleted()
        del self.ports[group]
        self._town.undefined(group)

    # What clients ask for

    def declare(self, name: str) -> None:
        vhost = self.catalogue.vhosts.get(VHOST)
        if vhost is not None:
            declared = Declaration(name, durable=True)
            self.metadata.change(
                lambda: deciding.declare_queue(vhost, declared, None), _done, _failed
            )

    def touch_definitions(self, number: int) -> None:
        """A change that makes no difference."""
        self.metadata.change(
            lambda: set_vhost(self.catalogue, VHOST, metadata={"default_queue_type": f"{number}"}),
            _done,
            _failed,
        )

    def delete(self, name: str) -> None:
        vhost = self.catalogue.vhosts.get(VHOST)
        queue = vhost.queues.get(name) if vhost is not None else None
        if vhost is not None and queue is not None:
            self.metadata.change(lambda: deciding.delete_queue(vhost, queue), _done, _failed)


class Definitions:
    """The metadata group on a node, with a digest."""

    def __init__(self, metadata: ReplicatedMetadata) -> None:
        self._metadata = metadata

    @property
    def digest(self) -> int:
        return int(digest_of(self._metadata.state)[:16], 16)

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        self._metadata.restore(meta, state)

    def apply(self, entries: Sequence[Entry]) -> None:
        self._metadata.apply(entries)

    def led(self, term: int) -> None:
        self._metadata.led(term)

    def followed(self, term: int, leader: NodeId | None) -> None:
        self._metadata.followed(term, leader)

    def snapshot(self) -> tuple[Ranges, bytes]:
        return self._metadata.snapshot()


def _done() -> None:
    """Whoever waited for it looks at what is there."""


def _failed(error: BrokerError) -> None:
    """It may have been somebody else's turn, or too late."""
