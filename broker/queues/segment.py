"""Segments of a ready list: messages that lie together in memory or on disk.

Those that are taken off a ready list together are `TakenMessages`; `SegmentPaging` has segments
leave memory once the disk has them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum, auto
from itertools import groupby

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex
from fluffle.broker.queues.expiry_times import (
    NEVER_MS,
    Deadlines,
    Expiries,
    alike,
    due_count,
    grown,
    joined,
    part_of,
    span_of,
    undue_count,
)
from fluffle.broker.queues.journal import Journal, LoadedMessages, PageStore, Stored, part_of_loaded
from fluffle.broker.queues.queue_api import DeliveryBatch, Holder

LOOK_MAX = 64
"""So many messages are looked at where some are due behind others that are not: they may be looked
at again when fewer were taken."""

UNWEIGHED = -1
"""Size of a segment whose bytes have not been counted."""

ROUGH = -2
"""Size of a segment that is not weighed and counts with all of its contents."""


class SegmentLocation(Enum):
    """Where the messages of a segment are."""

    MEMORY = auto()
    LEAVING = auto()
    """In memory until the disk has them."""
    DISK = auto()
    KEPT = auto()
    """In memory for good: a part of what was read, which can only be read as a whole."""


@dataclass(slots=True, eq=False)
class Segment:
    """Ready messages, the first `head` of them already taken."""

    origins: list[Origin]
    """Invariant, here and in every run: one a content."""
    contents: list[bytes]
    """Invariant: empty while they are on disk only."""
    content_bytes: int
    """The summed length of all contents, taken or not; on disk about that."""
    first_sequence: int
    _: KW_ONLY
    ticket: int
    """Ticket of the commit after which the disk has it; 0 if none will."""
    expiries: Expiries | None = None
    """None if none of them ever expires, or while they are on disk only."""
    count: int = field(init=False)
    """How many there are, wherever they are, taken or not."""
    stop_sequence: int = field(init=False)
    """Invariant: `count` more than the first, unless it was recovered and not yet read, or messages
    of other ready lists are between its own."""
    numbers: array[int] | None = None
    """The sequence number of each; None if they are consecutive, or while they are on disk only."""
    head: int = 0
    is_recorded: bool = field(init=False)
    """True if the journal has it."""
    place: SegmentLocation = SegmentLocation.MEMORY
    spilled_at: int = 0
    """Where the spill has it, or will; 0 if it has not."""
    redelivered: bool = False
    size_bytes: int = UNWEIGHED
    """Bytes that its messages count, without those taken; `UNWEIGHED` if unknown."""
    earliest_ms: int = NEVER_MS
    latest_ms: int = NEVER_MS
    """None that is not taken expires before the one; all have expired with the other."""

    def __post_init__(self) -> None:
        self.count = len(self.contents)
        self.stop_sequence = self.first_sequence + self.count
        self.is_recorded = self.ticket > 0
        if self.expiries is not None:
            self.earliest_ms, self.latest_ms = span_of(self.expiries)

    def expire_at(self, expires_at_ms: Deadlines) -> None:
        """All there are expire then."""
        if isinstance(expires_at_ms, int):
            self.expiries = alike(expires_at_ms, self.count)
            self.earliest_ms = self.latest_ms = expires_at_ms
        else:
            self.expiries, self.earliest_ms, self.latest_ms = expires_at_ms

    def grow(self, count: int, expires_at_ms: Deadlines) -> None:
        """More messages come, that expire then, or never if that is 0."""
        if self.expiries is None:
            self.latest_ms = NEVER_MS
        self.expiries = grown(self.expiries, self.count, count, expires_at_ms)
        if not isinstance(expires_at_ms, int):
            self.earliest_ms = min(self.earliest_ms, expires_at_ms.earliest_ms)
            self.latest_ms = max(self.latest_ms, expires_at_ms.latest_ms)
        elif not expires_at_ms:
            self.latest_ms = NEVER_MS
        elif expires_at_ms > self.latest_ms:
            self.latest_ms = expires_at_ms
        elif expires_at_ms < self.earliest_ms:
            self.earliest_ms = expires_at_ms

    def forget(self) -> None:
        """The messages are not in memory, or not wanted any more."""
        self.origins, self.contents, self.expiries, self.numbers = [], [], None, None

    @property
    def is_whole(self) -> bool:
        """True if the numbers of its messages are consecutive."""
        return self.count == self.stop_sequence - self.first_sequence

    @property
    def next_sequence(self) -> int:
        """The number of the next one."""
        return self.first_sequence + self.head if self.numbers is None else self.numbers[self.head]

    def sequences(self, start: int, stop: int) -> Sequence[int]:
        """Sequence numbers of the messages from the one at `start` up to, not including, the one at
        `stop`."""
        if self.numbers is None:
            return range(self.first_sequence + start, self.first_sequence + stop)
        return self.numbers[start:stop]

    def number(self, sequences: Sequence[int]) -> None:
        """More messages come, with these numbers, which others lie in front of."""
        if self.numbers is None:
            self.numbers = array("Q", range(self.first_sequence, self.stop_sequence))
        self.numbers.extend(sequences)

    def _place_of(self, sequence: int) -> int:
        """Where the first message is that has this number or a higher one."""
        if self.numbers is None:
            return sequence - self.first_sequence
        return bisect_left(self.numbers, sequence)

    @property
    def due_ms(self) -> int:
        """When the next one expires, or some time before that if it is on disk."""
        return self.earliest_ms if self.expiries is None else self.expiries[self.head]

    def undue_count(self, stop: int, now_ms: int, new_from: int) -> int:
        """How many messages from the next one on have not expired, up to the one at `stop`.

        Those from the number `new_from` on have come in this turn.
        """
        if self.earliest_ms > now_ms or self.expiries is None:
            return stop - self.head
        stop, new_at = min(stop, self.head + LOOK_MAX), self._place_of(new_from)
        return undue_count(self.expiries, self.head, stop, now_ms, new_at)

    def due_count(self, now_ms: int, new_from: int) -> int:
        """How many have."""
        if self.earliest_ms > now_ms or self.expiries is None:
            return 0
        new_at = self._place_of(new_from)
        found = due_count(self.expiries, self.head, self.count, now_ms, new_at)
        if not found:  # what expired first has been taken
            self.earliest_ms = min(self.expiries[self.head :])
        return found


def on_disk_only(stored: Stored) -> Segment:
    """Segment of messages that a journal holds, and that are not read."""
    segment = Segment([], [], stored.content_bytes, stored.first, ticket=1)
    segment.count = stored.count
    segment.stop_sequence = stored.stop
    segment.place = SegmentLocation.DISK
    segment.earliest_ms, segment.latest_ms = stored.earliest_ms, stored.latest_ms
    return segment


def load_segment(
    segment: Segment, journal: Journal, redelivered_below: int, *, is_one_of_many: bool
) -> list[Segment]:
    """Segments in memory that replace one on disk.  Raises `UnreadableMessages`.

    Where some is settled it becomes several.  What lies behind damage stays on disk, as a segment
    that begins with it.
    """
    found = journal.load(segment.first_sequence, segment.stop_sequence)
    count = sum(len(part.contents) for part in found)
    assert 0 < count <= segment.count, f"{segment.count} messages stored, {count} there"
    parts = [piece for part in found for piece in split_at(part, redelivered_below)]
    together = [[part] for part in parts]
    if is_one_of_many:  # messages of other ready lists lie between any two of them
        by_past = groupby(parts, lambda part: part.sequences[0] < redelivered_below)
        together = [list(same) for _is_seen, same in by_past]
    is_whole = len(parts) == 1 and segment.is_whole
    again = [segment_of_loaded(part, segment.ticket) for part in together]
    for each in again:
        each.redelivered = each.first_sequence < redelivered_below
        each.place = SegmentLocation.MEMORY if is_whole else SegmentLocation.KEPT
    if count < segment.count:
        again.append(unread_rest(segment, found[-1], count))
    return again


def segment_of_loaded(parts: Sequence[LoadedMessages], ticket: int) -> Segment:
    """Stretches that were read, as one segment."""
    first, *others = parts
    sequences = first.sequences
    segment = Segment(
        first.origins,
        first.contents,
        sum(sum(map(len, part.contents)) for part in parts),
        sequences[0],
        ticket=ticket,
        expiries=first.expiries,
    )
    segment.stop_sequence = sequences[-1] + 1
    if not segment.is_whole:
        segment.numbers = array("Q", sequences)
    for part in others:
        count = len(part.contents)
        segment.number(part.sequences)
        segment.expiries = joined(segment.expiries, segment.count, part.expiries, count)
        segment.origins += part.origins
        segment.contents += part.contents
        segment.count += count
        segment.stop_sequence = part.sequences[-1] + 1
    segment.earliest_ms, segment.latest_ms = span_of(segment.expiries)
    return segment


def unread_rest(segment: Segment, last: LoadedMessages, found: int) -> Segment:
    """Segment on disk that remains when the first `found` messages of `segment`, up to `last`, were
    read."""
    first = last.sequences[-1] + 1
    rest = Segment([], [], segment.content_bytes, first, ticket=segment.ticket)
    rest.count = segment.count - found
    rest.stop_sequence = segment.stop_sequence
    rest.place = SegmentLocation.DISK
    rest.earliest_ms, rest.latest_ms = segment.earliest_ms, segment.latest_ms
    return rest


def split_at(part: LoadedMessages, sequence: int) -> list[LoadedMessages]:
    """A stretch as what lies before a sequence number and what does not, if there is both."""
    count = bisect_left(part.sequences, sequence)
    if not 0 < count < len(part.contents):
        return [part]
    return [
        part_of_loaded(part, 0, count),
        part_of_loaded(part, count, len(part.contents)),
    ]


def equal_counts_in(
    segment: Segment, stop: int, delivery_counts: DeliveryCountIndex
) -> tuple[int, Counts]:
    """Up to where in a segment messages have the counts of the next one, at most up to `stop`."""
    sequences = segment.sequences(segment.head, stop)
    alike = delivery_counts.alike(sequences[0], sequences[-1] + 1)
    return segment.head + bisect_left(sequences, alike.stop), alike.counts


def leaves(segment: Segment, spill: PageStore | None) -> bool:
    """Have a segment leave memory if it is on disk, will be, or may go there now; whether it
    does."""
    if segment.place is not SegmentLocation.MEMORY:
        return False
    if not (segment.is_recorded or segment.spilled_at):
        if spill is None or not spill.is_wanted:
            return False
        segment.ticket = spill.commits.ticket
        segment.spilled_at = spill.write(segment.origins, segment.contents, segment.expiries)
    segment.place = SegmentLocation.LEAVING
    return True


class SegmentPaging:
    """Paging of the segments of one ready list."""

    __slots__ = ("_segments", "_spill", "journal")

    def __init__(self, journal: Journal | None, spill: PageStore | None) -> None:
        self.journal = journal
        """Journal of the ready list, which may come to have but a part of it."""
        self._spill = spill
        self._segments: deque[Segment] = deque()
        """In memory until they are durable, and perhaps some that changed their mind; tickets
        rise."""

    def add(self, segment: Segment) -> bool:
        """Page a segment out if it may be; True if so."""
        if not leaves(segment, self._spill):
            return False
        self._segments.append(segment)
        return True

    def shed(self, segments: Iterable[Segment]) -> bool:
        """Memory is short: these are to leave.

        Whether that was all: while the disk is behind, no more is added to what it has to write.
        """
        self.forget_durable()
        for segment in segments:
            if self._spill is not None and self._spill.is_behind:
                return False
            self.add(segment)
        self.forget_durable()
        return True

    def forget_durable(self) -> None:
        """Drop from memory the segments that the disk has."""
        port = self.journal or self._spill
        durable = port.commits.durable if port is not None else 0
        while self._segments and self._segments[0].ticket <= durable:
            segment = self._segments.popleft()
            if segment.place is SegmentLocation.LEAVING:
                if segment.is_recorded and self.journal is not None:
                    self.journal.evicted(segment.first_sequence, segment.stop_sequence)
                segment.forget()
                segment.place = SegmentLocation.DISK


@dataclass(slots=True, eq=False)
class TakenMessages:
    """Messages taken off the head of a ready list together."""

    origins: list[Origin]
    contents: list[bytes]
    sequences: Sequence[int]
    _: KW_ONLY
    redelivered: bool
    is_recorded: bool
    counts: Counts = NEW
    expiries: Expiries | None = None
    content_bytes: int | None = None
    """Total length of all contents, if known."""
    _unread_count: int = field(default=0, init=False)
    is_exact: bool = field(init=False)
    """True if `sequences` are all of these messages: see `unread`."""

    def __post_init__(self) -> None:
        self.is_exact = bool(self.contents)

    @property
    def count(self) -> int:
        """How many there are."""
        return self._unread_count or len(self.contents)

    def handed_to(self, holder: Holder, start: int = 0, step: int = 1) -> DeliveryBatch:
        """The messages that one of `step` holders gets, to which they are dealt out in turn."""
        origins, contents, sequences = self.origins, self.contents, self.sequences
        expiries = self.expiries
        if step > 1:
            origins, contents = origins[start::step], contents[start::step]
            sequences = sequences[start::step]
            expiries = part_of(expiries, slice(start, None, step))
        return DeliveryBatch(
            holder,
            origins,
            contents,
            sequences,
            redelivered=self.redelivered,
            is_recorded=self.is_recorded,
            counts=self.counts,
            expiries=expiries,
            content_bytes=self.content_bytes if step == 1 else None,
        )


def unread(segment: Segment) -> TakenMessages:
    """All of a segment that is on disk only, and is not read for that: `sequences` may have some in
    it that are settled, `count` has not."""
    stretch = range(segment.first_sequence, segment.stop_sequence)
    taken = TakenMessages(
        [], [], stretch, redelivered=segment.redelivered, is_recorded=segment.is_recorded
    )
    taken._unread_count = segment.count
    return taken


def unread_ones(sequences: Sequence[int]) -> TakenMessages:
    """These, and no others, in this order, of which none was read."""
    taken = TakenMessages([], [], sequences, redelivered=False, is_recorded=True)
    taken._unread_count, taken.is_exact = len(sequences), True
    return taken
