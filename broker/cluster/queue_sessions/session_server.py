"""Server of the sessions with one led queue: the leader's end, for one leadership.

    request --> `REQUEST_HANDLERS` --> the led queue --> effect: a message --> send queue

Operations go to the leadership in order, and its replies leave in frames with numbers, which are
kept until they have arrived.  The first to each client node has what the log records of its
session; until the client node has replied what of that never arrived, it is sent nothing else.
What a session put into a queue that is behind its consumers is counted until it has been delivered.

A node that cannot be reached is suspected, and its consumers keep what they hold for a time.  Only
a process that is known to have ended, or a session that its client node has ended, is gone at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.cluster.queue_sessions.led_queue import LedQueue
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.publish_target import BackloggedTarget
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.facts import NO_HOLDER, GetterAttached, Key, SessionId
from fluffle.broker.queues.quorum.holders import Terms
from fluffle.broker.queues.quorum.messages import Deliver, DoneReply, FromLeader, GetAnswer
from fluffle.broker.queues.quorum.runs import MarkedRuns, without
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

SIZE_MAX = 8 << 20
"""In bytes of contents; any message counts as `MESSAGE_SIZE` more."""

FRAME_SIZE_MAX = 4 << 20
"""Size of a frame with more than one message."""

MESSAGE_SIZE = 100


class SentFrame(NamedTuple):
    """Messages that are sent as one frame."""

    number: int
    messages: list[FromLeader]
    size: int
    """Size when it was put in: a receiver on this node may have emptied it since."""


class SessionSendQueue:
    """Unacknowledged frames of one session in one leadership.  Numbered frames never change."""

    __slots__ = ("_frames", "_messages", "_next", "_sent", "_under_way", "_unframed", "size")

    def __init__(self) -> None:
        self._messages: list[FromLeader] = []
        """Messages of the next frame."""
        self._unframed = 0
        """Size of the messages of the next frame."""
        self._frames: deque[SentFrame] = deque()
        """Not known to have arrived."""
        self._next = 1
        self._sent = 0
        """The number of the last frame that was sent in this opening."""
        self._under_way: dict[Key, int] = {}
        """Messages in `_frames` and `_messages`, by consumer."""
        self.size = 0
        """Size of everything queued here."""

    @property
    def is_full(self) -> bool:
        """True if consumers get nothing more until something has arrived."""
        return self.size >= SIZE_MAX

    @property
    def is_overfull(self) -> bool:
        """True if a client node that does not receive must not be listened to either."""
        return self.size >= 4 * SIZE_MAX

    def put(self, message: FromLeader) -> None:
        """Behind everything else."""
        if type(message) is DoneReply and self._messages:
            last = self._messages[-1]
            if type(last) is DoneReply and last.first + last.count == message.first:
                last.count += message.count
                return
        size = _size_of(message)
        if self._unframed + size > FRAME_SIZE_MAX:
            self._close_frame()
        self._messages.append(message)
        self._unframed += size
        self.size += size
        if type(message) is Deliver:
            self._count(message, len(message.contents))

    def under_way(self, holder: Key) -> int:
        """How many messages for a consumer are not known to have arrived."""
        return self._under_way.get(holder, 0)

    def withdraw(self, holder: Key) -> None:
        """Withdraw what a consumer or getter was sent and another soon gets: it is not sent again.

        The only change to frames that have a number.  Their size counts until they have arrived.
        """
        for messages in (*(frame.messages for frame in self._frames), self._messages):
            kept = [message for message in messages if not _is_for(message, holder)]
            for message in kept:
                if isinstance(message, GetAnswer) and message.holder == holder:
                    message.delivers = []
            messages[:] = kept
        self._under_way.pop(holder, None)

    def revoke(self, holder: Key, tokens: list[m.Token]) -> None:
        """The same of these messages alone, each with its ordinal, if that has not arrived."""
        for messages in (*(frame.messages for frame in self._frames), self._messages):
            for message in messages[:]:
                if _is_for(message, holder) and _is_of(message, tokens):
                    messages.remove(message)
                    self._count(message, -len(message.contents))
                elif isinstance(message, GetAnswer) and message.holder == holder:
                    left = [each for each in message.delivers if not _is_of(each, tokens)]
                    message.delivers = left

    def received(self, number: int) -> set[Key]:
        """All frames up to this one have arrived: consumers for which there were messages."""
        holders = set()
        while self._frames and self._frames[0].number <= number:
            frame = self._frames.popleft()
            self.size -= frame.size
            for message in frame.messages:
                if type(message) is Deliver:
                    self._count(message, -len(message.contents))
                    holders.add(message.holder)
        return holders

    def repeat(self) -> None:
        """Another opening: whatever has not arrived is sent again, as it was."""
        self._sent = self._frames[0].number - 1 if self._frames else self._next - 1  # mutant: R9a

    def take(self) -> Iterator[SentFrame]:
        """Remove and return the frames to send; those not consumed stay."""
        self._close_frame()
        while unsent := min(self._next - 1 - self._sent, len(self._frames)):
            frame = self._frames[-unsent]
            self._sent = frame.number
            yield frame

    def _close_frame(self) -> None:
        """Close the frame: later messages go into another."""
        if self._messages:
            self._frames.append(SentFrame(self._next, self._messages, self._unframed))
            self._messages, self._unframed = [], 0
            self._next += 1

    def _count(self, message: Deliver, change: int) -> None:
        count = self.under_way(message.holder) + change
        if count:
            self._under_way[message.holder] = count
        else:
            del self._under_way[message.holder]


def _size_of(message: FromLeader) -> int:
    if type(message) is Deliver:
        return MESSAGE_SIZE + sum(map(len, message.contents))
    if type(message) is GetAnswer:
        return MESSAGE_SIZE + sum(map(_size_of, message.delivers))
    return MESSAGE_SIZE


def _is_for(message: FromLeader, holder: Key) -> TypeGuard[Deliver]:
    return isinstance(message, Deliver) and message.holder == holder


def _is_of(deliver: Deliver, tokens: list[m.Token]) -> bool:
    """True if it is of that hand-out.  If it has not arrived, nothing of it has been settled."""
    first = deliver.runs[0].start
    return any(deliver.ordinal == ordinal and first in run for _holder, ordinal, run in tokens)


class SessionBackpressure:
    """A queue's `BlockedPublisher`: messages that one session put in while the queue is behind.

    The client node hears how many these are, and has its publishers wait until they have been
    handed out, as those of the leader's own node do at a queue that is there.
    """

    __slots__ = ("_count", "_queue", "_reported")

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._count = 0
        """Invariant: if there are any, this is among the queue's blocked publishers."""
        self._reported = 0
        """The count that the client node was sent last."""

    def __bool__(self) -> bool:
        """True if there is a count to send, now or later."""
        return bool(self._count or self._reported)

    def add(self, count: int) -> None:
        """Count messages that were put in."""
        if not self._count:
            self._queue.blocked_publishers.append(self)
        self._count += count

    def paid(self, queue: BackloggedTarget, count: int) -> int:
        """Some were handed out; how many of these are left for other publishers."""
        paid = min(count, self._count)
        self._count -= paid
        if not self._count:
            queue.blocked_publishers.remove(self)
        return count - paid

    def forgive(self) -> None:
        """The queue is not behind any more, or the session is over."""
        if self._count:
            self._count = 0
            self._queue.blocked_publishers.remove(self)

    def changed_count(self) -> int | None:
        """The count to send; None if it is near to the last one."""
        if not self._queue.is_behind:
            self.forgive()
        if self._count and self._reported < 2 * self._count and self._count < 2 * self._reported:
            return None
        if self._count == self._reported:
            return None
        self._reported = self._count
        return self._reported


