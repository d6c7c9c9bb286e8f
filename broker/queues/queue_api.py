"""A queue as the rest of a node sees it, wherever it is led: handle, consumers and deliveries.

The engine's `Queue` answers at once.  One that is led elsewhere has to ask: where the return type
allows it, it gives a `Deferred`, which is answered or fails some turns afterwards, within a bounded
time.  So a caller that can only meet the engine's may go on without looking.

A `DeliveryBatch` is the engine's answer to "deliver what can be delivered", and the same object is
the channel's record of what is unacknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import Enum, auto
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Expiries, part_of
from fluffle.broker.queues.journal import Damage, Owner, QueueDefinition
from fluffle.broker.queues.publish_target import QueueTarget
from fluffle.broker.queues.requeue import RequeuedBatch
from fluffle.protocol.properties import BODY_SIZE_STOP

T = TypeVar("T")


class QueueCounts(NamedTuple):
    """Counts of the messages and the consumers of a queue."""

    ready: int
    unacked: int
    consumers: int
    apart: int = 0
    """Messages that wait to be ready again, and those that have died and must arrive elsewhere."""


class PeekRequest(NamedTuple):
    """Part of the ready messages that a caller wants to see, and how much of each body."""

    offset: int
    """How many in front are left out."""
    most: int
    """How many are wanted."""
    body_bytes: int
    """How much of each body."""


class PeekedMessage(NamedTuple):
    """A message, as it lies in the queue."""

    exchange: str
    routing_key: str
    properties: bytes
    """Raw."""
    body: bytes
    """Beginning of the body."""
    size_bytes: int
    """Size of the whole body."""
    redelivered: bool
    acquired: int
    """How often it was handed out and came back."""
    failed: int
    """How often of these handing it out has failed."""
    expires_at_ms: int
    """In the time of the queue, which is UTC; `NEVER_MS` if it never does."""


class PeekResult(NamedTuple):
    """Fewer messages than were wanted, if it would be too much at once: then there is one at
    least, if there is any."""

    seen: list[PeekedMessage]
    damage: str = ""
    """Where and why what comes next cannot be read."""


class Deferred(Generic[T]):
    """An answer that has yet to come, or the error that comes in its place."""

    __slots__ = ("_answered", "_failed")

    def __init__(self) -> None:
        self._answered: Callable[[T], None] | None = None
        self._failed: Callable[[BrokerError], None] | None = None

    def then(self, answered: Callable[[T], None], failed: Callable[[BrokerError], None]) -> None:
        """Set the callbacks, one of which is called once.  Neither is called before the call
        that gave this has returned."""
        self._answered, self._failed = answered, failed

    def answer(self, value: T) -> None:
        """Give the value to the waiting caller."""
        assert self._answered is not None, "nobody waits, or the answer is there"
        answered, self._answered = self._answered, None
        answered(value)

    def fail(self, error: BrokerError) -> None:
        """Give the error to the waiting caller instead of a value."""
        assert self._answered is not None, "nobody waits, or the answer is there"
        assert self._failed is not None
        self._answered = None
        self._failed(error)


@dataclass(slots=True, eq=False)
class SettlementStatus:
    """Status of the settlements that clients asked of a remote queue, between two moments when all
    was known."""

    error: BrokerError | None = None
    """Some of it has not come true, and never will: what was acknowledged may come again."""


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
    """The consumer had ended before the message could be sent."""
    TIMED_OUT = auto()
    """The message was held for too long."""


FINAL = (Outcome.ACKED, Outcome.REJECTED)
"""After these the queue is done with a message."""

BY_CLIENT = (*FINAL, Outcome.NACK_REQUEUED, Outcome.REJECT_REQUEUED)
"""These a client has asked for."""

FAILED = (Outcome.REJECT_REQUEUED, Outcome.LOST)
"""After these handing it out counts as failed."""


class OverdueDeliveries(NamedTuple):
    """Deliveries that a consumer or getter has held for too long."""

    delivery_batches: list[DeliveryBatch]
    """Hand-outs, each with messages that are still held."""
    held_ms: int
    """Time in ms for which the first of them has been held."""
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
        """True if a message counts as settled once it is delivered."""

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
        """Contents of the messages.  Invariant: a list of its own, so that `release` may change
        it."""
        self.content_bytes = sum(map(len, contents)) if content_bytes is None else content_bytes
        """The length of all contents as they were handed out."""
        self.first: tuple[int, bytes] | None = None
        """The length and the begin of the first content, once all are forgotten."""
        self.sequences = sequences
        """The queue's sequence number of each message.  Invariant: rising; one a content, as
        there is one origin a content."""
        self.redelivered = redelivered
        self.is_recorded = is_recorded
        """True if the queue's journal must be called when they are settled."""
        self.counts = counts
        """Delivery counts of each message before this delivery."""
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
        """True if all was settled or requeued, though it may not be held for ever: what has not
        been sent to the client yet must not be sent."""
        return self.delivered_at_ms > 0 and not self.left

    @property
    def is_settled(self) -> bool:
        return self.head == len(self.contents)

    def holds(self, index: int) -> bool:
        """True if the message at `index` is not settled yet."""
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

    def back(self, start: int, stop: int, outcome: Outcome) -> RequeuedBatch:
        """The messages at `start` to `stop` as they come back to their queue."""
        part = slice(start, stop)
        return RequeuedBatch(
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
    """Deliver hand-outs to their holders."""
    for delivery_batch in delivery_batches:
        delivery_batch.holder.deliver(delivery_batch)


class QueueClock(Protocol):
    """The time of a queue, in which all is measured that is to happen there later."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 in UTC, more or less: what is written down in it holds after a
        restart, and on other nodes.  It seldom jumps."""

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        """Have `pump` called then, or somewhat later; earlier wishes are not taken back."""


class StoppedClock:
    """Clock of a queue in which nothing is ever due: its time stands still."""

    def now_ms(self) -> int:
        return 0

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        """Ignore the wish: this clock wakes no queue."""


STOPPED_CLOCK = StoppedClock()

UNLIMITED = 1 << 62


class SharedCredit:
    """The limit that all consumers of one channel share (basic.qos with global).

    They may be of several queues, none of which must starve: room that comes back is offered to
    all, and first to the consumer that has taken nothing for longest.
    """

    __slots__ = ("_takers", "_takes", "in_flight", "limit")

    def __init__(self) -> None:
        self.limit = 0
        """How many messages may be unsettled at once; 0 means no limit."""
        self.in_flight = 0
        self._takers: dict[Consumer, int] = EMPTY_DICT
        """The consumers that have asked for room under a limit, and when each has taken last."""
        self._takes = 0
        """How often one has: their time."""

    @property
    def is_full(self) -> bool:
        return 0 < self.limit <= self.in_flight

    def room(self, consumer: Consumer) -> int:
        """How many messages `consumer` may take; at 0 it is woken when there is room."""
        if not self.limit:
            return UNLIMITED
        if consumer not in self._takers:
            if self._takers is EMPTY_DICT:
                self._takers = {}
            self._takers[consumer] = 0
        return max(self.limit - self.in_flight, 0)

    def took(self, consumer: Consumer, count: int) -> None:
        """`consumer` has taken messages, of which `count` are to be settled."""
        self.in_flight += count
        if consumer in self._takers:
            self._takes += 1
            self._takers[consumer] = self._takes

    def settled(self, count: int) -> None:
        """Make room, and offer it if there was none."""
        was_full = self.is_full
        self.in_flight -= count
        if was_full:
            self.wake()

    def wake(self) -> None:
        """Wake the publisher: there may be room, which it may take at once."""
        for consumer in sorted(self._takers, key=self._takers.__getitem__):
            if self.is_full:
                break
            consumer.queue.wake(consumer)

    def forget(self, consumer: Consumer) -> None:
        """A consumer has ended."""
        self._takers.pop(consumer, None)


class DirectWriter(Protocol):
    """Writer of messages to a client, past the queue of its consumer."""

    def send_past(self, origins: list[Origin], contents: list[bytes], content_bytes: int) -> bool:
        """Send messages now, as if they had been in the queue and handed out; or do nothing, and
        return False.  Raises nothing."""


class Sink(Protocol):
    """The place where the client of a consumer is, as a queue needs it."""

    def room(self, consumer: Consumer) -> int:
        """How many messages it takes now.  A sink that answers 0 wakes the consumer later."""

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        """A run is handed out and will be delivered: from now on it takes its room."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Take a run of messages; `delivery_batch.holder` is the consumer they are for."""

    def cancelled(self, consumer: Consumer) -> None:
        """The queue is gone, and this consumer with it."""

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        """Handle deliveries that the consumer has held beyond its timeout: see `Holder`."""

    def timed_out(self, consumer: Consumer, lost: TimedOutDeliveries) -> None:
        """These have been taken from it, and it is served no more."""

    def activity_changed(self, consumer: Consumer) -> None:
        """Handle a change of the single active consumer: see `Consumer.is_active`."""


@dataclass(slots=True, eq=False)
class Consumer:
    """Consumer of one basic.consume, as the queue sees it."""

    tag: str
    queue: QueueHandle
    sink: Sink
    _: KW_ONLY
    shared: SharedCredit
    prefetch: int = 0
    """How many of its messages may be unsettled at once; 0 means no limit."""
    priority: int = 0
    no_ack: bool = False
    exclusive: bool = False
    timeout_ms: int | None = None
    """See `Holder`."""
    direct: DirectWriter | None = None
    """Where messages may go that need no place in the queue, if anywhere."""
    epoch: int = 0
    """Above 0 the consumer of its tag is one, over whatever connection: it takes the place of
    those of lower epochs, whose messages come back."""
    in_flight: int = 0
    """Invariant: 0 for a consumer with no_ack."""
    parked: bool = False
    is_active: bool = True
    """True if it is served: False while another is the single active consumer of its queue."""

    @property
    def is_single_step(self) -> bool:
        """True if each delivery reduces the room of other consumers on the channel, so that
        messages must be delivered one by one."""
        return self.shared.limit > 0 and not self.no_ack

    @property
    def has_room(self) -> bool:
        """True if it would take a message now, as far as is known without asking its sink."""
        shared = self.shared
        if self.parked or not self.is_active:
            return False
        return not shared.is_full and (self.no_ack or not 0 < self.prefetch <= self.in_flight)

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Pass on a run that the queue has handed out."""
        self.sink.deliver(delivery_batch)

    def room(self) -> int:
        """How many messages can be handed to it now."""
        room = self.shared.room(self)
        if self.no_ack:  # what it takes needs no room, and yet it gets nothing while there is none
            return self.sink.room(self) if room > 0 else 0
        if self.prefetch:
            room = min(room, self.prefetch - self.in_flight)
        return min(room, self.sink.room(self)) if room > 0 else 0

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Account for messages that are handed to it."""
        count = 0 if self.no_ack else len(delivery_batch.contents)
        self.in_flight += count
        self.shared.took(self, count)
        self.sink.reserve(delivery_batch)

    def settled(self, count: int) -> None:
        """Count messages of its own that are settled, which may make room."""
        self.in_flight -= count
        self.shared.settled(count)
        if self.parked:
            self.queue.wake(self)

    def overdue(self, late: OverdueDeliveries) -> None:
        self.sink.overdue(self, late)

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        self.sink.timed_out(self, lost)


class QueueHandle(QueueTarget, Protocol):
    """Queue as the clients of this node use it."""

    @property
    def spec(self) -> QueueSpec: ...

    @property
    def owner(self) -> Owner | None:
        """The connection that alone may use it, for an exclusive queue."""

    @property
    def name(self) -> str: ...

    @property
    def definition(self) -> QueueDefinition:
        """Definition of the queue, as the metadata has it."""

    @property
    def damage(self) -> Damage | None:
        """Why it hands out nothing, if it has crashed."""

    @property
    def ready_count(self) -> int:
        """Messages that could be delivered, as far as this node knows."""

    @property
    def in_flight(self) -> int:
        """Messages handed out and not settled, as far as this node knows."""

    @property
    def apart_count(self) -> int:
        """Messages that are neither, as far as this node knows: see `QueueCounts`."""

    @property
    def consumer_count(self) -> int:
        """Number of consumers, as far as this node knows."""

    @property
    def consumers(self) -> tuple[Consumer, ...]:
        """Consumers on this node."""

    @property
    def is_unused(self) -> bool:
        """True if this node decides about the queue's disuse and no consumer is left."""

    @property
    def unreachable_error(self) -> BrokerError | None:
        """Error for clients that need the queue while it lives on an unreachable node; None if
        reachable."""

    @property
    def in_exclusive_use(self) -> bool:
        """True if the only consumer is known here to be exclusive."""

    def deliver_ready(self) -> None:
        """Have what was published before handed out before what is done next: see
        `engine.Queue.deliver_ready`.  A queue that is led elsewhere is asked for all in order."""

    @property
    def queue_counts(self) -> QueueCounts | Deferred[QueueCounts]:
        """How it is."""

    @property
    def queue_counts_in_use(self) -> QueueCounts | Deferred[QueueCounts]:
        """The same, and that it is asked for is a use of the queue, if it is a classic one: it does
        not expire for a while."""

    @property
    def counts_error(self) -> BrokerError | None:
        """Error for callers that need the counts, if the last request for them failed; else
        None."""

    @property
    def local_counts(self) -> QueueCounts | None:
        """Counts of the queue, if this node leads it, so that a sum over nodes counts each once."""

    def get(self, holder: Holder) -> DeliveryBatch | Deferred[DeliveryBatch | None] | None:
        """Hand out the next message to `holder` (basic.get), if there is one."""

    def settle(
        self, delivery_batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> SettlementStatus | None:
        """Settle the messages `start` to `stop` of a run, which no client holds any more.

        None if it is so by now; else what becomes of it is known once `settling` is answered.
        """

    @property
    def settling(self) -> Deferred[None] | None:
        """Answered once it is known what becomes of all that was asked for so far, if it is not."""

    def peek(self, view: PeekRequest) -> PeekResult | Deferred[PeekResult]:
        """Look at ready messages, which changes nothing."""

    def purge(self) -> int | Deferred[int]:
        """Drop every ready message; how many there were."""

    def attach(self, consumer: Consumer) -> Deferred[None] | None:
        """Let a consumer take part."""

    def detach(self, consumer: Consumer) -> None:
        """Deliver nothing more to a consumer, though it was still to be attached.

        What is on its way to it comes all the same, before `settling` is answered.
        """

    def wake(self, consumer: Consumer) -> None:
        """A consumer may have room again, mostly one that is parked."""


OnQueueExpired: TypeAlias = Callable[[str, QueueDefinition, Callable[[], bool]], None]
"""Has a queue deleted that was unused for long enough: its virtual host, what it is, and
whether that is still so."""


class QueueFactory(Protocol):
    """Makes the queues of all virtual hosts of a node, or those of one type."""

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        """Where a queue that is about to be declared will live."""

    def make(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        """Make the queue of a definition that has just been applied."""

    def reopen(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        """Make the queue of a definition that was applied before the process started.  Raises
        `StorageError`."""

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        """Give the queue its new definition: it is the same queue, on other nodes."""

    def renew_settings(self, queue: QueueHandle, vhost: str) -> None:
        """Apply policies to the queue again: they may have changed."""

    def end(self, queue: QueueHandle) -> None:
        """End a queue whose definition is deleted, with its messages and consumers."""

    def create_successor(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        """Make a queue that is to replace another and serves no client before."""

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        """Put the successor into the place of the queue that it replaces."""

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        """Do `end` for one whose messages its successor has; what was asked for and has come to
        nothing yet is for the successor, too."""


class FactoryByType:
    """A `QueueFactory` that asks the one of the type, each made when it is first asked."""

    def __init__(self, makers: Mapping[QueueType, Callable[[], QueueFactory]]) -> None:
        self._makers = makers
        self._made: dict[QueueType, QueueFactory] = {}

    def _of(self, spec: QueueSpec) -> QueueFactory:
        kind = spec.queue_type
        if kind not in self._made:
            self._made[kind] = self._makers[kind]()
        return self._made[kind]

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        return self._of(spec).define(spec, owner, vhost)

    def make(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self._of(definition.spec).make(definition, vhost)

    def reopen(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self._of(definition.spec).reopen(definition, vhost)

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        self._of(queue.spec).redefine(queue, definition)

    def renew_settings(self, queue: QueueHandle, vhost: str) -> None:
        self._of(queue.spec).renew_settings(queue, vhost)

    def end(self, queue: QueueHandle) -> None:
        self._of(queue.spec).end(queue)

    def create_successor(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self._of(definition.spec).create_successor(definition, vhost)

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        self._of(successor.spec).promote(successor, definition, vhost)

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        self._of(queue.spec).part(queue, successor)
