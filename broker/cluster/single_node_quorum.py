"""`SingleNodeQuorum`: the quorum queues of a node that is alone, which is a cluster of one.

    channels --> sessions --> leaders, all of them here --> host --> the node's store

The same classes as in a cluster, without links, and without a group of definitions: those are the
node's own.  It is made when the first quorum queue is declared or found on disk, and not before.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from random import Random

from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.links.handshake import COUNTS_SINCE
from fluffle.broker.cluster.links.identity import BOOT_NONCE_BYTES, Boot
from fluffle.broker.cluster.ports import LONE, FrameKind, OnFrame, OnLink, Payload, TrafficClass
from fluffle.broker.cluster.queues.node_sessions import NodeSessions, session_boot
from fluffle.broker.cluster.queues.pending_replies import Deletions
from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.cluster.queues.quorum_member import QuorumServices
from fluffle.broker.cluster.queues.quorum_members import QuorumMembers, sweep_all
from fluffle.broker.cluster.queues.quorum_queues import QuorumQueues
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.cluster.raft_host import HostIdentity, HostLoop
from fluffle.broker.durability.node_identity import KnownPeer
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER, Metadata
from fluffle.broker.node_services import NodeServices
from fluffle.broker.queues.quorum.entry_codec import VERSION
from fluffle.broker.queues.quorum.messages import SessionBoot
from fluffle.raft.config import NodeId

LIVES: Mapping[NodeId, int] = {LONE: 1}


class NoLinks:
    """Port `Links` of a node without others."""

    on_frame: OnFrame
    on_link: OnLink

    def send(
        self, node: NodeId, kind: FrameKind, payload: Payload, *, traffic: TrafficClass
    ) -> None:
        """Drop the frame, as where a link is down."""

    def is_up(self, node: NodeId) -> bool:
        del node
        return False

    def waiting_bytes(self, node: NodeId, traffic: TrafficClass) -> int:
        del node, traffic
        return 0


class SingleNodeView:
    """The `ClusterView` of a node that is alone."""

    node = LONE
    incarnations = LIVES
    own_incarnation = LIVES[LONE]
    revision = None

    def __init__(self, boot: SessionBoot) -> None:
        self.boot = boot
        self.running: HostLoop
        self.metadata: Metadata
        """Both are set before it starts."""

    def boot_of(self, _node: NodeId) -> None:
        """Boot of another node: there is none."""

    def is_alive(self, _node: NodeId) -> bool:
        return False

    def may_lead(self, _node: NodeId) -> bool:
        return False

    def is_not_running(self, _node: NodeId) -> bool:
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

    def __init__(self, services: NodeServices) -> None:
        """A life begins: what it writes is on disk no sooner than its number.

        Known peers remember in which life the node itself was last, too.
        """
        runtime, durability = services.runtime, services.durability
        known_peers = durability.known_peers
        quorum_services = QuorumServices(
            services.dead_letter, services.settings, runtime.traffic, services.config.quorum
        )
        loop = asyncio.get_running_loop()
        known = known_peers.known.get(LONE, KnownPeer())
        boot = Boot(known.boot + 1, secrets.token_bytes(BOOT_NONCE_BYTES))
        known_peers.lives(LONE, boot.count, boot.nonce)
        links, time = NoLinks(), CommonTime(LONE, runtime.clock, lambda: {LONE})
        self.view = view = SingleNodeView(session_boot(boot))
        transport = SessionTransport(view, links, runtime.turn, loop, runtime.clock)
        self.node_sessions = NodeSessions(transport)
        self.quorum_members = QuorumMembers(
            self.node_sessions, view, time, loop, aging=services.aging, services=quorum_services
        )
        self.queues = QuorumQueues(LONE, secrets.randbits, quorum_services)
        """Makes them."""
        self.queues.connect(self.quorum_members, Deletions(LOCAL_READ_BARRIER, {}))
        self.running = HostLoop(
            HostIdentity(LONE, boot.count, Random()), durability.store, runtime.turn, links,
            self.quorum_members, clock=time, loop=loop, on_fatal=runtime.on_fatal,
        )  # fmt: skip
        view.running = self.running
        self.quorum_members.host = self.running.host
        self.quorum_members.force_single_member = self.running.force_single_member
        self.running.before.append(self.node_sessions.before_consensus)
        self.running.after.append(self.node_sessions.after_consensus)

    def start(self, metadata: Metadata) -> None:
        """Take up what is on disk of the queues that are defined, and of no others.

        Raises `StorageError`.
        """
        self.view.metadata = metadata
        self.quorum_members.lose(self.running.start())
        sweep_all(self.quorum_members)
        for group, hosted in self.running.host.groups.items():
            if hosted.status.is_quarantined:
                self.quorum_members.damaged(group, hosted.status.floor, "since earlier")
