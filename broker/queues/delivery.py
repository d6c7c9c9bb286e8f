"""A run of messages in somebody's hands: handed out together, settled one by one or together.

The same object is the engine's answer to "deliver what can be delivered" and the channel's
record of what is unacknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Expiries, part_of
from fluffle.broker.queues.requeue import RequeuedRun
from fluffle.protocol.properties import BODY_SIZE_STOP

if TYPE_CHECKING:
    from fluffle.broker.queues.queue_api import QueueHandle


class Outcome(Enum):
    """How a message left its holder's hands: gone for good, or back to its place in the queue."""

    ACKED = auto()
    REJECTED = auto()
    """basic.reject or basic.nack, and not wanted back: what dead-lettering will ask for."""
    NACK_REQUEUED = auto()
    """Given back by the client: basic.nack with requeue, basic.recover."""
    REJECT_REQUEUED = auto()
    """Given back by basic.reject with requeue."""
    LOST = auto()
    """Unsettled when its channel ended."""
    SUSPECTED = auto()
    """Unsettled when the node of its channel had not been heard of for too long."""
    UNSENT = auto()
    """Its consumer had ended before it could be sent."""
    TIMED_OUT = auto()
    """Held for too long."""


FINAL = (Outcome.ACKED, Outcome.REJECTED)
"""After these the queue is done with a message."""

BY_CLIENT = (*FINAL, Outcome.NACK_REQUEUED, Outcome.REJECT_REQUEUED)
"""These a client has asked for."""

FAILED = (Outcome.REJECT_REQUEUED, Outcome.LOST)
"""After these handing it out counts as failed."""


class OverdueDeliveries(NamedTuple):
    """Deliveries that a consumer or getter has held for too long."""

    delivery_batches: list[DeliveryBatch]
    """Something of each is in hands still."""
    held_ms: int
    """For how long, the first of them."""
    timeout_ms: int


class TimedOutDeliveries(NamedTuple):
    """Deliveries that were taken from their holder because it held them for too long."""

    messages: int
    first: int
    """The sequence number of one of them, the lowest."""
    held_ms: int
    timeout_ms: int


