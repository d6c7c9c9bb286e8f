"""Queues that may be led on this node, and the sessions with those that are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE, event
from fluffle.broker.cluster.queue_sessions.session_server import SessionServer
from fluffle.broker.cluster.queues.ports import (
    NO_LEADER,
    HostedQueue,
    KnownLeader,
    OnFailure,
    QueueId,
)
from fluffle.broker.cluster.queues.session_transport import SessionTransport
from fluffle.broker.queues.quorum.messages import (
    ClientFrame,
    Leader,
    LeaderFrame,
    SessionBoot,
    not_leading,
)
from fluffle.raft.config import NodeId
from fluffle.raft.multiraft import PendingNews

NOTIFIED_MAX = 64
"""Idle queues that look at a link, or at the clock, in one turn."""

TICK_S = 1.0
"""How long consumers of a node without a link keep what they hold is a matter of a minute."""

AGAIN_S_MAX = 60
"""A queue that cannot be led is tried again after two seconds, and then after twice as long."""


logger = logging.getLogger(__name__)


def log_failure(named: Mapping[str, object], error: Exception) -> None:
    """Log an error that ended a leadership, with its traceback."""
    logger.error("queue_failed", exc_info=error, extra={FIELDS_ATTRIBUTE: named})


@dataclass(slots=True, eq=False)
class FaultGuard:
    """Guard of leaderships: an error in one queue ends its leadership, and no other."""

    _queues: Mapping[QueueId, HostedQueue]
    _call_later: Callable[[float, Callable[[], None]], object]
    _on_failure: OnFailure
    _failures: Counter[QueueId] = field(default_factory=Counter, init=False)

    def run(self, queue: QueueId, act: Callable[[], None]) -> None:
        """Do something for a queue; if it fails, the queue is led anew after a while.

        Also if something that was believed is not so: nothing of it was sent to a node that is not
        on record, and with that the next leadership begins.
        """
        try:
            act()
        except Exception as error:
            served = self._queues.get(queue)
            if served is None:
                raise
            self._on_failure(served.named, error)
            self._failures[queue] += 1
            again_s = min(2 ** self._failures[queue], AGAIN_S_MAX)
            served.fail()
            self._call_later(again_s, partial(self._lead_again, queue))

    def _lead_again(self, queue: QueueId) -> None:
        """Lead a queue again that has failed; forget its failures if it is not here any more."""
        served = self._queues.get(queue)
        if served is not None:
            served.lead_again()
        else:
            self._failures.pop(queue, None)


class LocalLeaders:
    """Queues that may be led on this node, by id."""

    def __init__(self, transport: SessionTransport, queue_failed: OnFailure) -> None:
        self._transport = transport
        self.queues: dict[QueueId, HostedQueue] = {}
        self._touched: dict[QueueId, None] = {}
        """Queues to be pumped."""
        self._with_output: dict[QueueId, None] = {}
        """Queues whose sessions may have replies to send."""
        self._held: dict[QueueId, None] = {}
        """Queues to be pumped in the next turn, whatever asks for that."""
        self._held_up: dict[QueueId, None] = {}
        """Queues to be pumped again after a while."""
        self.leader_notices: list[tuple[NodeId, LeaderFrame]] = []
        """Notices of leaderships that have ended, to be sent."""
        self._link_news: PendingNews[QueueId, tuple[NodeId, SessionBoot | None]] = PendingNews()
        """Links that queues have not looked at yet, each with the life of the node it is to; None:
        there is none any more."""
        self.link_changes = 0
        """How often a link has come or gone: what its node says it reads may be another version."""
        self._timed: dict[QueueId, None] = {}
        """Queues with silent client nodes, whose timeout runs."""
        self._is_ticking = False
        self._is_pump_coming = self._is_output_coming = False
        """True in a turn of consensus before its `pump`, and before its `send`."""
        self.guard = FaultGuard(self.queues, transport.loop.call_later, queue_failed)

    def leader_of(self, queue: QueueId) -> KnownLeader:
        """Leader of a queue, as far as it is known without asking."""
        served = self.queues.get(queue)
        return served.known if served is not None else NO_LEADER

    # What happens to a queue

    def touch(self, queue: QueueId) -> None:
        """Schedule a queue that may have something to deliver or to propose."""
        self._touched[queue] = None
        self._with_output[queue] = None
        if not self._is_pump_coming:
            self._transport.turn.touch_consensus()

    def touch_output(self, queue: QueueId) -> None:
        """Schedule the output of a queue's sessions."""
        self._with_output[queue] = None
        if not self._is_output_coming:
            self._transport.turn.touch_consensus()

    def hold(self, queue: QueueId) -> None:
        """Hold back a queue's proposals until the disk's commit at the end of the turn."""
        self._held[queue] = None

    def touch_later(self, queue: QueueId) -> None:
        """Try later what a queue could not propose, with nothing that would announce when it
        can."""
        self._held_up[queue] = None
        self._tick_later()

    def begin_sessions(self, queue: QueueId, sessions: SessionServer) -> None:
        """Give a leadership that begins the links that there are."""
        self._link_news.take(queue)
        for node, boot in self._transport.boots.items():
            sessions.linked(node, boot)
        if sessions.silent:
            self._time(queue)

    # What comes over links

    def receive(self, node: NodeId, frame: ClientFrame) -> None:
        """Take a frame of a client node, maybe of this one."""
        if frame.receiver != self._transport.boot:
            return  # it was for an earlier life
        if self._link_news:
            self._apply_link_news(frame.group)
        served = self.queues.get(frame.group)
        sessions = served.sessions if served is not None else None
        if served is None or sessions is None or not frame.term:
            known = self.leader_of(frame.group)
            hint = Leader(known.node, self._transport.boot, known.term, known.leadership)
            self._transport.send(node, not_leading(frame, hint))
        else:
            self.guard.run(frame.group, partial(sessions.receive, node, frame))
            self.touch(frame.group)
            while sessions.excesses:
                node = sessions.excesses.pop()
                event(logger, logging.ERROR, "session_overflow", **served.named, node=node)

    def linked(self, node: NodeId, boot: SessionBoot) -> None:
        """Handle a link to a node, in this boot of it."""
        self._note_link(node, boot)

    def unlinked(self, node: NodeId) -> None:
        """Handle that there is no link to a node any more."""
        self._note_link(node, None)

    def _note_link(self, node: NodeId, boot: SessionBoot | None) -> None:
        """Have all led here look at a link: some in each turn, first those with replies."""
        self.link_changes += 1
        self._link_news.add((queue for queue, _sessions in self._sessions()), (node, boot))
        self._transport.turn.touch_consensus()

    def _apply_link_news(self, queue: QueueId) -> None:
        """Have one queue look at links that have come or gone."""
        for node, boot in self._link_news.take(queue):
            served = self.queues.get(queue)
            sessions = served.sessions if served is not None else None
            if sessions is None:
                return  # the next leadership begins with all links
            if boot is not None:
                sessions.linked(node, boot)
                self.touch(queue)
            else:
                sessions.unlinked(node, self._transport.clock.now_ms())
                self._end_dead(sessions)
                self._time(queue)

    def _end_dead(self, sessions: SessionServer) -> None:
        """Requeue at once what clients of a node hold whose process has ended."""
        for node in sessions.silent:
            if self._transport.cluster.is_not_running(node):
                sessions.ended(node)

    def removed(self, node: NodeId) -> None:
        """End the sessions of a node that left the cluster."""
        for queue, sessions in self._sessions():
            sessions.removed(node)
            self.touch(queue)

    def _sessions(self) -> Iterator[tuple[QueueId, SessionServer]]:
        for queue, served in self.queues.items():
            if (sessions := served.sessions) is not None:
                yield queue, sessions

    def _time(self, queue: QueueId) -> None:
        self._timed[queue] = None
        self._tick_later()

    def _tick_later(self) -> None:
        """Check the clock later, and again while a timeout runs."""
        if not self._is_ticking:
            self._is_ticking = True
            self._transport.loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        held_up, self._held_up = self._held_up, {}
        for queue in held_up:
            self.touch(queue)
        self._tick_some(iter(list(self._timed)))

    def _tick_some(self, queues: Iterator[QueueId]) -> None:
        """Check the timeouts of the next queues, and again later where one still runs."""
        now_ms, looked = self._transport.clock.now_ms(), 0
        for looked, queue in enumerate(islice(queues, NOTIFIED_MAX), start=1):  # noqa: B007
            served = self.queues.get(queue)
            sessions = served.sessions if served is not None else None
            if sessions is not None:
                self._apply_link_news(queue)
                self._end_dead(sessions)
            if sessions is None or not sessions.tick(now_ms):
                self._timed.pop(queue, None)
        if looked:
            self._transport.loop.call_later(0, partial(self._tick_some, queues))
        elif self._timed:
            self._tick_later()

    # A turn

    def pump(self, send_requests: Callable[[], None]) -> None:
        """Begin a turn: have requests of this node's sessions come, and propose what has been
        decided, before consensus."""
        self._is_pump_coming = self._is_output_coming = True
        send_requests()
        if self._link_news:
            for queue in self._link_news.first(NOTIFIED_MAX):
                self._apply_link_news(queue)
            if self._link_news:
                self._transport.turn.touch_consensus()
        self._is_pump_coming = False
        touched, self._touched, self._held = self._held | self._touched, {}, {}
        for queue in touched:
            if (served := self.queues.get(queue)) is not None:
                self.guard.run(queue, served.pump)

    def send(self) -> None:
        """Send replies to sessions of this node and of others, after consensus."""
        self._is_output_coming = False
        transport = self._transport
        leader_notices, self.leader_notices = self.leader_notices, []
        for node, frame in leader_notices:
            transport.send(node, frame)
        with_output, self._with_output = self._with_output, {}
        for queue in with_output:
            if self._link_news:
                self._apply_link_news(queue)
            served = self.queues.get(queue)
            sessions = served.sessions if served is not None else None
            if sessions is not None:
                for node, frame in sessions.output(transport.has_room):
                    transport.send(node, frame)
                if sessions.is_held_up:
                    self._with_output[queue] = None


def local_leader_of(leaders: LocalLeaders, queue: QueueId) -> HostedQueue | None:
    """A queue that is led by this node; None if it is not."""
    served = leaders.queues.get(queue)
    return served if served is not None and served.sessions is not None else None
