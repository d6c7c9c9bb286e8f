"""`Cluster`: what makes a node one of several, composed; and how it comes to be one of them.

    links <--> switch --+--> host --> metadata group --> catalogue, registry
                        +--> metadata: proposals of other nodes

A start goes so: `start` takes up what is on disk and lets others dial; `enter` returns once all
know in which life this node is.  Since that is applied here then, so is whatever was agreed on
before it.  `stop` comes before the store is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from fluffle.broker.awaiting import answer_of
from fluffle.broker.clock import Clock
from fluffle.broker.cluster.absent import Absent
from fluffle.broker.cluster.everywhere import Everywhere
from fluffle.broker.cluster.everywhere import Ports as EverywherePorts
from fluffle.broker.cluster.handing_over import hand_over
from fluffle.broker.cluster.links.identity import Boot, Boots
from fluffle.broker.cluster.links.links import ClusterLinks
from fluffle.broker.cluster.links.tls import LinkCertificates
from fluffle.broker.cluster.lives import Life
from fluffle.broker.cluster.lone import LONE
from fluffle.broker.cluster.membership import Membership
from fluffle.broker.cluster.metadata import Ports, ReplicatedMetadata
from fluffle.broker.cluster.owner import METADATA_GROUP, Owners, log_refused
from fluffle.broker.cluster.ports import FrameKind, Lane
from fluffle.broker.cluster.queues.extents import Extents
from fluffle.broker.cluster.queues.hosting import Hosting
from fluffle.broker.cluster.queues.hosting import Surroundings as HostingSurroundings
from fluffle.broker.cluster.queues.hub import StreamHub, stream_boot
from fluffle.broker.cluster.queues.hub import Surroundings as HubSurroundings
from fluffle.broker.cluster.queues.making import QuorumQueues, Reach
from fluffle.broker.cluster.room import Ports as RoomPorts
from fluffle.broker.cluster.room import Room
from fluffle.broker.cluster.running import Identity, RunningHost, Surroundings
from fluffle.broker.cluster.sightings import Sightings
from fluffle.broker.cluster.streams.messages import Boot as StreamBoot
from fluffle.broker.config import ClusterConfig, ListenAddress
from fluffle.broker.errors import BrokerError
from fluffle.broker.logs import event
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.changing import Apply, Decide
from fluffle.broker.metadata.nodes import Registered, Registry, enter, found
from fluffle.broker.recording.acquaintances import Acquaintances
from fluffle.broker.starting import StartFailed, cannot_listen
from fluffle.broker.turn import Turn
from fluffle.raft.config import Config, NodeId
from fluffle.raft.output import Verdict
from fluffle.storage.store import Store

LOOK_S = 1.0
"""Between two looks whether the members of the metadata group are the nodes of the cluster."""

PATIENCE_S = 10.0
"""Who waits for the others says so after this, and again each time it has passed."""

logger = logging.getLogger(__name__)


class Removed(Exception):
    """This node is none of the cluster any more, and must end."""


class Around(NamedTuple):
    """The rest of the node."""

    store: Store
    turn: Turn
    clock: Clock
    apply: Apply
    """Does what all have agreed on."""
    registry: Registry
    """In which what is applied puts the nodes."""
    acquaintances: Acquaintances
    queues: QuorumQueues
    """Makes what is replicated; it is given what it makes that with."""
    on_fatal: Callable[[Exception], None]


class Cluster:
    """Made and used in the thread of a running event loop."""

    __slots__ = (
        "_acquaintances", "_certificates", "_looking", "_loop", "_now_ms", "_on_fatal", "_past",
        "_queues", "_registry", "_waiting", "absent", "boot", "config", "everywhere", "extents",
        "has_entered", "hosting", "hub", "links", "membership", "metadata", "name", "room",
        "running", "sightings",
    )  # fmt: skip

    def __init__(self, life: Life, config: ClusterConfig, around: Around) -> None:
        """`life` is on disk before it starts.  StartFailed."""
        self.name = name = life.identity.node
        self.config = config
        self.boot = boot = life.identity.boot
        self._registry = around.registry
        self._acquaintances = around.acquaintances
        self._loop = loop = asyncio.get_running_loop()
        self._now_ms = around.clock.now_ms
        self.has_entered = False
        """Whether what is known of the nodes here is not older than this life."""
        self._certificates: LinkCertificates | None = None
        self._waiting: asyncio.TimerHandle
        """Until it says that it still waits."""
        self._past = life.lives
        self.links = self._made_links(life)
        self.absent = Absent(around.clock.now_ms, self.links.is_nobody_there)
        self.sightings = Sightings(self.absent, self._send_sighting, loop.call_later)
        ports = Ports(
            propose=lambda payload, on_fate: self.running.host.group(METADATA_GROUP).propose(
                payload, on_fate
            ),
            send=self._send_proposals,
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            now_ms=around.clock.now_ms,
        )
        self.metadata = ReplicatedMetadata(name, boot.count, around.apply, ports)
        self.everywhere = Everywhere(
            self.metadata,
            EverywherePorts(self._send_revision, loop.call_soon, loop.call_later, log_refused),
        )
        self.hub = self._made_hub(around)
        self.hosting = self._made_hosting(around)
        self._queues = around.queues
        surroundings = Surroundings(
            store=around.store,
            turn=around.turn,
            links=self.links,
            owner=Owners(self.metadata, self.hosting, self),
            clock=around.clock,
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            on_fatal=around.on_fatal,
        )
        self.running = RunningHost(Identity(name, boot.count, Random()), surroundings)
        self.hosting.host = self.running.host
        self.hosting.go_on_alone = self.running.go_on_alone
        self.extents = Extents(name, self.running.host, self._send_question, loop.call_later)
        self.running.before.append(self.hub.before_consensus)
        self.running.after.append(self.hub.after_consensus)
        self.room = self._made_room()
        self.membership = Membership(
            self.running.host, self.metadata, around.registry, self._send_membership
        )
        self._connect()
        self._on_fatal = around.on_fatal
        self._looking: asyncio.TimerHandle | None = None
        around.registry.listeners.append(self._on_registry)

    def _connect(self) -> None:
        """Give each kind of frame to who takes it."""
        switch = self.running.switch
        switch.takers[FrameKind.METADATA] = self.metadata.receive
        switch.takers[FrameKind.REVISION] = self.everywhere.receive
        switch.takers[FrameKind.STREAM] = self.hub.receive
        switch.takers[FrameKind.QUESTION] = self.hub.receive_question
        switch.takers[FrameKind.MEMBERSHIP] = self.membership.receive
        switch.takers[FrameKind.EXTENT] = self.extents.receive
        switch.takers[FrameKind.ROOM] = self.room.receive
        switch.takers[FrameKind.SIGHTING] = self.sightings.receive
        switch.link_listeners += [
            self.metadata.link_changed, self.everywhere.link_changed, self.hub.link_changed,
            self.room.link_changed,
        ]  # fmt: skip

    def _made_links(self, life: Life) -> ClusterLinks:
        config = self.config
        if config.tls_cert is not None:
            self._certificates = LinkCertificates(config.tls_cert, config.tls_key, config.tls_ca)
        known = self._acquaintances.known.items()
        boots = Boots(
            {node: Boot(each.boot, each.nonce) for node, each in known if each.boot},
            lambda node, boot: self._acquaintances.lives(node, boot.count, boot.nonce),
        )
        try:
            return ClusterLinks(
                life.identity, config.secret, certificates=self._certificates, boots=boots,
                lives=life.lives,
            )  # fmt: skip
        except ValueError as error:
            raise StartFailed(f"this node cannot have links ({error})") from error

    def _made_room(self) -> Room:
        ports = RoomPorts(
            self.name, self.running.host, self.absent.is_alive, self._send_room, self._tell_room
        )
        return Room(ports)

    def _made_hub(self, around: Around) -> StreamHub:
        def boot_of(node: NodeId) -> StreamBoot | None:
            boot = self.links.boots.latest(node)
            return stream_boot(boot) if boot is not None else None

        surroundings = HubSurroundings(
            node=self.name,
            boot=stream_boot(self.boot),
            links=self.links,
            boot_of=boot_of,
            touch=around.turn.touch_consensus,
            call_later=self._loop.call_later,
            clock=around.clock,
            refused=log_refused,
            is_nobody_there=self._is_nobody_there,
        )
        return StreamHub(surroundings)

    def _is_nobody_there(self, node: NodeId) -> bool:
        """Whether its host has said so last.  Nor is anybody where this node was when alone."""
        return node == LONE or self.links.is_nobody_there(node)

    def _made_hosting(self, around: Around) -> Hosting:
        """What makes queues is given what it makes them with."""
        call_later = self._loop.call_later
        surroundings = HostingSurroundings(
            node=self.name,
            boot=stream_boot(self.boot),
            hub=self.hub,
            clock=around.clock,
            call_later=call_later,
            life=self._life,
            dead_letter=around.queues.dead_letter,
        )
        hosting = Hosting(surroundings)
        around.queues.connect(
            Reach(
                self.hub, hosting, self._lives, self.absent.is_alive, self.metadata.settle,
                call_later,
            )
        )  # fmt: skip
        return hosting

    def _lives(self) -> dict[NodeId, int]:
        """The nodes of the cluster, each in its incarnation there."""
        return {member.node: member.incarnation for member in self.metadata_config.members}

    def _life(self) -> int:
        """That of this node."""
        return self.running.host.group(METADATA_GROUP).incarnation

    def _send_proposals(self, node: NodeId, payload: bytes) -> None:
        self.links.send(node, FrameKind.METADATA, payload, lane=Lane.NORMAL)

    def _send_question(self, node: NodeId, payload: bytes) -> None:
        self.links.send(node, FrameKind.EXTENT, payload, lane=Lane.NORMAL)

    def _send_room(self, node: NodeId, payload: bytes) -> None:
        self.links.send(node, FrameKind.ROOM, payload, lane=Lane.NORMAL)

    def _send_sighting(self, node: NodeId, payload: bytes) -> None:
        self.links.send(node, FrameKind.SIGHTING, payload, lane=Lane.NORMAL)

    def _tell_room(self, payload: bytes) -> None:
        for node in self.links.peers:
            self._send_room(node, payload)

    def _send_membership(self, node: NodeId, payload: bytes) -> None:
        self.links.send(node, FrameKind.MEMBERSHIP, payload, lane=Lane.NORMAL)

    # What the host tells of nodes

    def judged(self, verdict: Verdict) -> None:
        self.absent.judged(verdict)
        if verdict.is_alive:
            self._queues.reconciling.look_soon(self._now_ms())
        self._loop.call_soon(self.membership.look)

    def configured(self) -> None:
        """Clients wait until every node has what they declared: it hears of each commit at once."""
        self.running.host.group(METADATA_GROUP).raft.tell_commits_at_once()
        self.membership.configured()
        self._queues.nodes_changed()

    def unknown(self, node: NodeId) -> None:
        """A node says that it has no metadata group."""
        self.membership.unknown(node)

    @property
    def leader(self) -> NodeId | None:
        """Of the definitions, if it is there: who has no majority follows the last one on."""
        leader = self.metadata.leader
        is_there = leader == self.name or (leader is not None and self.absent.is_alive(leader))
        return leader if is_there else None

    @property
    def metadata_config(self) -> Config:
        """The members of the metadata group, as far as this node knows."""
        host = self.running.host
        if METADATA_GROUP not in host:
            return Config()
        return host.group(METADATA_GROUP).status.config

    def _look_for_ever(self) -> None:
        """What was refused to a change of members may be possible now."""
        self.membership.look()
        self._queues.reconciling.look(self._now_ms())
        self.room.look()
        self._looking = self._loop.call_later(LOOK_S, self._look_for_ever)

    def _send_revision(self, node: NodeId, payload: bytes) -> None:
        self.links.send(node, FrameKind.REVISION, payload, lane=Lane.NORMAL)

    # Beginning

    def start(self) -> ListenAddress:
        """Take up what is on disk, and talk to the others; where they can dial.  StartFailed.

        Raises `StorageError`.
        """
        host = self.running.host
        lost = self.running.start()
        self.hosting.lose(lost)
        if METADATA_GROUP in lost:
            raise StartFailed(
                "the definitions of the cluster are damaged on this disk; have the cluster forget "
                "this node, and let it join anew with an empty --data-dir"
            )
        founders = self.config.peers
        if METADATA_GROUP not in host and self.name in founders:
            host.create(METADATA_GROUP, 1, Config.initial(founders))
        try:
            listening = self.links.listen(self.config.listen.host, self.config.listen.port)
        except OSError as error:
            raise cannot_listen("--cluster-listen", self.config.listen, error) from error
        for node, known in self._acquaintances.known.items():
            if known.address is not None:
                self._set_peer(node, known.address)
        for node, address in founders.items():
            self._set_peer(node, address)
        self._look_for_ever()
        return listening

    async def enter(self) -> None:
        """Return once all know that this node is here, and what they know is applied here."""
        self._waiting = self._loop.call_later(PATIENCE_S, self._say_that_it_waits)
        try:
            await self._entered()
        finally:
            self._waiting.cancel()
        self.has_entered = True
        self._on_registry()
        self.hosting.sweep()
        event(logger, logging.INFO, "entered", cluster=self.config.name, boot=self.boot.count)

    async def _entered(self) -> None:
        registry, is_heard = self._registry, asyncio.Event()
        registry.listeners.append(is_heard.set)
        try:
            while not self._is_entered:
                is_heard.clear()
                if self._may_enter:
                    await self._try(self._enter)
                else:
                    await is_heard.wait()
        finally:
            registry.listeners.remove(is_heard.set)

    @property
    def _is_entered(self) -> bool:
        known = self._registry.entries.get(self.name)
        return known is not None and Boot(known.boot, known.nonce) == self.boot

    @property
    def _may_enter(self) -> bool:
        """Whether there is something to propose; else what is known here has to change first."""
        nodes = self._registry.entries
        if not nodes:
            return self.name in self.config.peers
        return self.name in nodes and self._remembers(nodes[self.name])

    def _remembers(self, known: Registered) -> bool:
        """Whether this disk is the one of the node that all know: later lives may have gone on."""
        return known.boot == 0 or self._past.remember(Boot(known.boot, known.nonce))

    def _enter(self) -> Change:
        """Found the cluster, unless somebody has; else say in which life this node is."""
        founding = found(self._registry.entries, self.config.peers)
        if not founding.changes_nothing:
            return founding
        return enter(self._registry.entries, self.name, self.boot.count, self.boot.nonce)

    async def _try(self, decide: Decide) -> None:
        """Have a change made; if it cannot be in time, that is for whoever tries again to see."""

        def ask(answer: Callable[[BrokerError | None], None]) -> None:
            self.metadata.change(decide, lambda: answer(None), answer)

        error = await answer_of(ask)
        if error is not None:
            event(logger, logging.WARNING, "not_entered_yet", reason=error.explanation)

    def _say_that_it_waits(self) -> None:
        names = {*self.config.peers, *self._acquaintances.known} - {self.name}
        linked = sorted(name for name in names if self.links.is_up(name))
        known = self._registry.entries.get(self.name)
        advice = "start the other nodes, and look why there is no link to them"
        if known is None and self.name not in self.config.peers:
            advice = f"let it in: on another node, `fluffle cluster add {self.name}=HOST:PORT`"
        elif known is not None and not self._remembers(known):
            advice = (
                f"the cluster has seen start {known.boot} of this node, which its disk does not "
                "remember: it was wiped or rolled back; have the cluster forget it, and let it "
                "join anew with an empty --data-dir"
            )
        event(
            logger, logging.WARNING, "waiting_for_cluster",
            linked=",".join(linked) or "none", of=",".join(sorted(names)), advice=advice,
        )  # fmt: skip
        self._waiting = self._loop.call_later(PATIENCE_S, self._say_that_it_waits)

    # Who the others are

    def _on_registry(self) -> None:
        """Know the others as all know them.

        What is applied at first may be old: until this node has entered nobody is forgotten.
        """
        others = {n: known for n, known in self._registry.entries.items() if n != self.name}
        for node, known in others.items():
            if node in self._acquaintances.known and self._acquaintances.id_of(node) != known.id:
                if not self.has_entered:
                    continue  # one of the two is long gone, and nobody knows yet which
                self._forget(node)
            self.links.learn(node, Boot(known.boot, known.nonce))
            self._acquaintances.meet(node, known.address, known.id)
            self._set_peer(node, known.address)
        self._loop.call_soon(self.membership.look)
        if not self.has_entered:
            return
        for node in self._acquaintances.known.keys() - others.keys():
            self._forget(node)
        if self.name not in self._registry.entries:
            self._on_fatal(Removed(f"node '{self.name}' was removed from the cluster"))

    def _forget(self, node: NodeId) -> None:
        """Whoever comes under this name begins anew."""
        self._acquaintances.forget(node)
        self.links.remove_peer(node)
        self.running.forget_node(node)
        self.hub.removed(node)

    def _set_peer(self, node: NodeId, address: ListenAddress) -> None:
        """Have links with it, at the place that this node was told, if it was."""
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
        left = await hand_over(self.running.host, self.name, self.room.may_lead)
        event(logger, logging.INFO, "handed_over", left=left)

    async def stop(self) -> None:
        """End all links, and do nothing any more."""
        if self._looking is not None:
            self._looking.cancel()
        self.running.stop()
        await self.links.stop()

    def cut_off(self) -> None:
        """The same without a word to anybody; `stop` is still to come."""
        if self._looking is not None:
            self._looking.cancel()
        self.running.stop()
        self.links.cut_off()
