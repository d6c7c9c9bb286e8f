"""Sessions of a led queue: which of their operations are done, and with what outcome.

The next number of a session here counts what is under way; the image's counts what is applied.

Dead letters of other queues that must arrive are not taken again:

    they die there --> given here, with their numbers there --> Arrived, remembered here
                                ^                                    |
                                | again, by the same leader or       v
                                | the next one                   confirmed --> DeadLettered there
                                                                                     |
    ArrivalsKnown here, forgotten  <---------- said with what is given next <--------+

A queue has its own numbers for its dead letters, the same under each leader and at each
repetition.  What is remembered is no more than what it has under way.  The leader of a later term
has on record all that was so for others: what they still have under way comes to nothing from then
on.

Unless an operator gave up the members that had it, and one member of that queue went on alone:
messages that it never had may be here, and others may have their numbers.  Its term says so; then
all is forgotten that came before, for twice is better than not at all.

Nothing is remembered before it is on record that all members read it.  In a queue that was made
just now that is so after its first entry, which may not bring any: the next leader would not know.
What is remembered is decided with the message: a member that is added before their entry is written
changes nothing in it.

The keys of messages (`x-message-deduplication`) that come in with an entry are one fact of it.
While not all members read such a fact, the leader alone knows; it says all of that as soon as it
may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import groupby
from typing import NamedTuple

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.queues.deduplication import DuplicateFilter
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
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
from fluffle.broker.queues.quorum.entry_codec import ARRIVALS, CARRIES, REMEMBERS
from fluffle.broker.queues.quorum.facts import (
    Acknowledged,
    ArrivalsKnown,
    Arrived,
    Key,
    OperationDoneWithAnswer,
    OperationsDone,
    OperationsRejected,
    Published,
    Remembered,
    SessionClosed,
    SessionId,
    SessionOpened,
    SourceGone,
)
from fluffle.broker.queues.quorum.leader_services import KnownQueues
from fluffle.broker.queues.quorum.messages import (
    AnswerReply,
    DoneReply,
    Effect,
    ExpectedReply,
    RejectedReply,
)
from fluffle.broker.queues.quorum.proposals import (
    EffectBuffer,
    EntryBuilder,
    EntryVersions,
    QueueTime,
)
from fluffle.broker.queues.quorum.runs import runs_of
from fluffle.broker.queues.quorum.state import UNKNOWN_SOURCE, QueueState, Source
from fluffle.broker.queues.settings import DeduplicationCache
from fluffle.protocol.headers import delay_in
from fluffle.protocol.properties import raw_properties
from fluffle.raft.election import was_forced
from fluffle.raft.ranges import NO_RANGES, Ranges

NO_WINDOW = DeduplicationWindow()
"""Never changed: most queues take what comes again."""


class ArrivalKind(Enum):
    """Kind of a dead letter that arrives from another queue."""

    NEW = auto()
    HERE = auto()
    """The message is in the queue, or was."""
    STALE = auto()
    """The sender leads the source queue no more; or the source queue is deleted or not known here
    yet, and then the message is taken when it is sent again."""
    EARLY = auto()
    """There is no room to remember the message; it may be taken when it is sent again."""


class DeadLetterDedup:
    """Deduplication of the dead letters that one leadership takes, unconfirmed ones included."""

    __slots__ = ("_builder", "_queues", "_sources", "_versions")

    def __init__(
        self,
        state: QueueState,
        builder: EntryBuilder,
        versions: EntryVersions,
        queues: KnownQueues,
    ) -> None:
        """A leader before may have known queues that are yet to be heard of:
        only what is gone for certain is forgotten."""
        self._sources = dict(state.sources) or EMPTY_DICT  # mutant: R14h
        self._builder = builder
        self._versions = versions
        self._queues = queues
        self._forget_gone()

    def sift(self, ids: DeadLetterIds) -> list[tuple[int, int, ArrivalKind]]:
        """From where to where those of a run are what, in order.

        What is said with them of others is on record then.
        """
        source = self._sources.get(ids.source)
        if source is None:
            if not self._queues.is_there(ids.source):
                return [(0, len(ids.sequences), ArrivalKind.STALE)]
            self._forget_gone()
            source = UNKNOWN_SOURCE
        elif ids.term < source.term:
            return [(0, len(ids.sequences), ArrivalKind.STALE)]
        else:
            source = self._know(source, ids)
        new = (
            ArrivalKind.EARLY if self._versions.is_coming(ARRIVALS) else ArrivalKind.NEW
        )  # mutant: R14i
        results: list[tuple[int, int, ArrivalKind]] = []
        start = 0
        for is_here, alike in groupby(ids.sequences, source.arrived.__contains__):
            stop = start + sum(1 for _ in alike)
            results.append((start, stop, ArrivalKind.HERE if is_here else new))  # mutant: R14g
            start = stop
        return results

    def _know(self, source: Source, ids: DeadLetterIds) -> Source:
        settled = runs_of(sorted(number for number in ids.settled if number in source.arrived))
        if was_forced(source.term, ids.term):
            settled = [range(low, high) for low, high in source.arrived]
        first = source.arrived.next_from(0)
        is_news = settled or (first is not None and first[0] < ids.below)
        if not is_news and ids.term == source.term:
            return source
        fact = ArrivalsKnown(ids.source, ids.term, ids.below, settled)
        self._say(fact)
        if self._sources is EMPTY_DICT:
            self._sources = {}
        known = self._sources[ids.source] = source.with_known(fact)
        return known

    def add(self, ids: DeadLetterIds) -> None:
        """Record dead letters that are new, in the entry that is being built."""
        fact = Arrived(ids.source, ids.term, runs_of(sorted(ids.sequences)))
        self._say(fact)
        source = self._sources.get(ids.source, UNKNOWN_SOURCE)
        if self._sources is EMPTY_DICT:
            self._sources = {}
        self._sources[ids.source] = source.with_arrived(fact)

    def _forget_gone(self) -> None:
        for group in [group for group in self._sources if self._queues.is_gone(group)]:
            del self._sources[group]
            self._say(SourceGone(group))

    def _say(self, fact: ArrivalsKnown | Arrived | SourceGone) -> None:
        """Record a fact if all members read it now; members added later must read it."""
        if self._versions.version >= ARRIVALS:
            self._builder.add_fact(fact)


@dataclass(slots=True, eq=False)
class LoggedDeduplicationKeys:
    """The `DeduplicationKeys` of one leadership."""

    _known: DeduplicationWindow | None
    """Window of keys that the image knows, which is not changed here."""
    _builder: EntryBuilder
    _versions: EntryVersions
    _time: QueueTime
    _on_duplicates: Callable[[int], None]
    """Gets how many messages were dropped."""
    _window: DeduplicationWindow = field(default=NO_WINDOW, init=False)
    """Window of keys that the filter knows."""
    _news: list[bytes] = field(default_factory=list, init=False)
    """Keys that are to be said."""
    _kept: int | None = field(default=None, init=False)
    """How many are known with them; None: nothing is to be said."""
    _is_behind: bool = field(default=False, init=False)
    """True if there are other keys that could not be logged."""

    def duplicate_filter(self, cache: DeduplicationCache, enqueue: Enqueue) -> DuplicateFilter:
        """A `FilterFactory`."""
        known, self._known = self._known, None
        self._window = known.copy() if known is not None else DeduplicationWindow()
        return DuplicateFilter(
            cache,
            self._window,
            enqueue,
            time=self._time,
            on_duplicates=self._on_duplicates,
            record=self,
        )

    def remembered(self, packed: bytes, kept: int) -> None:
        if not kept:
            self._news.clear()
        self._news.append(packed)
        self._kept = kept

    @property
    def may_be_said(self) -> bool:
        """True if keys that could not be logged may be by now."""
        return self._is_behind and self._versions.version >= REMEMBERS

    def say(self) -> None:
        """Log the keys that came in since the last call, if all members can read them."""
        if self._kept is None:
            return
        if self._versions.version < REMEMBERS:
            self._news.clear()
            self._is_behind = True
            return
        packed = self._window.packed() if self._is_behind else b"".join(self._news)
        self._builder.add_fact(Remembered(packed, self._kept))  # mutant: K2
        self._news.clear()
        self._kept, self._is_behind = None, False


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
        """Sessions that will get an `ExpectedReply`."""
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
            self._builder.add_fact(SessionOpened(key, boot, nonce, counter, node))
            self._touch()
        return key

    def close(self, session: Key) -> None:
        """Close a session, which has no consumers left."""
        del self._next[session]
        self._again.pop(session, None)
        self._too_soon.pop(session, None)
        left = {session_id: key for session_id, key in self._keys.items() if key != session}
        self._keys, self._next = left or EMPTY_DICT, self._next if left else EMPTY_DICT
        self._builder.add_fact(SessionClosed(session))
        self._touch()

    def acknowledge(self, session: Key, below: int) -> None:
        """The client knows the outcomes of all operations below `below`."""
        known = self._state.sessions.get(session)
        if known is None or (known.rejected is NO_RANGES and not known.answers):
            return
        below = min(below, known.next)
        if known.rejected.within(0, below) or any(number < below for number in known.answers):
            self._builder.add_fact(Acknowledged(session, below))
            self._touch()

    def already_done(self, session: Key, first: int, count: int) -> int:
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
        again = self._again.get(session, NO_RANGES)
        if known and again.gaps(first, first + known):
            if self._again is EMPTY_DICT:
                self._again = {}
            self._again[session] = again.plus(Ranges.of((first, first + known)))
            self._effects.keep_known(lambda: self._answered_again(session, first, first + known))
            self._touch()
        return known

    def advance(
        self, fact: Published | OperationsRejected | OperationsDone | OperationDoneWithAnswer
    ) -> None:
        """The next operations of a session are done."""
        self._builder.add_fact(fact)
        # mutant: LE3
        self._next[fact.session] += 1 if isinstance(fact, OperationDoneWithAnswer) else fact.count
        self._touch()

    def _expected(self, session: Key, expected: int) -> list[Effect]:
        self._too_soon.pop(session, None)
        return [Effect(session, ExpectedReply(expected))]

    def _answered_again(self, session: Key, first: int, stop: int) -> list[Effect]:
        left = self._again.pop(session, NO_RANGES).minus(Ranges.of((first, stop)))
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
            yield Effect(session, RejectedReply(low, high - low))  # mutant: R4b
        for number in [number for number in found.answers if first <= number < stop]:
            yield Effect(session, AnswerReply(number, found.answers[number]))
        for low, high in rejected.plus(answers).gaps(first, stop):
            yield Effect(session, DoneReply(low, high - low))


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
        dead_letter_ids: DeadLetterIds | None,
        counts: Counts,
    ) -> None:
        """Operations `first`, `first + 1` ... are a message each; those that were done before are
        answered again.  Some may not fit, all others are recorded."""
        if done := self.sessions.already_done(session, first, len(contents)):
            first, origins, contents = first + done, origins[done:], contents[done:]
            expiration_ms = lifetimes_in(expiration_ms, slice(done, None))  # mutant: BA1 BA2
            dead_letter_ids = (
                dead_letter_ids.after(done) if dead_letter_ids is not None else None
            )  # mutant: BA3
        if not contents:
            return
        delivery_counts = self.delivery_counts
        if counts is not NEW and delivery_counts is not None and self.versions.version >= CARRIES:
            delivery_counts.coming = counts  # mutant: BA4 CA3
        self._take(
            session, first, origins, contents, expiration_ms=expiration_ms, ids=dead_letter_ids
        )
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
        ids: DeadLetterIds | None,
    ) -> None:
        """Enqueue messages of operations that are new."""
        if ids is None:
            self._put(session, first, origins, contents, expiration_ms)
            return
        for start, stop, result in self.arrivals.sift(ids):
            if result in (ArrivalKind.STALE, ArrivalKind.EARLY):  # mutant: BA8
                self._refuse(session, first + start, stop - start)
            elif result is ArrivalKind.HERE:
                self.sessions.advance(OperationsDone(session, first + start, stop - start))
                self._confirm(session, first + start, stop - start)  # mutant: BA9
            else:
                run, number = slice(start, stop), first + start
                lifetimes_ms = lifetimes_in(expiration_ms, run)  # mutant: BA6
                taken = self._put(session, number, origins[run], contents[run], lifetimes_ms)
                for low, high in taken:
                    self.arrivals.add(ids.part(start + low, start + high))  # mutant: BA7

    def _put(
        self,
        session: Key,
        first: int,
        origins: list[Origin],
        contents: list[bytes],
        expiration_ms: Lifetimes,
    ) -> list[tuple[int, int]]:
        """Enqueue messages; return start and stop of each stretch of them that was accepted."""
        result: EnqueueResult | PartialResult = EnqueueResult.REJECTED
        # What has died makes room where it did, and it is lost if it is refused.
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
                self.sessions.advance(OperationsDone(session, number, count))
            else:
                taken.append((start, stop))  # mutant: BA14
                self.sessions.advance(Published(session, number, count))
            self._confirm(session, number, count)
        return taken

    def _refuse(self, session: Key, first: int, count: int) -> None:
        self.sessions.advance(OperationsRejected(session, first, count))
        effect = Effect(session, RejectedReply(first, count))
        self.effects.keep(lambda: [effect])  # mutant: LE24

    def _confirm(self, session: Key, first: int, count: int) -> None:
        """Answer publishes by a reply that leaves once their entry is applied."""
        effect = Effect(session, DoneReply(first, count))
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
