"""Sessions of a led queue: which of their operations are done, and with what outcome.

The next number of a session here counts what is under way; the image's counts what is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from fluffle.broker.base.delayed_queues import is_delayed_queue
from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_in
from fluffle.broker.queues.publish_target import (
    DeadLetterIds,
    Enqueue,
    EnqueueResult,
    MessageResult,
    PartialResult,
    results_of,
)
from fluffle.broker.queues.quorum.deduplication import ArrivalKind, DeadLetterDedup
from fluffle.broker.queues.quorum.effects import (
    AnswerEffect,
    DoneEffect,
    Effect,
    ExpectedEffect,
    RejectedEffect,
)
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder, EntryVersions
from fluffle.broker.queues.quorum.entry_codec import CARRIES
from fluffle.broker.queues.quorum.facts import (
    Acknowledged,
    Acted,
    Answered,
    Key,
    OperationsRejected,
    Published,
    SessionClosed,
    SessionId,
    SessionOpened,
)
from fluffle.broker.queues.quorum.proposals import EffectBuffer
from fluffle.broker.queues.quorum.state import QueueState
from fluffle.protocol.headers import delay_in
from fluffle.protocol.properties import raw_properties
from fluffle.raft.ranges import Ranges

NONE = Ranges()


class QuorumSessionTable:
    """All sessions of one queue."""

    __slots__ = (
        "_again",
        "_builder",
        "_effects",
        "_keys",
        "_next",
        "_state",
        "_too_soon",
        "_touch",
    )

    def __init__(
        self,
        state: QueueState,
        builder: EntryBuilder,
        effects: EffectBuffer,
        touch: Callable[[], None],
    ) -> None:
        self._state = state
        self._builder = builder
        self._effects = effects
        self._touch = touch
        sessions = state.sessions.items()
        self._next = {key: session.next for key, session in sessions} or EMPTY_DICT
        self._again: dict[Key, Ranges] = EMPTY_DICT
        """Operations that were asked for again, and will be answered: once for all times."""
        self._too_soon: dict[Key, None] = EMPTY_DICT
        """Sessions that will get an `ExpectedEffect`."""
        self._keys = {session.id: key for key, session in sessions} or EMPTY_DICT

    def key_of(self, session_id: SessionId) -> Key | None:
        """None for one that is not open: a client that goes on with it has lost it."""
        return self._keys.get(session_id)

    def ids(self) -> list[SessionId]:
        """Ids of all open sessions."""
        return list(self._keys)

    def open(self, session_id: SessionId) -> Key:
        """The key of a session, which is opened if it is not open."""
        key = self._keys.get(session_id)
        if key is None:
            if self._keys is EMPTY_DICT:
                self._keys, self._next = {}, {}
            key = self._keys[session_id] = self._builder.take_key()
            self._next[key] = 1
            node, boot, nonce, counter = session_id
            self._builder.say(SessionOpened(key, boot, nonce, counter, node))
            self._touch()
        return key

    def close(self, session: Key) -> None:
        """Close a session, which has no consumers left."""
        del self._next[session]
        self._again.pop(session, None)
        self._too_soon.pop(session, None)
        left = {session_id: key for session_id, key in self._keys.items() if key != session}
        self._keys, self._next = left or EMPTY_DICT, self._next if left else EMPTY_DICT
        self._builder.say(SessionClosed(session))
        self._touch()

    def acknowledge(self, session: Key, below: int) -> None:
        """The client knows the outcomes of all operations below `below`."""
        known = self._state.sessions.get(session)
        if known is None or not (known.rejected or known.answers):
            return
        below = min(below, known.next)
        if known.rejected.within(0, below) or any(number < below for number in known.answers):
            self._builder.say(Acknowledged(session, below))
            self._touch()

    def known(self, session: Key, first: int, count: int) -> int:
        """How many of some operations, from the first one on, are not to be done any more.

        They will be answered: with their outcome, or with the number that is expected instead.
        """
        expected = self._next[session]
        if first > expected:  # mutant: R24
            if session not in self._too_soon:
                if self._too_soon is EMPTY_DICT:
                    self._too_soon = {}
                self._too_soon[session] = None
                self._effects.keep_known(lambda: self._expected(session, expected))
                self._touch()
            return count
        known = min(expected - first, count)  # mutant: R4a
        again = self._again.get(session, NONE)
        if known and again.gaps(first, first + known):
            if self._again is EMPTY_DICT:
                self._again = {}
            self._again[session] = again.plus(Ranges.of((first, first + known)))
            self._effects.keep_known(lambda: self._answered_again(session, first, first + known))
            self._touch()
        return known

    def advance(self, fact: Published | OperationsRejected | Acted | Answered) -> None:
        """The next operations of a session are done."""
        self._builder.say(fact)
        self._next[fact.session] += 1 if isinstance(fact, Answered) else fact.count  # mutant: LE3
        self._touch()

    def _expected(self, session: Key, expected: int) -> list[Effect]:
        self._too_soon.pop(session, None)
        return [ExpectedEffect(session, expected)]

    def _answered_again(self, session: Key, first: int, stop: int) -> list[Effect]:
        left = self._again.pop(session, NONE).minus(Ranges.of((first, stop)))
        if left:
            self._again[session] = left
        return list(self._outcomes(session, first, stop))

    def _outcomes(self, session: Key, first: int, stop: int) -> Iterator[Effect]:
        """Outcomes of applied operations from `first` up to `stop`."""
        found = self._state.sessions.get(session)
        if found is None:
            return
        answers = Ranges.of(*((number, number + 1) for number in sorted(found.answers)))
        rejected = found.rejected
        for low, high in rejected.within(first, stop):
            yield RejectedEffect(session, low, high - low)  # mutant: R4b
        for number in [number for number in found.answers if first <= number < stop]:
            yield AnswerEffect(session, number, found.answers[number])
        for low, high in rejected.plus(answers).gaps(first, stop):
            yield DoneEffect(session, low, high - low)


class SessionPublisher(NamedTuple):
    """Publisher for the sessions of one leadership."""

    enqueue: Enqueue
    """Enqueues into the queue."""
    sessions: QuorumSessionTable
    effects: EffectBuffer
    arrivals: DeadLetterDedup
    delivery_counts: DeliveryCountIndex | None
    """Delivery counts; None in a delayed queue, which delivers to no consumer."""
    versions: EntryVersions
    may_grow: Callable[[], bool]
    """See `QueueLog`."""

    def publish(
        self,
        session: Key,
        first: int,
        origins: list[Origin],
        contents: list[bytes],
        *,
        expiration_ms: Lifetimes,
        posted: DeadLetterIds | None,
        counts: Counts,
    ) -> None:
        """Operations `first`, `first + 1` ... are a message each; those that were done before are
        answered again.  Some may not fit, all others are recorded."""
        if done := self.sessions.known(session, first, len(contents)):
            first, origins, contents = first + done, origins[done:], contents[done:]
            expiration_ms = lifetimes_in(expiration_ms, slice(done, None))  # mutant: BA1 BA2
            posted = posted.after(done) if posted is not None else None  # mutant: BA3
        if not contents:
            return
        delivery_counts = self.delivery_counts
        if counts is not NEW and delivery_counts is not None and self.versions.version >= CARRIES:
            delivery_counts.coming = counts  # mutant: BA4 CA3
        self._take(session, first, origins, contents, expiration_ms=expiration_ms, posted=posted)
        if delivery_counts is not None:
            delivery_counts.coming = NEW  # mutant: BA5 CA4

    def _take(
        self,
        session: Key,
        first: int,
        origins: list[Origin],
        contents: list[bytes],
        *,
        expiration_ms: Lifetimes,
        posted: DeadLetterIds | None,
    ) -> None:
        """Enqueue messages of operations that are new."""
        if posted is None:
            self._put(session, first, origins, contents, expiration_ms)
            return
        for start, stop, result in self.arrivals.sift(posted):
            if result in (ArrivalKind.STALE, ArrivalKind.EARLY):  # mutant: BA8
                self._refuse(session, first + start, stop - start)
            elif result is ArrivalKind.HERE:
                self.sessions.advance(Acted(session, first + start, stop - start))
                self._confirm(session, first + start, stop - start)  # mutant: BA9
            else:
                run, number = slice(start, stop), first + start
                lifetimes_ms = lifetimes_in(expiration_ms, run)  # mutant: BA6
                taken = self._put(session, number, origins[run], contents[run], lifetimes_ms)
                for low, high in taken:
                    self.arrivals.add(posted.part(start + low, start + high))  # mutant: BA7

    def _put(
        self,
        session: Key,
        first: int,
        origins: list[Origin],
        contents: list[bytes],
        expiration_ms: Lifetimes,
    ) -> list[tuple[int, int]]:
        """From where to where they are taken."""
        result: EnqueueResult | PartialResult = EnqueueResult.REJECTED
        # What has died makes room where it did, and nobody has it any more if it is refused.
        if origins[0].past is not MessageAnnotations.NONE or self.may_grow():  # mutant: BA11 BA12
            size_bytes = sum(map(len, contents))
            result = self.enqueue(  # mutant: BA10
                origins, contents, size_bytes, persistent=True, expiration_ms=expiration_ms
            )
        taken: list[tuple[int, int]] = []
        for start, stop, part in results_of(result, len(contents)):  # mutant: LE23
            number, count = first + start, stop - start  # mutant: BA15
            if part is MessageResult.REJECTED:  # mutant: BA13
                self._refuse(session, number, count)
                continue
            if part is MessageResult.DUPLICATE:
                self.sessions.advance(Acted(session, number, count))
            else:
                taken.append((start, stop))  # mutant: BA14
                self.sessions.advance(Published(session, number, count))
            self._confirm(session, number, count)
        return taken

    def _refuse(self, session: Key, first: int, count: int) -> None:
        self.sessions.advance(OperationsRejected(session, first, count))
        effect = RejectedEffect(session, first, count)
        self.effects.keep(lambda: [effect])  # mutant: LE24

    def _confirm(self, session: Key, first: int, count: int) -> None:
        effect = DoneEffect(session, first, count)
        self.effects.keep(lambda: [effect])


def enqueue_of(queue: Queue) -> Enqueue:
    """Function that enqueues messages into a queue; for a delayed queue it first reads each
    delay."""
    if not is_delayed_queue(queue.name):
        return queue.enqueue

    def enqueue(
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool = False,
        expiration_ms: Lifetimes = None,
    ) -> EnqueueResult | PartialResult:
        del expiration_ms  # that counts from when it is routed
        delays_ms = [delay_in(raw_properties(content)) for content in contents]
        return queue.enqueue(
            origins, contents, content_bytes, persistent=persistent, expiration_ms=delays_ms
        )

    return enqueue
