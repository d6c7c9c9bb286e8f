"""Segments of a lane that leave memory, once the disk has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from fluffle.broker.queues.journal import Journal, PageStore
from fluffle.broker.queues.segment import Segment, SegmentLocation


class PageOut:
    """Paging of the segments of one ready list."""

    __slots__ = ("_segments", "_spill", "journal")

    def __init__(self, journal: Journal | None, spill: PageStore | None) -> None:
        self.journal = journal
        """That of the lane, which may come to have but a part of it."""
        self._spill = spill
        self._segments: deque[Segment] = deque()
        """In memory until they are durable, and perhaps some that changed their mind; tickets
        rise."""

    def add(self, segment: Segment) -> bool:
        """It is to leave, if it may: whether it does."""
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
        """What the disk has."""
        port = self.journal or self._spill
        durable = port.commits.durable if port is not None else 0
        while self._segments and self._segments[0].ticket <= durable:
            segment = self._segments.popleft()
            if segment.place is SegmentLocation.LEAVING:
                if segment.is_recorded and self.journal is not None:
                    self.journal.evicted(segment.first_sequence, segment.stop_sequence)
                segment.forget()
                segment.place = SegmentLocation.DISK


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
