"""The leader's end of the sessions with one queue, for one leadership.

Operations go to the leadership in order, and its replies leave in frames with numbers, which are
kept until they have arrived.  The first to each client node has what the log records of its
session; until the client node has replied what of that never arrived, it is sent nothing else.

A node that cannot be reached is suspected, and its consumers keep what they hold for a time.  Only
a process that is known to have ended, or a session that its client node has ended, is gone at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.cluster.queue_sessions.opened_session import (
    REQUEST_HANDLERS,
    LedQueue,
    OpenedSession,
    SessionBackpressure,
    room_of,
    send_record,
)
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.facts import Key, SessionId
from fluffle.broker.queues.quorum.state import QueueState

CONSUMER_DISCONNECTED_MS = 60_000
"""Time for which consumers of an unreachable node keep what they hold, where the queue does not say
how long."""
ANSWERS_MAX = 8_192
"""Answers of a session remembered for a client node that does not say that it knows them."""
HOLDERS_MAX = 65_536
"""Most consumers and getters of a session: more than any honest node has of one queue."""
SESSIONS_MAX = 64
"""Most sessions of one node.  It has one, and while it gives that up, another."""


@dataclass(slots=True)
class PeerNode:
    """A node with sessions."""

    boot: m.SessionBoot | None = None
    """None until there was a link to it in this leadership."""
    silent_since_ms: int | None = None
    """None while there is a link to it."""
    opening: int = 0
    """The last one."""
    counter: int = 0
    """Counter of the session of that opening."""
    opened: OpenedSession | None = None
    """Opened session, once it is open."""


class SessionServer:
    """All sessions of one led queue."""

    __slots__ = (
        "_aside", "_group", "_leader_epoch", "_led", "_nodes", "_opened_sessions", "_own", "_state",
        "_with_backlog", "_with_output", "excesses",
    )  # fmt: skip

    def __init__(
        self, group: int, own: m.Leader, state: QueueState, leadership: LedQueue, now_ms: int
    ) -> None:
        """`own`: this node, its boot and which leadership this is.

        `state` is what is on record, and how client nodes hear of it.  The leadership's
        `release` and `room` come here.  `linked` is called for each link there is.
        """
        self._group = group
        self._state = state
        self._own = own
        self._leader_epoch = own.leader_epoch
        self._led = leadership
        self._opened_sessions: dict[Key, OpenedSession] = EMPTY_DICT
        self._with_output: dict[Key, OpenedSession] = {}
        """Sessions that may have frames to send."""
        self._with_backlog: dict[Key, OpenedSession] = EMPTY_DICT
        """Sessions that have enqueued more than the queue's consumers soon take."""
        self._nodes: dict[str, PeerNode] = {
            session.node: PeerNode(silent_since_ms=now_ms) for session in leadership.sessions.ids()
        }
        self._aside: list[tuple[str, m.LeaderFrame]] = []
        """Answers to client nodes without an opened session."""
        self.excesses: list[str] = []
        """Nodes that have left too much here, each once; to be logged, and taken from here."""

    # Links

    def linked(self, node: str, boot: m.SessionBoot) -> None:
        """Handle a new link to this boot of a node: all that earlier ones had is over.

        What was sent over the link before may be lost; what was not comes twice, and is dropped.
        """
        known = self._nodes.setdefault(node, PeerNode())
        if known.boot != boot:
            self._nodes[node] = known = PeerNode(boot)
        known.silent_since_ms = None
        if known.opened is not None:
            known.opened.send_queue.repeat()
            self._with_output[known.opened.key] = known.opened
        for session in self._of_node(node):
            if (session.boot, session.nonce) != boot:  # mutant: R3
                self._end(session, Outcome.LOST)  # mutant: ST6
            elif known.opened is None:  # mutant: ST7
                self._aside.append((node, leader_notice(self._group, self._own, session)))

    def leader_notices(self, leader: m.Leader) -> list[tuple[str, m.LeaderFrame]]:
        """Notices of this leadership's end to all linked client nodes, with the new leader.

        Who asks for nothing would else wait for messages that are not handed out.
        """
        hint = leader._replace(boot=self._own.boot)
        return [
            (session.node, leader_notice(self._group, hint, session))
            for session in self._led.sessions.ids()
            if (known := self._nodes.get(session.node)) is not None
            and known.boot == session[1:3]
            and known.silent_since_ms is None
        ]

    def unlinked(self, node: str, now_ms: int) -> None:
        """Handle that there is no link to a node, for whatever reason."""
        known = self._nodes.get(node)
        if known is not None and known.silent_since_ms is None:
            known.silent_since_ms = now_ms  # mutant: R10

    @property
    def silent(self) -> list[str]:
        """Nodes to which there is no link."""
        return [node for node, known in self._nodes.items() if known.silent_since_ms is not None]

    def ended(self, node: str) -> None:
        """Handle that a node's process has ended: its clients hold nothing any more."""
        self._withdraw(node, Outcome.LOST)

    def removed(self, node: str) -> None:
        """A node is part of the cluster no more."""
        for session in self._of_node(node):
            self._end(session, Outcome.LOST)
        self._nodes.pop(node, None)

    def tick(self, now_ms: int) -> bool:
        """Time has passed: who was silent for too long loses what it holds, and no session.

        Whether the time of anybody runs.
        """
        is_running = False
        configured_ms = self._led.queue.settings.consumer_disconnected_timeout_ms
        timeout_ms = configured_ms if configured_ms is not None else CONSUMER_DISCONNECTED_MS
        for node, known in self._nodes.items():
            since = known.silent_since_ms
            if since is not None and now_ms - since >= timeout_ms:  # mutant: R13
                self._withdraw(node, Outcome.SUSPECTED)
            elif since is not None:
                is_running = True
        return is_running

    def _of_node(self, node: str) -> list[SessionId]:
        return [session for session in self._led.sessions.ids() if session.node == node]

    def _end(self, session: SessionId, outcome: Outcome) -> None:
        key = self._led.sessions.key_of(session)
        assert key is not None
        self._led.drop_session(key, outcome)
        opened = self._opened_sessions.pop(key, None)
        self._with_output.pop(key, None)
        self._with_backlog.pop(key, None)
        if opened is not None:
            opened.backpressure.forgive()
        node = self._nodes.get(session.node)
        if node is not None and node.opened is opened:
            node.opened = None

    def _withdraw(self, node: str, outcome: Outcome) -> None:
        for session in self._of_node(node):
            key = self._led.sessions.key_of(session)
            assert key is not None
            self._led.drop_session(key, outcome, keeps_row=True)

    # From client nodes

    def receive(self, node: str, frame: m.ClientFrame) -> None:
        """Handle a frame that came over the link to a node."""
        known = self._nodes.get(node)
        if frame.group != self._group or frame.receiver != self._own.boot:  # mutant: ST10
            return
        if known is None or known.boot != frame.sender or frame.opening < known.opening:
            return
        if (frame.term, frame.leadership) != self._leader_epoch:
            self._aside.append((node, not_leading(frame, self._own)))
            return
        if frame.opening > known.opening:
            if not frame.messages or not isinstance(frame.messages[0], m.Open):
                return
            known.opening, known.counter = frame.opening, frame.session
            known.opened = self._open_session(SessionId(node, *frame.sender, frame.session), frame)
        if frame.session != known.counter:
            return
        opened = known.opened
        if opened is None:
            self._aside.append((node, _beside(frame, self._own.boot, [m.SessionLost()])))
            return
        self._with_output[opened.key] = opened
        self._arrived(opened, frame)
        is_ignored = False
        for message in frame.messages:
            if isinstance(message, m.Operation):
                is_ignored = is_ignored or self._is_over_limit(opened)
                if is_ignored:
                    opened.first_ignored = opened.first_ignored or message.number
                    continue
                if isinstance(message, m.Attach | m.Purge):
                    opened.answers(message.number)
            if isinstance(message, m.Forget):
                self._forget(node, min(message.below, frame.session))
            else:
                REQUEST_HANDLERS[type(message)](self._led, opened, message)
        if opened.backpressure:
            if self._with_backlog is EMPTY_DICT:
                self._with_backlog = {}
            self._with_backlog[opened.key] = opened

    def _is_over_limit(self, opened: OpenedSession) -> bool:
        """True if a client node is not listened to, because of what it leaves here."""
        is_beyond = len(opened.unknown) >= ANSWERS_MAX
        is_beyond = is_beyond or self._led.holders.counts.get(opened.key, 0) >= HOLDERS_MAX
        if is_beyond and not opened.first_ignored:
            self.excesses.append(opened.node)
        return is_beyond or opened.send_queue.is_overfull

    def _open_session(self, session: SessionId, frame: m.ClientFrame) -> OpenedSession | None:
        """Opened session, which its first operation opens; None if it is lost."""
        (opening, *_) = frame.messages
        assert isinstance(opening, m.Open)
        key = self._led.sessions.key_of(session)
        row = self._state.sessions.get(key) if key is not None else None
        if row is not None and opening.first > row.next:
            # The client node knows outcomes that the log has not: it goes on with an older one.
            self._end(session, Outcome.LOST)
            key = None
        elif key is None and opening.first == 1:
            self._forget(session.node, session.counter - SESSIONS_MAX)
            key = self._led.sessions.open(session)
        if key is None:
            return None
        opened = self._opened_sessions.get(key)
        if opened is None:
            boot = m.SessionBoot(session.boot, session.nonce)
            backpressure = SessionBackpressure(self._led.queue)
            if self._opened_sessions is EMPTY_DICT:
                self._opened_sessions = {}
            opened = self._opened_sessions[key] = OpenedSession(
                key, session.node, boot, session.counter, backpressure
            )
            send_record(opened, self._state)
        return opened

    def _arrived(self, opened: OpenedSession, frame: m.ClientFrame) -> None:
        """A client node has received something, and knows something."""
        send_queue = opened.send_queue
        was_full = send_queue.is_full
        holders: Iterable[Key] = send_queue.received(frame.received)
        if was_full and not send_queue.is_full:
            holders = self._led.holders.of_session(opened.key)
        for holder in holders:
            self._led.holders.wake(holder)
        if frame.known > opened.known:
            opened.knows(frame.known)
            self._led.sessions.acknowledge(opened.key, frame.known)
        if opened.first_ignored and not self._is_over_limit(opened):
            send_queue.put(m.ExpectedReply(opened.first_ignored))
            opened.first_ignored = 0

    def _forget(self, node: str, below: int) -> None:
        for session in self._of_node(node):
            if session.counter < below:
                self._end(session, Outcome.LOST)

    # From the leadership

    def room(self, holder: Key) -> int:
        """How many messages the client node of a consumer takes now."""
        held = self._led.holders.get(holder)
        opened = self._opened_sessions.get(held.session) if held is not None else None
        if opened is None or not opened.is_served or not self._is_open(opened):
            return 0
        return room_of(opened, self._led, holder)

    def _is_open(self, opened: OpenedSession) -> bool:
        """True if its client node can be reached, and talks in this session."""
        node = self._nodes[opened.node]
        return node.silent_since_ms is None and node.counter == opened.counter

    def release(self, effects: Iterable[m.Effect]) -> None:
        """Send effects that are committed and applied, or depend on nothing else."""
        for session, message in effects:
            opened = self._opened_sessions.get(session)
            if opened is None:
                continue
            self._with_output[session] = opened
            if isinstance(message, m.CancelNotice):
                opened.send_queue.withdraw(message.holder)
                opened.limits.pop(message.holder, None)
            elif isinstance(message, m.RevokeNotice):
                for holder in {token.holder for token in message.tokens}:
                    opened.send_queue.withdraw(holder)
                    opened.limits.pop(holder, None)
            elif isinstance(message, m.TimeoutNotice):
                opened.send_queue.revoke(message.holder, message.tokens)
                opened.limits.pop(message.holder, None)
            opened.send_queue.put(message)
            if (
                opened.first_ignored
                and isinstance(message, m.AnswerReply)
                and opened.unknown
                and message.number == opened.unknown[-1]
            ):
                # it says then what it knows
                opened.send_queue.put(m.ExpectedReply(opened.first_ignored))

    # To client nodes

    @property
    def is_held_up(self) -> bool:
        """True if there may be something that there was no room for."""
        return bool(self._with_output)

    def output(self, has_room: Callable[[str], bool]) -> Iterator[tuple[str, m.LeaderFrame]]:
        """Frames to send, each with its node; those without room stay."""
        aside, self._aside = self._aside, []
        yield from aside
        if self._with_backlog:
            self._report_backlogs()
        talking, self._with_output = self._with_output, {}
        for opened in talking.values():
            if self._is_open(opened):
                yield from self._frames_of(opened, has_room)

    def _frames_of(
        self, opened: OpenedSession, has_room: Callable[[str], bool]
    ) -> Iterator[tuple[str, m.LeaderFrame]]:
        node, frames = self._nodes[opened.node], opened.send_queue.take()
        while has_room(opened.node):  # mutant: L2
            if (frame := next(frames, None)) is None:
                return
            yield opened.node, self._numbered(opened, node, frame.number, frame.messages)
        self._with_output[opened.key] = opened

    def _report_backlogs(self) -> None:
        for opened in list(self._with_backlog.values()):
            count = opened.backpressure.changed_count()
            if count is not None:
                opened.send_queue.put(m.Backlog(count))
                self._with_output[opened.key] = opened
            if not opened.backpressure:
                del self._with_backlog[opened.key]

    def _numbered(
        self, opened: OpenedSession, node: PeerNode, number: int, messages: list[m.FromLeader]
    ) -> m.LeaderFrame:
        return m.LeaderFrame(
            group=self._group,
            term=self._own.term,
            leadership=self._own.leadership,
            sender=self._own.boot,
            receiver=opened.boot,
            session=opened.counter,
            opening=node.opening,
            number=number,
            messages=messages,
        )


