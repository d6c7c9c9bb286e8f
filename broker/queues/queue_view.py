"""Looking at ready messages without taking them: nothing of the queue is another for it.

What is on disk is read for who looks, and not kept.  How much is looked at in one turn has a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.inherited_counts import InheritedCounts
from fluffle.broker.queues.journal import (
    Damage,
    Journal,
    LoadedMessages,
    PageStore,
    UnreadableMessages,
)
from fluffle.broker.queues.queue_api import PeekedMessage, PeekRequest, PeekResult
from fluffle.broker.queues.requeue import RequeueOrder
from fluffle.broker.queues.segment import Segment, SegmentLocation
from fluffle.protocol.properties import body_of, body_size, raw_properties

SHOWN_BYTES_MAX = 1 << 20
"""Of properties and bodies that are shown at once; the message that goes beyond it is the last."""

LOOKED_AT_BYTES_MAX = 4 << 20
"""Of messages that are looked at in one turn, shown or not; so is this."""

RETURNED_MAX = 256
"""Messages that came back and are taken together."""


class ReadyMessages(NamedTuple):
    """The ready messages of a lane, as they lie there; to be looked at."""

    returns: RequeueOrder
    segments: Iterable[Segment]
    redelivered_below: int
    """Messages with lower numbers have been handed out before."""
    damage: Damage | None
    journal: Journal | None
    spill: PageStore | None
    carried: InheritedCounts | None = None
    priority: int | None = None
    """That of the messages in `segments`; None where it is that of messages that name none."""


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
    def shelf(self) -> ReadyView:
        """What of it may be seen."""


def peek(queue: Peekable, view: PeekRequest) -> PeekResult:
    """What there is to be seen of a queue."""
    seen: list[PeekedMessage] = []
    shown_bytes = looked_at_bytes = 0
    stocks, below = queue.shelf
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
    """What is shown of a message."""
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
    """The messages of lanes behind the first `offset`, in order.  Raises `UnreadableMessages`."""
    for stock in stocks:
        returned = sum(len(run.sequences) - run.head for run in stock.returns.runs)
        if offset < returned:
            yield from requeued_messages(stock.returns.behind(offset))
        offset = max(0, offset - returned)
        for segment in stock.segments:
            left = segment.count - segment.head
            if offset < left:
                yield from segment_messages(stock, segment, offset)
            offset = max(0, offset - left)


def requeued_messages(returns: RequeueOrder) -> Iterator[StoredMessage]:
    """Those that came back; `returns` are nobody's but whose who looks."""
    while returns.runs:
        run, start, stop = returns.take(RETURNED_MAX)
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
    """Those of a segment behind the first `offset` that are not taken."""
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
        if stock.carried is not None:
            counts = stock.carried.alike(sequence, sequence + 1).counts
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
