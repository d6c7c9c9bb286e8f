"""Count of the bytes that wait in a ready list, for the few queues that have a limit of them.

What comes in together is taken for all its bytes, headers and frames included, until that may be
too much or it leaves memory: then each message is measured, and from then on what is added and what
is taken off.  Most limits are far from what waits, and most messages are gone before it has to be
known.  What was there before, or came back and is on disk only, is measured by and by, the newest
first: until then it counts nothing, so that the count may be less than what waits, never more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fluffle.broker.queues.journal import Journal, PageStore, UnreadableMessages
from fluffle.broker.queues.requeue import FETCH_BYTES_MAX, RequeuedBatch, RequeueOrder
from fluffle.broker.queues.segment import ROUGH, UNWEIGHED, Segment, SegmentLocation

WEIGHED_MAX = 16
"""Most segments read at once for weighing, each a megabyte or a thousand messages."""

REQUEUED_WEIGHED_MAX = 64
"""And so many messages that came back, each of which may lie elsewhere; or fewer, if they are more
than is read at once."""

Sizes: TypeAlias = Callable[[list[bytes]], Sequence[int]]
"""Function that gives the bytes each of some messages counts."""


class ByteSum:
    """Total of the bytes that wait in all ready lists of a queue."""

    __slots__ = ("_rough", "_rough_bytes", "_weighed_bytes", "is_unsure")

    def __init__(self) -> None:
        self._weighed_bytes = 0
        """Bytes of all segments that are weighed exactly."""
        self._rough: dict[Segment, ByteCount] = {}
        """Segments of which only all contents are counted, taken or not, each with its scale."""
        self._rough_bytes = 0
        """Content bytes of all segments in `_rough`."""
        self.is_unsure = False
        """True while some messages may not be counted yet."""

    @property
    def size_bytes(self) -> int:
        """Bytes of ready messages, as far as they count."""
        if self._rough:
            self._weigh_rough()
        return self._weighed_bytes

    def exceeds(self, bytes_max: int) -> bool:
        """True if the bytes exceed `bytes_max`; nothing is weighed if they cannot."""
        if self._weighed_bytes + self._rough_bytes <= bytes_max:
            return False
        return self.size_bytes > bytes_max

    def _weigh_rough(self) -> None:
        """Weigh what is taken for all its bytes."""
        for segment, byte_count in list(self._rough.items()):
            byte_count.weigh_rest(segment)

    def add(self, size_bytes: int) -> None:
        """Add the bytes of weighed messages, or, below 0, take them off."""
        self._weighed_bytes += size_bytes

    def put_roughly(self, segment: Segment, byte_count: ByteCount, content_bytes: int) -> None:
        """Count messages of a segment roughly, whose sizes are unknown."""
        self._rough[segment] = byte_count
        self._rough_bytes += content_bytes

    def took_rough(self, segment: Segment) -> None:
        """Nothing is left of it, or it has been weighed."""
        del self._rough[segment]
        self._rough_bytes -= segment.content_bytes

    def forget_rough(self, byte_count: ByteCount) -> None:
        """Begin anew with what is on this one."""
        for segment in [each for each, of_it in self._rough.items() if of_it is byte_count]:
            self.took_rough(segment)


@dataclass(slots=True, eq=False)
class ByteCount:
    """Count of the bytes that wait in one ready list."""

    _sizes: Sizes
    _journal: Journal | None
    _spill: PageStore | None
    _requeued: RequeueOrder
    sum: ByteSum
    _unweighed: list[Segment] = field(default_factory=list, init=False)
    """In their order; some may have been taken meanwhile."""
    _unweighed_requeued: int = field(default=0, init=False)
    """Requeued messages that are, or were, on disk only."""
    _size_bytes: int = field(default=0, init=False)
    """Bytes of all weighed messages in this ready list."""

    def _add(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        self.sum.add(size_bytes)

    def begin(self, ready: Iterable[Segment], requeued: Iterable[RequeuedBatch]) -> None:
        """These wait; what may still grow is weighed at once."""
        self._add(-self._size_bytes)
        self.sum.forget_rough(self)
        self._unweighed, self._unweighed_requeued = list(ready), 0
        for segment in self._unweighed:
            segment.size_bytes = UNWEIGHED
        for run in requeued:
            self.came_back(run)
        if self._unweighed and self._unweighed[-1].place is SegmentLocation.MEMORY:
            self._weigh(self._unweighed.pop())
        self.sum.is_unsure |= self.is_unsure

    @property
    def is_unsure(self) -> bool:
        """True if some messages are not weighed yet."""
        return bool(self._unweighed) or self._unweighed_requeued > 0

    def go_on(self) -> None:
        """Weigh some of it."""
        for _ in range(min(WEIGHED_MAX, len(self._unweighed))):
            self._weigh(self._unweighed.pop())
        if self._unweighed_requeued:
            self._weigh_requeued()
        self.sum.is_unsure = self.is_unsure

    def _weigh(self, segment: Segment) -> None:
        """If it still waits, and can be read."""
        if segment.size_bytes != UNWEIGHED or segment.head == segment.count:
            return
        try:
            contents = self._contents(segment)
        except UnreadableMessages:
            return  # the ready list will come upon it, and the queue stops there
        self._put_exactly(segment, contents[segment.head :])

    def _contents(self, segment: Segment) -> list[bytes]:
        """Wherever they are, there they stay.  Raises `UnreadableMessages`."""
        if segment.place is not SegmentLocation.DISK:
            return segment.contents
        if segment.spilled_at:
            assert self._spill is not None
            return self._spill.read(segment.spilled_at).contents
        assert self._journal is not None
        parts = self._journal.peek(segment.first_sequence, segment.stop_sequence)
        return [content for part in parts for content in part.contents]

    def put(
        self,
        segment: Segment,
        contents: list[bytes],
        content_bytes: int,
        size_bytes: int | None = None,
    ) -> None:
        """These come into a segment, or make it up.

        `size_bytes` is what they count, if that is known.
        """
        if segment.size_bytes == ROUGH or (segment.size_bytes == UNWEIGHED and size_bytes is None):
            segment.size_bytes = ROUGH
            self.sum.put_roughly(segment, self, content_bytes)
        else:
            self._put_exactly(segment, contents, size_bytes)

    def _put_exactly(
        self, segment: Segment, contents: list[bytes], size_bytes: int | None = None
    ) -> None:
        """These come into a segment that has been weighed, or make up one that has not."""
        if size_bytes is None:
            size_bytes = sum(self._sizes(contents))
        segment.size_bytes = max(segment.size_bytes, 0) + size_bytes
        self._add(size_bytes)

    def weigh_rest(self, segment: Segment) -> None:
        """Weigh what is left of it if that was not done; it is in memory."""
        if segment.size_bytes == ROUGH:
            self.sum.took_rough(segment)
            segment.size_bytes = UNWEIGHED
            self._put_exactly(segment, segment.contents[segment.head :])

    def loaded(self, segment: Segment, others: Iterable[Segment]) -> None:
        """Replace a segment that was read from disk by `others`, of which the last may still be on
        disk."""
        segment.head = segment.count
        self.took(segment, [])
        for each in others:
            if each.place is SegmentLocation.DISK:
                self._unweighed.append(each)
                self.sum.is_unsure = True
            else:
                self._put_exactly(each, each.contents)

    def took(self, segment: Segment, contents: list[bytes]) -> None:
        """These have been taken off a segment, or all that was left of it."""
        is_empty = segment.head == segment.count
        if segment.size_bytes < 0:
            if is_empty and segment.size_bytes == ROUGH:
                self.sum.took_rough(segment)
            return
        size_bytes = segment.size_bytes if is_empty else sum(self._sizes(contents))
        segment.size_bytes -= size_bytes
        self._add(-size_bytes)

    def weigh_again(self, segment: Segment) -> None:
        """Some of it has been given up."""
        self._add(-max(segment.size_bytes, 0))
        segment.size_bytes = UNWEIGHED
        self._unweighed.append(segment)
        self.sum.is_unsure = True

    def came_back(self, batch: RequeuedBatch) -> None:
        """Count a requeued batch, which may be on disk only."""
        if batch.contents:
            batch.weighed_from = batch.head
            self._add(sum(self._sizes(batch.contents[batch.head :])))
        else:
            batch.weighed_from = len(batch.sequences)
            self._unweighed_requeued += batch.weighed_from
            self.sum.is_unsure = True

    def _weigh_requeued(self) -> None:
        """Some of what came back."""
        left, left_bytes = REQUEUED_WEIGHED_MAX, FETCH_BYTES_MAX
        for batch in reversed(self._requeued.batches):
            stop = batch.weighed_from
            start = min(stop, max(batch.head, stop - left))
            if start == stop:
                continue
            contents: list[bytes] = []
            try:
                contents = self._requeued.read_last(batch, start, stop, left_bytes)
            except UnreadableMessages:
                batch.weighed_from = start  # it cannot be taken either
            else:
                batch.weighed_from = stop - len(contents)
            self._unweighed_requeued -= stop - batch.weighed_from
            self._add(sum(self._sizes(contents)))
            left -= len(contents)
            left_bytes -= sum(map(len, contents))
            if left <= 0 or left_bytes <= 0:
                break

    def took_back(self, batch: RequeuedBatch, start: int, stop: int) -> None:
        """These of what came back have been taken."""
        weighed_at = min(max(start, batch.weighed_from), stop)
        self._unweighed_requeued -= weighed_at - start
        if weighed_at < stop:
            self._add(-sum(self._sizes(batch.contents[weighed_at:stop])))
