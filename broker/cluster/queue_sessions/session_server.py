"""The leader's end of the sessions with one queue, for one leadership.

Operations go to the leadership in order, and what it says of them leaves in frames with numbers,
which are kept until they have arrived.  The first of each edge says what the log has of its
session; until the edge has said what of that never arrived, it is given nothing else.

A node that cannot be reached is suspected, and its consumers keep what they hold for a time.  Only
a process that is known to have ended, or a session that its edge has ended, is gone at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.cluster.queue_sessions import messages as m
from fluffle.broker.cluster.queue_sessions.opened_session import (
    EFFECT_MESSAGES,
    REQUEST_HANDLERS,
    LedQueue,
    OpenedSession,
    SessionBackpressure,
    room_of,
    send_record,
)
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import effects as e
from fluffle.broker.queues.quorum.facts import Key, SessionId
from fluffle.broker.queues.quorum.state import State

CONSUMER_DISCONNECTED_MS = 60_000
"""For so long consumers of a node that cannot be reached keep what they hold, where the queue does
not say how long."""
ANSWERS_MAX = 8_192
"""So many of a session are remembered for an edge that does not say that it knows them."""
HOLDERS_MAX = 65_536
"""Of a session: more consumers and getters than any honest node has of one queue."""
SESSIONS_MAX = 64
"""Of one node.  It has one, and while it gives that up, another."""


@dataclass(slots=True)
class PeerNode:
    """A node with sessions."""

    boot: m.Boot | None = None
    """None until there was a link to it in this leadership."""
    silent_since_ms: int | None = None
    """None while there is a link to it."""
    opening: int = 0
    """The last one."""
    counter: int = 0
    """Of the session of that opening."""
    stream: OpenedSession | None = None
    """That of this session, once it is open."""


class SessionServer:
    """All sessions of one led queue."""

    __slots__ = (
        "_aside", "_group", "_led", "_nodes", "_owing", "_own", "_state", "_streams", "_talking",
        "excesses",
    )  # fmt: skip

    def __init__(
        self, group: int, own: m.Leader, state: State, leadership: LedQueue, now_ms: int
    ) -> None:
        """`own`: this node, its boot and which leadership this is.

        `state` is what is on record, and how edges are told of it.  The leadership's `release` and
        `room` come here.  `linked` is called for each link there is.
        """
        self._group = group
        self._state = state
        self._own = own
        self._led = leadership
        self._streams: dict[Key, OpenedSession] = EMPTY_DICT
        self._talking: dict[Key, OpenedSession] = {}
        """Those that may have something to say."""
        self._owing: dict[Key, OpenedSession] = EMPTY_DICT
        """Those that have put in more than the queue's consumers soon take."""
        self._nodes: dict[str, PeerNode] = {
            session.node: PeerNode(silent_since_ms=now_ms) for session in leadership.sessions.ids()
        }
        self._aside: list[tuple[str, m.LeaderFrame]] = []
        """Answers to those who have no stream."""
        self.excesses: list[str] = []
        """Nodes that have left too much here, each once; to be said, and taken from here."""

    # Links

    def linked(self, node: str, boot: m.Boot) -> None:
        """There is a new link to this life of a node: all that earlier ones had is over.

        What was sent over the link before may be lost; what was not comes twice, and is dropped.
        """
        known = self._nodes.setdefault(node, PeerNode())
        if known.boot != boot:
            self._nodes[node] = known = PeerNode(boot)
        known.silent_since_ms = None
        if known.stream is not None:
            known.stream.outbox.repeat()
            self._talking[known.stream.key] = known.stream
        for session in self._of_node(node):
            if (session.boot, session.nonce) != boot:  # mutant: R3
                self._end(session, Outcome.LOST)  # mutant: ST6
            elif known.stream is None:  # mutant: ST7
                self._aside.append((node, leader_notice(self._group, self._own, session)))

    def farewell(self, leader: m.Leader) -> list[tuple[str, m.LeaderFrame]]:
        """This leadership is over: what every edge that there is a link to is told of who leads.

        Whoever asks for nothing would else wait for messages that nobody hands out.
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
        """There is no link to a node, for whatever reason."""
        known = self._nodes.get(node)
        if known is not None and known.silent_since_ms is None:
            known.silent_since_ms = now_ms  # mutant: R10

    @property
    def silent(self) -> list[str]:
        """Nodes to which there is no link."""
        return [node for node, known in self._nodes.items() if known.silent_since_ms is not None]

    def ended(self, node: str) -> None:
        """A node's process is known to have ended: nobody there holds anything."""
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
        said_ms = self._led.queue.settings.consumer_disconnected_timeout_ms
        patience_ms = said_ms if said_ms is not None else CONSUMER_DISCONNECTED_MS
        for node, known in self._nodes.items():
            since = known.silent_since_ms
            if since is not None and now_ms - since >= patience_ms:  # mutant: R13
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
        stream = self._streams.pop(key, None)
        self._talking.pop(key, None)
        self._owing.pop(key, None)
        if stream is not None:
            stream.owed.forgive()
        node = self._nodes.get(session.node)
        if node is not None and node.stream is stream:
            node.stream = None

    def _withdraw(self, node: str, outcome: Outcome) -> None:
        for session in self._of_node(node):
            key = self._led.sessions.key_of(session)
            assert key is not None
            self._led.drop_session(key, outcome, keeps_row=True)

    # From edges

    def take(self, node: str, frame: m.ClientFrame) -> None:
        """What has come over the link to a node."""
        known = self._nodes.get(node)
        if frame.group != self._group or frame.receiver != self._own.boot:  # mutant: ST10
            return
        if known is None or known.boot != frame.sender or frame.opening < known.opening:
            return
        if (frame.term, frame.leadership) != self._own.reign:
            self._aside.append((node, not_leading(frame, self._own)))
            return
        if frame.opening > known.opening:
            if not frame.messages or not isinstance(frame.messages[0], m.Open):
                return
            known.opening, known.counter = frame.opening, frame.session
            known.stream = self._opened(SessionId(node, *frame.sender, frame.session), frame)
        if frame.session != known.counter:
            return
        stream = known.stream
        if stream is None:
            self._aside.append((node, _beside(frame, self._own.boot, [m.SessionLost()])))
            return
        self._talking[stream.key] = stream
        self._arrived(stream, frame)
        is_deaf = False
        for message in frame.messages:
            if isinstance(message, m.Operation):
                is_deaf = is_deaf or self._is_deaf(stream)
                if is_deaf:
                    stream.unheard = stream.unheard or message.number
                    continue
                if isinstance(message, m.Attach | m.Purge):
                    stream.answers(message.number)
            if isinstance(message, m.Forget):
                self._forget(node, min(message.below, frame.session))
            else:
                REQUEST_HANDLERS[type(message)](self._led, stream, message)
        if stream.owed:
            if self._owing is EMPTY_DICT:
                self._owing = {}
            self._owing[stream.key] = stream

    def _is_deaf(self, stream: OpenedSession) -> bool:
        """Whether an edge is not listened to, because of what it leaves here."""
        is_beyond = len(stream.unknown) >= ANSWERS_MAX
        is_beyond = is_beyond or self._led.holders.count_of(stream.key) >= HOLDERS_MAX
        if is_beyond and not stream.unheard:
            self.excesses.append(stream.node)
        return is_beyond or stream.outbox.is_overfull

    def _opened(self, session: SessionId, frame: m.ClientFrame) -> OpenedSession | None:
        """That of a session, which is opened with its first operation; None if it is lost."""
        (opening, *_) = frame.messages
        assert isinstance(opening, m.Open)
        key = self._led.sessions.key_of(session)
        row = self._state.sessions.get(key) if key is not None else None
        if row is not None and opening.first > row.next:
            # Outcomes are known to the edge that the log has not: it goes on with an older one.
            self._end(session, Outcome.LOST)
            key = None
        elif key is None and opening.first == 1:
            self._forget(session.node, session.counter - SESSIONS_MAX)
            key = self._led.sessions.open(session)
        if key is None:
            return None
        stream = self._streams.get(key)
        if stream is None:
            boot = m.Boot(session.boot, session.nonce)
            owed = SessionBackpressure(self._led.queue)
            if self._streams is EMPTY_DICT:
                self._streams = {}
            stream = self._streams[key] = OpenedSession(
                key, session.node, boot, session.counter, owed
            )
            send_record(stream, self._state)
        return stream

    def _arrived(self, stream: OpenedSession, frame: m.ClientFrame) -> None:
        """An edge has received something, and knows something."""
        outbox = stream.outbox
        was_full = outbox.is_full
        holders: Iterable[Key] = outbox.received(frame.received)
        if was_full and not outbox.is_full:
            holders = self._led.holders.of_session(stream.key)
        for holder in holders:
            self._led.holders.wake(holder)
        if frame.known > stream.known:
            stream.knows(frame.known)
            self._led.sessions.acknowledge(stream.key, frame.known)
        if stream.unheard and not self._is_deaf(stream):
            outbox.put(m.Expected(stream.unheard))
            stream.unheard = 0

    def _forget(self, node: str, below: int) -> None:
        for session in self._of_node(node):
            if session.counter < below:
                self._end(session, Outcome.LOST)

    # From the leadership

    def room(self, holder: Key) -> int:
        """How many messages the edge of a consumer takes now."""
        held = self._led.holders.get(holder)
        stream = self._streams.get(held.session) if held is not None else None
        if stream is None or not stream.is_served or not self._is_open(stream):
            return 0
        return room_of(stream, self._led, holder)

    def _is_open(self, stream: OpenedSession) -> bool:
        """Whether its edge can be reached, and talks in this session."""
        node = self._nodes[stream.node]
        return node.silent_since_ms is None and node.counter == stream.counter

    def release(self, effects: Iterable[e.Effect]) -> None:
        """What is committed and applied, or rests on nothing else."""
        for effect in effects:
            stream = self._streams.get(effect.session)
            if stream is not None:
                self._talking[stream.key] = stream
                if isinstance(effect, e.Withdrawn):
                    stream.outbox.withdraw(effect.holder)
                    stream.limits.pop(effect.holder, None)
                elif isinstance(effect, e.TimedOut):
                    stream.outbox.revoke(effect.holder, effect.tokens)
                    stream.limits.pop(effect.holder, None)
                for message in EFFECT_MESSAGES[type(effect)](self._led, effect):
                    stream.outbox.put(message)
                if stream.unheard and stream.unknown and _number_of(effect) == stream.unknown[-1]:
                    stream.outbox.put(m.Expected(stream.unheard))  # it says then what it knows

    # To edges

    @property
    def is_held_up(self) -> bool:
        """Whether there may be something that there was no room for."""
        return bool(self._talking)

    def output(self, has_room: Callable[[str], bool]) -> Iterator[tuple[str, m.LeaderFrame]]:
        """What is to be sent, and to which node; what there is no room for stays."""
        aside, self._aside = self._aside, []
        yield from aside
        if self._owing:
            self._tell_owing()
        talking, self._talking = self._talking, {}
        for stream in talking.values():
            if self._is_open(stream):
                yield from self._frames_of(stream, has_room)

    def _frames_of(
        self, stream: OpenedSession, has_room: Callable[[str], bool]
    ) -> Iterator[tuple[str, m.LeaderFrame]]:
        node, frames = self._nodes[stream.node], stream.outbox.take()
        while has_room(stream.node):  # mutant: L2
            if (frame := next(frames, None)) is None:
                return
            yield stream.node, self._numbered(stream, node, frame.number, frame.messages)
        self._talking[stream.key] = stream

    def _tell_owing(self) -> None:
        for stream in list(self._owing.values()):
            count = stream.owed.news()
            if count is not None:
                stream.outbox.put(m.Backlog(count))
                self._talking[stream.key] = stream
            if not stream.owed:
                del self._owing[stream.key]

    def _numbered(
        self, stream: OpenedSession, node: PeerNode, number: int, messages: list[m.FromLeader]
    ) -> m.LeaderFrame:
        return m.LeaderFrame(
            group=self._group,
            term=self._own.term,
            leadership=self._own.leadership,
            sender=self._own.boot,
            receiver=stream.boot,
            session=stream.counter,
            opening=node.opening,
            number=number,
            messages=messages,
        )


def _number_of(effect: e.Effect) -> int:
    """Of an operation with an answer; 0 of all others."""
    return effect.number if isinstance(effect, e.Answer) else 0


def _beside(asked: m.ClientFrame, own: m.Boot, messages: list[m.FromLeader]) -> m.LeaderFrame:
    """An answer that is not repeated: whoever gets none asks again, over another link."""
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
    """To an edge that has a session and does not talk to who leads: it may wait to be served.

    In no term, as whatever an edge hears of who leads without being led by whoever says it; whose
    life that is stands in `leader.boot`.
    """
    return m.LeaderFrame(
        group=group,
        term=0,
        leadership=0,
        sender=leader.boot,
        receiver=m.Boot(session.boot, session.nonce),
        session=session.counter,
        opening=0,
        number=0,
        messages=[m.NotLeader(leader.term, leader.node, leader.leadership)],
    )


def not_leading(asked: m.ClientFrame, hint: m.Leader) -> m.LeaderFrame:
    """Of a node whose leadership is not the one that was asked."""
    answer = m.NotLeader(hint.term, hint.node, hint.leadership)
    return _beside(asked, asked.receiver, [answer])
