"""Looking at ready messages without taking them: nothing of the queue is another for it.

What is on disk is read for who looks, and not kept.  How much is looked at in one turn has a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.inherited_counts import Carried
from fluffle.broker.queues.journal import Damage, Journal, Loaded, Spill, Unreadable
from fluffle.broker.queues.requeue import Returns
from fluffle.broker.queues.segment import Place, Segment
from fluffle.broker.queues.timer_port import NEVER_MS
from fluffle.protocol.properties import body_of, body_size, raw_properties

SHOWN_BYTES_MAX = 1 << 20
"""Of properties and bodies that are shown at once; the message that goes beyond it is the last."""

LOOKED_AT_BYTES_MAX = 4 << 20
"""Of messages that are looked at in one turn, shown or not; so is this."""

RETURNED_MAX = 256
"""Messages that came back and are taken together."""


class View(NamedTuple):
    """Which of the ready messages somebody wants to see, and how much of each."""

    offset: int
    """How many in front are left out."""
    most: int
    """How many are wanted."""
    body_bytes: int
    """How much of each body."""


class Seen(NamedTuple):
    """A message, as it lies in the queue."""

    exchange: str
    routing_key: str
    properties: bytes
    """Raw."""
    body: bytes
    """Its beginning."""
    size_bytes: int
    """Of the whole body."""
    redelivered: bool
    acquired: int
    """How often it was handed out and came back."""
    failed: int
    """How often of these handing it out has failed."""
    expires_at_ms: int
    """In the time of the queue, which is UTC; `NEVER_MS` if it never does."""


class Peeked(NamedTuple):
    """Fewer messages than were wanted, if it would be too much at once: then there is one at
    least, if there is any."""

    seen: list[Seen]
    damage: str = ""
    """Where and why what comes next cannot be read."""


class Stock(NamedTuple):
    """The ready messages of a lane, as they lie there; to be looked at."""

    returns: Returns
    segments: Iterable[Segment]
    redelivered_below: int
    """Messages with lower numbers have been handed out before."""
    damage: Damage | None
    journal: Journal | None
    spill: Spill | None
    carried: Carried | None = None
    priority: int | None = None
    """That of the messages in `segments`; None where it is that of messages that name none."""


class Lying(NamedTuple):
    """A message in its place."""

    sequence: int
    origin: Origin
    content: bytes
    redelivered: bool
    counts: Counts
    expires_at_ms: int


class Shelf(NamedTuple):
    """The ready messages of a queue."""

    stocks: Sequence[Stock]
    """In the order in which they are handed out."""
    below: int | None = None
    """Only those with lower numbers, if it is not None."""


class Shelved(Protocol):
    """A queue."""

    @property
    def shelf(self) -> Shelf:
        """What of it may be seen."""


def peek(queue: Shelved, view: View) -> Peeked:
    """What there is to be seen of a queue."""
    seen: list[Seen] = []
    shown_bytes = looked_at_bytes = 0
    stocks, below = queue.shelf
    try:
        for message in lying(stocks, view.offset):
            is_enough = shown_bytes >= SHOWN_BYTES_MAX or looked_at_bytes >= LOOKED_AT_BYTES_MAX
            if len(seen) >= view.most or is_enough:
                break
            if below is not None and message.sequence >= below:
                continue
            each = seen_of(message, view.body_bytes)
            seen.append(each)
            shown_bytes += len(each.properties) + len(each.body)
            looked_at_bytes += len(message.content)
    except Unreadable as error:
        return Peeked(seen, f"{error.damage.place}: {error.damage.what}")
    return Peeked(seen)


def seen_of(message: Lying, body_bytes: int) -> Seen:
    """What is shown of a message."""
    content = message.content
    size_bytes = body_size(content)
    return Seen(
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


def lying(stocks: Iterable[Stock], offset: int) -> Iterator[Lying]:
    """The messages of lanes behind the first `offset`, in order.  Raises `Unreadable`."""
    for stock in stocks:
        returned = sum(len(run.sequences) - run.head for run in stock.returns.runs)
        if offset < returned:
            yield from returned_ones(stock.returns.behind(offset))
        offset = max(0, offset - returned)
        for segment in stock.segments:
            left = segment.count - segment.head
            if offset < left:
                yield from of_segment(stock, segment, offset)
            offset = max(0, offset - left)


def returned_ones(returns: Returns) -> Iterator[Lying]:
    """Those that came back; `returns` are nobody's but whose who looks."""
    while returns.runs:
        run, start, stop = returns.take(RETURNED_MAX)
        for at in range(start, stop):
            yield Lying(
                run.sequences[at],
                run.origins[at],
                run.contents[at],
                redelivered=True,
                counts=run.counts,
                expires_at_ms=run.expiries[at] if run.expiries is not None else NEVER_MS,
            )


def of_segment(stock: Stock, segment: Segment, offset: int) -> Iterator[Lying]:
    """Those of a segment behind the first `offset` that are not taken."""
    if stock.damage is not None:
        raise Unreadable(stock.damage)
    parts = on_disk(stock, segment) if segment.place is Place.DISK else in_memory(segment)
    for sequence, origin, content, expires_at_ms in parts:
        if offset:
            offset -= 1
            continue
        counts = NEW
        if stock.carried is not None:
            counts = stock.carried.alike(sequence, sequence + 1).counts
        is_new = counts is NEW and not segment.redelivered
        redelivered = not is_new or sequence < stock.redelivered_below
        yield Lying(sequence, origin, content, redelivered, counts, expires_at_ms)


def in_memory(segment: Segment) -> Iterator[tuple[int, Origin, bytes, int]]:
    """Number, origin, content and expiry of each."""
    places = range(segment.head, segment.count)
    for at, sequence in zip(places, segment.sequences(segment.head, segment.count), strict=True):
        expires_at_ms = segment.expiries[at] if segment.expiries is not None else NEVER_MS
        yield sequence, segment.origins[at], segment.contents[at], expires_at_ms


def on_disk(stock: Stock, segment: Segment) -> Iterator[tuple[int, Origin, bytes, int]]:
    """The same, read for once; what lies behind damage is not."""
    if segment.spilled_at:
        assert stock.spill is not None
        origins, contents, expiries = stock.spill.read(segment.spilled_at)
        sequences = segment.sequences(0, segment.count)
        yield from of_part(Loaded(sequences, origins, contents, expiries))
        return
    assert stock.journal is not None
    found, stop = 0, segment.first_sequence
    while found < segment.count:
        parts = stock.journal.peek(stop, segment.stop_sequence)
        found += sum(len(part.contents) for part in parts)
        stop = parts[-1].sequences[-1] + 1
        yield from chain.from_iterable(map(of_part, parts))


def of_part(part: Loaded) -> Iterator[tuple[int, Origin, bytes, int]]:
    for at, (sequence, content) in enumerate(zip(part.sequences, part.contents, strict=True)):
        expires_at_ms = part.expiries[at] if part.expiries is not None else NEVER_MS
        yield sequence, part.origins[at], content, expires_at_ms