class Holder(Protocol):
    """Holder of unsettled messages: a consumer, or a basic.get."""

    @property
    def queue(self) -> QueueHandle: ...

    @property
    def no_ack(self) -> bool:
        """Whether a message counts as settled once it is handed out."""

    @property
    def timeout_ms(self) -> int | None:
        """How long it may hold a message; None: as its queue says."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Pass on to the client what was handed out."""

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Account for messages that are handed to it: what room it has left depends on them."""

    def settled(self, count: int) -> None:
        """Count messages of its own that are settled."""

    def overdue(self, late: OverdueDeliveries) -> None:
        """Have it give back what it still holds of these, and know why: see `timed_out`."""

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        """Messages have been taken from it, for it has held them for too long.  A consumer is
        served no more."""


class DeliveryBatch:
    """Messages handed to one holder at one time."""

    __slots__ = (
        "content_bytes",
        "contents",
        "counts",
        "delivered_at_ms",
        "expiries",
        "first",
        "first_tag",
        "head",
        "holder",
        "holes",
        "is_recorded",
        "left",
        "origins",
        "redelivered",
        "sequences",
    )

    def __init__(
        self,
        holder: Holder,
        origins: list[Origin],
        contents: list[bytes],
        sequences: Sequence[int],
        *,
        redelivered: bool,
        is_recorded: bool = False,
        counts: Counts = NEW,
        expiries: Expiries | None = None,
        content_bytes: int | None = None,
        delivered_at_ms: int = 0,
    ) -> None:
        self.holder = holder
        self.origins = origins
        """None at all if the messages are on disk, and `contents` only stand for theirs."""
        self.contents = contents
        """Invariant: nobody else's list, so that `release` may change it."""
        self.content_bytes = sum(map(len, contents)) if content_bytes is None else content_bytes
        """The length of all contents as they were handed out."""
        self.first: tuple[int, bytes] | None = None
        """The length and the begin of the first content, once all are forgotten."""
        self.sequences = sequences
        """The queue's sequence number of each message.  Invariant: rising; one a content, as
        there is one origin a content."""
        self.redelivered = redelivered
        self.is_recorded = is_recorded
        """Whether the queue's journal must hear when they are settled."""
        self.counts = counts
        """Of each of them, before this hand-out."""
        self.expiries = expiries
        """When each of them expires, once it has come back; None if none ever does."""
        self.delivered_at_ms = delivered_at_ms
        """When, in the time of its queue; 0 if it may be held for ever, or until it is known."""
        self.left = len(contents)
        """How many of them are in hands, as its queue knows, if they may not be for ever."""
        self.first_tag = 0
        """The delivery tag of `contents[0]`, given by the channel; 0 until then."""
        self.head = 0
        """Everything before this index is settled."""
        self.holes: set[int] | None = None
        """Indices at or after `head` that are settled out of order; None while there are none."""

    @property
    def has_gone_back(self) -> bool:
        """Whether it was all settled, or taken from its holder, though it may not be held for ever:
        if it has not left for its client, it must not."""
        return self.delivered_at_ms > 0 and not self.left

    @property
    def is_settled(self) -> bool:
        return self.head == len(self.contents)

    def holds(self, index: int) -> bool:
        """Whether the message at `index` is not settled yet."""
        return self.head <= index < len(self.contents) and (
            self.holes is None or index not in self.holes
        )

    def unsettled(self) -> Iterator[tuple[int, int]]:
        """The stretches of messages that are not settled yet."""
        start = self.head
        for stop in (*sorted(self.holes or ()), len(self.contents)):
            if start < stop:
                yield start, stop
            start = stop + 1

    def settle(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Mark the messages at `start` to `stop` settled; the stretches that were not before."""
        if self.holes is None and start <= self.head:
            start, self.head = self.head, max(self.head, stop)
            return [(start, stop)] if start < stop else []
        stretches: list[tuple[int, int]] = []
        holes = self.holes = self.holes or set()
        for index in range(max(start, self.head), stop):
            if index in holes:
                continue
            holes.add(index)
            if stretches and stretches[-1][1] == index:
                stretches[-1] = (stretches[-1][0], index + 1)
            else:
                stretches.append((index, index + 1))
        while self.head in holes:
            holes.remove(self.head)
            self.head += 1
        if not holes:
            self.holes = None
        return stretches

    def unsettle(self, start: int, stop: int) -> None:
        """Undo `settle` for messages that were settled (tx.rollback)."""
        holes = self.holes or set()
        holes.update(range(stop, self.head))
        holes.difference_update(range(start, stop))
        self.head = min(self.head, start)
        self.holes = holes or None

    def back(self, start: int, stop: int, outcome: Outcome) -> RequeuedRun:
        """The messages at `start` to `stop` as they come back to their queue."""
        part = slice(start, stop)
        return RequeuedRun(
            self.origins[part],
            self.contents[part] if self.origins else [],
            self.sequences[part],
            counts=Counts(self.counts.acquired + 1, self.counts.failed + (outcome in FAILED)),
            is_recorded=self.is_recorded,
            expiries=part_of(self.expiries, part),  # mutant: X3
        )

    def forget(self) -> None:
        """Keep no contents: they are on their way, and where they came from."""
        if first := self.contents[0]:
            self.first = len(first), first[:BODY_SIZE_STOP]
        self.origins = []
        self.contents = [b""] * len(self.contents)

    def release(self, start: int, stop: int) -> None:
        """Forget the contents of messages whose settlement is final, so that none outlive it.

        The run itself lasts until all of it is settled: one message that is kept for long must
        not keep a thousand others in memory.
        """
        if stop - start == 1:
            self.contents[start] = b""
        else:
            self.contents[start:stop] = [b""] * (stop - start)


class DeliverySource(Protocol):
    """Queue that hands out messages when it is pumped, as turns and clocks know it."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str: ...

    def pump(self) -> list[DeliveryBatch]:
        """Hand out what there is room for: see `engine.Queue.pump`."""


def deliver_all(delivery_batches: list[DeliveryBatch]) -> None:
    """To those who were handed them."""
    for delivery_batch in delivery_batches:
        delivery_batch.holder.deliver(delivery_batch)
