"""Session at the leader of a queue, once opened: its client's requests, and the frames back to it.

    request --> `REQUEST_HANDLERS` --> the led queue --> effect: a message --> send queue

There is one function for each message of a client.  What the session put into a
queue that is behind its consumers is counted until it has been handed out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeGuard

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import BackloggedTarget, DeadLetterIds
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.facts import NO_HOLDER, GetterAttached, Key, SessionId
from fluffle.broker.queues.quorum.holders import Holders, Terms
from fluffle.broker.queues.quorum.messages import Deliver, DoneReply, FromLeader, GetAnswer
from fluffle.broker.queues.quorum.runs import MarkedRuns, without
from fluffle.broker.queues.quorum.state import QueueState

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


class SessionTable(Protocol):
    """The sessions of a led queue."""

    def key_of(self, session_id: SessionId) -> Key | None:
        """None for one that is not open."""

    def ids(self) -> list[SessionId]:
        """Ids of all open sessions."""

    def open(self, session_id: SessionId) -> Key:
        """The key of a session, which is opened if it is not open."""

    def acknowledge(self, session: Key, below: int) -> None:
        """The client node knows the outcomes of all operations below `below`."""


class LedQueue(Protocol):
    """A queue that is led here: what client nodes ask becomes of it what `effects` lists."""

    @property
    def queue(self) -> Queue:
        """Queue, for reading."""

    @property
    def sessions(self) -> SessionTable: ...

    @property
    def holders(self) -> Holders: ...

    def publish(
        self,
        session: Key,
        first: int,
        origins: list[Origin],
        contents: list[bytes],
        *,
        persistent: bool,
        expiration_ms: Lifetimes,
        posted: DeadLetterIds | None,
        counts: Counts,
    ) -> None:
        """Operations `first`, `first + 1` ... are a message each."""

    def settle(
        self,
        session: Key,
        number: int,
        holder: Key,
        tokens: Sequence[tuple[int, range]],
        *,
        outcome: Outcome,
    ) -> None:
        """End hand-outs: each run with its ordinal."""

    def get(self, session: Key, number: int, channel: int, *, no_ack: bool) -> None:
        """Hand the next message to a channel, if there is one."""

    def attach(self, session: Key, number: int, terms: Terms) -> None:
        """Let a consumer take part.  The answer is its key, or `IN_EXCLUSIVE_USE`."""

    def detach(
        self, session: Key, number: int, holder: Key, *, outcome: Outcome | None = None
    ) -> None:
        """Hand nothing more to whom it is; what it holds stays held, or all comes back."""

    def purge(self, session: Key, number: int) -> None:
        """Drop all that waits.  The answer is how many messages that is."""

    def drop_session(self, session: Key, outcome: Outcome, *, keeps_row: bool = False) -> None:
        """All that consumers of a session hold comes back, and they go; so does it, if not kept."""

    def deliver_again(self, holder: Key, tokens: Sequence[tuple[int, range]]) -> None:
        """Deliver again what a holder has on record and never received."""


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
        posted=message.posted,
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
