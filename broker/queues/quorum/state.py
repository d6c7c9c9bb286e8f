"""Passive image of a quorum queue: where each message is, what uses it, and what a fact changes.

Every member makes it of its log.  It decides nothing and costs per entry, not per message.  The
engine of a leader is built from it, snapshots are taken of it, and it alone says which entries of
the log are still needed.  Where a message's content is, it knows; the content itself stays in the
log.

    enqueued -> ready ------> held by a holder ------> gone, for a reason
                  |           |  ^        |              ^  ^
                  |   requeued|  |        v              |  |
                  |           v  |     pending: dead, and kept until it is republished
                  |        waiting again   ^                |
                  +-------------|----------+----------------+
                          (or delayed, first)

A message is at exactly one of these places.  Nothing here decides.  A fact that contradicts the
state raises `InvalidEntry`; then the state is worth nothing any more, for facts before it in its
entry have been applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from struct import error as StructError  # noqa: N812  it is an exception
from typing import Any, NamedTuple

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex
from fluffle.broker.queues.quorum.entries import LiveEntries, LiveEntry
from fluffle.broker.queues.quorum.entry_codec import (
    DATED_HOLDS,
    FIRST_VERSION,
    NUMBER_MAX,
    VERSION,
    Enqueued,
    FactBatch,
    decode,
)
from fluffle.broker.queues.quorum.facts import (
    DEATHS,
    NO_HOLDER,
    Acknowledged,
    ArrivalsKnown,
    Arrived,
    ConsumerAttached,
    DeadLettered,
    DeadLettering,
    DelayElapsed,
    Delivered,
    DeliveredWithoutAck,
    Detached,
    Dropped,
    Fact,
    GetterAttached,
    InvalidEntry,
    Key,
    OperationDoneWithAnswer,
    OperationsDone,
    OperationsRejected,
    Published,
    Purged,
    Remembered,
    RemovalReason,
    Requeued,
    SacActive,
    SessionClosed,
    SessionId,
    SessionOpened,
    Settled,
    SourceGone,
    SpecChanged,
    VersionAnnounced,
)
from fluffle.broker.queues.quorum.runs import MarkedRuns, dealt, without
from fluffle.raft.ranges import NO_RANGES, Ranges


class Delayed(NamedTuple):
    """Messages that came back and must wait."""

    ready_at_ms: int
    counts: Counts


class Hold(NamedTuple):
    """Messages in a holder's hands."""

    counts: Counts
    """From before this hand-out."""
    since_ms: int
    """Queue time since when they are held; 0 if not recorded yet."""


class UnrepublishedDead(NamedTuple):
    """Messages that are dead and not republished yet."""

    reason: RemovalReason
    time_ms: int
    counts: Counts


@dataclass(slots=True)
class AttachedHolder:
    """A consumer or a getter."""

    attached: ConsumerAttached | GetterAttached
    is_detached: bool = False
    """True if it gets nothing more.  Invariant: it still holds something."""
    held: MarkedRuns[Hold] = field(default_factory=MarkedRuns)


@dataclass(slots=True)
class SessionRow:
    """A numbered stream, and what must be known to answer what it repeats."""

    id: SessionId
    next: int = 1
    """The number of its next operation; all below have been done or refused."""
    rejected: Ranges = NO_RANGES
    """Operations that were, of those whose outcome it may not know yet."""
    answers: dict[int, int] = field(default_factory=dict)
    """Answers by operation number, of operations whose answer the session may not know yet."""

    def advance(self, first: int, count: int) -> None:
        """Operations are done.  Raises `InvalidEntry` if they are not the next ones."""
        if first != self.next or not 0 < count <= NUMBER_MAX - first:  # mutant: RE1 RE2 RE3
            raise InvalidEntry(f"operation {first} of a session whose next is {self.next}")
        self.next += count  # mutant: IM26


class Source(NamedTuple):
    """Another queue whose dead letters come here."""

    term: int
    """In which it is led, as far as is known here."""
    arrived: Ranges
    """Source's numbers of messages that are here or were, and may come again until the source has
    that on record."""

    def with_arrived(self, fact: Arrived) -> Source:
        """After that."""
        return Source(fact.term, self.arrived.plus(_numbers(fact.runs)))

    def with_known(self, fact: ArrivalsKnown) -> Source:
        """After that."""
        left = self.arrived.within(fact.below, NUMBER_MAX).minus(_numbers(fact.runs))
        return Source(fact.term, left)


