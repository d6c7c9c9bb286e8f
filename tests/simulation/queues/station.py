"""What a node does for clients of queues: definitions, members, leaderships, edges, clients.

All of it is production code, composed as a node of a cluster composes it, but for the clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fluffle.broker import deciding
from fluffle.broker.access.access import Access
from fluffle.broker.cluster.metadata import Ports, ReplicatedMetadata
from fluffle.broker.cluster.owner import METADATA_GROUP
from fluffle.broker.cluster.packing import Payload, joined
from fluffle.broker.cluster.ports import FrameKind, Lane, Links, Machine, OnFrame, OnLink
from fluffle.broker.cluster.queues import hosting, hub
from fluffle.broker.cluster.queues.group import QueueGroup
from fluffle.broker.cluster.queues.placement import choose_members, draw_id
from fluffle.broker.cluster.queues.ports import Counts, EdgePort
from fluffle.broker.cluster.streams import messages as m
from fluffle.broker.cluster.streams.codec import decode
from fluffle.broker.cluster.streams.events import Event
from fluffle.broker.config import GROUP_SIZE
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.deciding import set_vhost
from fluffle.broker.errors import BrokerError
from fluffle.broker.local_queues import LocalQueues
from fluffle.broker.queues.arguments import Declaration, QueueSpec
from fluffle.broker.queues.dead import DeadMessages
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.handout import Outcome
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.served import ServedQueue
from fluffle.broker.recording.changes import digest_of
from fluffle.broker.vhost import VirtualHost
from fluffle.protocol.types import FieldTable
from fluffle.raft.config import Config, NodeId
from fluffle.raft.ranges import Ranges
from fluffle.raft.records import Entry, GroupId, SnapshotMeta
from tests.broker.cluster.streams.client import Client
from tests.simulation.clockwork import SECOND_US
from tests.simulation.facts import Violation
from tests.simulation.process import Process, Simulated

if TYPE_CHECKING:
    from tests.simulation.queues.town import Town

VHOST = "/"
RETRY_S = 0.1
IMPATIENCE_S = 1.0


class Time:
    """A `Clock`: that of the machine, and another on its wall."""

    def __init__(self, process: Process, wall_offset_ms: int) -> None:
        self._process = process
        self._offset_ms = wall_offset_ms

    def now_ms(self) -> int:
        return self._process.world.now_ms(self._process.node)

    def wall_ms(self) -> int:
        return self.now_ms() + self._offset_ms


class Station:
    """A `Tenant`, and the `QueueMaker` of its definitions."""

    def __init__(self, process: Process, links: Links, boot: m.Boot, town: Town) -> None:
        self.process = process
        self.boot = boot
        self.clients: dict[GroupId, Client] = {}
        self.ports: dict[GroupId, EdgePort] = {}
        self.questions = 0
        """How many have no answer."""
        self._definitions: dict[GroupId, QueueDefinition] = {}
        self._town = town
        self._links = links
        self._local = LocalQueues(lambda _queue: None)
        self._clock = clock = Time(process, town.wall_offset_ms(process.node))
        self.catalogue = Catalogue(Access(), {}, lambda image: VirtualHost(image, self))
        self.metadata = ReplicatedMetadata(
            process.node, process.boot, self.catalogue.apply, self._metadata_ports(clock)
        )
        around = hub.Surroundings(
            node=process.node,
            boot=boot,
            links=Overheard(links, self._overhear),
            boot_of=town.boot_of,
            touch=self._touch,
            call_later=self._call_later,
            clock=clock,
            refused=_refused,
            queue_failed=_queue_failed,
        )
        self.hub = hub.StreamHub(around)
        self.hosting = hosting.Hosting(
            hosting.Surroundings(
                process.node,
                boot,
                self.hub,
                clock,
                self._call_later,
                only_life,
                _nobody_wants_the_dead,
            )
        )
        self.hosting.host = process.host
        town.linked(process.node, process.node)
        self._call_later(0.0, self._enter)
        if town.is_impatient:
            self._call_later(IMPATIENCE_S, self._give_up)

    def _metadata_ports(self, clock: Time) -> Ports:
        def propose(payload: bytes, on_fate: Callable[..., None]) -> None:
            if METADATA_GROUP in self.process.host:
                self.process.host.group(METADATA_GROUP).propose(payload, on_fate)

        def send(node: NodeId, payload: bytes) -> None:
            self._links.send(node, FrameKind.METADATA, payload, lane=Lane.NORMAL)

        return Ports(
            propose=propose,
            send=send,
            call_soon=partial(self._call_later, 0.0),
            call_later=self._call_later,
            now_ms=clock.now_ms,
        )

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        def act() -> None:
            if self.process.is_alive:
                call()

        self._town.cluster.clockwork.after(int(seconds * SECOND_US), act)

    def _give_up(self) -> None:
        """As `Sessions.tick` does after a minute."""
        now_ms = self._clock.now_ms()
        for queue, sessions in self.hub.leading._sessions():
            for node, known in sessions._nodes.items():
                since_ms = known.silent_since_ms
                if since_ms is not None and now_ms - since_ms > IMPATIENCE_S * 1_000:
                    sessions._withdraw(node, Outcome.SUSPECTED)
                    self.hub.leading.touch(queue)
        self._call_later(IMPATIENCE_S, self._give_up)

    def _touch(self) -> None:
        self.process.feed(_nothing)

    def _enter(self) -> None:
        """Have a change agreed on: once it is applied here, so is all that was before it."""
        tag = f"{self.process.node} {self.process.boot}"
        self.metadata.change(
            lambda: set_vhost(self.catalogue, VHOST, metadata={"tags": [tag]}),
            self.hosting.sweep,
            lambda _error: self._call_later(RETRY_S, self._enter),
        )

    # As tenant

    def make_machine(self, group: GroupId) -> Simulated:
        if group == METADATA_GROUP:
            return Digested(self.metadata, lambda: int(digest_of(self.metadata.state)[:16], 16))
        made = self.hosting.make_machine(group)
        return Digested(made, lambda: int.from_bytes(made.member.image.digest()[:8]))

    def has_heard(self, group: GroupId, *, is_gone: bool) -> bool:
        return group == METADATA_GROUP or (group not in self.clients) == is_gone

    def configured(self, group: GroupId, config: Config) -> None:
        """Whoever has changed the members of a queue has defined it anew."""
        definition = self._definitions.get(group)
        if definition is not None:
            members = tuple(config.members)
            self.hub.redefined(definition._replace(members=members))

    def join(self, group: GroupId, incarnation: int, config: Config) -> None:
        """Queues are hosted by definitions, which say who is a member."""
        if group == METADATA_GROUP:
            self.process.create(group, incarnation, config)
        else:
            members = ((self.process.node, incarnation),)
            self.hosting.define(placed(self._definitions[group], members), VHOST)

    def leave(self, group: GroupId) -> None:
        if group == METADATA_GROUP:
            self.process.delete(group)
            return
        self.hosting.forget(group)
        definition = self._definitions.get(group)
        if definition is not None:
            self.hosting.define(placed(definition, ()), VHOST)

    def unknown(self, node: NodeId, group: GroupId) -> None:
        if group != METADATA_GROUP:
            self.hosting.unknown(node, group)

    def receive(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        takers = {
            FrameKind.METADATA: self.metadata.receive,
            FrameKind.STREAM: self.hub.receive,
            FrameKind.QUESTION: self.hub.receive_question,
        }
        takers[kind](node, payload)

    def link_changed(self, node: NodeId, is_up: bool) -> None:
        if is_up:
            self._town.linked(self.process.node, node)
        self.metadata.link_changed(node, is_up)
        self.hub.link_changed(node, is_up)

    def begin_turn(self) -> None:
        self.hub.before_consensus()

    def end_turn(self) -> None:
        self.hub.after_consensus()

    def _overhear(self, node: NodeId, payload: bytes) -> None:
        """A frame of a stream leaves."""
        self._town.frames += 1
        frame = decode(payload)
        if isinstance(frame, m.LeaderFrame):
            served = self.hub.leading.queues.get(frame.group)
            if isinstance(served, QueueGroup):
                self._town.book(frame.group).said(served.member, node, frame)

    # As maker of queues

    def define(self, spec: QueueSpec, owner: Owner | None) -> QueueDefinition:
        chance, node = self._town.chance, self.process.node
        loads = {name: chance.randrange(10) for name in self._town.cluster.names}
        members = choose_members(self._town.cluster.names, node, GROUP_SIZE, loads)
        leader = chance.choice(members)
        return QueueDefinition(
            spec,
            id=draw_id(chance.getrandbits, leader, members),
            founders=members,
            members=tuple((name, 1) for name in members),
            leader=leader,
        )

    def make(self, definition: QueueDefinition, vhost: str) -> Queue:
        group = definition.id
        self._definitions[group] = definition
        self._town.defined(definition)
        self.hosting.define(placed(definition, self._town.members_of(group)), vhost)
        self.ports[group] = port = self.hub.open(definition, partial(self._told, group))
        self.clients[group] = self._town.book(group).client(self.process.node, port.edge)
        return self._local.make(definition, vhost)

    def redefine(self, queue: ServedQueue, definition: QueueDefinition) -> None:
        raise AssertionError("the members of queues are changed by others")

    def _told(self, group: GroupId, events: list[Event]) -> None:
        self.clients[group].told(events)

    def reopen(self, definition: QueueDefinition, vhost: str) -> Queue:
        raise AssertionError("nothing but the log is read at a start")

    def end(self, queue: ServedQueue) -> None:
        group = queue.definition.id
        client = self.clients[group]
        client.is_over = True
        self.hub.close(group)
        if left := client.unanswered():
            raise Violation(f"rule 22: {left} of {group} on {self.process.node} have no answer")
        self.hosting.forget(group)
        del self.clients[group], self.ports[group], self._definitions[group]
        self._town.undefined(group)

    # What clients ask for

    def declare(self, name: str, arguments: FieldTable) -> None:
        """Unless it is there, whatever it is like."""
        vhost = self.catalogue.vhosts.get(VHOST)
        if vhost is not None and name not in vhost.queues:
            declared = Declaration(name, durable=True, arguments=arguments)
            self.metadata.change(
                lambda: deciding.declare_queue(vhost, declared, None), _done, _failed
            )

    def touch_definitions(self, number: int) -> None:
        """A change that makes no difference."""
        self.metadata.change(
            lambda: set_vhost(self.catalogue, VHOST, metadata={"tags": [f"{number}"]}),
            _done,
            _failed,
        )

    def ask_counts(self, group: GroupId) -> None:
        self.questions += 1
        self.hub.ask_counts(group, self._on_counts)

    def _on_counts(self, counts: Counts | None) -> None:
        self.questions -= 1
        if self.questions < 0 or (counts is not None and min(counts) < 0):
            raise Violation(f"{self.process.node} is told {counts}")

    def delete(self, name: str) -> None:
        vhost = self.catalogue.vhosts.get(VHOST)
        queue = vhost.queues.get(name) if vhost is not None else None
        if vhost is not None and queue is not None:
            self.metadata.change(lambda: deciding.delete_queue(vhost, queue), _done, _failed)


class Digested:
    """A machine with a digest."""

    def __init__(self, machine: Machine, digest: Callable[[], int]) -> None:
        self._machine = machine
        self._digest = digest

    @property
    def digest(self) -> int:
        return self._digest()

    def restore(self, meta: SnapshotMeta, state: bytes) -> None:
        self._machine.restore(meta, state)

    def apply(self, entries: Sequence[Entry]) -> None:
        self._machine.apply(entries)

    def led(self, term: int) -> None:
        self._machine.led(term)

    def followed(self, term: int, leader: NodeId | None) -> None:
        self._machine.followed(term, leader)

    def snapshot(self) -> tuple[Ranges, bytes]:
        return self._machine.snapshot()


class Overheard:
    """`Links` on which somebody listens to streams."""

    def __init__(self, links: Links, overhear: Callable[[NodeId, bytes], None]) -> None:
        self.on_frame: OnFrame = links.on_frame
        self.on_link: OnLink = links.on_link
        self._links = links
        self._overhear = overhear

    def send(self, node: NodeId, kind: FrameKind, payload: Payload, *, lane: Lane) -> None:
        if kind is FrameKind.STREAM:
            self._overhear(node, joined(payload))
        self._links.send(node, kind, payload, lane=lane)

    def is_up(self, node: NodeId) -> bool:
        return self._links.is_up(node)

    def waiting_bytes(self, node: NodeId, lane: Lane) -> int:
        return self._links.waiting_bytes(node, lane)


def _done() -> None:
    """Whoever waited for it looks at what is there."""


def _failed(error: BrokerError) -> None:
    """It may have been somebody else's turn, or too late."""


def _queue_failed(_queue: int, error: Exception) -> None:
    """What a node outlives ends a run."""
    raise error


def _refused(node: NodeId, reason: str) -> None:
    raise AssertionError(f"a frame of {node} is refused: {reason}")


def _nobody_wants_the_dead(_vhost: str, queue: QueueSpec, _dead: DeadMessages) -> None:
    raise AssertionError(f"{queue.name} has no exchange for the dead")


def _nothing() -> None:
    """A turn."""


def only_life() -> int:
    """No node of a simulation leaves the cluster and comes again as another."""
    return 1


def placed(definition: QueueDefinition, members: tuple[tuple[NodeId, int], ...]) -> QueueDefinition:
    """With these members."""
    return definition._replace(members=members, lives=tuple((node, 1) for node, _ in members))
