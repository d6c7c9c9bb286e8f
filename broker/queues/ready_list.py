"""Ready list: the ready and the requeued messages of a queue, first in, first out.

    requeued  ->  ready                                the head is at the left; requeued messages
                  (segments: memory | disk | memory)   go first, in an order of their own

A segment holds messages with consecutive sequence numbers, unless other ready lists share them.  In
memory a message costs its bytes and two pointers, to them and to its origin; the segment around it
is shared by a thousand.  A segment that is on disk can leave memory: those in the journal do,
except for the first few, which consumers will want soon, and the last; these, and messages that no
journal holds, if memory is short.

Rule 1: the messages of a segment are all in the journal or none is.
Rule 2: a segment begins an entry of the journal, so that it is read and forgotten as a whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import groupby, islice

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.byte_count import ByteCount, ByteSum, Sizes
from fluffle.broker.queues.delivery_counts import NEW, DeliveryCountIndex
from fluffle.broker.queues.expiry_times import INSTANT_MS, NEVER_MS, Deadlines, part_of
from fluffle.broker.queues.journal import (
    Damage,
    Journal,
    PageStore,
    RecoveredContent,
    UnreadableMessages,
)
from fluffle.broker.queues.queue_view import ReadyMessages
from fluffle.broker.queues.requeue import RequeueByPosition, RequeuedBatch, RequeueOrder
from fluffle.broker.queues.segment import (
    Segment,
    SegmentLocation,
    SegmentPaging,
    TakenMessages,
    equal_counts_in,
    load_segment,
    on_disk_only,
    unread,
)

SEGMENT_MESSAGES_MAX = 1024

SEGMENT_BYTES_MAX = 1_048_576
"""A segment is not extended beyond these, because its memory goes when all of it has been read."""

FRONT_SEGMENTS = 8
"""Segments that stay in memory: more than what waits where consumers keep up."""

RECENT_SEGMENTS = 2
"""And of those behind them the last ones, of which the very last still grows."""

OF_MANY_SEGMENTS = 2
"""Segments that stay in memory of a ready list that is not alone: there may be hundreds."""

NO_MESSAGE = 1 << 63
"""A number that none has."""

NO_SEGMENTS: deque[Segment] = deque()
"""Never changed: a deque of one's own takes 600 bytes, and most queues are empty for long."""


class SequenceNumbers:
    """Gives out sequence numbers, to one ready list or to several."""

    __slots__ = ("next",)

    def __init__(self, first: int = 1) -> None:
        self.next = first