@dataclass(slots=True)
class OpenedSession:
    """A session that its client node has opened in this leadership."""

    key: Key
    node: str
    boot: m.SessionBoot
    counter: int
    backpressure: SessionBackpressure
    send_queue: SessionSendQueue = field(default_factory=SessionSendQueue)
    limits: dict[Key, int] = field(default_factory=dict)
    """Credit limits by consumer: see `Credit`."""
    known: int = 1
    """The outcome of all operations below is known to its client node."""
    is_served: bool = False
    """True if its client node has replied what of that on record never arrived."""
    first_ignored: int = 0
    """The first operation that was not listened to; 0 if there is none."""
    unknown: deque[int] = field(default_factory=deque)
    """Operations with answers, of which its client node has not said that it knows them; rising."""

    def answers(self, number: int) -> None:
        """An answer is remembered until its client node knows it."""
        if not self.unknown or self.unknown[-1] < number:
            self.unknown.append(number)

    def knows(self, below: int) -> None:
        """Record that the client node knows the outcome of all operations below this one."""
        self.known = below
        while self.unknown and self.unknown[0] < below:
            self.unknown.popleft()


def send_record(opened: OpenedSession, state: QueueState) -> None:
    """Send the applied state of a session: answers that it may not have, and all that it holds."""
    row = state.sessions.get(opened.key)
    holders = {
        key: holder
        for key, holder in state.holders.items()
        if holder.attached.session == opened.key
    }
    getters = [
        (key, holder.attached.channel)
        for key, holder in holders.items()
        if isinstance(holder.attached, GetterAttached)
    ]
    attached = [key for key, holder in holders.items() if not holder.is_detached]
    tokens = [
        m.Token(key, hold.counts.acquired, run)
        for key, holder in holders.items()
        for run, hold in holder.held
    ]
    for number, answer in sorted(row.answers.items()) if row is not None else ():
        opened.answers(number)
        opened.send_queue.put(m.AnswerReply(number, answer))
    next_number = row.next if row is not None else 1
    opened.send_queue.put(m.SessionRecord(next_number, attached, getters, tokens))
    if state.sac_active != NO_HOLDER:
        for key in attached:
            opened.send_queue.put(m.ActiveConsumerNotice(key, key == state.sac_active))
    opened.is_served = not tokens


