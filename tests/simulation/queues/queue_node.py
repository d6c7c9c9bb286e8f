"""Services of a node for clients of queues: definitions, members, leaderships, sessions, clients.

All of it is production code, composed as a node of a cluster composes it, but for the clients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fluffle.broker.access.access import Access
from fluffle.broker.base.traffic import Deaths, Traffic
from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.hosted_group import OnEntryOutcome, OnReadable
from fluffle.broker.cluster.leadership_transfer import DiskFullHandover
from fluffle.broker.cluster.links.handshake import COUNTS_SINCE
from fluffle.broker.cluster.membership import created_as
from fluffle.broker.cluster.metadata_group import (
    GroupOwnerDispatch,
    HostedMetadataLog,
    ReplicatedMetadata,
)
from fluffle.broker.cluster.node_monitor import AbsentNodes, PeerViews
from fluffle.broker.cluster.ports import METADATA_GROUP, FrameKind, Links, TrafficClass
from fluffle.broker.cluster.queue_sessions.codec import decode
from fluffle.broker.cluster.queues.node_sessions import NodeSessions
from fluffle.broker.cluster.queues.pending_replies import Deletions
from fluffle.broker.cluster.queues.placement import ID_BITS
from fluffle.broker.cluster.queues.ports import LeaderCounts
from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember, QuorumServices
from fluffle.broker.cluster.queues.quorum_members import CLUSTER_REVISIONS, QuorumMembers, sweep_all
from fluffle.broker.cluster.queues.quorum_queues import QuorumQueues
from fluffle.broker.cluster.queues.session_queue import SessionQueue
from fluffle.broker.cluster.queues.session_transport import WAITING_BYTES_MAX, SessionTransport
from fluffle.broker.cluster.storage_progress import SEND_S, DiskPutBack, StorageProgress
from fluffle.broker.definitions.catalogue import Catalogue, renew_at_once
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.change import Change
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.queue_api import Outcome, QueueHandle
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.runtime.timers import QueueTiming, Timers
from fluffle.broker.runtime.turn import raise_it
from fluffle.broker.transfer.dead_letters import DeadLetters
from fluffle.broker.vhosts.queue_changes import delete_disused
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.log import GroupId
from fluffle.raft.output import LivenessVerdict
from tests.broker.queues.quorum.image_digest import image_digest
from tests.simulation.facts import Violation
from tests.simulation.links import LinkedNetwork
from tests.simulation.process import DigestedMachine, Process
from tests.simulation.queues.connections import NodeConnections, is_quorum
from tests.simulation.queues.definition_requests import DefinitionRequests
from tests.simulation.queues.node_fakes import (
    CancelledFlag,
    CheckedBarrier,
    MachineWithDigest,
    NodeClock,
    SimulatedSender,
    TappedLinks,
)
from tests.simulation.queues.node_registration import NodeRegistration
from tests.simulation.queues.peer_nodes import PeerNodes
from tests.simulation.queues.queue_clients import QueueClients
from tests.simulation.queues.rolling_upgrade import PeerVersions
from tests.simulation.virtual_time import SECOND_US
from tests.support.definition_digest import digest_of
from tests.support.queue_host import FakeTurn

if TYPE_CHECKING:
    from tests.simulation.queues.queue_cluster import QueueCluster

LOOK_S = 1.0
IMPATIENCE_S = 1.0


class LaterRenewal:
    """Renewal of policies in a turn of its own."""

    def __init__(self, node: QueueNode) -> None:
        self._node = node

    def renew_policies(self, vhost: VirtualHost) -> None:
        self._node.call_later(0.0, partial(renew_at_once, vhost))


class QueueNode:
    """Services of a node for queues: `GroupServices`, and the `QueueFactory` of its definitions."""

    def __init__(
        self, process: Process, links: Links, boot: m.SessionBoot, queue_cluster: QueueCluster
    ) -> None:
        self.process = process
        self.boot = boot
        self.clients: dict[GroupId, QueueClients] = {}
        self.parted: list[QueueClients] = []
        """Clients of deleted queues."""
        self.questions = 0
        """How many have no answer."""
        self.peer_versions = PeerVersions(
            process.node, queue_cluster.installed_versions.reads[process.node]
        )
        self._queue_cluster = queue_cluster
        self._local = LocalQueues(FakeTurn())
        self._links = links
        self.clock = clock = NodeClock(process, queue_cluster.wall_ahead_ms)
        self.day = CommonTime(process.node, clock, self._deciding)
        self.dead_letters = DeadLetters(self._vhost, clock, Deaths())
        self.catalogue = self._made_catalogue()
        self.metadata = self._made_metadata()
        self.applied_barrier = self._made_everywhere()
        self.defining = DefinitionRequests(self.catalogue, self.metadata, self.applied_barrier)
        self.absent = AbsentNodes(process.node, clock.now_ms, self.is_not_running)
        send = partial(self._send, FrameKind.PEER_VIEW)
        self.peer_views = PeerViews(self.absent, send, self)
        self.progress = self._made_progress()
        self.connections = NodeConnections(self)
        self.view = SimulatedClusterView(self, queue_cluster)
        self.node_sessions = self._new_node_sessions()
        self.peer_nodes = self._made_peer_nodes()
        self.services = QuorumServices(
            self._hand_on, self.catalogue.policies.settings_of, Traffic(),
            replace(queue_cluster.quorum, consumer_timeout_ms=None),
        )  # fmt: skip
        self.hosting = QuorumMembers(
            self.node_sessions, self.view, self.day, self,
            aging=self._made_timing(), services=self.services, dead_bytes_min=1,
        )  # fmt: skip
        self.hosting.host = process.host
        self.queues = self._made_queues()
        self.room = self._made_room()
        self.owners = GroupOwnerDispatch(self.metadata, self.hosting, self, self.metadata.reads)
        queue_cluster.linked(process.node, process.node)
        self.call_later(0.0, self._made_registration().begin)
        self.call_later(LOOK_S, self._look_for_ever)
        self.call_later(SEND_S, self._tell_for_ever)
        if queue_cluster.is_impatient:
            self.call_later(IMPATIENCE_S, self._give_up)

    def _made_registration(self) -> NodeRegistration:
        return NodeRegistration(
            self.process, self.metadata, self.catalogue, self._queue_cluster.cluster.names,
            call_later=self.call_later, entered=self._entered,
        )  # fmt: skip

    def _made_timing(self) -> QueueTiming:
        timers = Timers(self.clock, self.call_later, raise_it)
        timers.start()
        return QueueTiming(timers, self._delete_disused)

    def _vhost(self, name: str) -> VirtualHost | None:
        return self.catalogue.vhosts.get(name)

    def _made_catalogue(self) -> Catalogue:
        return Catalogue(
            Access(),
            {},
            lambda image: VirtualHost(image, self),
            renewal=LaterRenewal(self),
            dead_letters=self.dead_letters,
        )

    def _made_progress(self) -> StorageProgress:
        """The progress that a node has on its disk beside its groups, in a simulation, too."""
        disk = self._queue_cluster.cluster.machines[self.process.node].disk
        return StorageProgress(
            self.process.node, disk.marks.lives, disk, disk,
            incarnation=lambda: created_as(self.process.host), send=self._tell_progress,
            on_put_back=self._end,
        )  # fmt: skip

    def _tell_progress(self, node: NodeId, payload: bytes) -> None:
        self._links.send(node, FrameKind.PROGRESS, payload, traffic=TrafficClass.URGENT)

    def _tell_for_ever(self) -> None:
        self.progress.look()
        self.call_later(SEND_S, self._tell_for_ever)

    def _end(self, found: DiskPutBack) -> None:
        """The node must not end, unless its disk was put back indeed."""
        if not self._queue_cluster.cluster.machines[self.process.node].is_put_back:
            raise Violation(f"{self.process.node} ends for nothing: {found}")
        self._queue_cluster.cluster.found_put_back(self.process)

    def is_not_running(self, node: NodeId) -> bool:
        return self._queue_cluster.cluster.network.is_not_running(self.process.node, node)

    def _made_metadata(self) -> ReplicatedMetadata:
        process = self.process
        metadata = ReplicatedMetadata(
            process.node, process.boot, self.catalogue.apply, loop=self, clock=self.clock,
            sender=self._sender(FrameKind.METADATA),
            read_sender=self._sender(FrameKind.READ_INDEX, TrafficClass.URGENT),
        )  # fmt: skip
        metadata.log = JoiningMetadataLog(process.host)
        return metadata

    def _made_everywhere(self) -> CheckedBarrier:
        return CheckedBarrier(self.metadata, self._sender(FrameKind.REVISION), self)

    def _deciding(self) -> Collection[NodeId]:
        return {
            each.node for each in self.peer_nodes.config.voters
        } or self._queue_cluster.cluster.names

    def _made_peer_nodes(self) -> PeerNodes:
        peer_nodes = PeerNodes(
            self.process,
            self.metadata,
            self.catalogue.nodes,
            sender=self._sender(FrameKind.MEMBERSHIP),
            soon=partial(self.call_later, 0.0),
            hang_up=self._hang_up,
            progress=self.progress,
        )
        peer_nodes.node_sessions, peer_nodes.day = self.node_sessions, self.day
        return peer_nodes

    def _hang_up(self, node: NodeId) -> None:
        network = self._queue_cluster.cluster.network
        assert isinstance(network, LinkedNetwork)
        network.hang_up(self.process.node, node)

    def _new_node_sessions(self) -> NodeSessions:
        links = TappedLinks(self._links, self._overhear)
        transport = SessionTransport(self.view, links, self, self, self.clock)
        return NodeSessions(transport, queue_failed=_queue_failed)

    def _made_queues(self) -> QuorumQueues:
        queues = QuorumQueues(
            self.process.node, self._queue_cluster.chance.getrandbits, self.services
        )
        queues.connect(self.hosting, Deletions(self.metadata.reads, self.catalogue.vhosts))
        return queues

    def _made_room(self) -> DiskFullHandover:
        sender = self._sender(FrameKind.ROOM)
        return DiskFullHandover(self.process.node, self.process.host, self.absent, sender)

    def _hand_on(self, vhost: str, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        """Messages of a queue that is led here have died."""
        there = self.catalogue.vhosts[vhost]
        found = there.queues.get(queue)
        if found is not None:
            publish = partial(self.dead_letters.publish, vhost, queue, settings, dead)
            dead_letter_checks = self._queue_cluster.dead_letter_checks
            dead_letter_checks.hand_on(
                found.definition.id, queue, settings, dead, vhost=there, publish=publish
            )

    def _delete_disused(
        self, vhost: str, definition: QueueDefinition, is_queue_expired: Callable[[], bool]
    ) -> None:
        there = self.catalogue.vhosts[vhost]

        def decide() -> Change:
            change = delete_disused(there, definition, is_queue_expired)
            if not change.changes_nothing:
                group = definition.id
                now_ms, expires_ms = self._time_and_limit_of(group)
                queue_expiry_checks = self._queue_cluster.checker(group).queue_expiry_checks
                queue_expiry_checks.go(
                    now_ms, self._queue_cluster.counts(), group, expires_ms=expires_ms
                )
            return change

        self.metadata.ensure(decide)

    def _time_and_limit_of(self, group: GroupId) -> tuple[int, int | None]:
        """Queue time of one that is led here, and for how long it may be there unused."""
        served = self.node_sessions.leaders.queues[group]
        assert isinstance(served, QuorumQueueMember)
        leadership = served.replica.leadership
        assert leadership is not None
        return leadership._time.now_ms(), leadership.queue.settings.expires_ms

    def _look_for_ever(self) -> None:
        self.peer_nodes.membership.look()
        self.room.look()
        self.queues.reconciling.look(self.clock.now_ms())
        self.call_later(LOOK_S, self._look_for_ever)

    def _send(
        self,
        kind: FrameKind,
        node: NodeId,
        payload: bytes,
        traffic: TrafficClass = TrafficClass.NORMAL,
    ) -> None:
        self._links.send(node, kind, payload, traffic=traffic)

    def _sender(
        self, kind: FrameKind, traffic: TrafficClass = TrafficClass.NORMAL
    ) -> SimulatedSender:
        return SimulatedSender(self._links, kind, traffic, self._queue_cluster.cluster.names)

    # As the event loop

    def call_soon(self, call: Callable[[], None]) -> None:
        self.call_later(0.0, call)

    def call_later(self, seconds: float, call: Callable[[], None]) -> CancelledFlag:
        cluster, timer = self._queue_cluster.cluster, CancelledFlag()

        def act() -> None:
            if self.process.is_alive and not timer.is_cancelled:
                call()

        delay_us = int(seconds * SECOND_US)
        cluster.clockwork.after(delay_us, cluster.awake, self.process.node, act)
        return timer

    def _ask_later(self, seconds: float, call: Callable[[], None]) -> CancelledFlag:
        """Call later; a client waiting for an answer may have less patience than a run is long."""
        return self.call_later(seconds / self._queue_cluster.haste, call)

    def _give_up(self) -> None:
        """Give up silent nodes as `Sessions.tick` does after a minute."""
        now_ms = self.clock.now_ms()
        for queue, sessions in self.node_sessions.leaders._sessions():
            for node, known in sessions._nodes.items():
                since_ms = known.silent_since_ms
                if since_ms is not None and now_ms - since_ms > IMPATIENCE_S * 1_000:
                    sessions._withdraw(node, Outcome.SUSPECTED)
                    self.node_sessions.leaders.touch(queue)
        self.call_later(IMPATIENCE_S, self._give_up)

    def touch_consensus(self) -> None:
        self.process.feed(_nothing)

    def _entered(self) -> None:
        """Lead queues, once the time is known."""
        self.day.when_known(partial(self.process.feed, self._begin))

    def _begin(self) -> None:
        self.peer_nodes.enter()
        self.connections.enter()
        sweep_all(self.hosting)
        self.process.multi.scheduler.wake()

    # As services

    def make_machine(self, group: GroupId) -> DigestedMachine:
        if group == METADATA_GROUP:
            return MachineWithDigest(
                self.metadata, lambda: int(digest_of(self.metadata.state)[:16], 16)
            )
        made = self.hosting.make_machine(group)
        return MachineWithDigest(made, lambda: int.from_bytes(image_digest(made.replica.image)[:8]))

    def start(self) -> list[GroupId]:
        """Start as `Cluster.start` does: nothing is led here before all definitions are known."""
        host = self.process.host
        lost = host.start(are_asleep=True)
        host.feed(self.process.multi.scheduler.attend, METADATA_GROUP)
        if METADATA_GROUP not in host and self._queue_cluster.may_be(self.process.node, 1):
            host.create(METADATA_GROUP, 1, Configuration.initial(self._queue_cluster.cluster.names))
        return lost

    def join(self, group: GroupId, incarnation: int, config: Configuration) -> None:
        raise AssertionError("nodes know by themselves what they are members of")

    def leave(self, group: GroupId) -> None:
        raise AssertionError("nodes know by themselves what they are members of")

    def lose(self, groups: list[GroupId]) -> None:
        self.hosting.lose(groups)

    # As nodes of `GroupOwnerDispatch`

    def judged(self, verdict: LivenessVerdict) -> None:
        self.absent.judged(verdict)
        self.call_later(0.0, self.peer_nodes.membership.look)
        if verdict.is_alive:
            self.queues.reconciling.look_soon(self.clock.now_ms())

    def configured(self) -> None:
        self.process.host.group(METADATA_GROUP).raft.send_commits_at_once()
        self.call_later(0.0, self.peer_nodes.membership.configured)
        self.call_later(0.0, self.queues.nodes_changed)

    def unknown(self, node: NodeId) -> None:
        self.peer_nodes.membership.unknown(node)

    def receive(self, node: NodeId, kind: FrameKind, payload: bytes) -> None:
        takers = {
            FrameKind.METADATA: self.metadata.receive,
            FrameKind.REVISION: self.applied_barrier.receive,
            FrameKind.READ_INDEX: self.metadata.reads.receive,
            FrameKind.ROOM: self.room.receive,
            FrameKind.SESSION: self.node_sessions.transport.receive,
            FrameKind.QUESTION: self.node_sessions.receive_question,
            FrameKind.MEMBERSHIP: self._receive_incarnation,
            FrameKind.PEER_VIEW: self.peer_views.receive,
            FrameKind.PROGRESS: self.progress.receive,
        }
        takers[kind](node, payload)

    def _receive_incarnation(self, node: NodeId, payload: bytes) -> None:
        """Handle the incarnation of this node, which comes under its old name with nothing and has
        no links."""
        if self._queue_cluster.may_be(self.process.node, int.from_bytes(payload, "big")):
            self.peer_nodes.membership.receive(node, payload)

    def link_changed(self, node: NodeId, is_up: bool) -> None:
        if is_up:
            self._queue_cluster.linked(self.process.node, node)
            self.peer_versions.heard(
                node,
                self._queue_cluster.installed_versions.reads[node],
                self._queue_cluster.cluster.clockwork.now_us,
            )
        self.progress.link_changed(node, is_up)
        self.metadata.link_changed(node, is_up)
        self.applied_barrier.link_changed(node, is_up)
        self.node_sessions.transport.link_changed(node, is_up)
        self.room.link_changed(node, is_up)

    def begin_turn(self) -> None:
        self.node_sessions.before_consensus()

    def end_turn(self) -> None:
        self.node_sessions.after_consensus()

    def _overhear(self, node: NodeId, payload: bytes) -> None:
        """A frame of a stream leaves."""
        self._queue_cluster.frames += 1
        frame = decode(payload)
        if isinstance(frame, m.ClientFrame):
            is_missed = frame.term > 0
        else:
            is_missed = frame.number > 0
            served = self.node_sessions.leaders.queues.get(frame.group)
            if isinstance(served, QuorumQueueMember):
                self._queue_cluster.checker(frame.group).said(served.replica, node, frame)
        if is_missed and self._links.waiting_bytes(node, TrafficClass.NORMAL) >= WAITING_BYTES_MAX:
            raise Violation(f"links: {frame} may be dropped on its way to {node}")

    # As maker of queues

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        if spec.queue_type is QueueType.QUORUM:
            return self.queues.define(spec, owner, vhost)
        process, queue = self.process, self._queue_cluster.chance.getrandbits(ID_BITS)
        return QueueDefinition(spec, owner=owner, id=queue, home=process.node, boot=process.boot)

    def make(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        if not is_quorum(definition):
            return self._local.make(definition, vhost)
        group = definition.id
        queue = self.queues.make(definition, vhost)
        line = self.node_sessions.routes._by_queue[group]
        clients = self._queue_cluster.checker(group).clients(self.process.node, queue, line)
        line.on_events = clients.reported
        clients.redeclared_queues = self._queue_cluster.redeclared_queues
        self.clients[group] = clients
        return queue

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        self.queues.redefine(queue, definition)

    def reopen(self, definition: QueueDefinition, vhost: str) -> SessionQueue:
        raise AssertionError("nothing but the log is read at a start")

    def renew_settings(self, queue: QueueHandle, vhost: str) -> None:
        if is_quorum(queue.definition):
            self.queues.renew_settings(queue, vhost)

    def create_successor(self, definition: QueueDefinition, vhost: str) -> SessionQueue:
        raise AssertionError("all queues are quorum queues from the beginning")

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        raise AssertionError("none was born")

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        raise AssertionError("none has an heir")

    def end(self, queue: QueueHandle) -> None:
        if not is_quorum(queue.definition):
            return
        group = queue.definition.id
        clients = self.clients[group]
        clients.is_over = True
        self.queues.end(queue)
        if left := clients.unanswered():
            raise Violation(f"rule 22: {left} of {group} on {self.process.node} have no answer")
        self.parted.append(self.clients.pop(group))

    # What clients ask for

    def ask_counts(self, group: GroupId) -> None:
        self.questions += 1
        self.node_sessions.ask_counts(group, self._on_counts)

    def _on_counts(self, counts: LeaderCounts | None) -> None:
        self.questions -= 1
        if self.questions < 0 or (counts is not None and min(counts) < 0):
            raise Violation(f"{self.process.node} hears of {counts}")


class SimulatedClusterView:
    """The `ClusterView` of a simulated node."""

    def __init__(self, queue_node: QueueNode, queue_cluster: QueueCluster) -> None:
        self._queue_node = queue_node
        self._queue_cluster = queue_cluster
        self.node = queue_node.process.node
        self.boot = queue_node.boot

    @property
    def incarnations(self) -> Mapping[NodeId, int]:
        return self._queue_node.peer_nodes.lives()

    @property
    def own_incarnation(self) -> int:
        host = self._queue_node.process.host
        return host.group(METADATA_GROUP).incarnation if METADATA_GROUP in host else 0

    @property
    def metadata(self) -> ReplicatedMetadata:
        return self._queue_node.metadata

    @property
    def revision(self) -> int:
        return CLUSTER_REVISIONS + self._queue_node.metadata.revision

    def boot_of(self, node: NodeId) -> m.SessionBoot | None:
        return self._queue_cluster.boot_of(node)

    def is_alive(self, node: NodeId) -> bool:
        return self._queue_node.absent.is_alive(node)

    def may_lead(self, node: NodeId) -> bool:
        return self._queue_node.room.may_lead(node)

    def is_not_running(self, node: NodeId) -> bool:
        return self._queue_node.is_not_running(node)

    def speaks(self, _node: NodeId) -> int:
        return COUNTS_SINCE

    def reads_of(self, node: NodeId) -> int:
        return self._queue_node.peer_versions.reads_of(node)

    def hasten(self, queue: GroupId) -> None:
        """Members stand for it by themselves."""


class JoiningMetadataLog(HostedMetadataLog):
    """The log of the metadata group, if this node has a part of it already."""

    __slots__ = ()

    def propose(self, payload: bytes, on_outcome: OnEntryOutcome) -> None:
        if METADATA_GROUP in self._host:
            super().propose(payload, on_outcome)

    def read_index(self, done: OnReadable) -> None:
        if METADATA_GROUP in self._host:
            super().read_index(done)


def _queue_failed(_named: Mapping[str, object], error: Exception) -> None:
    """Raise errors that end a run, though a node would survive them."""
    raise error


def _nothing() -> None:
    """A turn."""
