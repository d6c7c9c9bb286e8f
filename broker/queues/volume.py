"""How much lies in a queue: bytes of bodies, in memory and on disk, for who looks at it.

Nothing is counted for that while messages come and go: a segment knows how long its contents are
together, and what frames and properties take of that is found out from contents that are in memory.
So what is in memory is exact, up to `EXACT_MAX` messages of a queue; of the rest it is estimated
from how long contents are on the average.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from fluffle.broker.queues.delivery import DeliveryBatch
from fluffle.broker.queues.queue_view import ReadyMessages, ReadyView
from fluffle.broker.queues.segment import SegmentLocation
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.properties import body_size, body_sizes, decode_properties, raw_properties

EXACT_MAX = 4_096
"""Messages of a queue whose bodies are measured one by one at most: some tens of microseconds."""
RUNS_MAX = 4_096
"""Runs that came back which are looked at; the rest is taken for as large."""
OVERHEAD_BYTES = 30
"""Bytes of frames and properties in a content, where no content is in memory."""
HIGH_FROM = 5
"""Messages of a quorum queue with this priority or a higher one are high ones: RabbitMQ 4.0."""


class Volume(NamedTuple):
    """Messages in one place, and how many bytes their bodies have."""

    message_count: int = 0
    size_bytes: int = 0
    ram_count: int = 0
    """Those of them that are in memory."""
    ram_bytes: int = 0
    persistent_count: int = 0
    """Those that the log has."""
    persistent_bytes: int = 0


class ReadyCounts(NamedTuple):
    """The ready messages of a quorum queue, by the kinds of RabbitMQ 4.0."""

    high: int
    normal: int
    returned: int


class KeptDead(NamedTuple):
    """Messages of a quorum queue that have died, and are kept until they have arrived elsewhere."""

    message_count: int = 0
    content_bytes: int = 0


class MeasuredRun(NamedTuple):
    """Messages that lie together."""

    contents: list[bytes]
    """None at all if they are not in memory."""
    message_count: int
    content_bytes: int
    """How long all of them are, or about that."""
    is_persistent: bool
    size_bytes: int | None = None
    """Bytes of their bodies, if that is known."""


class VolumeMeter:
    """Measures a queue, exactly as long as that is little work."""

    __slots__ = ("_exact_left", "_overhead_bytes")

    def __init__(self) -> None:
        self._exact_left = EXACT_MAX
        self._overhead_bytes = OVERHEAD_BYTES

    def ready(self, shelf: ReadyView) -> Volume:
        """The volume of ready messages."""
        return self._total(stretch for stock in shelf.stocks for stretch in ready_in(stock))

    def held(self, runs: Iterable[DeliveryBatch], *, is_persistent: bool) -> Volume:
        """The volume of what clients have in hands; `is_persistent`: all of it is, whatever a run
        says."""
        return self._total(
            stretch._replace(is_persistent=is_persistent or stretch.is_persistent)
            for run in runs
            for stretch in held_in(run)
        )

    def dead(self, kept: KeptDead) -> Volume:
        """The volume of what is dead and kept in the log: as many bytes as messages have on the
        average."""
        count = kept.message_count
        size_bytes = max(0, kept.content_bytes - count * self._overhead_bytes)
        return Volume(count, size_bytes, persistent_count=count, persistent_bytes=size_bytes)

    def _total(self, stretches: Iterable[MeasuredRun]) -> Volume:
        count = size_bytes = ram_count = ram_bytes = persistent_count = persistent_bytes = 0
        for stretch in stretches:
            stretch_bytes = self._size_bytes(stretch)
            count += stretch.message_count
            size_bytes += stretch_bytes
            if stretch.contents:
                ram_count += stretch.message_count
                ram_bytes += stretch_bytes
            if stretch.is_persistent:
                persistent_count += stretch.message_count
                persistent_bytes += stretch_bytes
        return Volume(count, size_bytes, ram_count, ram_bytes, persistent_count, persistent_bytes)

    def _size_bytes(self, stretch: MeasuredRun) -> int:
        if stretch.size_bytes is not None:
            return stretch.size_bytes
        contents, count = stretch.contents, stretch.message_count
        if contents:
            self._overhead_bytes = len(contents[0]) - body_size(contents[0])
            if count <= self._exact_left:
                self._exact_left -= count
                return sum(body_sizes(contents))
        return max(0, stretch.content_bytes - count * self._overhead_bytes)


def ready_in(stock: ReadyMessages) -> Iterator[MeasuredRun]:
    """Messages that came back, of which some may be on disk only, and then the rest."""
    mean_bytes = 0
    for run in islice(stock.returns.runs, RUNS_MAX):
        count = len(run.sequences) - run.head
        if count:
            contents = run.contents[run.head :]
            content_bytes = sum(map(len, contents)) or count * mean_bytes
            mean_bytes = content_bytes // count
            yield MeasuredRun(contents, count, content_bytes, run.is_recorded)
    for segment in stock.segments:
        count = segment.count - segment.head
        if count:
            content_bytes = segment.content_bytes * count // segment.count
            contents = (
                segment.contents[segment.head :]
                if segment.place is not SegmentLocation.DISK
                else []
            )
            yield MeasuredRun(contents, count, content_bytes, segment.is_recorded)


def held_in(run: DeliveryBatch) -> Iterator[MeasuredRun]:
    """The unsettled messages of a run."""
    mean_bytes = 0
    if run.first is not None:
        length, begin = run.first
        mean_bytes = max(0, run.content_bytes // len(run.contents) - length + body_size(begin))
    for start, stop in run.unsettled():
        contents = run.contents[start:stop]
        if all(contents):
            yield MeasuredRun(contents, stop - start, sum(map(len, contents)), run.is_recorded)
        else:  # it was forgotten once it was on its way
            count = stop - start
            yield MeasuredRun([], count, 0, run.is_recorded, size_bytes=count * mean_bytes)


def ready_counts(shelf: ReadyView, count: int) -> ReadyCounts:
    """How many of the `count` messages that are ready are of which kind."""
    high = normal = 0
    for stock in shelf.stocks:
        left = sum(segment.count - segment.head for segment in stock.segments)
        if stock.priority is not None and stock.priority >= HIGH_FROM:
            high += left
        else:
            normal += left
    return ReadyCounts(high, normal, count - high - normal)


def head_timestamp(shelf: ReadyView) -> int | None:
    """That of the next message, if it has one and is in memory."""
    content = head_of(shelf)
    if content is None:
        return None
    try:
        return decode_properties(raw_properties(content)).timestamp
    except (ProtocolError, ValueError):  # a client may have sent anything
        return None


def head_of(shelf: ReadyView) -> bytes | None:
    """The next message, if it is in memory."""
    for stock in shelf.stocks:
        for run in islice(stock.returns.runs, 1):
            return run.contents[run.head] if run.contents else None
        for segment in stock.segments:
            if segment.head < segment.count:
                is_in_ram = segment.place is not SegmentLocation.DISK
                return segment.contents[segment.head] if is_in_ram else None
    return None