def room_of(opened: OpenedSession, led: LedQueue, holder: Key) -> int:
    """How many messages a consumer takes more than it holds, or than are on their way."""
    if opened.send_queue.is_full:  # mutant: ST8
        return 0
    held = led.holders.get(holder)
    in_hands = held.delivery_batches.count if held is not None else 0
    return max(0, opened.limits.get(holder, 0) - max(in_hands, opened.send_queue.under_way(holder)))


# From a client node


def on_open(_led: LedQueue, opened: OpenedSession, _message: m.Open) -> None:
    opened.send_queue.repeat()


def on_publish(led: LedQueue, opened: OpenedSession, message: m.Publish) -> None:
    led.publish(
        opened.key,
        message.number,
        message.origins,
        message.contents,
        persistent=message.is_persistent,
        expiration_ms=message.expiration_ms,
        dead_letter_ids=message.dead_letter_ids,
        counts=message.counts,
    )
    if led.queue.is_behind:
        opened.backpressure.add(len(message.contents))


def owned(led: LedQueue, opened: OpenedSession, holder: Key) -> Key:
    """Holder, if it belongs to this boot of the client node; else `NO_HOLDER`.

    It may be one of an earlier session, which gave up all but its settlements.
    """
    held = led.holders.get(holder)
    if held is None or held.session == opened.key:
        return holder
    life = (opened.node, *opened.boot)
    own = (led.sessions.key_of(each) for each in led.sessions.ids() if each[:3] == life)
    return holder if held.session in own else NO_HOLDER


def on_settle(led: LedQueue, opened: OpenedSession, message: m.Settle) -> None:
    holder = owned(led, opened, message.tokens[0].holder)
    tokens = [(token.ordinal, token.run) for token in message.tokens]
    led.settle(opened.key, message.number, holder, tokens, outcome=message.outcome)


def on_attach(led: LedQueue, opened: OpenedSession, message: m.Attach) -> None:
    terms = Terms(
        message.channel,
        message.tag,
        message.prefetch,
        message.priority,
        message.no_ack,
        message.is_exclusive,
        message.arguments,
    )
    led.attach(opened.key, message.number, terms)


def on_detach(led: LedQueue, opened: OpenedSession, message: m.Detach) -> None:
    opened.limits.pop(message.holder, None)
    holder = owned(led, opened, message.holder)
    led.detach(opened.key, message.number, holder, outcome=message.outcome)


def on_get(led: LedQueue, opened: OpenedSession, message: m.Get) -> None:
    led.get(opened.key, message.number, message.channel, no_ack=message.no_ack)


def on_purge(led: LedQueue, opened: OpenedSession, message: m.Purge) -> None:
    led.purge(opened.key, message.number)


def on_credit(led: LedQueue, opened: OpenedSession, message: m.Credit) -> None:
    held = led.holders.get(message.holder)
    if held is not None and held.session == opened.key:
        opened.limits[message.holder] = message.limit
        led.holders.wake(message.holder)


def on_holding(led: LedQueue, opened: OpenedSession, message: m.NeverArrived) -> None:
    """The first answer counts: a client node repeats it in each opening."""
    if opened.is_served:
        return
    opened.is_served = True
    said: dict[tuple[Key, int], MarkedRuns[None]] = {}
    for holder, ordinal, run in message.missing:
        if (held := led.holders.get(holder)) is None or held.session != opened.key:
            continue
        before = said.setdefault((holder, ordinal), MarkedRuns())
        for part in without(run, [part for part, _mark in before.found(run)]):
            before.put(part, None)
            led.deliver_again(holder, [(ordinal, part)])
    for holder in led.holders.of_session(opened.key):
        led.holders.wake(holder)


REQUEST_HANDLERS: Mapping[type[m.FromClient], Callable[[LedQueue, OpenedSession, Any], None]] = {
    m.Open: on_open,
    m.Publish: on_publish,
    m.Settle: on_settle,
    m.Attach: on_attach,
    m.Detach: on_detach,
    m.Get: on_get,
    m.Purge: on_purge,
    m.Credit: on_credit,
    m.NeverArrived: on_holding,
}


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
                self._aside.append((node, m.leader_notice(self._group, self._own, session)))

    def end(self) -> None:
        """The leadership is over: no publisher waits for its queue any more."""
        for opened in self._opened_sessions.values():
            opened.backpressure.forgive()

    def leader_notices(self, leader: m.Leader) -> list[tuple[str, m.LeaderFrame]]:
        """Notices of this leadership's end to all linked client nodes, with the new leader.

        Who asks for nothing would else wait for messages that are not handed out.
        """
        hint = leader._replace(boot=self._own.boot)
        return [
            (session.node, m.leader_notice(self._group, hint, session))
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
        """Time has passed: a node that was silent for too long loses what it holds, and no session.

        Returns whether the time of any node runs.
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
            self._aside.append((node, m.not_leading(frame, self._own)))
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
            self._aside.append((node, m.reply_beside(frame, self._own.boot, [m.SessionLost()])))
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
        for opened in filter(self._is_open, talking.values()):
            node, frames = self._nodes[opened.node], opened.send_queue.take()
            while has_room(opened.node):  # mutant: L2
                if (frame := next(frames, None)) is None:
                    break
                yield opened.node, self._numbered(opened, node, frame.number, frame.messages)
            else:
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
