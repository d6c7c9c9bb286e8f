"""`ClusterService`: what makes a node one of several, composed; and which the others are.

    links <--> switch --+--> host --> metadata group --> catalogue, registry
                        +--> metadata: proposals of other nodes

A start goes so: `start` takes up what is on disk and lets others dial; `enter` returns once all
know in which life this node is (`join`).  Since that is applied here then, so is whatever was
agreed on before it.  `stop` comes before the store is closed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from random import Random
from typing import Protocol

from fluffle.broker.base.clock import Clock, SystemClock
from fluffle.broker.base.errors import StartFailed
from fluffle.broker.base.logs import event
from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.formation import FOUNDED_AS, Formation, Founders, Promise, promise_of
from fluffle.broker.cluster.join import Admission, BootRecord, ClusterJoin
from fluffle.broker.cluster.leadership_transfer import (
    DiskFullHandover,
    await_settled_sessions,
    drain_leaderships,
)
from fluffle.broker.cluster.links.handshake import (
    FORMATION_SINCE,
    PROGRESS_SINCE,
    READS_SINCE,
    RPC_SINCE,
)
from fluffle.broker.cluster.links.identity import MARK_LETTERS, Boot, PeerBoots, mark_of, marked
from fluffle.broker.cluster.links.identity import Identity as LinkIdentity
from fluffle.broker.cluster.links.links import ClusterLinks, LinkSender
from fluffle.broker.cluster.links.tls import LinkCertificates
from fluffle.broker.cluster.membership import (
    HostIncarnations,
    MetadataMembership,
    NodeRemoved,
    begun_as,
    created_as,
)
from fluffle.broker.cluster.metadata_group import (
    AppliedBarrier,
    GroupOwnerDispatch,
    HostedMetadataLog,
    ReplicatedMetadata,
)
from fluffle.broker.cluster.node_monitor import AbsentNodes, MajorityMonitor, PeerViews
from fluffle.broker.cluster.ports import LONE, METADATA_GROUP, FrameKind, TrafficClass
from fluffle.broker.cluster.queues.node_sessions import NodeSessions, session_boot
from fluffle.broker.cluster.queues.pending_replies import Deletions
from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.cluster.queues.queue_queries import LogPositions
from fluffle.broker.cluster.queues.quorum_members import CLUSTER_REVISIONS, QuorumMembers
from fluffle.broker.cluster.queues.quorum_queues import QuorumQueues
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.cluster.raft_host import HostIdentity, HostLoop
from fluffle.broker.cluster.rpc import Begin, RpcClient, RpcServer
from fluffle.broker.cluster.storage_progress import SEND_S, RememberedProgress, StorageProgress
from fluffle.broker.config.config import ClusterConfig, ListenAddress
from fluffle.broker.durability.node_identity import NodeIdentity
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.metadata import Consequence
from fluffle.broker.metadata.nodes import NodeRegistry, Nodes
from fluffle.broker.node_services import NodeServices
from fluffle.broker.process.sockets import cannot_listen
from fluffle.broker.queues.quorum.messages import SessionBoot
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.config import Configuration, NodeId
from fluffle.raft.output import LivenessVerdict
from fluffle.storage.store import Store

ANY_HOSTS = ("", "0.0.0.0", "::")
"""Where a node listens that is reached under another address."""

LOOK_S = 1.0
"""Between two looks whether the members of the metadata group are the nodes of the cluster."""

UNKNOWN_MARK = "?"
"""In the place of the mark of a cluster that knew this node before it had lost its disk."""

logger = logging.getLogger(__name__)


class ClusterCatalogue(Protocol):
    """Definitions of a node, as far as its cluster reads and changes them: a `Catalogue`."""

    @property
    def vhosts(self) -> Mapping[str, VirtualHost]:
        """The virtual hosts by their names."""

    @property
    def nodes(self) -> NodeRegistry:
        """The registry, in which what is applied puts the nodes."""

    def apply(self, change: Change) -> Iterable[Consequence]:
        """Do what all have agreed on."""


class ClusterService:
    """Made and used in the thread of a running event loop."""

    def __init__(
        self,
        life: BootRecord,
        config: ClusterConfig,
        services: NodeServices,
        catalogue: ClusterCatalogue,
        *,
        queues: QuorumQueues,
        queues_on: Callable[[NodeId], int],
    ) -> None:
        """StartFailed.  `life` is on disk by the start; `queues_on`: queues on a node alone."""
        runtime, durability = services.runtime, services.durability
        self.name = name = life.identity.node
        self.config = config
        self.boot = life.identity.boot
        self._registry = catalogue.nodes
        self._known_peers = durability.known_peers
        self._loop = loop = asyncio.get_running_loop()
        machine = SystemClock()
        self._now_ms = machine.now_ms
        self._certificates: LinkCertificates | None = None
        incarnations = HostIncarnations()
        self.links = self._made_links(life, incarnations)
        self.common_time = CommonTime(name, machine, self._deciding)
        self.absent = AbsentNodes(self.name, machine.now_ms, self.links.is_not_running)
        sender = partial(LinkSender, self.links)
        self.peer_views = PeerViews(self.absent, sender(FrameKind.PEER_VIEW).send, loop)
        self.metadata = self._made_metadata(catalogue, machine)
        self.applied_barrier = AppliedBarrier(self.metadata, sender(FrameKind.REVISION), loop)
        self.rpc_client = RpcClient(sender(FrameKind.RPC, since=RPC_SINCE), loop)
        self.deletions = Deletions(self.metadata.reads, catalogue.vhosts)
        self.view = NodeClusterView(self)
        transport = SessionTransport(self.view, self.links, runtime.turn, loop, runtime.clock)
        self.node_sessions = NodeSessions(transport)
        self.quorum_members = self._made_quorum_members(services, queues)
        self._queues = queues
        self.running = self._made_host(runtime, durability.store)
        incarnations.host = host = self.running.host
        self.log_positions = LogPositions(name, host, sender(FrameKind.LOG_POSITION).send, loop)
        self.room = DiskFullHandover(name, host, self.absent, sender(FrameKind.ROOM))
        self._on_fatal = runtime.on_fatal
        self.progress = self._made_progress(life, durability.store)
        self.membership = self._made_membership(sender(FrameKind.MEMBERSHIP))
        self._queues_on = queues_on
        self.admission = Admission(
            self._registry, self.metadata, self.has_left_over, secrets.SystemRandom()
        )
        self.formation: Formation
        """From `start` on: before it is not known where this node listens."""
        self._kept = durability.identity
        self.join = self._made_join(life)
        self.majority = MajorityMonitor(self.view, self._now_ms)
        self._connect()
        self._looking: asyncio.TimerHandle | None = None
        self._progress_timer: asyncio.TimerHandle | None = None
        self._registry.listeners.append(self._on_registry)

    def _connect(self) -> None:
        """Give each kind of frame to its receiver, and each turn to those that work in it."""
        self.running.before.append(self.node_sessions.before_consensus)
        self.running.after.append(self.node_sessions.after_consensus)
        switch = self.running.switch
        switch.takers[FrameKind.METADATA] = self.metadata.receive
        switch.takers[FrameKind.READ_INDEX] = self.metadata.reads.receive
        switch.takers[FrameKind.REVISION] = self.applied_barrier.receive
        switch.takers[FrameKind.SESSION] = self.node_sessions.transport.receive
        switch.takers[FrameKind.QUESTION] = self.node_sessions.receive_question
        switch.takers[FrameKind.MEMBERSHIP] = self.membership.receive
        switch.takers[FrameKind.LOG_POSITION] = self.log_positions.receive
        switch.takers[FrameKind.ROOM] = self.room.receive
        switch.takers[FrameKind.PEER_VIEW] = self.peer_views.receive
        switch.takers[FrameKind.RPC] = self.rpc_client.receive
        switch.takers[FrameKind.PROGRESS] = self.progress.receive
        # First: nothing else may be said to a node whose disk was put back.
        switch.link_listeners.insert(0, self.progress.link_changed)
        switch.link_listeners += [
            self.metadata.link_changed, self.applied_barrier.link_changed,
            self.node_sessions.transport.link_changed, self.room.link_changed,
            self.rpc_client.link_changed,
        ]  # fmt: skip

    def _made_links(self, life: BootRecord, incarnations: HostIncarnations) -> ClusterLinks:
        config = self.config
        if config.tls_cert is not None:
            self._certificates = LinkCertificates(config.tls_cert, config.tls_key, config.tls_ca)
        known = self._known_peers.known.items()
        boots = PeerBoots(
            {node: Boot(each.boot, each.nonce) for node, each in known if each.boot},
            lambda node, boot: self._known_peers.lives(node, boot.count, boot.nonce),
        )
        try:
            return ClusterLinks(
                life.identity, config.secret, certificates=self._certificates, boots=boots,
                lives=life.lives, incarnations=incarnations,
                admits=config.admit,
            )  # fmt: skip
        except ValueError as error:
            raise StartFailed(f"this node cannot have links ({error})") from error

    def _made_metadata(self, catalogue: ClusterCatalogue, machine: Clock) -> ReplicatedMetadata:
        sender = partial(LinkSender, self.links)
        return ReplicatedMetadata(
            self.name, self.boot.count, catalogue.apply, loop=self._loop, clock=machine,
            sender=sender(FrameKind.METADATA),
            read_sender=sender(FrameKind.READ_INDEX, TrafficClass.URGENT, since=READS_SINCE),
        )  # fmt: skip

    def _made_quorum_members(self, services: NodeServices, queues: QuorumQueues) -> QuorumMembers:
        """`queues` makes what is replicated, and is given what it makes that with."""
        members = QuorumMembers(
            self.node_sessions, self.view, services.environment.moved(self.common_time),
            self._loop, aging=services.aging, services=queues.services,
        )  # fmt: skip
        queues.connect(members, self.deletions)
        return members

    def _made_host(self, runtime: Runtime, store: Store) -> HostLoop:
        """The host of all groups here, which these are given."""
        members = self.quorum_members
        running = HostLoop(
            HostIdentity(self.name, self.boot.count, Random()), store, runtime.turn, self.links,
            GroupOwnerDispatch(self.metadata, members, self, self.metadata.reads),
            clock=self.common_time, loop=self._loop, on_fatal=runtime.on_fatal,
        )  # fmt: skip
        self.metadata.log = HostedMetadataLog(running.host)
        members.host, members.force_single_member = running.host, running.force_single_member
        return running

    def _made_join(self, life: BootRecord) -> ClusterJoin:
        return ClusterJoin(
            life, self.config, self._registry, self.metadata,
            known_peers=self._known_peers, links=self.links, time=self.common_time,
            loop=self._loop, founders=self._founders,
        )  # fmt: skip

    def _founders(self) -> Founders:
        """The nodes that found a cluster with this one, once it founds one."""
        return self.formation.founders if METADATA_GROUP in self.running.host else {}

    @property
    def registered(self) -> Nodes:
        """The nodes that are let in, as far as this one knows."""
        return self._registry.entries

    def has_left_over(self, node: NodeId) -> bool:
        """True if anything counts on what a former node of this name knew.

        One that comes with an empty disk knows nothing of what that has voted for and agreed to.
        """
        return not self.membership.has_left(node) or self._queues_on(node) > 0

    def _made_membership(self, sender: LinkSender) -> MetadataMembership:
        return MetadataMembership(
            self.running.host, self.metadata, self._registry, sender, self._on_fatal,
            self.progress,
        )  # fmt: skip

    def _made_progress(self, life: BootRecord, store: Store) -> StorageProgress:
        """Urgent, before all that waits: the other node may have to end."""
        sender = LinkSender(
            self.links, FrameKind.PROGRESS, TrafficClass.URGENT, since=PROGRESS_SINCE
        )
        return StorageProgress(
            self.name, life.lives, store.disk, RememberedProgress(self._known_peers),
            incarnation=lambda: created_as(self.running.host), send=sender.send,
            on_put_back=self._on_fatal,
        )  # fmt: skip

    def _send_progress_for_ever(self) -> None:
        self.progress.look()
        self._progress_timer = self._loop.call_later(SEND_S, self._send_progress_for_ever)

    def _deciding(self) -> Collection[NodeId]:
        """On definitions, as far as is known: one that was let in may not have been started yet."""
        return {each.node for each in self.metadata_config.voters} or {self.name, *self.links.peers}

    def serve_requests(self, begin: Begin) -> None:
        """Answer the requests of other nodes, as `begin` reads them."""
        sender = LinkSender(self.links, FrameKind.RPC, TrafficClass.BULK)
        rpc_server = RpcServer(sender, self._loop, begin)
        self.rpc_client.on_asked = rpc_server.asked
        self.running.switch.link_listeners.append(rpc_server.link_changed)

    # What the host calls

    def judged(self, verdict: LivenessVerdict) -> None:
        self.absent.judged(verdict)
        if verdict.is_alive:
            self._queues.reconciling.look_soon(self._now_ms())
        self._loop.call_soon(self._look)

    def configured(self) -> None:
        """Clients wait until every node has what they declared: it hears of each commit at once."""
        self.running.host.group(METADATA_GROUP).raft.send_commits_at_once()
        self.membership.configured()
        self._queues.nodes_changed()

    def unknown(self, node: NodeId) -> None:
        """A node says that it has no metadata group."""
        self.membership.unknown(node)

    @property
    def leader(self) -> NodeId | None:
        """Leader of the metadata group if it can be reached: a node without a majority follows the
        last one on."""
        leader = self.metadata.leader
        return leader if leader is not None and self.view.is_here(leader) else None

    @property
    def metadata_config(self) -> Configuration:
        """The members of the metadata group, as far as this node knows."""
        host = self.running.host
        return (
            host.group(METADATA_GROUP).status.config if METADATA_GROUP in host else Configuration()
        )

    def _look_for_ever(self) -> None:
        """Try again regularly what may have become possible, such as refused changes of members."""
        self._look()
        self.formation.look()
        self._queues.reconciling.look(self._now_ms())
        self.room.look()
        self._looking = self._loop.call_later(LOOK_S, self._look_for_ever)

    def _look(self) -> None:
        """React to a change of the nodes that are known or alive."""
        self.membership.look()
        if self.join.is_over:
            self.majority.look()

    # Beginning

    def start(self) -> ListenAddress:
        """Take up what is on disk, and talk to the others; where they can dial.  StartFailed.

        Queues are not led here before all that is defined is known: until then their members do
        what leaders elsewhere ask, and stand for nothing.

        Raises `StorageError`.
        """
        lost = self.running.start(are_asleep=True)
        self.running.hasten(METADATA_GROUP)
        self.quorum_members.lose(lost)
        if METADATA_GROUP in lost:
            raise StartFailed(
                "the definitions of the cluster are damaged on this disk; have the cluster forget "
                "this node, and let it join anew with an empty --data-dir"
            )
        try:
            listening = self.links.listen(self.config.listen.host, self.config.listen.port)
        except OSError as error:
            raise cannot_listen("--cluster-listen", self.config.listen, error) from error
        self.formation = self._made_formation(listening)
        for node, known in self._known_peers.known.items():
            if known.address is not None:
                self.set_peer(node, known.address)
        for node, address in {**self.formation.founders, **self.config.peers}.items():
            self.set_peer(node, address)
        self.formation.start()
        self._look_for_ever()
        self._send_progress_for_ever()
        return listening

    def _made_formation(self, listening: ListenAddress) -> Formation:
        config, owned = self.config, self._kept.owned
        assert owned is not None, "a life has begun"
        address = config.peers.get(self.name, config.advertise)
        if address is None:
            is_any = config.listen.host in ANY_HOSTS
            address = ListenAddress("" if is_any else listening.host, listening.port)
        local = LocalClusterNode(self, self._kept)
        met = self._known_peers.known.items()
        known = {node: each.address for node, each in met if each.address is not None}
        promise = promise_of(
            owned, self.metadata_config, {**known, **config.peers, self.name: address}
        )
        formation = Formation(self.name, config.peers, address, promise, local)
        switch = self.running.switch
        switch.takers[FrameKind.FORMATION] = formation.receive
        switch.strangers = formation.strangers
        switch.link_listeners.insert(0, formation.link_changed)
        self.links.on_met = self._on_met
        return formation

    def _on_met(self, identity: LinkIdentity) -> None:
        self.formation.met(identity.node, mark_of(identity.cluster))
        self.running.link_accepted(identity.node)

    async def enter(self) -> None:
        """Return once all know that this node is here, and what they know is applied here."""
        await self.join.enter()
        self._on_registry()
        for _ in self.quorum_members.sweep():
            await asyncio.sleep(0)  # the others hear of this node meanwhile
        self.running.wake()
        self.formation.entered()
        event(
            logger, logging.INFO, "cluster_joined", cluster=self.config.name, boot=self.boot.count
        )

    # Who the others are

    def _on_registry(self) -> None:
        """Know the others as all know them.

        What is applied at first may be old: until this node has entered no node is forgotten.
        """
        others = {n: known for n, known in self._registry.entries.items() if n != self.name}
        for node, known in others.items():
            if node in self._known_peers.known and self._known_peers.id_of(node) != known.id:
                if not self.join.is_over:
                    continue  # one of the two is long gone, and it is unknown yet which
                if not self._is_joining(node):
                    self._forget(node)
            self.links.boots.learn(node, Boot(known.boot, known.nonce))
            self._known_peers.meet(node, known.address, known.id)
            self.set_peer(node, known.address)
        self._loop.call_soon(self.membership.look)
        if not self.join.is_over:
            return
        for node in self._known_peers.known.keys() - others.keys():
            if not self._is_joining(node):
                self._forget(node)
        if self.name not in self._registry.entries:
            self._on_fatal(NodeRemoved(f"node '{self.name}' was removed from the cluster"))

    def _is_joining(self, node: NodeId) -> bool:
        """True if a node is there that never was one of the cluster here.

        So what is known of it is of the life in which it is let in, and none of a former node.
        """
        known = self._known_peers.known.get(node)
        return known is not None and known.address is None and self.links.is_up(node)

    def _forget(self, node: NodeId) -> None:
        """Forget a node that was removed: one that comes under its name begins anew."""
        self._known_peers.forget(node)
        self.links.remove_peer(node)
        self.running.forget_node(node)
        self.common_time.forget(node)
        self.node_sessions.removed(node)

    def set_peer(self, node: NodeId, address: ListenAddress) -> None:
        """Have links with it, at the place in its options, if they name one."""
        if node != self.name:
            at = self.config.peers.get(node, address)
            self.links.set_peer(node, at.host, at.port)

    def reload(self) -> None:
        """Read the certificates of links again."""
        if self._certificates is not None:
            self._certificates.reload()

    # Ending

    async def hand_over(self) -> None:
        """Have others lead what is led here, as far as they can, before it ends."""
        numbers = await drain_leaderships(self.running.host, self.name, self.room.may_lead)
        event(logger, logging.INFO, "leadership_drained", **numbers._asdict())

    async def stop(self) -> None:
        """Have leaders know what was asked of them here, end all links, and do nothing any more."""
        if self.running.is_running:
            await await_settled_sessions(self.node_sessions.routes)
        self._stop_timers()
        self.running.stop()
        await self.links.stop()

    def cut_off(self) -> None:
        """Stop at once without a goodbye; `stop` is still to come."""
        self._stop_timers()
        self.running.stop()
        self.links.cut_off()

    def _stop_timers(self) -> None:
        for timer in (self._looking, self._progress_timer):
            if timer is not None:
                timer.cancel()


class NodeClusterView:
    """The `ClusterView` of a node of a cluster."""

    def __init__(self, cluster: ClusterService) -> None:
        self._cluster = cluster
        self.node = cluster.name
        self.boot = session_boot(cluster.boot)

    def is_here(self, node: NodeId) -> bool:
        """True if a node is this one, or seems to be alive."""
        return node == self.node or self._cluster.absent.is_alive(node)

    @property
    def metadata_config(self) -> Configuration:
        return self._cluster.metadata_config

    @property
    def incarnations(self) -> dict[NodeId, int]:
        nodes = self._cluster.registered
        members = self._cluster.metadata_config.members
        return {member.node: member.incarnation for member in members if member.node in nodes}

    @property
    def own_incarnation(self) -> int:
        return self._cluster.running.host.group(METADATA_GROUP).incarnation

    @property
    def metadata(self) -> ReplicatedMetadata:
        return self._cluster.metadata

    @property
    def revision(self) -> int:
        return CLUSTER_REVISIONS + self._cluster.metadata.revision

    def boot_of(self, node: NodeId) -> SessionBoot | None:
        boot = self._cluster.links.boots.latest(node)
        return session_boot(boot) if boot is not None else None

    def is_alive(self, node: NodeId) -> bool:
        return self._cluster.absent.is_alive(node)

    def may_lead(self, node: NodeId) -> bool:
        return self._cluster.room.may_lead(node)

    def is_not_running(self, node: NodeId) -> bool:
        """True if its host has said so last.  Nor is any node where this one was when alone."""
        return node == LONE or self._cluster.links.is_not_running(node)

    def speaks(self, node: NodeId) -> int:
        return self._cluster.links.speaks.get(node, 0)

    def reads_of(self, node: NodeId) -> int:
        return self._cluster.links.reads.get(node, 0)

    def hasten(self, queue: QueueId) -> None:
        self._cluster.running.hasten(queue)


class LocalClusterNode:
    """The `LocalNode` of a daemon."""

    def __init__(self, cluster: ClusterService, kept: NodeIdentity) -> None:
        self._cluster = cluster
        self._kept = kept

    @property
    def is_begun(self) -> bool:
        return begun_as(self._cluster.running.host) > 0

    @property
    def members(self) -> Founders | None:
        if not self._cluster.join.is_over:
            return None
        return {node: known.address for node, known in self._cluster.registered.items()}

    def is_founder(self, node: NodeId) -> bool:
        member = self._cluster.metadata_config.member_on(node)
        return member is not None and member.incarnation == FOUNDED_AS

    @property
    def linked(self) -> Collection[NodeId]:
        links = self._cluster.links
        spoken = links.speaks.items()
        return [node for node, speaks in spoken if speaks >= FORMATION_SINCE and links.is_up(node)]

    @property
    def marks_nearby(self) -> Collection[str]:
        links = self._cluster.links
        hindrances = map(links.hindrance, links.peers)
        if any(each is not None and each.is_remembered for each in hindrances):
            return {UNKNOWN_MARK}
        return {mark_of(each.cluster) for each in links.heard if each.is_begun}

    def send(self, node: NodeId, payload: bytes) -> None:
        links = self._cluster.links
        if links.speaks.get(node, 0) >= FORMATION_SINCE:
            links.send(node, FrameKind.FORMATION, payload, traffic=TrafficClass.URGENT)

    def draw_mark(self) -> str:
        return secrets.token_hex(MARK_LETTERS // 2)

    def keep(self, promise: Promise, done: Callable[[], None]) -> None:
        owned = self._kept.owned
        assert owned is not None, "the life that goes on is on disk"
        cluster = self._cluster
        name = marked(cluster.config.name, promise.mark)
        founders = tuple((node, at.host, at.port) for node, at in promise.founders.items())

        def kept() -> None:
            if cluster.running.is_running:
                cluster.links.cluster = name
                done()

        owned = owned._replace(cluster=name, founders=founders, left=promise.left)
        self._kept.put(owned, kept)

    def go_by(self, promise: Promise) -> None:
        """See `LocalNode.go_by`.  The leader tells a node that joins as which member it may begin,
        and that begins without a configuration.  A group that has a configuration and no entry is
        of a founding that came to nothing."""
        host = self._cluster.running.host
        voters = {member.node for member in self._cluster.metadata_config.voters}
        is_there = METADATA_GROUP in host
        if is_there and voters and voters != set(promise.founders) and not self.is_begun:
            host.delete(METADATA_GROUP)
            is_there = False
        if promise.founders and not is_there and self._cluster.progress.may_begin_as(FOUNDED_AS):
            host.create(METADATA_GROUP, FOUNDED_AS, Configuration.initial(promise.founders))
            self._cluster.running.hasten(METADATA_GROUP)
        self._cluster.join.look_again()

    def reach(self, node: NodeId, address: ListenAddress) -> None:
        if node not in self._cluster.links.peers:
            self._cluster.set_peer(node, address)

    def admit(self, node: NodeId, address: ListenAddress) -> None:
        cluster = self._cluster
        host = address.host or cluster.links.hosts.get(node, "")
        if cluster.config.admit and host:
            cluster.admission.admit(node, ListenAddress(host, address.port))
