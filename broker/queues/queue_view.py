"""View of the ready messages of a queue: what they are, and how many bytes lie there.

Nothing is taken, and nothing of the queue is another for it.  What is on disk is read for the view
and not kept.  How much is looked at in one turn has a limit.

Nothing is counted for the sizes while messages come and go: a segment knows how long its contents
are together, and what frames and properties take of that is found out from contents that are in
memory.  So what is in memory is exact, up to `EXACT_MAX` messages of a queue; of the rest it is
estimated from how long contents are on the average.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple, Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts, DeliveryCountIndex
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.journal import (
    Damage,
    Journal,
    LoadedMessages,
    PageStore,
    UnreadableMessages,
)
from fluffle.broker.queues.queue_api import DeliveryBatch, PeekedMessage, PeekRequest, PeekResult
from fluffle.broker.queues.requeue import RequeueOrder
from fluffle.broker.queues.segment import Segment, SegmentLocation
from fluffle.protocol.properties import (
    body_of,
    body_size,
    body_sizes,
    decode_properties,
    raw_properties,
)
from fluffle.protocol.spec import ProtocolError

SHOWN_BYTES_MAX = 1 << 20
"""Bytes of properties and bodies shown at once; the message that exceeds them is the last."""

LOOKED_AT_BYTES_MAX = 4 << 20
"""Bytes of messages read in one turn, shown or not; the message that exceeds them is the last."""

REQUEUED_MAX = 256
"""Messages that came back and are taken together."""

EXACT_MAX = 4_096
"""Messages of a queue whose bodies are measured one by one at most: some tens of microseconds."""

RUNS_MAX = 4_096
"""Runs that came back which are looked at; the rest is taken for as large."""

OVERHEAD_BYTES = 30
"""Bytes of frames and properties in a content, where no content is in memory."""

HIGH_FROM = 5
"""Messages of a quorum queue with this priority or a higher one are high ones: RabbitMQ 4.0."""


class ReadyMessages(NamedTuple):
    """The ready messages of a ready list, as they lie there; to be looked at."""

    requeued: RequeueOrder
    segments: Iterable[Segment]
    redelivered_below: int
    """Messages with lower numbers have been handed out before."""
    damage: Damage | None
    journal: Journal | None
    spill: PageStore | None
    delivery_counts: DeliveryCountIndex | None = None
    priority: int | None = None
    """Priority of the messages in `segments`; None where it is that of messages without one."""


class StoredMessage(NamedTuple):
    """A message in its place."""

    sequence: int
    origin: Origin
    content: bytes
    redelivered: bool
    counts: Counts
    expires_at_ms: int


class ReadyView(NamedTuple):
    """The ready messages of a queue."""

    stocks: Sequence[ReadyMessages]
    """In the order in which they are handed out."""
    below: int | None = None
    """Only those with lower numbers, if it is not None."""


class Peekable(Protocol):
    """Queue whose ready messages can be looked at."""

    @property
    def ready_view(self) -> ReadyView:
        """Ready messages that may be shown."""


def peek(queue: Peekable, view: PeekRequest) -> PeekResult:
    """Show ready messages of a queue, as `view` asks."""
    seen: list[PeekedMessage] = []
    shown_bytes = looked_at_bytes = 0
    stocks, below = queue.ready_view
    try:
        for message in messages_from(stocks, view.offset):
            is_enough = shown_bytes >= SHOWN_BYTES_MAX or looked_at_bytes >= LOOKED_AT_BYTES_MAX
            if len(seen) >= view.most or is_enough:
                break
            if below is not None and message.sequence >= below:
                continue
            each = peeked_message(message, view.body_bytes)
            seen.append(each)
            shown_bytes += len(each.properties) + len(each.body)
            looked_at_bytes += len(message.content)
    except UnreadableMessages as error:
        return PeekResult(seen, f"{error.damage.place}: {error.damage.what}")
    return PeekResult(seen)


def peeked_message(message: StoredMessage, body_bytes: int) -> PeekedMessage:
    """Form of a message that is shown, with the first `body_bytes` of its body."""
    content = message.content
    size_bytes = body_size(content)
    return PeekedMessage(
        message.origin.exchange,
        message.origin.routing_key,
        raw_properties(content),
        body_of(content)[:body_bytes] if size_bytes else b"",
        size_bytes,
        message.redelivered,
        message.counts.acquired,
        message.counts.failed,
        message.expires_at_ms,
    )


def messages_from(stocks: Iterable[ReadyMessages], offset: int) -> Iterator[StoredMessage]:
    """Messages of ready lists behind the first `offset`, in order.  Raises `UnreadableMessages`."""
    for stock in stocks:
        requeued = sum(len(run.sequences) - run.head for run in stock.requeued.batches)
        if offset < requeued:
            yield from requeued_messages(stock.requeued.behind(offset))
        offset = max(0, offset - requeued)
        for segment in stock.segments:
            left = segment.count - segment.head
            if offset < left:
                yield from segment_messages(stock, segment, offset)
            offset = max(0, offset - left)


def requeued_messages(requeued: RequeueOrder) -> Iterator[StoredMessage]:
    """Requeued messages in order; `requeued` is consumed, so it must be a copy."""
    while requeued.batches:
        run, start, stop = requeued.take(REQUEUED_MAX)
        for at in range(start, stop):
            yield StoredMessage(
                run.sequences[at],
                run.origins[at],
                run.contents[at],
                redelivered=True,
                counts=run.counts,
                expires_at_ms=run.expiries[at] if run.expiries is not None else NEVER_MS,
            )


def segment_messages(
    stock: ReadyMessages, segment: Segment, offset: int
) -> Iterator[StoredMessage]:
    """Messages of a segment that are not taken, without the first `offset`."""
    if stock.damage is not None:
        raise UnreadableMessages(stock.damage)
    parts = (
        messages_on_disk(stock, segment)
        if segment.place is SegmentLocation.DISK
        else messages_in_memory(segment)
    )
    for sequence, origin, content, expires_at_ms in parts:
        if offset:
            offset -= 1
            continue
        counts = NEW
        if stock.delivery_counts is not None:
            counts = stock.delivery_counts.alike(sequence, sequence + 1).counts
        is_new = counts is NEW and not segment.redelivered
        redelivered = not is_new or sequence < stock.redelivered_below
        yield StoredMessage(sequence, origin, content, redelivered, counts, expires_at_ms)


def messages_in_memory(segment: Segment) -> Iterator[tuple[int, Origin, bytes, int]]:
    """Number, origin, content and expiry of each."""
    places = range(segment.head, segment.count)
    for at, sequence in zip(places, segment.sequences(segment.head, segment.count), strict=True):
        expires_at_ms = segment.expiries[at] if segment.expiries is not None else NEVER_MS
        yield sequence, segment.origins[at], segment.contents[at], expires_at_ms


def messages_on_disk(
    stock: ReadyMessages, segment: Segment
) -> Iterator[tuple[int, Origin, bytes, int]]:
    """The same, read for once; what lies behind damage is not."""
    if segment.spilled_at:
        assert stock.spill is not None
        origins, contents, expiries = stock.spill.read(segment.spilled_at)
        sequences = segment.sequences(0, segment.count)
        yield from loaded_messages(LoadedMessages(sequences, origins, contents, expiries))
        return
    assert stock.journal is not None
    found, stop = 0, segment.first_sequence
    while found < segment.count:
        parts = stock.journal.peek(stop, segment.stop_sequence)
        found += sum(len(part.contents) for part in parts)
        stop = parts[-1].sequences[-1] + 1
        yield from chain.from_iterable(map(loaded_messages, parts))


def loaded_messages(part: LoadedMessages) -> Iterator[tuple[int, Origin, bytes, int]]:
    for at, (sequence, content) in enumerate(zip(part.sequences, part.contents, strict=True)):
        expires_at_ms = part.expiries[at] if part.expiries is not None else NEVER_MS
        yield sequence, part.origins[at], content, expires_at_ms


class MessageTotals(NamedTuple):
    """Messages in one place, and how many bytes their bodies have."""

    message_count: int = 0
    size_bytes: int = 0
    ram_count: int = 0
    """Number of messages in memory."""
    ram_bytes: int = 0
    persistent_count: int = 0
    """Number of messages that the log has."""
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


class MessageMeter:
    """Measures a queue, exactly as long as that is little work."""

    __slots__ = ("_exact_left", "_overhead_bytes")

    def __init__(self) -> None:
        self._exact_left = EXACT_MAX
        self._overhead_bytes = OVERHEAD_BYTES

    def ready(self, ready_view: ReadyView) -> MessageTotals:
        """The volume of ready messages."""
        return self._total(stretch for stock in ready_view.stocks for stretch in ready_in(stock))

    def held(self, runs: Iterable[DeliveryBatch], *, is_persistent: bool) -> MessageTotals:
        """The volume of what clients have in hands; `is_persistent`: all of it is, whatever a run
        says."""
        return self._total(
            stretch._replace(is_persistent=is_persistent or stretch.is_persistent)
            for run in runs
            for stretch in held_in(run)
        )

    def dead(self, kept: KeptDead) -> MessageTotals:
        """The volume of what is dead and kept in the log: as many bytes as messages have on the
        average."""
        count = kept.message_count
        size_bytes = max(0, kept.content_bytes - count * self._overhead_bytes)
        return MessageTotals(count, size_bytes, persistent_count=count, persistent_bytes=size_bytes)

    def _total(self, stretches: Iterable[MeasuredRun]) -> MessageTotals:
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
        return MessageTotals(
            count, size_bytes, ram_count, ram_bytes, persistent_count, persistent_bytes
        )

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
    for run in islice(stock.requeued.batches, RUNS_MAX):
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


def ready_counts(ready_view: ReadyView, count: int) -> ReadyCounts:
    """How many of the `count` messages that are ready are of which kind."""
    high = normal = 0
    for stock in ready_view.stocks:
        left = sum(segment.count - segment.head for segment in stock.segments)
        if stock.priority is not None and stock.priority >= HIGH_FROM:
            high += left
        else:
            normal += left
    return ReadyCounts(high, normal, count - high - normal)


def head_timestamp(ready_view: ReadyView) -> int | None:
    """Timestamp of the next message, if it has one and is in memory."""
    content = head_of(ready_view)
    if content is None:
        return None
    try:
        return decode_properties(raw_properties(content)).timestamp
    except (ProtocolError, ValueError):  # a client may have sent anything
        return None


def head_of(ready_view: ReadyView) -> bytes | None:
    """The next message, if it is in memory."""
    for stock in ready_view.stocks:
        for run in islice(stock.requeued.batches, 1):
            return run.contents[run.head] if run.contents else None
        for segment in stock.segments:
            if segment.head < segment.count:
                is_in_ram = segment.place is not SegmentLocation.DISK
                return segment.contents[segment.head] if is_in_ram else None
    return None
