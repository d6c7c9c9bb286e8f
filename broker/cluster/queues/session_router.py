"""Router between the sessions of this node, the queues led here, and the other nodes.

    channels --> edges --+--> leaders here  --> consensus
                         |                          |
    frames of others <---+---- what leaders say <---+

What stays on this node is passed on as it is; only what leaves it becomes bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fluffle.broker.base.clock import Clock
from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.links.handshake import COUNTS_SINCE
from fluffle.broker.cluster.links.identity import Boot as LinkBoot
from fluffle.broker.cluster.msgpack_parts import Payload
from fluffle.broker.cluster.ports import FrameKind, Links, TrafficClass
from fluffle.broker.cluster.queue_sessions.codec import decode, encode
from fluffle.broker.cluster.queue_sessions.messages import Boot, ClientFrame, Frame, without_counts
from fluffle.broker.cluster.queues.fault_guard import log_failure
from fluffle.broker.cluster.queues.leader_queries import LeaderQueries, LeaderQueryCallbacks
from fluffle.broker.cluster.queues.leader_routes import LeaderRoute, LeaderRoutes
from fluffle.broker.cluster.queues.local_leaders import LocalLeaders
from fluffle.broker.cluster.queues.ports import (
    HostedQueue,
    LeaderCounts,
    OnCounts,
    OnEvents,
    OnFailure,
    QueueId,
    SessionEnvironment,
)
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import NodeId

WAITING_BYTES_MAX = 16 << 20
"""In a lane, when a frame is put behind it: a quarter of what a lane takes.  With a frame as large
as messages are by default that is half of it, and the rest is for consensus."""
LOOK_S = 0.01


class SessionTransport:
    """Frames from one node to all others.

    A link drops what there is no room for, and a session would wait for ever for a frame that is
    lost while its link is up.  So a sender asks first, keeps the frame if too much waits there,
    and is asked for it again when little does.
    """

    __slots__ = ("_call_later", "_full", "_links", "_node", "_touch")

    def __init__(
        self,
        node: NodeId,
        links: Links,
        call_later: Callable[[float, Callable[[], None]], object],
        touch: Callable[[], None],
    ) -> None:
        """`touch`: a turn is to be taken, for there is room again."""
        self._node = node
        self._links = links
        self._call_later = call_later
        self._touch = touch
        self._full: set[NodeId] = set()
        """Nodes for which somebody has something; while there are any, a timer runs."""

    def has_room(self, node: NodeId) -> bool:
        """Whether something may be sent there now; if not, `touch` is called when it may."""
        if node == self._node or self._waiting(node) < WAITING_BYTES_MAX:
            return True
        if not self._full:
            self._call_later(LOOK_S, self._look)
        self._full.add(node)
        return False

    def send(self, node: NodeId, payload: Payload) -> None:
        """A frame."""
        self._links.send(node, FrameKind.STREAM, payload, lane=TrafficClass.NORMAL)

    def _waiting(self, node: NodeId) -> int:
        return self._links.waiting_bytes(node, TrafficClass.NORMAL)

    def _look(self) -> None:
        """Nothing waits for a node to which there is no link any more."""
        free = {node for node in self._full if self._waiting(node) <= WAITING_BYTES_MAX // 2}
        self._full -= free
        if free:
            self._touch()
        if self._full:
            self._call_later(LOOK_S, self._look)


NONCE_BITS = 63
"""As many as a number has in the facts of a queue."""
EARLY_MAX = 256
"""Frames of a node to which there is no link yet: what it asks could not be answered."""


def session_boot(boot: LinkBoot) -> Boot:
    """A life of a node, as streams know it."""
    return Boot(boot.count, int.from_bytes(boot.nonce) >> 8 * len(boot.nonce) - NONCE_BITS)


class RouterEnvironment(NamedTuple):
    """The parts of a node that its session router uses."""

    node: NodeId
    boot: Boot
    links: Links
    boot_of: Callable[[NodeId], Boot | None]
    """The life in which a node to which there is a link is there."""
    touch: Callable[[], None]
    """Has `before_consensus` and `after_consensus` called, in this turn."""
    call_later: Callable[[float, Callable[[], None]], object]
    """After so many seconds."""
    clock: Clock
    refused: Callable[[NodeId, str], None]
    """A frame of a node is not one of ours."""
    is_nobody_there: Callable[[NodeId], bool] = lambda _node: False
    """Whether the host of a node has said last that it does not run."""
    queue_failed: OnFailure = log_failure
    """An error has ended the leadership of a queue; it is to end more if this raises it."""
    hasten: Callable[[QueueId], None] = lambda _queue: None
    """Clients wait for a leader of a queue that may have a member here."""
    speaks: Callable[[NodeId], int] = lambda _node: COUNTS_SINCE
    """The newest version of links that another node and this one both speak."""


class SessionRouter:
    """A `SessionDirectory` that passes frames on.  Called from one thread."""

    __slots__ = (
        "_around", "_early", "_inquiries", "_lives", "_sending", "boot", "leading", "lines", "peek",
    )  # fmt: skip

    def __init__(self, around: RouterEnvironment) -> None:
        self._around = around
        self.boot = around.boot
        """This life of the node."""
        self._lives: dict[NodeId, Boot] = {around.node: around.boot}
        self._early: dict[NodeId, list[ClientFrame]] = {}
        self._sending = SessionTransport(around.node, around.links, around.call_later, around.touch)
        streams = SessionEnvironment(
            around.node, around.boot, self._lives, self._send, self._sending.has_room, around.touch,
            around.call_later, around.clock.now_ms, around.is_nobody_there,
            around.queue_failed, around.hasten,
        )  # fmt: skip
        self.leading = LocalLeaders(streams)
        """The queues that may be led here."""
        self.lines = LeaderRoutes(streams, self.leading.known)
        """The edges of this node."""
        ports = LeaderQueryCallbacks(
            leader_of=self.lines.leader_of,
            search=self.lines.search,
            reachable=self.lines.reachable,
            send=self._ask,
            led_here=self._led_here,
            call_later=around.call_later,
        )
        self._inquiries = LeaderQueries(ports)
        self.peek = self._inquiries.peek

    # For channels

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> LeaderRoute:
        return self.lines.open(definition, on_events)

    def close(self, queue: QueueId) -> None:
        self.lines.close(queue)

    def counts_here(self, queue: QueueId) -> LeaderCounts | None:
        served = self._led_here(queue)
        return served.counts if served is not None else None

    def ask_counts(self, queue: QueueId, done: OnCounts, *, in_use: bool = False) -> None:
        self._inquiries.count(queue, done, in_use=in_use)

    # Who leads

    def redefined(self, definition: QueueDefinition) -> None:
        """A queue has other members."""
        self.lines.redefine(definition)

    def leader_changed(self, queue: QueueId) -> None:
        """What is known here of who leads a queue is otherwise than before."""
        self.lines.changed(queue)
        self._inquiries.changed(queue)
        self.leading.speak(queue)

    def removed(self, node: NodeId) -> None:
        """It is no node of this cluster any more."""
        self.leading.removed(node)

    def _led_here(self, queue: QueueId) -> HostedQueue | None:
        served = self.leading.queues.get(queue)
        return served if served is not None and served.sessions is not None else None

    # What comes over links

    def link_changed(self, node: NodeId, is_up: bool) -> None:  # noqa: FBT001 - as `OnLink` has it
        boot = self._around.boot_of(node) if is_up else None
        if boot is None:
            if self._lives.pop(node, None) is not None:
                self.leading.unlinked(node)
                self.lines.unlinked(node)
            return
        self._lives[node] = boot
        self.leading.linked(node, boot)
        for frame in self._early.pop(node, ()):
            self.leading.take(node, frame)
        self.lines.linked(node)

    def receive(self, node: NodeId, payload: bytes) -> None:
        """A frame of a stream."""
        try:
            frame = decode(payload)
        except BadFrame as bad:
            self._around.refused(node, str(bad))
            return
        if not isinstance(frame, ClientFrame):
            self.lines.hear(frame)
        elif node in self._lives:
            self.leading.take(node, frame)
        else:
            early = self._early.setdefault(node, [])
            if len(early) < EARLY_MAX:
                early.append(frame)

    def receive_question(self, node: NodeId, payload: bytes) -> None:
        """See `LeaderQueries`."""
        try:
            self._inquiries.receive(node, payload)
        except BadFrame as bad:
            self._around.refused(node, str(bad))

    # A turn

    def before_consensus(self) -> None:
        """What was asked for goes to leaders; those that are here propose."""
        self.leading.is_pump_coming = self.leading.is_output_coming = True
        for node, frame in self.lines.output():
            self._send(node, frame)
        self.leading.pump()

    def after_consensus(self) -> None:
        """What is known now is told."""
        for node, frame in self.leading.output():
            self._send(node, frame)

    def _send(self, node: NodeId, frame: Frame) -> None:
        if node != self._around.node:
            if isinstance(frame, ClientFrame) and self._around.speaks(node) < COUNTS_SINCE:
                frame = without_counts(frame)
            self._sending.send(node, encode(frame))
        elif isinstance(frame, ClientFrame):
            self.leading.take(node, frame)
        else:
            self.lines.hear(frame)

    def _ask(self, node: NodeId, payload: bytes) -> None:
        self._around.links.send(node, FrameKind.QUESTION, payload, lane=TrafficClass.NORMAL)
