"""Checker of a history: reports what no honest broker would have caused.  Pure: events in, a report
out.

The rules:

- a message that was confirmed is received by a client, unless its queue was cleared;
- nothing is received that was not published there, and nothing that ends with a process after it;
- what was acknowledged is not received again once a later reply on that channel has come; before
  that a crash may bring it back, as redelivered;
- what a client has received is never received again without `redelivered`, and not by another
  while a client that is still there holds it;
- messages of one client come to a channel in their order, unless they are redelivered; in a
  *steady* queue, of which nothing is given back, redelivered ones do too;
- what was purged or deleted stays gone; what is published to a queue before it is declared anew may
  go with it, or nowhere, and what is published afterwards is in the new one;
- nothing is confirmed by a node that was alone all the time since it was published, unless all its
  queues live on one node.

A client may read late what was sent to it early.  So a delivery is held against a broker only if
it was *certainly sent after* what it contradicts: after an answer to a question that was asked
later than that.  How far back this reaches is a channel's *floor*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from fluffle.broker.torture.history import (
    Acked,
    Asked,
    Clearing,
    ClearingAsked,
    ClearingDone,
    Closing,
    Complained,
    Confirmed,
    Connected,
    Declared,
    Ended,
    Event,
    Homed,
    Isolated,
    Joined,
    Joining,
    MessageId,
    Published,
    PutBack,
    Received,
    Refused,
    Rejoined,
    Requeued,
    Returned,
    RunEnded,
    Strange,
    TurnedAway,
    Vouched,
)

SENTENCES_MAX = 50
"""Sentences reported of each kind of breach; the rest is only counted."""


class Breach(Enum):
    """Breach of a promise to clients, worst first."""

    LOST = "lost"
    """Confirmed, and never received."""
    LET_IN = "let in with an old disk"
    """A node that had confirmed what was not on its disk any more, and served."""
    APART = "stands apart"
    """A node that was to join the cluster, and is of none, or of another."""
    UNEXPECTED = "unexpected"
    """Never published, or nothing that a broker may say."""
    STALE = "stale answer"
    """The answer contradicts what was answered before it was asked for, as "not there" after
    declare-ok."""
    LOCKED = "locked for ever"
    """An exclusive queue outlives its connection."""
    BACK = "acknowledged and back"
    LIED = "untrue redelivered"
    """Or a count of deliveries that falls."""
    DISORDERED = "out of order"
    SHARED = "in two hands"
    """Breach that no broker can avoid when a consumer is unreachable."""
    OUTDATED = "outdated yes"
    """A thing is there still, by a node that has not heard of its deletion: to say yes, or to route
    a message, no node asks another."""


NOT_PROMISED = {Breach.SHARED, Breach.OUTDATED}


@dataclass(slots=True)
class Findings:
    """Numbers and breaches that a history comes to."""

    attempted: int = 0
    confirmed: int = 0
    refused: int = 0
    unanswered: int = 0
    """Neither confirmed nor refused: the connection ended before."""
    returned: int = 0
    """Confirmed, and returned as there is no queue for them: some are published so."""
    received: int = 0
    """Messages and queues that they were received from, each once."""
    duplicated: int = 0
    """Received again."""
    recovered: int = 0
    """Received though never confirmed: they came further than the confirm."""
    refused_received: int = 0
    not_owed: int = 0
    """Confirmed and not received, which is right: cleared away, transient or handed out without
    acknowledgement."""
    complaints: Counter[str] = field(default_factory=Counter)
    """Complaints of the broker, by its words."""
    breaches: Counter[Breach] = field(default_factory=Counter)
    _sentences: dict[Breach, list[str]] = field(default_factory=dict)

    def add(self, breach: Breach, sentence: str) -> None:
        self.breaches[breach] += 1
        sentences = self._sentences.setdefault(breach, [])
        if len(sentences) < SENTENCES_MAX:
            sentences.append(sentence)

    @property
    def is_clean(self) -> bool:
        return not self.breaches

    @property
    def is_good(self) -> bool:
        """True if nothing was broken that is promised."""
        return not self.broken

    @property
    def broken(self) -> int:
        """Number of breaches of what is promised."""
        return sum(self.breaches[breach] for breach in {*self.breaches} - NOT_PROMISED)

    def numbers(self) -> dict[str, int]:
        """Return all counts by name."""
        return {
            "attempted": self.attempted,
            "confirmed": self.confirmed,
            "refused": self.refused,
            "unanswered": self.unanswered,
            "returned": self.returned,
            "received": self.received,
            "duplicated": self.duplicated,
            "recovered": self.recovered,
            "refused received": self.refused_received,
            "not owed": self.not_owed,
            **{breach.value: self.breaches[breach] for breach in Breach},
        }

    def sentences(self) -> Iterator[str]:
        """Yield the breaches, worst first; not more than so many of a kind."""
        return (line for breach in Breach for line in self._sentences.get(breach, ()))


class NumberSet:
    __slots__ = ("_bits",)

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        at, bit = divmod(number, 8)
        if at >= len(self._bits):
            self._bits.extend(bytes(at + 1 - len(self._bits)))
        self._bits[at] |= 1 << bit

    def __contains__(self, number: int) -> bool:
        at, bit = divmod(number, 8)
        return at < len(self._bits) and bool(self._bits[at] >> bit & 1)


BUG = "the broker failed, see its log"
"""The text that fluffle sends where an error of its own ends a connection."""
SETTLED_MAX = 100_000
"""Messages that are over and still known one by one: more than any channel is behind."""


@dataclass(slots=True, eq=False)
class MessageState:
    """State of one message in one queue.  Times are numbers of events."""

    message: MessageId
    queue: str
    run: int
    """Run in which it was published."""
    outlives: bool
    """True if it is there after the end of the process."""
    may_be_cleared: bool
    receipts: int = 0
    received_at: int = 0
    """Time at which it was first received."""
    was_new: bool = False
    """A client has received it as not redelivered."""
    in_vain: int = 0
    """The highest number of deliveries in vain that was reported, and when."""
    counted_at: int = 0
    holder: str | None = None
    """The channel in whose hands it is, or whose acknowledgement may not have come yet."""
    is_shared: bool = False
    """Two clients held it, so that it is unknown whose acknowledgement counts."""
    vouched_at: int = 0
    cleared_at: int = 0

    def __str__(self) -> str:
        return f"{self.message} in {self.queue}"


class PublishedMessage(NamedTuple):
    """Message that was published, with its state in each queue."""

    published_at: int
    states: tuple[MessageState, ...]


class PendingReply(NamedTuple):
    """Reply that a channel waits for: since when, and what it acknowledged before."""

    requested_at: int
    acked: list[MessageState]


class Suspicion(NamedTuple):
    """Delivery of a message to a second channel while a first held it."""

    at: int
    channels: tuple[str, str]
    state: MessageState


class Checker:
    """Checker that reads a history event by event."""

    def __init__(
        self,
        report: Findings,
        *,
        transient: Collection[str] = (),
        steady: Collection[str] = (),
        leaky: Collection[str] = (),
        settled_max: int = SETTLED_MAX,
    ) -> None:
        """The queues are as for `OnlineChecker`; so many messages that are over are kept."""
        self.report = report
        self._transient = transient
        self._steady = steady
        self._leaky = leaky
        self._settled_max = settled_max
        self._now = 0
        self._run = 0
        self._run_ended_at = 0
        self._published_messages: dict[MessageId, PublishedMessage] = {}
        self._unconfirmed: set[MessageId] = set()
        self._refused: set[MessageId] = set()
        self._returned: set[MessageId] = set()
        self._settled: dict[MessageId, int] = {}
        """Messages that are over, and when that was vouched for; the oldest are forgotten.
        Invariant: rising times."""
        self._forgotten: dict[str, NumberSet] = {}
        """Messages by publisher that were acknowledged, with an answer that proved it before ..."""
        self._forgotten_until = 0
        self._in_queue: dict[str, dict[MessageId, MessageState]] = {}
        """Messages by queue that were not cleared."""
        self._acked: dict[str, list[MessageState]] = {}
        """Acknowledged messages by channel, without a question since."""
        self._questions: dict[str, PendingReply] = {}
        self._floors: dict[str, int] = {}
        """Time of the last answered question, by channel."""
        self._held: dict[str, set[MessageState]] = {}
        """Held messages by channel."""
        self._suspicions: dict[str, list[Suspicion]] = {}
        """Suspicions by each of the two channels."""
        self._clearing: dict[str, list[MessageState]] = {}
        """Queues that are being cleared, with what must be gone then unless it is in hands."""
        self._deleted: set[str] = set()
        """Queues that were deleted and not declared anew."""
        self._last: dict[str, dict[tuple[str, str], int]] = {}
        """The greatest number received, by channel, then by queue and publisher."""
        self._homed: set[str] = set()
        self._node_of: dict[str, str] = {}
        """The node of each client."""
        self._isolated: dict[str, int] = {}
        self._connected_at: dict[str, int] = {}
        """Times by client."""
        self._put_back: dict[str, int] = {}
        """Nodes that must be turned away, and since when."""
        self._joining: set[str] = set()
        """Nodes that have to join the cluster."""

    def read(self, events: Iterable[Event]) -> None:
        for event in events:
            self._now += 1
            reader = READERS.get(type(event))
            if reader is not None:
                reader(self, event)

    def finish(self) -> None:
        """Finish, when all queues have been emptied: whatever was not received is lost."""
        for state in self.owed():
            self.report.add(Breach.LOST, f"{state} was confirmed and is lost")
        for node in sorted(self._put_back):
            self.report.add(Breach.LET_IN, f"{node} was not turned away though its disk is old")
        for node in sorted(self._joining):
            self.report.add(Breach.APART, f"{node} has not joined the cluster that it is to join")
        self.report.unanswered = len(self._unconfirmed)
        for message, published in self._published_messages.items():
            received = sum(1 for state in published.states if state.receipts)
            if message in self._unconfirmed:
                self.report.recovered += received
            elif message in self._refused:
                self.report.refused_received += received
            else:
                left = [state for state in published.states if not state.receipts]
                self.report.not_owed += sum(1 for state in left if not self._is_owed(state))

    def owed(self) -> Iterator[MessageState]:
        """Return messages that were confirmed and not received by any client."""
        for message, published in self._published_messages.items():
            if message in self._unconfirmed or message in self._refused:
                continue
            for state in published.states:
                if self._is_owed(state):
                    yield state

    def _is_owed(self, state: MessageState) -> bool:
        if state.receipts or not state.outlives:
            return False
        return not state.may_be_cleared and state.queue not in self._leaky

    def _breach(self, breach: Breach, sentence: str) -> None:
        self.report.add(breach, f"event {self._now}: {sentence}")

    def _floor(self, channel: str) -> int:
        """Return the point of the history behind which whatever is sent from now on was sent."""
        return max(self._floors.get(channel, 0), self._run_ended_at)

    def _got_homed(self, event: Homed) -> None:
        self._homed.add(event.queue)

    # What publishers say and hear

    def _connected(self, event: Connected) -> None:
        self._node_of[event.client] = event.node
        self._connected_at[event.client] = self._now

    def _published(self, event: Published) -> None:
        self.report.attempted += 1
        message = event.message
        states = tuple(
            MessageState(
                message,
                queue,
                self._run,
                outlives=event.persistent and queue not in self._transient,
                may_be_cleared=queue in self._clearing or queue in self._deleted,
            )
            for queue in event.queues
        )
        self._published_messages[message] = PublishedMessage(self._now, states)
        self._unconfirmed.add(message)
        for state in states:
            self._in_queue.setdefault(state.queue, {})[message] = state

    def _confirmed(self, event: Confirmed) -> None:
        self._check_served(event.message.publisher)
        self.report.confirmed += 1
        message = event.message
        published_at, states = self._published_messages[message]
        self._unconfirmed.remove(message)
        if not states:
            del self._published_messages[message]
            if message in self._returned:
                self.report.returned += 1
            else:
                self._breach(
                    Breach.UNEXPECTED, f"{message} went nowhere and was confirmed without a return"
                )
            return
        node = self._node_of.get(message.publisher, "")
        is_homed = all(state.queue in self._homed for state in states)
        if published_at > self._isolated.get(node, self._now) and not is_homed:
            self._breach(Breach.UNEXPECTED, f"{message} was confirmed by {node}, which was alone")
        self._settle(message)

    def _got_refused(self, event: Refused) -> None:
        self.report.refused += 1
        self._unconfirmed.remove(event.message)
        self._refused.add(event.message)

    def _got_returned(self, event: Returned) -> None:
        self._returned.add(event.message)
        published = self._published_messages.get(event.message)
        if published is not None and not all(state.may_be_cleared for state in published.states):
            self._breach(Breach.STALE, f"{event.message} came back as unroutable")

    # What consumers say and hear

    def _received(self, event: Received) -> None:
        state = self._state_of(event.message, event.queue)
        if state is None:
            self._received_unknown(event)
            return
        floor = self._floor(event.channel)
        if state.run < self._run and not state.outlives:
            self._breach(Breach.UNEXPECTED, f"{state} is transient and came back")
        if 0 < state.cleared_at < floor:
            self._breach(Breach.UNEXPECTED, f"{state} was cleared away and came back")
        if 0 < state.vouched_at < floor:
            self._breach(Breach.BACK, f"{state} was acknowledged, that was vouched for; it is back")
        self._check_flag(state, event, floor)
        self._check_order(state, event)
        self._check_hands(state, event.channel)
        if state.receipts:
            self.report.duplicated += 1
        else:
            self.report.received += 1
            state.received_at = self._now
        state.receipts += 1
        self._held.setdefault(event.channel, set()).add(state)

    def _received_unknown(self, event: Received) -> None:
        forgotten = self._forgotten.get(event.message.publisher)
        if forgotten is None or event.message.number not in forgotten:
            what = f"{event.message} was never published to {event.queue}"
            self._breach(Breach.UNEXPECTED, what)
            return
        self.report.duplicated += 1
        if self._floor(event.channel) > self._forgotten_until:
            what = f"{event.message} was acknowledged and vouched for long ago, and is back"
            self._breach(Breach.BACK, what)

    def _check_flag(self, state: MessageState, event: Received, floor: int) -> None:
        """Check the redelivered flag: two deliveries cannot be the first, nor one certainly sent
        after another."""
        if not event.redelivered:
            if state.was_new or 0 < state.received_at < floor:
                self._breach(Breach.LIED, f"{state} came again and says that it is new")
            state.was_new = True
        if event.in_vain is None:
            return
        if event.in_vain < state.in_vain and state.counted_at < floor:
            what = f"{state} was delivered {state.in_vain} times in vain, and {event.in_vain} later"
            self._breach(Breach.LIED, what)
        if event.in_vain >= state.in_vain:
            state.in_vain, state.counted_at = event.in_vain, self._now

    def _check_order(self, state: MessageState, event: Received) -> None:
        if event.redelivered and event.queue not in self._steady:
            return
        publisher, number = state.message
        last = self._last.setdefault(event.channel, {})
        before = last.get((event.queue, publisher), 0)
        if number <= before:
            self._breach(Breach.DISORDERED, f"{state} came after number {before}")
        last[event.queue, publisher] = number

    def _check_hands(self, state: MessageState, channel: str) -> None:
        if state.holder is not None:
            state.is_shared = True
            suspicion = Suspicion(self._now, (state.holder, channel), state)
            for each in {state.holder, channel}:
                self._suspicions.setdefault(each, []).append(suspicion)
        state.holder = channel

    def _state_of(self, message: MessageId, queue: str) -> MessageState | None:
        published = self._published_messages.get(message)
        states = published.states if published else ()
        return next(
            (state for state in states if state.queue == queue),
            None,
        )

    def _got_acked(self, event: Acked) -> None:
        state = self._let_go(event)
        if state is not None and state.holder == event.channel:
            self._acked.setdefault(event.channel, []).append(state)

    def _got_requeued(self, event: Requeued) -> None:
        state = self._let_go(event)
        if state is not None and state.holder == event.channel:
            state.holder = None

    def _let_go(self, event: Acked | Requeued) -> MessageState | None:
        state = self._state_of(event.message, event.queue)
        if state is not None:
            self._held[event.channel].discard(state)
        return state

    # What becomes of channels

    def _got_asked(self, event: Asked) -> None:
        acked = self._acked.pop(event.channel, [])
        self._questions[event.channel] = PendingReply(self._now, acked)

    def _vouched(self, event: Vouched) -> None:
        channel = event.channel
        self._floors[channel], acked = self._questions.pop(channel)
        for state in acked:
            if state.holder == channel and not state.is_shared:
                state.holder = None
                state.vouched_at = self._now
                self._settle(state.message)
        suspicions = self._suspicions.pop(channel, ())
        left = [each for each in suspicions if not self._is_proven(each)]
        if left:
            self._suspicions[channel] = left

    def _is_proven(self, suspicion: Suspicion) -> bool:
        """True if both channels are still there, which no broker can have thought gone."""
        if any(self._floor(channel) <= suspicion.at for channel in suspicion.channels):
            return False
        first, second = suspicion.channels
        self._breach(Breach.SHARED, f"{suspicion.state} is in the hands of {first} and of {second}")
        self._dismiss(suspicion)
        return True

    def _dismiss(self, suspicion: Suspicion) -> None:
        for channel in suspicion.channels:
            suspicions = self._suspicions.get(channel, [])
            if suspicion in suspicions:
                suspicions.remove(suspicion)

    def _closing(self, event: Closing) -> None:
        """Note a channel that closes: what it holds may come to others; its acknowledgements are on
        their way."""
        release(event.channel, self._held.pop(event.channel, ()))
        for suspicion in [*self._suspicions.get(event.channel, ())]:
            self._dismiss(suspicion)

    def _ended(self, event: Ended) -> None:
        """Note a connection that ended: acknowledgements without an answer may never have
        arrived."""
        channel = event.channel
        self._closing(Closing(channel))
        question = self._questions.pop(channel, None)
        release(channel, question.acked if question else ())
        release(channel, self._acked.pop(channel, ()))
        for of_channel in (self._floors, self._suspicions, self._last):
            of_channel.pop(channel, None)

    # What becomes of messages

    def _settle(self, message: MessageId) -> None:
        """Remember a message that is over everywhere for a while, then only that it was."""
        published = self._published_messages[message]
        if message in self._unconfirmed or not all(state.vouched_at for state in published.states):
            return
        self._settled.pop(message, None)  # a copy that was on its way was acknowledged, too
        self._settled[message] = self._now
        while len(self._settled) > self._settled_max:
            old = next(iter(self._settled))
            self._forgotten_until = self._settled.pop(old)
            self._forgotten.setdefault(old.publisher, NumberSet()).add(old.number)
            for state in self._published_messages.pop(old).states:
                self._in_queue[state.queue].pop(old, None)

    def _clearing_asked(self, event: ClearingAsked) -> None:
        """Note that a purge was sent: from now on anything in the queue may go, and what has been
        confirmed must."""
        states = self._in_queue.get(event.queue, {}).values()
        for state in states:
            state.may_be_cleared = True
        self._clearing[event.queue] = [
            state for state in states if state.message not in self._unconfirmed
        ]

    def _clearing_done(self, event: ClearingDone) -> None:
        for state in self._clearing.pop(event.queue):
            if event.how is Clearing.DELETE or state.holder is None:
                state.cleared_at = self._now
                self._in_queue[event.queue].pop(state.message, None)
        if event.how is Clearing.DELETE:
            self._deleted.add(event.queue)

    def _got_declared(self, event: Declared) -> None:
        self._deleted.discard(event.queue)

    # What becomes of nodes

    def _run_ended(self, _event: RunEnded) -> None:
        self._run += 1
        self._run_ended_at = self._now
        self._clearing.clear()
        for channel in {*self._held, *self._acked, *self._questions, *self._floors}:
            self._ended(Ended(channel, "the process ended"))

    def _isolating(self, event: Isolated) -> None:
        self._isolated[event.node] = self._now

    def _rejoined(self, event: Rejoined) -> None:
        del self._isolated[event.node]

    def _got_put_back(self, event: PutBack) -> None:
        self._put_back[event.node] = self._now

    def _got_joining(self, event: Joining) -> None:
        self._joining.add(event.node)

    def _got_joined(self, event: Joined) -> None:
        self._joining.discard(event.node)

    def _turned_away(self, event: TurnedAway) -> None:
        self._put_back.pop(event.node, None)

    def _check_served(self, client: str) -> None:
        """A node has answered; with an old disk it must not, to those that have come since."""
        node = self._node_of.get(client, "")
        if self._put_back.get(node, self._now) < self._connected_at.get(client, 0):
            del self._put_back[node]
            self._breach(Breach.LET_IN, f"{node} confirms though its disk is old")

    def _complained(self, event: Complained) -> None:
        self.report.complaints[event.what] += 1
        if BUG in event.what:
            self._breach(Breach.UNEXPECTED, f"{event.client} got the answer: {event.what}")

    def _strange(self, event: Strange) -> None:
        self._breach(Breach.UNEXPECTED, event.what)


def release(channel: str, states: Iterable[MessageState]) -> None:
    """Note that a client does not hold these messages any more."""
    for state in states:
        if state.holder == channel:
            state.holder = None


READERS: dict[type[Event], Callable[[Checker, Any], None]] = {
    Connected: Checker._connected,
    Published: Checker._published,
    Confirmed: Checker._confirmed,
    Refused: Checker._got_refused,
    Homed: Checker._got_homed,
    Returned: Checker._got_returned,
    Received: Checker._received,
    Acked: Checker._got_acked,
    Requeued: Checker._got_requeued,
    Asked: Checker._got_asked,
    Vouched: Checker._vouched,
    Closing: Checker._closing,
    Ended: Checker._ended,
    ClearingAsked: Checker._clearing_asked,
    ClearingDone: Checker._clearing_done,
    Declared: Checker._got_declared,
    RunEnded: Checker._run_ended,
    Isolated: Checker._isolating,
    Rejoined: Checker._rejoined,
    PutBack: Checker._got_put_back,
    TurnedAway: Checker._turned_away,
    Joining: Checker._got_joining,
    Joined: Checker._got_joined,
    Complained: Checker._complained,
    Strange: Checker._strange,
}
