"""Output buffer of a connection: filled in a turn, written once at its end.

What vouches for something that is not on disk yet is held back, with all behind it, until it is.

It also says how much its consumers may be handed: a burst of bytes before it must be
written, and nothing while the socket does not drain.  Consumers that had to wait are woken
when there is room.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch

BURST_BYTES = 1_048_576
"""Deliveries to one connection in one turn: about the kernel's largest socket buffer."""

MESSAGE_BYTES_MIN = 256
"""A message counts for so much at least: it takes its time however small it is, so that a burst is
some thousands of messages at most, which is some milliseconds of work."""

RUN_BYTES_MIN = 8 * MESSAGE_BYTES_MIN
"""So does a run, for it takes longer than its messages if those are few: what comes back without
neighbours makes thousands of runs."""

JOIN_BYTES_MAX = 4 << 20
"""A turn's output beyond this goes to the transport in pieces, not as one copy."""


def burst_bytes(delivery_batch: DeliveryBatch) -> int:
    """How much of a burst the messages of a run use up."""
    return burst_of(delivery_batch.content_bytes, len(delivery_batch.contents))


def burst_of(content_bytes: int, count: int) -> int:
    """How much of a burst a run of so many messages uses up."""
    return max(content_bytes, MESSAGE_BYTES_MIN * count, RUN_BYTES_MIN)


class WriteTransport(Protocol):
    """The part of asyncio's transport that writes."""

    def write(self, data: bytes) -> None: ...

    def writelines(self, list_of_data: list[bytes]) -> None: ...


class OutputSource(Protocol):
    """Source of output that is asked at the end of a turn, as it may grow while it lasts."""

    def write_output(self) -> None:
        """Add it to `pieces`."""


class HeldOutput(NamedTuple):
    """Output that waits for a commit."""

    ticket: int
    """The commit."""
    pieces: list[bytes]
    size_bytes: int
    """Bytes of messages in them."""


