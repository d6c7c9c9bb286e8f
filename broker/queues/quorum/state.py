"""State of a quorum queue, the sum of all facts: where every message is, and who uses the queue.

    enqueued -> ready ------> held by somebody ------> gone, for a reason
                  |           |  ^        |              ^  ^
                  |   returned|  |        v              |  |
                  |           v  |     pending: dead, and kept until it is republished
                  |        waiting again   ^                |
                  +-------------|----------+----------------+
                          (or delayed, first)

A message is at exactly one of these places.  This file has the places and how messages leave them;
what each fact does is in `apply_facts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex
from fluffle.broker.queues.quorum.encoding import NUMBER_MAX
from fluffle.broker.queues.quorum.entries import Entries
from fluffle.broker.queues.quorum.errors import InvalidEntry
from fluffle.broker.queues.quorum.facts import (
    NOBODY,
    ArrivalsKnown,
    Arrived,
    ConsumerAttached,
    GetterAttached,
    Key,
    Reason,
    SessionId,
)
from fluffle.broker.queues.quorum.runs import MarkedRuns, without
from fluffle.raft.ranges import Ranges


class Delayed(NamedTuple):
    """Messages that came back and must wait."""

    ready_at_ms: int
    counts: Counts


class Hold(NamedTuple):
    """Messages in somebody's hands."""

    counts: Counts
    """From before this hand-out."""
    since_ms: int
    """In queue time; 0 if nobody wrote that down yet."""


class UnrepublishedDead(NamedTuple):
    """Messages that are dead and not republished yet."""

    reason: Reason
    time_ms: int
    counts: Counts


@dataclass(slots=True)
class Holder:
    """A consumer or a getter."""

    attached: ConsumerAttached | GetterAttached
    is_detached: bool = False
    """It gets nothing more.  Invariant: it holds something."""
    held: MarkedRuns[Hold] = field(default_factory=MarkedRuns)


@dataclass(slots=True)
class Session:
    """A numbered stream, and what must be known to answer what it repeats."""

    id: SessionId
    next: int = 1
    """The number of its next operation; all below have been done or refused."""
    refused: Ranges = field(default_factory=Ranges)
    """Operations that were, of those whose outcome it may not know yet."""
    answers: dict[int, int] = field(default_factory=dict)
    """By number, of operations whose answer it may not know yet."""

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
    """Its numbers of those that are here or were, and come again until it has that on record."""

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


NONE_GONE = [0] * len(Reason)
"""Never changed: nothing has ever been in most queues."""


@dataclass(slots=True)
class State:
    """Everything; changed by `apply_facts` alone."""

    index: int = 0
    """Of the last entry that was applied."""
    queue_time_ms: int = 0
    revision: int = 0
    """Of the metadata that the specification comes from."""
    spec: bytes = b""
    dates_holds: bool = False
    """Whether it is written down since when messages are held, by the entry that is applied."""
    next_sequence: int = 1
    next_key: Key = 1
    sac_active: Key = NOBODY
    """The consumer that alone gets messages."""
    versions: dict[str, int] = field(default_factory=dict)
    """By member: what it can read."""
    entries: Entries = field(default_factory=Entries)
    """Which messages are ready, and in which entry of the log each live one is."""
    delivery_counts: DeliveryCountIndex = field(default_factory=DeliveryCountIndex)
    """Of ready messages that came with counts from another queue."""
    returned: MarkedRuns[Counts] = field(default_factory=MarkedRuns)
    delayed: MarkedRuns[Delayed] = field(default_factory=MarkedRuns)
    pending: MarkedRuns[UnrepublishedDead] = field(default_factory=MarkedRuns)
    holders: dict[Key, Holder] = field(default_factory=lambda: EMPTY_DICT)
    """In the order in which they were attached."""
    sessions: dict[Key, Session] = field(default_factory=lambda: EMPTY_DICT)
    sources: dict[int, Source] = field(default_factory=lambda: EMPTY_DICT)
    """By the group of that queue."""
    gone: list[int] = field(default_factory=lambda: NONE_GONE)
    """How many messages are, by reason."""
    window: DeduplicationWindow | None = None
    """What is known of messages that must not come twice, if the queue wants that."""
    dead: list[int] = field(default_factory=list)
    """Entries of the log of which every message is gone since this was last taken."""

    @property
    def held_count(self) -> int:
        return sum(holder.held.count for holder in self.holders.values())

    @property
    def consumers(self) -> list[ConsumerAttached]:
        """Those that are served: they were attached, and not detached."""
        return [
            row.attached
            for row in self.holders.values()
            if isinstance(row.attached, ConsumerAttached) and not row.is_detached  # mutant: LE26
        ]

    @property
    def waiting_count(self) -> int:
        """Messages that may be handed out now."""
        return self.entries.ready_count + self.returned.count

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
        if self.returned.count and run.start in self.returned:
            return self.returned.take(run)
        self.entries.take(run)
        return [(run, NEW)]

    def _take_both(self, run: range) -> list[tuple[range, Counts]]:
        """Some of a run may have come back and some not, where these brought along as much."""
        # mutant: IM23
        found = [part for part, _counts in self.returned.found(run)] if self.returned.count else []
        pieces = [piece for part in found for piece in self.returned.take(part)]
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
        """Messages that are in nobody's hands leave their place, wherever it is."""
        if run.start in self.delayed:
            self.delayed.take(run)
        elif run.start in self.pending:
            self.pending.take(run)
        else:
            self.take_waiting(run)

    def take_held(self, key: Key, ordinal: int, run: range) -> list[tuple[range, Counts]]:
        """Messages leave the hands of somebody who was handed them out with that ordinal."""
        pieces = [(piece, hold.counts) for piece, hold in self.holder(key).held.take(run)]
        check_ordinal(pieces, ordinal)
        return pieces

    def bury(self, run: range, reason: Reason) -> None:
        """Messages that have left their place are gone."""
        self.dead += self.entries.bury(run)
        if self.gone is NONE_GONE:
            self.gone = [*NONE_GONE]
        self.gone[reason] += len(run)

    # Who uses the queue

    def holder(self, key: Key) -> Holder:
        """Raises `InvalidEntry`."""
        holder = self.holders.get(key)
        if holder is None:
            raise InvalidEntry(f"there is no holder {key}")
        return holder

    def session(self, key: Key) -> Session:
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
