"""One first-in-first-out lane of a queue: what is ready, and what came back.

    returned  ->  ready                                the head is at the left; returned messages
                  (segments: memory | disk | memory)   go first, in an order of their own

A segment holds messages with consecutive sequence numbers.  In memory a message costs its bytes
and two pointers, to them and to its origin; the segment around it is shared by a thousand.  A
segment that is on disk can leave memory: those in the journal do, except for the first few, which
consumers will want soon, and the last; these, and messages that no journal holds, if memory is
short.

Rule 1: the messages of a segment are all in the journal or none is.
Rule 2: a segment begins an entry of the journal, so that it is read and forgotten as a whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from itertools import groupby, islice

from fluffle.broker.message import Origin
from fluffle.broker.queues.counts import NEW, Counts
from fluffle.broker.queues.journal import Damage, Journal, Loaded, Recovery, Spill, Unreadable
from fluffle.broker.queues.returned import ByAge, Returned, Returns

SEGMENT_MESSAGES_MAX = 1024
SEGMENT_BYTES_MAX = 1_048_576
"""A segment is not extended beyond these, because its memory goes when all of it has been read."""

FRONT_SEGMENTS = 8
"""So many stay in memory: more than what waits where consumers keep up."""

RECENT_SEGMENTS = 2
"""And of those behind them the last ones, of which the very last still grows."""


class Place(Enum):
    """Where the messages of a segment are."""

    MEMORY = auto()
    LEAVING = auto()
    """In memory until the disk has them."""
    DISK = auto()
    KEPT = auto()
    """In memory for good: a part of what was read, which can only be read as a whole."""


class Segment:
    """Ready messages, the first `head` of them already taken."""

    __slots__ = (
        "content_bytes",
        "contents",
        "count",
        "first_sequence",
        "head",
        "is_recorded",
        "origins",
        "place",
        "redelivered",
        "spilled_at",
        "stop_sequence",
        "ticket",
    )

    def __init__(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        first_sequence: int,
        *,
        ticket: int,
    ) -> None:
        self.origins = origins
        """Invariant, here and in every run: one a content."""
        self.contents = contents
        """Invariant: empty while they are on disk only."""
        self.content_bytes = content_bytes
        """The summed length of all contents, taken or not: for the mean, not for accounts."""
        self.count = len(contents)
        """How many there are, wherever they are, taken or not."""
        self.first_sequence = first_sequence
        self.stop_sequence = first_sequence + self.count
        """Invariant: `count` more than the first, unless it was recovered and not yet read."""
        self.head = 0
        self.ticket = ticket
        """Of the commit after which the disk has it; 0 if none will."""
        self.is_recorded = ticket > 0
        """Whether the journal has it."""
        self.place = Place.MEMORY
        self.spilled_at = 0
        """Where the spill has it, or will; 0 if it has not."""
        self.redelivered = False


class Taken:
    """Messages taken off the head of a lane together."""

    __slots__ = ("contents", "counts", "is_recorded", "origins", "redelivered", "sequences")

    def __init__(
        self,
        origins: list[Origin],
        contents: list[bytes],
        sequences: Sequence[int],
        *,
        redelivered: bool,
        is_recorded: bool,
        counts: Counts = NEW,
    ) -> None:
        self.origins = origins
        self.contents = contents
        self.sequences = sequences
        self.redelivered = redelivered
        self.is_recorded = is_recorded
        self.counts = counts


NO_SEGMENTS: deque[Segment] = deque()
"""Never changed: a deque of one's own takes 600 bytes, and most queues are empty for long."""