def _beside(
    asked: m.ClientFrame, own: m.SessionBoot, messages: list[m.FromLeader]
) -> m.LeaderFrame:
    """A reply that is not repeated: a client that gets none asks again, over another link."""
    return m.LeaderFrame(
        group=asked.group,
        term=asked.term,
        leadership=asked.leadership,
        sender=own,
        receiver=asked.sender,
        session=asked.session,
        opening=asked.opening,
        number=0,
        messages=messages,
    )


def leader_notice(group: int, leader: m.Leader, session: SessionId) -> m.LeaderFrame:
    """Notice of the leader to a client node that has a session and may wait to be served.

    In no term, as whatever a client node hears of who leads without being led by whoever says it;
    whose life that is stands in `leader.boot`.
    """
    return m.LeaderFrame(
        group=group,
        term=0,
        leadership=0,
        sender=leader.boot,
        receiver=m.SessionBoot(session.boot, session.nonce),
        session=session.counter,
        opening=0,
        number=0,
        messages=[m.NotLeader(leader.term, leader.node, leader.leadership)],
    )


def not_leading(asked: m.ClientFrame, hint: m.Leader) -> m.LeaderFrame:
    """Reply of a node whose leadership is not the one addressed."""
    answer = m.NotLeader(hint.term, hint.node, hint.leadership)
    return _beside(asked, asked.receiver, [answer])
