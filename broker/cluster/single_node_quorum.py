"""`SingleNodeQuorum`: the quorum queues of a node that is alone, which is a cluster of one.

    channels --> edges --> leaders, all of them here --> host --> the node's store

The same classes as in a cluster, without links, and without a group of definitions: those are the
node's own.  It is made when the first quorum queue is declared or found on disk, and not before.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from random import Random

from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.host_loop import HostIdentity, RunningHost
from fluffle.broker.cluster.links.handshake import COUNTS_SINCE
from fluffle.broker.cluster.links.identity import BOOT_NONCE_BYTES, Boot
from fluffle.broker.cluster.ports import FrameKind, OnFrame, OnLink, Payload, TrafficClass
from fluffle.broker.cluster.queue_sessions.messages import Boot as SessionBoot
from fluffle.broker.cluster.queues.pending_replies import Deletions
from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.cluster.queues.quorum_member import QuorumServices
from fluffle.broker.cluster.queues.quorum_queues import QuorumMembers, QuorumQueues, sweep_all
from fluffle.broker.cluster.queues.session_router import SessionRouter, session_boot
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.durability.definitions.known_peers import KnownPeer, KnownPeers
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.metadata.read_barrier import LOCAL_READ_BARRIER
from fluffle.broker.queues.quorum.encoding import VERSION
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.runtime.timers import QueueTiming
from fluffle.raft.config import NodeId
from fluffle.storage.store import Store

LONE: NodeId = "this node"
"""The only member of each queue.  A node that is alone may be given another name at any start; this
one, with a space in it, is no node's of a cluster."""

LIVES: Mapping[NodeId, int] = {LONE: 1}


class NoLinks:
    """The port `Links` where there is nobody else."""

    on_frame: OnFrame
    on_link: OnLink

    def send(self, node: NodeId, kind: FrameKind, payload: Payload, *, lane: TrafficClass) -> None:
        """It is dropped, as where a link is down."""

    def is_up(self, node: NodeId) -> bool:
        del node
        return False

    def waiting_bytes(self, node: NodeId, lane: TrafficClass) -> int:
        del node, lane
        return 0


class SingleNodeView:
    """The `ClusterView` of a node that is alone."""

    __slots__ = ("boot", "metadata", "running")

    node = LONE
    incarnations = LIVES
    own_incarnation = LIVES[LONE]
    revision = None

    def __init__(self, boot: SessionBoot) -> None:
        self.boot = boot
        self.running: RunningHost
        self.metadata: Metadata
        """Both are set before it starts."""

    def boot_of(self, _node: NodeId) -> None:
        """Nobody else is there."""

    def is_alive(self, _node: NodeId) -> bool:
        return False

    def may_lead(self, _node: NodeId) -> bool:
        return False

    def is_nobody_there(self, _node: NodeId) -> bool:
        return False

    def speaks(self, _node: NodeId) -> int:
        return COUNTS_SINCE

    def reads_of(self, _node: NodeId) -> int:
        return VERSION

    def hasten(self, queue: QueueId) -> None:
        self.running.hasten(queue)


class SingleNodeQuorum:
    """Made and used in the thread of a running event loop.  `start` comes before clients do, and
    `stop` before the store is closed."""

    name = LONE

    __slots__ = ("hosting", "hub", "queues", "running", "view")

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        known_peers: KnownPeers,
        *,
        services: QuorumServices,
        aging: QueueTiming,
    ) -> None:
        """A life begins: what it writes is on disk no sooner than its number.

        `known_peers` remember in which life the node itself was last, too.
        """
        loop = asyncio.get_running_loop()
        known = known_peers.known.get(LONE, KnownPeer())
        boot = Boot(known.boot + 1, secrets.token_bytes(BOOT_NONCE_BYTES))
        known_peers.lives(LONE, boot.count, boot.nonce)
        links, time = NoLinks(), CommonTime(LONE, runtime.clock, lambda: {LONE})
        self.view = view = SingleNodeView(session_boot(boot))
        self.hub = SessionRouter(SessionTransport(view, links, runtime.turn, loop, runtime.clock))
        self.hosting = QuorumMembers(self.hub, view, time, loop, aging=aging, services=services)
        self.queues = QuorumQueues(LONE, secrets.randbits, services)
        """Makes them."""
        self.queues.connect(self.hosting, Deletions(LOCAL_READ_BARRIER, {}))
        self.running = RunningHost(
            HostIdentity(LONE, boot.count, Random()), store, runtime.turn, links,
            self.hosting, clock=time, loop=loop, on_fatal=runtime.on_fatal,
        )  # fmt: skip
        view.running = self.running
        self.hosting.host = self.running.host
        self.hosting.force_single_member = self.running.force_single_member
        self.running.before.append(self.hub.before_consensus)
        self.running.after.append(self.hub.after_consensus)

    def start(self, metadata: Metadata) -> None:
        """Take up what is on disk of the queues that are defined, and of no others.

        Raises `StorageError`.
        """
        self.view.metadata = metadata
        self.hosting.lose(self.running.start())
        sweep_all(self.hosting)
        for group, hosted in self.running.host.groups.items():
            if hosted.status.is_quarantined:
                self.hosting.damaged(group, hosted.status.floor, "since earlier")