class Lane:
    """Messages in order, and those that came back."""

    __slots__ = (
        "_journal",
        "_leaving",
        "_ready",
        "_redelivered_below",
        "_returned",
        "_spill",
        "count",
        "damage",
    )

    def __init__(
        self,
        journal: Journal | None = None,
        spill: Spill | None = None,
        returned: Returns | None = None,
    ) -> None:
        self._journal = journal
        self._spill = spill
        self._ready = NO_SEGMENTS
        self._leaving = NO_SEGMENTS
        """Those that leave memory once they are durable, and perhaps some that changed their mind;
        tickets rise."""
        self._returned = returned if returned is not None else ByAge()
        self._redelivered_below = 0
        """Messages with lower numbers were there before the node last ended."""
        self.count = 0
        """Messages that can be taken."""
        self.damage: Damage | None = None
        """What the first segment begins with, if it cannot be read: it stays where it is."""

    def recover(self, recovery: Recovery) -> None:
        """Begin with what a journal holds; the lane must be empty."""
        self._redelivered_below = recovery.redelivered_below
        self.damage = recovery.damage
        self._ready = deque() if recovery.stored else NO_SEGMENTS
        for stored in recovery.stored:
            segment = Segment([], [], stored.content_bytes, stored.first, ticket=1)
            segment.count = stored.count
            segment.stop_sequence = stored.stop
            segment.place = Place.DISK
            self._ready.append(segment)
            self.count += stored.count
        for sequences, counts in recovery.returned:
            self.give_back([], [], sequences, counts=counts, is_recorded=True)

    def append(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        first_sequence: int,
        *,
        ticket: int = 0,
    ) -> bool:
        """Add messages at the end, numbered from `first_sequence`, which is beyond all before.

        `ticket` is that of the commit which makes them durable, 0 for none.  The caller keeps
        the lists and must not change them.  Whether they begin a segment.
        """
        count = len(contents)
        self.count += count
        tail = self._ready[-1] if self._ready else None
        if (
            tail is not None
            and tail.stop_sequence == first_sequence
            and tail.is_recorded == (ticket > 0)
            and tail.place is Place.MEMORY
            and not tail.redelivered
            and tail.count + count <= SEGMENT_MESSAGES_MAX
            and tail.content_bytes + content_bytes <= SEGMENT_BYTES_MAX
        ):
            tail.contents += contents
            tail.origins += origins
            tail.content_bytes += content_bytes
            tail.count += count
            tail.stop_sequence += count
            tail.ticket = ticket
            return False
        segment = Segment(origins[:], contents[:], content_bytes, first_sequence, ticket=ticket)
        if self._ready is NO_SEGMENTS:
            self._ready = deque()
        self._ready.append(segment)
        if len(self._ready) > FRONT_SEGMENTS + RECENT_SEGMENTS:
            self._let_go(self._ready[-1 - RECENT_SEGMENTS])
            self._drop_durable()
        return True

    def shed(self) -> bool:
        """Memory is short: have all but the very first leave it that can.

        Whether that was all: while the disk is behind, no more is added to what it has to write.
        """
        self._drop_durable()
        for segment in islice(self._ready, 1, None):
            if self._spill is not None and self._spill.is_behind:
                return False
            self._let_go(segment)
        self._drop_durable()
        return True

    def _let_go(self, segment: Segment) -> None:
        """Have a segment leave memory if it is on disk, will be, or may go there now."""
        if segment.place is not Place.MEMORY:
            return
        if not (segment.is_recorded or segment.spilled_at):
            spill = self._spill
            if spill is None or not spill.is_wanted:
                return
            segment.ticket = spill.commits.ticket
            segment.spilled_at = spill.write(segment.origins, segment.contents)
        segment.place = Place.LEAVING
        if self._leaving is NO_SEGMENTS:
            self._leaving = deque()
        self._leaving.append(segment)

    def _drop_durable(self) -> None:
        """Forget what the disk has."""
        port = self._journal or self._spill
        durable = port.commits.durable if port is not None else 0
        while self._leaving and self._leaving[0].ticket <= durable:
            segment = self._leaving.popleft()
            if segment.place is Place.LEAVING:
                if segment.is_recorded and self._journal is not None:
                    self._journal.evicted(segment.first_sequence, segment.stop_sequence)
                segment.origins, segment.contents = [], []
                segment.place = Place.DISK

    def give_back(
        self,
        origins: list[Origin],
        contents: list[bytes],
        sequences: Sequence[int],
        *,
        counts: Counts = NEW,
        is_recorded: bool = False,
    ) -> None:
        """Messages come back.  `sequences` rises, one a content; or they are on disk only."""
        run = Returned(origins, contents, sequences, counts=counts, is_recorded=is_recorded)
        self._returned.add(run)
        self.count += len(sequences)

    def available(self, bytes_max: int) -> int:
        """How many `take` would give at most, keeping to about `bytes_max` but at least one.

        0 if what is next turns out to be damaged.
        """
        try:
            if self._returned.runs:
                return self._returned.available()  # it went out in one run: it is not too large
            if self.damage is not None:
                return 0
            segment = self._front()
        except Unreadable as error:
            self.damage = error.damage
            return 0
        mean_bytes = segment.content_bytes // segment.count + 1
        return min(segment.count - segment.head, bytes_max // mean_bytes or 1)

    def take(self, count: int) -> Taken:
        """The next messages, at most `count`; `available` must have said that there are some."""
        if self._returned.runs:
            return self._take_returned(count)
        segment = self._front()
        start = segment.head
        stop = min(start + count, segment.count)
        first = segment.first_sequence
        origins, contents = segment.origins, segment.contents
        if stop - start < segment.count:
            origins, contents = origins[start:stop], contents[start:stop]
        segment.head = stop
        if stop == segment.count:
            self._ready.popleft()
            segment.origins, segment.contents = [], []  # it may still be among those that leave
        self.count -= stop - start
        return Taken(
            origins,
            contents,
            range(first + start, first + stop),
            redelivered=segment.redelivered,
            is_recorded=segment.is_recorded,
        )

    def _front(self) -> Segment:
        """The first segment, in memory."""
        segment = self._ready[0]
        if segment.place in (Place.LEAVING, Place.DISK):
            self._take_back(segment)
            segment = self._ready[0]
        return segment

    def _take_back(self, segment: Segment) -> None:
        """Have the first segment in memory again, and stay there."""
        if segment.spilled_at:
            assert self._spill is not None
            if segment.place is Place.DISK:
                segment.origins, segment.contents = self._spill.read(segment.spilled_at)
            self._spill.forget(segment.spilled_at)
            segment.spilled_at = 0
        elif segment.place is Place.DISK:
            self._load(segment)
        segment.place = Place.MEMORY

    def _load(self, segment: Segment) -> None:
        """Read the first segment from the journal; where some is settled it becomes several.

        What lies behind damage stays on disk, as a segment that begins with it.
        """
        assert self._journal is not None
        loaded = self._journal.load(segment.first_sequence, segment.stop_sequence)
        found = sum(len(part.contents) for part in loaded)
        assert 0 < found <= segment.count, f"{segment.count} messages stored, {found} there"
        parts = [piece for part in loaded for piece in _split_at(part, self._redelivered_below)]
        is_whole = (
            len(parts) == 1 and segment.count == segment.stop_sequence - segment.first_sequence
        )
        self._ready.popleft()
        if found < segment.count:
            self._ready.appendleft(_behind(segment, loaded[-1], found))
        for part in reversed(parts):
            size_bytes = sum(map(len, part.contents))
            again = Segment(
                part.origins, part.contents, size_bytes, part.first_sequence, ticket=segment.ticket
            )
            again.redelivered = part.first_sequence < self._redelivered_below
            again.place = Place.MEMORY if is_whole else Place.KEPT
            self._ready.appendleft(again)

    def _take_returned(self, count: int) -> Taken:
        run, start, stop = self._returned.take(count)
        self.count -= stop - start
        return Taken(
            run.origins[start:stop],
            run.contents[start:stop],
            run.sequences[start:stop],
            redelivered=True,
            is_recorded=run.is_recorded,
            counts=run.counts,
        )

    def drop_damaged(self) -> int:
        """Give up what is damaged, and nothing else; how many messages that was.

        0 with `damage` still set if it cannot be told how far it goes: then only `clear` helps.
        """
        damage = self.damage
        assert damage is not None, "nothing is damaged"
        if damage.is_of_settled:
            self._forget_damage()
            return 0
        segment = self._ready[0]
        dropped = segment.count if segment.spilled_at else damage.count
        if not dropped:
            return 0
        self.damage = None
        if segment.spilled_at:
            assert self._spill is not None
            self._spill.forget(segment.spilled_at)
        else:
            assert self._journal is not None
            self._journal.discarded(damage.first, damage.stop)
            segment.first_sequence = damage.stop
        segment.count -= dropped
        if not segment.count:
            self._ready.popleft()
        self.count -= dropped
        return dropped

    def first_unseen(self, next_sequence: int) -> int:
        """The lowest sequence number that was never taken; `next_sequence` if there is none."""
        for segment in self._ready:
            if segment.redelivered or segment.stop_sequence <= self._redelivered_below:
                continue
            return max(segment.first_sequence + segment.head, self._redelivered_below)
        return next_sequence

    def clear(self) -> int:
        """Forget every message that can be taken; how many there were."""
        dropped, self.count = self.count, 0
        self._forget_damage()
        for segment in self._ready:
            if segment.spilled_at and self._spill is not None:
                self._spill.forget(segment.spilled_at)
        if self._journal is not None:
            self._settle_all(self._journal)
        self._ready = self._leaving = NO_SEGMENTS
        self._returned.clear()
        return dropped

    def _forget_damage(self) -> None:
        if self.damage is not None and self.damage.is_of_settled:
            assert self._journal is not None
            self._journal.forget_unreadable()
        self.damage = None

    def _settle_all(self, journal: Journal) -> None:
        for run in self._returned.runs:
            if run.is_recorded:
                journal.settled(run.sequences[run.head :])
        for is_on_disk, segments in groupby(self._ready, _is_only_in_journal):
            if is_on_disk:  # one stretch, though they be thousands: there is nothing between them
                of_disk = list(segments)
                journal.discarded(of_disk[0].first_sequence, of_disk[-1].stop_sequence)
                continue
            for segment in segments:
                if segment.is_recorded:
                    first_ready = segment.first_sequence + segment.head
                    journal.settled(range(first_ready, segment.stop_sequence))


def _behind(segment: Segment, last: Loaded, found: int) -> Segment:
    """What is left of a segment on disk when `found` messages of it, up to `last`, were read."""
    first = last.first_sequence + len(last.contents)
    rest = Segment([], [], segment.content_bytes, first, ticket=segment.ticket)
    rest.count = segment.count - found
    rest.stop_sequence = segment.stop_sequence
    rest.place = Place.DISK
    return rest


def _is_only_in_journal(segment: Segment) -> bool:
    return segment.is_recorded and segment.place is Place.DISK


def _split_at(part: Loaded, sequence: int) -> list[Loaded]:
    """A stretch as what lies before a sequence number and what does not, if there is both."""
    count = sequence - part.first_sequence
    if not 0 < count < len(part.contents):
        return [part]
    return [
        Loaded(part.first_sequence, part.origins[:count], part.contents[:count]),
        Loaded(sequence, part.origins[count:], part.contents[count:]),
    ]