class OutputBuffer:
    """The output of one connection."""

    __slots__ = (
        "_durable",
        "_held",
        "_held_bytes",
        "_sources",
        "_waiting",
        "_writer",
        "handed_bytes",
        "is_draining",
        "pieces",
        "sent_bytes",
        "ticket",
        "touch",
        "writes",
        "written_bytes",
    )

    def __init__(self, writer: WriteTransport, *, touch: Callable[[OutputBuffer], None]) -> None:
        self.pieces: list[bytes] = []
        """Output that goes out at the end of the turn.  A caller that adds here calls `touch`."""
        self.is_draining = False
        """True if the socket is full and nothing may be added but replies."""
        self.sent_bytes = 0
        """Bytes of messages that have been added and not written.  All bytes of messages are those
        of `burst_bytes`."""
        self.ticket = 0
        """The commit that must have been done before `pieces` goes out."""
        self._held: list[HeldOutput] | None = None
        """Output that goes out before `pieces`; None while nothing is held."""
        self._held_bytes = 0
        """Bytes of messages in all of `_held`."""
        self._durable = 0
        """Last commit known to be durable."""
        self._writer = writer
        self.touch = touch
        """Has it written at the end of this turn: called with itself."""
        self.handed_bytes = 0
        """Bytes of deliveries that were handed out and are not written yet."""
        self.writes = self.written_bytes = 0
        """How often something was, and how much."""
        self._waiting: dict[Consumer, None] = EMPTY_DICT
        self._sources: dict[OutputSource, None] = EMPTY_DICT
        """Sources that add their output before `pieces` goes out."""

    def add(self, frame: bytes) -> None:
        """Send a frame at the end of this turn."""
        self.pieces.append(frame)
        self.touch(self)

    def ask_later(self, source: OutputSource) -> None:
        """Ask at the end of this turn what there is to say."""
        if self._sources is EMPTY_DICT:
            self._sources = {}
        self._sources[source] = None
        self.touch(self)

    def hold(self, ticket: int) -> None:
        """Hold output that is added from now on until the commit `ticket`, which is yet to be done.

        The caller sees to it that `on_durable` is called.
        """
        if ticket > self.ticket:
            size_bytes = self.sent_bytes - self._held_bytes
            if self._held is None:
                self._held = []
            self._held.append(HeldOutput(self.ticket, self.pieces, size_bytes))
            self._held_bytes += size_bytes
            self.ticket = ticket
            self.pieces = []

    def on_durable(self, ticket: int) -> None:
        """Handle that everything up to this commit is on disk."""
        self._durable = ticket
        self.touch(self)

    @property
    def is_holding(self) -> bool:
        """True if something waits for a commit."""
        return self.ticket > self._durable

    @property
    def has_enough(self) -> bool:
        """True if what can wait should: the socket is full, or a commit holds much back."""
        return self.is_draining or (self.is_holding and self.sent_bytes > BURST_BYTES)

    def reserve(self, content_bytes: int) -> None:
        """Deliveries were handed out: they use up the burst until they are written."""
        self.handed_bytes += content_bytes

    def unreserve(self, content_bytes: int) -> None:
        """Deliveries that were handed out will not come, which may make room."""
        self.handed_bytes -= content_bytes
        self.touch(self)

    def sent(self, content_bytes: int) -> None:
        """Deliveries that were handed out have been added to `pieces`."""
        self.sent_bytes += content_bytes
        self.touch(self)

    def room(self, consumer: Consumer) -> int:
        """How many messages may be handed to `consumer`; at 0 it is woken when there is room."""
        left_bytes = BURST_BYTES - self.handed_bytes
        if left_bytes > 0 and not self.is_draining:
            return -(-left_bytes // MESSAGE_BYTES_MIN)
        if self._waiting is EMPTY_DICT:
            self._waiting = {}
        self._waiting[consumer] = None
        return 0

    def forget(self, consumer: Consumer) -> None:
        """A consumer is gone and need not be woken."""
        self._waiting.pop(consumer, None)

    def flush(self) -> None:
        """Write what has been collected; one call of the transport, unless it is very much."""
        if self._sources:
            sources, self._sources = self._sources, EMPTY_DICT
            for source in sources:
                source.write_output()
        if self._held or self.ticket > self._durable:
            pieces, size_bytes = self._due()
        else:  # as mostly
            pieces, self.pieces = self.pieces, []
            size_bytes = self.sent_bytes
            self.ticket = 0
        if pieces:
            # Once a turn, because it is faster (benchmarks/compare, b16) by a factor of six.
            if size_bytes < JOIN_BYTES_MAX:
                data = b"".join(pieces)
                self.written_bytes += len(data)
                self._writer.write(data)
            else:
                self.written_bytes += sum(map(len, pieces))
                self._writer.writelines(pieces)
            self.writes += 1
        self.handed_bytes -= size_bytes
        self.sent_bytes -= size_bytes
        if self._waiting and not self.is_draining:
            self._wake()

    def _due(self) -> tuple[list[bytes], int]:
        """Return the output that no commit holds any more, and the bytes of messages in it."""
        due: list[bytes] = []
        size_bytes = due_count = 0
        held = self._held or []
        for ticket, pieces, of_pieces in held:
            if ticket > self._durable:
                break
            due += pieces
            size_bytes += of_pieces
            due_count += 1
        self._held = held[due_count:] or None
        self._held_bytes -= size_bytes
        if not self._held and self.ticket <= self._durable:
            size_bytes = self.sent_bytes
            pieces, self.pieces = self.pieces, []
            due = due + pieces if due else pieces
            self.ticket = 0
        return due, size_bytes

    def discard(self) -> None:
        """The socket is gone: forget what was to be written, for transports may refuse it."""
        self.pieces.clear()
        self._held = None
        self.ticket = self._held_bytes = 0

    def drained(self) -> None:
        """The socket takes more again."""
        self.is_draining = False
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, EMPTY_DICT
        for consumer in waiting:
            if consumer.parked:
                consumer.queue.wake(consumer)