class ReadyList:
    """Messages in order, and those that came back."""

    __slots__ = (
        "_is_one_of_many",
        "_journal",
        "_leaving",
        "_ready",
        "_redelivered_below",
        "_requeued",
        "_spill",
        "byte_count",
        "count",
        "damage",
        "delivery_counts",
        "is_timed",
        "new_from",
        "now_ms",
        "numbers",
    )  # fmt: skip

    def __init__(
        self,
        journal: Journal | None = None,
        spill: PageStore | None = None,
        requeued: RequeueOrder | None = None,
        *,
        numbers: SequenceNumbers | None = None,
        delivery_counts: DeliveryCountIndex | None = None,
        is_one_of_many: bool = False,
    ) -> None:
        """`numbers` are given to what comes in: to messages of this list alone, if that is None."""
        self.delivery_counts = delivery_counts
        """Delivery counts of all ready lists of the queue; None where incoming messages bring
        none."""
        self.numbers = numbers if numbers is not None else SequenceNumbers()
        self._is_one_of_many = is_one_of_many
        """True if messages of other ready lists may have numbers between those of this one."""
        self._journal = journal
        self._spill = spill
        self._ready = NO_SEGMENTS
        self._leaving: SegmentPaging | None = None
        """None where none ever had to."""
        self._requeued = requeued if requeued is not None else RequeueByPosition()
        self.byte_count: ByteCount | None = None
        """Byte count, or None where bytes are not counted."""
        self._redelivered_below = 0
        """Messages with lower numbers were there before the node last ended."""
        self.count = 0
        """Messages that can be taken."""
        self.damage: Damage | None = None
        """Damage at the start of the first segment, if that cannot be read: it stays in place."""
        self.is_timed = False
        """True if a message with an expiry was ever here."""
        self.now_ms = 0
        """Time in ms up to which messages have expired; callers that take messages set it first, if
        time matters."""
        self.new_from = NO_MESSAGE
        """Messages from this number on have come in this turn: those of them that have no time to
        live have not expired before it ends."""

    def recover(self, recovery: RecoveredContent) -> None:
        """Begin with what a journal holds; the ready list must be empty."""
        self.numbers.next = max(self.numbers.next, recovery.next_sequence)
        self._redelivered_below = recovery.redelivered_below
        self.damage = recovery.damage
        self._ready = deque() if recovery.stored else NO_SEGMENTS
        for stored in recovery.stored:
            self.is_timed |= stored.earliest_ms < NEVER_MS
            self._ready.append(on_disk_only(stored))
            self.count += stored.count
        if self.byte_count is not None:
            self.byte_count.begin(self._ready, ())
        for sequences, counts, expiries in recovery.requeued:
            back = RequeuedBatch(
                [], [], sequences, counts=counts, is_recorded=True, expiries=expiries
            )
            self.give_back(back)

    def put(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        is_recorded: bool,
        expires_at_ms: Deadlines,
        size_bytes: int | None = None,
    ) -> None:
        """Messages come in at the end, and go to the journal if it is to have them.

        `size_bytes` is what they count, if bytes are counted and that is known.
        """
        first, journal = self.numbers.next, self._journal if is_recorded else None
        self.numbers.next = first + len(contents)
        if self.delivery_counts is not None and self.delivery_counts.coming is not NEW:
            self.delivery_counts.put(first, first + len(contents), self.delivery_counts.coming)
        apart = self.append(
            origins,
            contents,
            content_bytes,
            first,
            ticket=journal.commits.ticket if journal is not None else 0,
            expires_at_ms=expires_at_ms,
            size_bytes=size_bytes,
        )
        assert journal is not None or not is_recorded, "nothing records it"
        if journal is not None:
            journal.enqueued(
                origins, contents, content_bytes, first, apart=apart, expires_at_ms=expires_at_ms
            )

    def append(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        first_sequence: int,
        *,
        ticket: int = 0,
        expires_at_ms: Deadlines = 0,
        size_bytes: int | None = None,
    ) -> bool:
        """Add messages at the end, numbered from `first_sequence`, which is beyond all before.

        `ticket` is that of the commit which makes them durable, 0 for none; 0, too, if they never
        expire.  The caller keeps the lists and must not change them.  Whether they begin a segment.
        """
        count = len(contents)
        self.count += count
        if expires_at_ms:
            self.is_timed = True
            if expires_at_ms == INSTANT_MS or not isinstance(expires_at_ms, int):
                self.new_from = min(self.new_from, first_sequence)
        tail = self._ready[-1] if self._ready else None
        if (
            tail is not None
            and (tail.stop_sequence == first_sequence or self._is_one_of_many)
            and tail.is_recorded == (ticket > 0)
            and tail.place is SegmentLocation.MEMORY
            and not tail.redelivered
            and tail.count + count <= SEGMENT_MESSAGES_MAX
            and tail.content_bytes + content_bytes <= SEGMENT_BYTES_MAX
        ):
            if expires_at_ms or tail.expiries is not None:
                tail.grow(count, expires_at_ms)
            if tail.stop_sequence != first_sequence or tail.numbers is not None:
                tail.number(range(first_sequence, first_sequence + count))
            tail.contents += contents
            tail.origins += origins
            tail.content_bytes += content_bytes
            tail.count += count
            tail.stop_sequence = first_sequence + count
            tail.ticket = ticket
            if self.byte_count is not None:
                self.byte_count.put(tail, contents, content_bytes, size_bytes)
            return False
        segment = Segment(origins[:], contents[:], content_bytes, first_sequence, ticket=ticket)
        if expires_at_ms:
            segment.expire_at(expires_at_ms)
        if self._ready is NO_SEGMENTS:
            self._ready = deque()
        self._ready.append(segment)
        if self.byte_count is not None:
            self.byte_count.put(segment, contents, content_bytes, size_bytes)
        self._let_one_go()
        return True

    def _let_one_go(self) -> None:
        """A segment more is there: another may leave memory."""
        if len(self._ready) > FRONT_SEGMENTS + RECENT_SEGMENTS:
            self._let_go(self._ready[-1 - RECENT_SEGMENTS])
        elif self._is_one_of_many and len(self._ready) > OF_MANY_SEGMENTS:
            self._let_go(self._ready[-OF_MANY_SEGMENTS])

    def count_bytes_by(self, sizes: Sizes | None, of_all: ByteSum | None = None) -> None:
        """From now on it is known how many bytes wait, by these sizes; or it need not be.

        `of_all`: the sum that all ready lists of its queue make up, if there are others.
        """
        self.byte_count = None
        if sizes is not None:
            self.byte_count = ByteCount(
                sizes, self._journal, self._spill, self._requeued, of_all or ByteSum()
            )
            self.byte_count.begin(self._ready, self._requeued.batches)

    def ahead(self, count: int) -> list[bytes]:
        """The contents of the next messages; `available` must have said that there are so many."""
        run = self._requeued.batches[0] if self._requeued.batches else self._ready[0]
        return run.contents[run.head : run.head + count]

    def shed(self) -> bool:
        """Memory is short: have all but the very first leave it that can.

        Whether that was all: while the disk is behind, no more is added to what it has to write.
        """
        if self.byte_count is not None:
            for segment in self._ready:
                self.byte_count.weigh_rest(segment)
        return self._on_their_way.shed(islice(self._ready, 1, None))

    @property
    def _on_their_way(self) -> SegmentPaging:
        if self._leaving is None:
            self._leaving = SegmentPaging(self._journal, self._spill)
        return self._leaving

    def _let_go(self, segment: Segment) -> None:
        """Have a segment leave memory if it may, and those that the disk has by now."""
        on_their_way = self._on_their_way
        if on_their_way.add(segment) and self.byte_count is not None:
            self.byte_count.weigh_rest(segment)
        on_their_way.forget_durable()

    def give_back(self, batch: RequeuedBatch) -> None:
        """Messages come back; they may be on disk only."""
        self.is_timed |= batch.expiries is not None
        if self.byte_count is not None:
            self.byte_count.came_back(batch)
        self._requeued.add(batch)
        self.count += len(batch.sequences)

    def available(self, bytes_max: int) -> int:
        """How many `take` would give at most, keeping to about `bytes_max` but at least one.

        0 if what is next turns out to be damaged, or has expired: see `expire`.
        """
        try:
            if self._requeued.batches:
                available = self._requeued.available()  # it went out in one run: not too large
                return self._requeued.batches[0].undue_count(available, self.now_ms)
            if self.damage is not None:
                return 0
            segment = self._front()
        except UnreadableMessages as error:
            self.damage = error.damage
            return 0
        mean_bytes = segment.content_bytes // segment.count + 1
        available = min(segment.count - segment.head, bytes_max // mean_bytes or 1)
        if self.delivery_counts is not None and self.delivery_counts.has_any:
            stop, _counts = equal_counts_in(segment, segment.head + available, self.delivery_counts)
            available = stop - segment.head
        if segment.expiries is None:
            return available
        return segment.undue_count(segment.head + available, self.now_ms, self.new_from)

    def expire(self, *, are_read: bool) -> TakenMessages | None:
        """Take off messages in front that have expired; None if the next one has not, or cannot be
        read.

        `are_read`: with their contents, also where these are on disk only.
        """
        try:
            if self._requeued.batches:
                run = self._requeued.batches[0]
                if run.due_ms > self.now_ms:
                    return None
                return self._take_requeued(run.due_count(self._requeued.available(), self.now_ms))
            if not self._ready or self.damage is not None:
                return None
            segment = self._ready[0]
            if segment.earliest_ms > self.now_ms:
                return None
            is_on_disk = segment.place is SegmentLocation.DISK
            if (
                segment.latest_ms <= self.now_ms
                and is_on_disk
                and not are_read
                and not (
                    self.delivery_counts is not None and self.delivery_counts.has_any
                )  # mutant: CA10
                and (segment.is_whole or not self._is_one_of_many)
            ):
                return self._take_unread()
            segment = self._front()
        except UnreadableMessages as error:
            self.damage = error.damage
            return None
        due = segment.due_count(self.now_ms, self.new_from)
        return self.take(due) if due else None

    def _take_unread(self) -> TakenMessages:
        """All of the first segment, which is on disk only."""
        segment = self._ready.popleft()
        self.count -= segment.count
        segment.head = segment.count
        if self.byte_count is not None:
            self.byte_count.took(segment, [])
        if segment.spilled_at:
            assert self._spill is not None
            self._spill.forget(segment.spilled_at)
        return unread(segment)

    @property
    def due_ms(self) -> int:
        """When the next message expires, or some time before that if it is on disk."""
        if self._requeued.batches:
            return self._requeued.batches[0].due_ms
        return self._ready[0].due_ms if self._ready else NEVER_MS

    def take(self, count: int) -> TakenMessages:
        """The next messages, at most `count`; `available` must have said that there are some."""
        if self._requeued.batches:
            return self._take_requeued(count)
        segment = self._front()
        start = segment.head
        stop, counts = min(start + count, segment.count), NEW
        if self.delivery_counts is not None and self.delivery_counts.has_any:
            stop, counts = equal_counts_in(segment, stop, self.delivery_counts)  # mutant: CA7
            self.delivery_counts.take(segment.sequences(start, stop))  # mutant: CA6
        sequences = segment.sequences(start, stop)
        origins, contents, expiries = segment.origins, segment.contents, segment.expiries
        content_bytes: int | None = segment.content_bytes
        if stop - start < segment.count:
            content_bytes = None
            origins, contents = origins[start:stop], contents[start:stop]
            if expiries is not None:
                expiries = expiries[start:stop]
        segment.head = stop
        if self.byte_count is not None:
            self.byte_count.took(segment, contents)
        if stop == segment.count:
            self._ready.popleft()
            segment.origins, segment.contents = [], []  # it may still be among those that leave
            segment.expiries = segment.numbers = None
        self.count -= stop - start
        return TakenMessages(
            origins,
            contents,
            sequences,
            redelivered=segment.redelivered or counts is not NEW,  # mutant: CA8
            is_recorded=segment.is_recorded,
            counts=counts,
            expiries=expiries,
            content_bytes=content_bytes,
        )

    def _front(self) -> Segment:
        """The first segment, in memory."""
        segment = self._ready[0]
        if segment.place in (SegmentLocation.LEAVING, SegmentLocation.DISK):
            self._take_back(segment)
            segment = self._ready[0]
        return segment

    def _take_back(self, segment: Segment) -> None:
        """Have the first segment in memory again, and stay there."""
        if segment.spilled_at:
            assert self._spill is not None
            if segment.place is SegmentLocation.DISK:
                read = self._spill.read(segment.spilled_at)
                segment.origins, segment.contents, segment.expiries = read
            self._spill.forget(segment.spilled_at)
            segment.spilled_at = 0
        elif segment.place is SegmentLocation.DISK:
            assert self._journal is not None
            below, many = self._redelivered_below, self._is_one_of_many
            parts = load_segment(segment, self._journal, below, is_one_of_many=many)
            self._ready.popleft()
            self._ready.extendleft(reversed(parts))
            if self.byte_count is not None:
                self.byte_count.loaded(segment, parts)
            return
        segment.place = SegmentLocation.MEMORY

    def _take_requeued(self, count: int) -> TakenMessages:
        run, start, stop = self._requeued.take(count)
        self.count -= stop - start
        contents = run.contents[start:stop]
        if self.byte_count is not None:
            self.byte_count.took_back(run, start, stop)
        return TakenMessages(
            run.origins[start:stop],
            contents,
            run.sequences[start:stop],
            redelivered=True,
            is_recorded=run.is_recorded,
            counts=run.counts,
            expiries=part_of(run.expiries, slice(start, stop)),
        )

    def drop_damaged(self) -> int:
        """Give up what is damaged, and nothing else; how many messages that was.

        0 with `damage` still set if it is unknown how far it goes: then only `clear` helps.
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
        if self.byte_count is not None:
            self.byte_count.weigh_again(segment)
        if not segment.count:
            self._ready.popleft()
        self.count -= dropped
        return dropped

    def _first_unseen(self, next_sequence: int) -> int:
        """The lowest sequence number that was never taken; `next_sequence` if there is none."""
        for segment in self._ready:
            if segment.redelivered or segment.stop_sequence <= self._redelivered_below:
                continue
            return max(segment.next_sequence, self._redelivered_below)
        return next_sequence

    @property
    def stocks(self) -> list[ReadyMessages]:
        """All that lies here, to be looked at now."""
        requeued, below, damage = self._requeued, self._redelivered_below, self.damage
        journal, spill = self._journal, self._spill
        return [
            ReadyMessages(
                requeued, self._ready, below, damage, journal, spill, self.delivery_counts
            )
        ]

    @property
    def unseen(self) -> list[tuple[int, int]]:
        """First sequence number never taken, with its log of the journal."""
        assert self._journal is not None
        return [(self._journal.groups[0], self._first_unseen(self.numbers.next))]

    def clear(self) -> int:
        """Forget every message that can be taken; how many there were."""
        dropped, self.count = self.count, 0
        self._forget_damage()
        for segment in self._ready:
            if segment.spilled_at and self._spill is not None:
                self._spill.forget(segment.spilled_at)
        if self._journal is not None:
            settle_all(self._journal, self._requeued.batches, self._ready)
        self._ready, self._leaving = NO_SEGMENTS, None
        self._requeued.clear()
        if self.delivery_counts is not None:
            self.delivery_counts.clear()  # mutant: CA9
        if self.byte_count is not None:
            self.byte_count.begin((), ())
        self.is_timed = False
        return dropped

    def _forget_damage(self) -> None:
        if self.damage is not None and self.damage.is_of_settled:
            assert self._journal is not None
            self._journal.forget_unreadable()
        self.damage = None


def settle_all(
    journal: Journal, requeued: Iterable[RequeuedBatch], segments: Iterable[Segment]
) -> None:
    """Nothing of a ready list is wanted any more."""
    for run in requeued:
        if run.is_recorded:
            journal.settled(run.sequences[run.head :])
    for is_on_disk, together in groupby(segments, is_only_in_journal):
        if is_on_disk:  # one stretch, though they be thousands: there is nothing between them
            of_disk = list(together)
            journal.discarded(of_disk[0].first_sequence, of_disk[-1].stop_sequence)
            continue
        for segment in together:
            if segment.is_recorded:
                journal.settled(segment.sequences(segment.head, segment.count))


def is_only_in_journal(segment: Segment) -> bool:
    return segment.is_recorded and segment.place is SegmentLocation.DISK
