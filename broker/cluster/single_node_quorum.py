"""`SingleNodeQuorum`: the quorum queues of a node that is alone, which is a cluster of one.

    channels --> edges --> leaders, all of them here --> host --> the node's store

The same classes as in a cluster, without links, and without a group of definitions: those are the
node's own.  It is made when the first quorum queue is declared or found on disk, and not before.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from random import Random
from typing import NamedTuple

from fluffle.broker.base.clock import Clock
from fluffle.broker.cluster.common_time import CommonTime
from fluffle.broker.cluster.group_owner import log_refused
from fluffle.broker.cluster.host_loop import HostIdentity, RunningHost
from fluffle.broker.cluster.links.identity import BOOT_NONCE_BYTES, Boot
from fluffle.broker.cluster.msgpack_parts import Payload
from fluffle.broker.cluster.ports import FrameKind, OnFrame, OnLink, TrafficClass
from fluffle.broker.cluster.queues.deletions import Deletions
from fluffle.broker.cluster.queues.ports import QueueId
from fluffle.broker.cluster.queues.quorum_members import QuorumMembers, sweep_all
from fluffle.broker.cluster.queues.quorum_members import (
    QuorumMembersEnvironment as HostingSurroundings,
)
from fluffle.broker.cluster.queues.quorum_queues import QuorumQueues, QuorumQueuesEnvironment
from fluffle.broker.cluster.queues.session_router import RouterEnvironment as HubSurroundings
from fluffle.broker.cluster.queues.session_router import SessionRouter, session_boot
from fluffle.broker.config.config import QuorumConfig
from fluffle.broker.durability.definitions.known_peers import KnownPeer, KnownPeers
from fluffle.broker.metadata.metadata import Decide
from fluffle.broker.metadata.read_barrier import LOCAL_READ_BARRIER
from fluffle.broker.queues.dead_letter_port import DeadLetterFrom
from fluffle.broker.queues.deduplication import OnDuplicates
from fluffle.broker.queues.settings import SettingsFrom
from fluffle.broker.runtime.timers import QueueTiming
from fluffle.broker.runtime.turn import Turn
from fluffle.raft.config import NodeId
from fluffle.storage.store import Store

LONE: NodeId = "this node"
"""The only member of each queue.  A node that is alone may be given another name at any start; this
one, with a space in it, is no node's of a cluster."""

LIVES: Mapping[NodeId, int] = {LONE: 1}


class SingleNodeEnvironment(NamedTuple):
    """The parts of a node that its own quorum queues use."""

    store: Store
    turn: Turn
    clock: Clock
    known_peers: KnownPeers
    """Which remember in which life the node itself was last, too."""
    settle: Callable[[Decide, Callable[[], None]], None]
    """Has definitions changed."""
    dead_letter: DeadLetterFrom
    on_duplicates: OnDuplicates
    aging: QueueTiming
    settings: SettingsFrom
    config: QuorumConfig
    on_fatal: Callable[[Exception], None]


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


class SingleNodeQuorum:
    """Made and used in the thread of a running event loop.  `start` comes before clients do, and
    `stop` before the store is closed."""

    name = LONE

    __slots__ = ("hosting", "hub", "queues", "running")

    def __init__(self, around: SingleNodeEnvironment) -> None:
        """A life begins: what it writes is on disk no sooner than its number."""
        loop = asyncio.get_running_loop()
        known = around.known_peers.known.get(LONE, KnownPeer())
        boot = Boot(known.boot + 1, secrets.token_bytes(BOOT_NONCE_BYTES))
        around.known_peers.lives(LONE, boot.count, boot.nonce)
        links, time = NoLinks(), CommonTime(LONE, around.clock, lambda: {LONE})
        self.hub = SessionRouter(
            HubSurroundings(
                node=LONE,
                boot=session_boot(boot),
                links=links,
                boot_of=lambda _node: None,
                touch=around.turn.touch_consensus,
                call_later=loop.call_later,
                clock=around.clock,
                refused=log_refused,
                hasten=self._hasten,
            )
        )
        self.hosting = QuorumMembers(
            HostingSurroundings(
                node=LONE,
                boot=session_boot(boot),
                hub=self.hub,
                clock=time,
                call_later=loop.call_later,
                life=lambda: LIVES[LONE],
                dead_letter=around.dead_letter,
                aging=around.aging,
                settings=around.settings,
                dead_letter_patience_ms=around.config.dead_letter_timeout_s * 1_000,
                consumer_timeout_ms=around.config.consumer_timeout_ms,
                on_duplicates=around.on_duplicates,
            )
        )
        self.queues = QuorumQueues(LONE, secrets.randbits, around.dead_letter, around.config)
        """Makes them."""
        reach = QuorumQueuesEnvironment(
            self.hub, self.hosting, lambda: LIVES, lambda _node: False, lambda _node: False,
            around.settle, loop.call_later, Deletions(LOCAL_READ_BARRIER, {}),
        )  # fmt: skip
        self.queues.connect(reach)
        self.running = RunningHost(
            HostIdentity(LONE, boot.count, Random()), around.store, around.turn, links,
            self.hosting, clock=time, loop=loop, on_fatal=around.on_fatal,
        )  # fmt: skip
        self.hosting.host = self.running.host
        self.hosting.force_single_member = self.running.force_single_member
        self.running.before.append(self.hub.before_consensus)
        self.running.after.append(self.hub.after_consensus)

    def _hasten(self, queue: QueueId) -> None:
        self.running.hasten(queue)

    def start(self) -> None:
        """Take up what is on disk of the queues that are defined, and of no others.

        Raises `StorageError`.
        """
        self.hosting.lose(self.running.start())
        sweep_all(self.hosting)
        for group, hosted in self.running.host.groups.items():
            if hosted.status.is_quarantined:
                self.hosting.damaged(group, hosted.status.floor, "since earlier")