UNKNOWN_SOURCE = Source(0, Ranges())


def _numbers(runs: list[range]) -> Ranges:
    pairs = [(run.start, run.stop) for run in runs if run.step == 1]
    pairs += [(number, number + 1) for run in runs if run.step != 1 for number in run]
    return Ranges.joined(sorted(pairs))


NONE_GONE = [0] * len(RemovalReason)
"""Never changed: nothing has ever been in most queues."""


@dataclass(slots=True)
class QueueState:
    """State of a quorum queue as its applied entries make it; changed by `apply_batch` alone."""

    index: int = 0
    """Index of the last applied entry."""
    queue_time_ms: int = 0
    revision: int = 0
    """Revision of the metadata that the specification comes from."""
    spec: bytes = b""
    dates_holds: bool = False
    """True if entries record since when messages are held, by the last applied entry."""
    next_sequence: int = 1
    next_key: Key = 1
    sac_active: Key = NO_HOLDER
    """The consumer that alone gets messages."""
    versions: dict[str, int] = field(default_factory=dict)
    """Newest version that each member reads."""
    entries: LiveEntries = field(default_factory=LiveEntries)
    """Entries of the log with live messages, and which of these are ready."""
    delivery_counts: DeliveryCountIndex = field(default_factory=DeliveryCountIndex)
    """Counts of ready messages that came with them from another queue."""
    requeued: MarkedRuns[Counts] = field(default_factory=MarkedRuns)
    delayed: MarkedRuns[Delayed] = field(default_factory=MarkedRuns)
    pending: MarkedRuns[UnrepublishedDead] = field(default_factory=MarkedRuns)
    holders: dict[Key, AttachedHolder] = field(default_factory=lambda: EMPTY_DICT)
    """In the order in which they were attached."""
    sessions: dict[Key, SessionRow] = field(default_factory=lambda: EMPTY_DICT)
    sources: dict[int, Source] = field(default_factory=lambda: EMPTY_DICT)
    """Sources of dead letters by the Raft group of the source queue."""
    gone: list[int] = field(default_factory=lambda: NONE_GONE)
    """How many messages are, by reason."""
    window: DeduplicationWindow | None = None
    """Keys of messages that must not come twice, or None if the queue does not deduplicate."""
    dead: list[int] = field(default_factory=list)
    """Entries of the log of which every message is gone since this was last taken."""

    @property
    def held_count(self) -> int:
        return sum(holder.held.count for holder in self.holders.values())

    @property
    def consumers(self) -> list[ConsumerAttached]:
        """Consumers that are served: attached and not detached."""
        return [
            row.attached
            for row in self.holders.values()
            if isinstance(row.attached, ConsumerAttached) and not row.is_detached  # mutant: LE26
        ]

    @property
    def waiting_count(self) -> int:
        """Messages that may be handed out now."""
        return self.entries.ready_count + self.requeued.count

    @property
    def live_count(self) -> int:
        return self.waiting_count + self.held_count + self.delayed.count + self.pending.count

    def check(self) -> None:
        """Check that every message is somewhere, or gone for a reason.  Raises `InvalidEntry`."""
        live = self.live_count
        if live + sum(self.gone) != self.next_sequence - 1:
            raise InvalidEntry(f"{live} live and {sum(self.gone)} gone of {self.next_sequence - 1}")
        if live != sum(self.entries.rows["live"]):
            raise InvalidEntry(f"{live} messages are somewhere, entries have another number")

    # Messages leave the places where they are

    def take_waiting(self, run: range) -> list[tuple[range, Counts]]:
        """Messages that may be handed out now leave their place, with their counts."""
        if self.delivery_counts.has_any:
            return self._take_both(run)
        if self.requeued.count and run.start in self.requeued:
            return self.requeued.take(run)
        self.entries.take(run)
        return [(run, NEW)]

    def _take_both(self, run: range) -> list[tuple[range, Counts]]:
        """Some of a run may have come back and some not, where these brought along as much."""
        # mutant: IM23
        found = [part for part, _counts in self.requeued.found(run)] if self.requeued.count else []
        pieces = [piece for part in found for piece in self.requeued.take(part)]
        for part in without(run, found):
            self.entries.take(part)
            pieces += self._carried_of(part)
            self.delivery_counts.take(part)  # mutant: IM21
        return sorted(pieces, key=_first)

    def _carried_of(self, run: range) -> Iterator[tuple[range, Counts]]:
        """Pieces of messages that are ready no more, so that those of one have equal counts."""
        while run:
            alike = self.delivery_counts.alike(run.start, run.stop)
            count = -((run.start - alike.stop) // run.step)
            yield run[:count], alike.counts  # mutant: IM22
            run = run[count:]

    def take_unheld(self, run: range) -> None:
        """Remove messages that no client holds from their place, wherever it is."""
        if run.start in self.delayed:
            self.delayed.take(run)
        elif run.start in self.pending:
            self.pending.take(run)
        else:
            self.take_waiting(run)

    def take_held(self, key: Key, ordinal: int, run: range) -> list[tuple[range, Counts]]:
        """Messages leave the hands of a holder that was handed them out with that ordinal."""
        pieces = [(piece, hold.counts) for piece, hold in self.holder(key).held.take(run)]
        check_ordinal(pieces, ordinal)
        return pieces

    def bury(self, run: range, reason: RemovalReason) -> None:
        """Messages that have left their place are gone."""
        self.dead += self.entries.bury(run)
        if self.gone is NONE_GONE:
            self.gone = [*NONE_GONE]
        self.gone[reason] += len(run)

    # Who uses the queue

    def holder(self, key: Key) -> AttachedHolder:
        """Raises `InvalidEntry`."""
        holder = self.holders.get(key)
        if holder is None:
            raise InvalidEntry(f"there is no holder {key}")
        return holder

    def session(self, key: Key) -> SessionRow:
        """Raises `InvalidEntry`."""
        session = self.sessions.get(key)
        if session is None:
            raise InvalidEntry(f"there is no session {key}")
        return session

    def take_key(self, key: Key) -> None:
        """A new key is used.  Raises `InvalidEntry` if it is not the next one."""
        if key != self.next_key:  # mutant: RE4 RE5
            raise InvalidEntry(f"key {key}, where {self.next_key} is next")
        self.next_key += 1  # mutant: IM25

    def release(self, key: Key) -> None:
        """Forget a holder that is detached and holds nothing any more."""
        holder = self.holders[key]
        if holder.is_detached and not holder.held:  # mutant: IM24
            del self.holders[key]


def _first(piece: tuple[range, Counts]) -> int:
    return piece[0].start


def check_ordinal(pieces: list[tuple[range, Counts]], ordinal: int) -> None:
    """Raises `InvalidEntry` if messages have come back another number of times."""
    for run, counts in pieces:
        if counts.acquired != ordinal:  # mutant: RE6 RE7
            raise InvalidEntry(f"messages {run} have ordinal {counts.acquired}, not {ordinal}")


def apply_batch(state: QueueState, index: int, batch: FactBatch) -> None:
    """An entry, the next of the log.  Raises `InvalidEntry`."""
    pass_over(state, index)
    if batch.stamp_ms < state.queue_time_ms:
        raise InvalidEntry(f"queue time {batch.stamp_ms} behind {state.queue_time_ms}")
    if batch.revision != state.revision:
        raise InvalidEntry(
            f"decided by specification {batch.revision}; {state.revision} is in force"
        )
    state.queue_time_ms = batch.stamp_ms  # mutant: IM18 M39
    state.dates_holds = batch.version >= DATED_HOLDS
    unpublished = 0
    if batch.enqueued is not None:
        on_enqueued(state, index, batch.enqueued)
        unpublished = batch.enqueued.count
    for fact in batch.facts:
        APPLY[type(fact)](state, fact)
        if isinstance(fact, Published):
            unpublished -= fact.count
    if unpublished:
        raise InvalidEntry(f"an entry has {unpublished} messages more than publishes")


def pass_over(state: QueueState, index: int) -> None:
    """An entry without facts, which consensus has put there for itself.  Raises `InvalidEntry`."""
    if index != state.index + 1:
        raise InvalidEntry(f"entry {index} behind {state.index}")
    state.index = index


def on_enqueued(state: QueueState, index: int, new: Enqueued) -> None:
    if new.first != state.next_sequence:
        raise InvalidEntry(f"message {new.first}, where {state.next_sequence} is next")
    state.next_sequence += new.count
    state.entries.add(index, new)
    for start, stop, counts in new.columns.counts:
        state.delivery_counts.put(new.first + start, new.first + stop, counts)  # mutant: IM19


# Sessions


def on_session_opened(state: QueueState, fact: SessionOpened) -> None:
    state.take_key(fact.key)
    if any(session.id == fact.id for session in state.sessions.values()):  # mutant: RE9
        raise InvalidEntry(f"session {fact.id} is open")
    if state.sessions is EMPTY_DICT:
        state.sessions = {}
    state.sessions[fact.key] = SessionRow(fact.id)


def on_session_closed(state: QueueState, fact: SessionClosed) -> None:
    state.session(fact.key)
    if any(holder.attached.session == fact.key for holder in state.holders.values()):  # mutant: RE8
        raise InvalidEntry(f"session {fact.key} is closed and has consumers")
    del state.sessions[fact.key]


def on_done(state: QueueState, fact: Published | OperationsDone) -> None:
    state.session(fact.session).advance(fact.first, fact.count)


def on_refused(state: QueueState, fact: OperationsRejected) -> None:
    session = state.session(fact.session)
    session.advance(fact.first, fact.count)
    session.rejected = session.rejected.plus(Ranges.of((fact.first, session.next)))  # mutant: IM13


def on_answered(state: QueueState, fact: OperationDoneWithAnswer) -> None:
    session = state.session(fact.session)
    session.advance(fact.number, 1)
    session.answers[fact.number] = fact.answer  # mutant: IM17


def on_acknowledged(state: QueueState, fact: Acknowledged) -> None:
    session = state.session(fact.session)
    if fact.below > session.next:  # mutant: RE10
        raise InvalidEntry(f"outcomes below {fact.below} are known; {session.next} is next")
    session.rejected = (  # mutant: IM14 IM15
        session.rejected.within(fact.below, session.next) or NO_RANGES
    )
    for number in [number for number in session.answers if number < fact.below]:  # mutant: IM16
        del session.answers[number]


# Consumers


def on_attached(state: QueueState, fact: ConsumerAttached | GetterAttached) -> None:
    state.take_key(fact.key)
    state.session(fact.session)
    if state.holders is EMPTY_DICT:
        state.holders = {}
    state.holders[fact.key] = AttachedHolder(fact)


def on_detached(state: QueueState, fact: Detached) -> None:
    holder = state.holder(fact.key)
    if holder.is_detached:
        raise InvalidEntry(f"{fact.key} is detached again")
    if state.sac_active == fact.key:
        raise InvalidEntry(f"{fact.key} is detached while it is the active consumer")
    holder.is_detached = True
    state.release(fact.key)


def on_sac_active(state: QueueState, fact: SacActive) -> None:
    if fact.key != NO_HOLDER:
        holder = state.holder(fact.key)
        if holder.is_detached or type(holder.attached) is not ConsumerAttached:  # mutant: RE17
            raise InvalidEntry(f"{fact.key} cannot be the active consumer")
    state.sac_active = fact.key


# Messages come and go


def on_delivered(state: QueueState, fact: Delivered) -> None:
    holders = [_served(state, key, may_hold=True) for key in fact.holders]
    since_ms = state.queue_time_ms if state.dates_holds else 0
    dealt_before = 0
    for run in fact.runs:
        pieces = state.take_waiting(run)
        check_ordinal(pieces, fact.ordinal)
        for piece, counts in pieces:
            _deal(piece, Hold(counts, since_ms), holders, dealt_before)
            dealt_before += len(piece)  # mutant: IM1


def _deal(run: range, hold: Hold, holders: list[AttachedHolder], dealt_before: int) -> None:
    for place, holder in enumerate(holders):
        if share := dealt(run, place, len(holders), dealt_before):
            holder.held.put(share, hold)


def on_delivered_without_ack(state: QueueState, fact: DeliveredWithoutAck) -> None:
    for key in fact.holders:
        _served(state, key, may_hold=False)
    for run in fact.runs:
        check_ordinal(state.take_waiting(run), fact.ordinal)
        state.bury(run, RemovalReason.HANDED_OVER)  # mutant: IM2


def _served(state: QueueState, key: Key, *, may_hold: bool) -> AttachedHolder:
    """Holder that may be delivered messages.  Raises `InvalidEntry` otherwise."""
    holder = state.holder(key)
    if holder.is_detached:
        raise InvalidEntry(f"{key} is detached and gets messages")
    if state.sac_active not in (NO_HOLDER, key):
        raise InvalidEntry(f"{key} gets messages; {state.sac_active} is the active consumer")
    attached = holder.attached
    if type(attached) is ConsumerAttached and attached.no_ack == may_hold:  # mutant: RE14
        raise InvalidEntry(f"{key} gets messages as if it acknowledged otherwise")
    return holder


def on_settled(state: QueueState, fact: Settled) -> None:
    for run in fact.runs:
        state.take_held(fact.holder, fact.ordinal, run)
        state.bury(run, RemovalReason.ACKED)
    state.release(fact.holder)  # mutant: IM7


def on_requeued(state: QueueState, fact: Requeued) -> None:
    counts = Counts(fact.ordinal + 1, fact.delivery_count)  # mutant: IM3 IM4
    for run in fact.runs:
        for _piece, before in state.take_held(fact.holder, fact.ordinal, run):
            if counts.failed - before.failed not in (0, 1):  # mutant: RE11
                raise InvalidEntry(f"delivery count {counts.failed} behind {before.failed}")
        if fact.ready_at_ms:  # mutant: IM5
            state.delayed.put(run, Delayed(fact.ready_at_ms, counts))
        else:
            state.requeued.put(run, counts)
    state.release(fact.holder)  # mutant: IM6


def on_delay_elapsed(state: QueueState, fact: DelayElapsed) -> None:
    for run in fact.runs:
        for piece, delayed in state.delayed.take(run):
            state.requeued.put(piece, delayed.counts)  # mutant: IM8


def on_dropped(state: QueueState, fact: Dropped) -> None:
    for run in fact.runs:
        _die(state, fact, run)
        state.bury(run, fact.reason)  # mutant: IM9
    if fact.holder != NO_HOLDER:
        state.release(fact.holder)


def on_dead_lettering(state: QueueState, fact: DeadLettering) -> None:
    for run in fact.runs:
        for piece, counts in _die(state, fact, run):
            state.pending.put(
                piece, UnrepublishedDead(fact.reason, fact.time_ms, counts)
            )  # mutant: IM10
    if fact.holder != NO_HOLDER:
        state.release(fact.holder)


def _die(
    state: QueueState, fact: Dropped | DeadLettering, run: range
) -> list[tuple[range, Counts]]:
    """Messages leave their place for a reason that fits it."""
    # mutant: RE12 RE13
    if fact.reason not in DEATHS or (fact.reason is RemovalReason.REJECTED) != (
        fact.holder != NO_HOLDER
    ):
        raise InvalidEntry(f"messages held by {fact.holder} die for {fact.reason!r}")
    if fact.holder != NO_HOLDER:
        return state.take_held(fact.holder, fact.ordinal, run)
    pieces = state.take_waiting(run)
    check_ordinal(pieces, fact.ordinal)
    return pieces


def on_dead_lettered(state: QueueState, fact: DeadLettered) -> None:
    for run in fact.runs:
        state.pending.take(run)
        state.bury(run, RemovalReason.DEAD_LETTERED)  # mutant: IM11


def on_purged(state: QueueState, fact: Purged) -> None:
    for run in fact.runs:
        state.take_unheld(run)
        state.bury(run, RemovalReason.PURGED)  # mutant: IM12


# Dead letters of other queues


def on_arrived(state: QueueState, fact: Arrived) -> None:
    _know(state, fact.source, _source(state, fact).with_arrived(fact))


def on_arrivals_known(state: QueueState, fact: ArrivalsKnown) -> None:
    _know(state, fact.source, _source(state, fact).with_known(fact))


def _know(state: QueueState, group: int, source: Source) -> None:
    if state.sources is EMPTY_DICT:
        state.sources = {}
    state.sources[group] = source


def _source(state: QueueState, fact: Arrived | ArrivalsKnown) -> Source:
    source = state.sources.get(fact.source, UNKNOWN_SOURCE)
    if fact.term < source.term:
        raise InvalidEntry(f"queue {fact.source} of term {fact.term} behind {source.term}")
    return source


def on_source_gone(state: QueueState, fact: SourceGone) -> None:
    """Maybe nothing is known of it: what had come of it was not said while a member read none of
    that."""
    state.sources.pop(fact.source, None)


# The queue itself


def on_spec_changed(state: QueueState, fact: SpecChanged) -> None:
    if fact.revision <= state.revision:  # mutant: RE15
        raise InvalidEntry(f"specification {fact.revision} behind {state.revision}")
    state.revision, state.spec = fact.revision, fact.spec  # mutant: IM20


def on_version_announced(state: QueueState, fact: VersionAnnounced) -> None:
    if fact.version < state.versions.get(fact.member, 0):  # mutant: RE16
        raise InvalidEntry(f"{fact.member} announces version {fact.version}, lower than before")
    state.versions[fact.member] = fact.version


def on_remembered(state: QueueState, fact: Remembered) -> None:
    window = state.window if state.window is not None else DeduplicationWindow()
    try:
        window.add(fact.packed)
    except StructError as error:
        raise InvalidEntry(f"keys that are none: {error}") from error
    if fact.kept > len(window):
        raise InvalidEntry(f"{fact.kept} keys are known, and there are {len(window)}")
    window.keep(fact.kept)
    state.window = window if fact.kept else None


APPLY: Mapping[type[Fact], Callable[[QueueState, Any], None]] = {
    Published: on_done,
    OperationsRejected: on_refused,
    OperationsDone: on_done,
    OperationDoneWithAnswer: on_answered,
    Acknowledged: on_acknowledged,
    SessionOpened: on_session_opened,
    SessionClosed: on_session_closed,
    ConsumerAttached: on_attached,
    GetterAttached: on_attached,
    Detached: on_detached,
    SacActive: on_sac_active,
    Delivered: on_delivered,
    DeliveredWithoutAck: on_delivered_without_ack,
    Settled: on_settled,
    Requeued: on_requeued,
    DelayElapsed: on_delay_elapsed,
    Dropped: on_dropped,
    DeadLettering: on_dead_lettering,
    DeadLettered: on_dead_lettered,
    Purged: on_purged,
    SpecChanged: on_spec_changed,
    VersionAnnounced: on_version_announced,
    Arrived: on_arrived,
    ArrivalsKnown: on_arrivals_known,
    SourceGone: on_source_gone,
    Remembered: on_remembered,
}


SLIM_BELOW = 4
"""An entry of which no more than one in so many messages is live is worth being made smaller."""


class QueueImage:
    """The state of one queue after some entry of its log.

    After `InvalidEntry` it is worth nothing: throw it away, and quarantine the member.
    """

    __slots__ = ("_slimmed", "reads", "state", "version")

    def __init__(
        self, state: QueueState | None = None, *, reads: int = VERSION, version: int = FIRST_VERSION
    ) -> None:
        """`reads`: the newest version of entries that is taken."""
        self.reads = reads
        self.version = version
        """The newest that has come."""
        self.state = state or QueueState()
        """State for reading; entries alone change it."""
        self._slimmed: dict[int, int] = EMPTY_DICT
        """Number of messages left in entries that this member has compacted, by index.  No part of
        the state: each member compacts when it likes."""

    def apply(self, index: int, payload: bytes) -> list[int]:
        """An entry, the next of the log: which entries no live message is in any more.

        Entries that have brought no messages are never needed again and not among them.
        Raises `InvalidEntry`.
        """
        batch = decode(payload, self.reads)
        apply_batch(self.state, index, batch)
        self.version = max(self.version, batch.version)
        dead, self.state.dead = self.state.dead, []
        return dead

    def pass_over(self, index: int) -> None:
        """An entry of consensus itself, the next of the log.  Raises `InvalidEntry`."""
        pass_over(self.state, index)

    def live_of(self, entry: LiveEntry) -> list[range]:
        """The messages of an entry that are live, wherever they are; in no order."""
        state, stop = self.state, entry.first + entry.count
        held = (holder.held for holder in state.holders.values())
        # mutant: IM43
        places: list[MarkedRuns[Any]] = [state.requeued, state.delayed, state.pending, *held]
        runs = [run for place in places for run in place.within(entry.first, stop)]
        return state.entries.ready_of(entry) + runs

    def worth_slimming(self, dead_bytes_min: int = 0) -> Iterator[tuple[int, list[range]]]:
        """Entries most of which is dead: index, and what is live.  Looks at all entries."""
        entries = list(self.state.entries.mostly_dead(SLIM_BELOW))
        indexes = {entry.index for entry in entries}
        slimmed = {index: left for index, left in self._slimmed.items() if index in indexes}
        self._slimmed = slimmed or EMPTY_DICT
        for entry in entries:
            kept = self._slimmed.get(entry.index, entry.count)
            dead_bytes = (kept - entry.live) * entry.mean_bytes
            if entry.live * SLIM_BELOW <= kept and dead_bytes >= dead_bytes_min:
                yield entry.index, self.live_of(entry)

    def slimmed(self, index: int, left: int) -> None:
        """An entry has been made smaller here; `left` messages are in it."""
        if self._slimmed is EMPTY_DICT:
            self._slimmed = {}
        self._slimmed[index] = left
