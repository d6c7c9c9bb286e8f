"""Consumers and getters of a led queue: what they are for its engine, and what each holds.

This is what the leader has decided so far, and ahead of the image by what is not applied yet.
What the log has as delivered and has never arrived is sent again by the `DeliveryResender`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import Expiries
from fluffle.broker.queues.journal import UnreadableMessages
from fluffle.broker.queues.queue_api import (
    Consumer,
    DeliveryBatch,
    Holder,
    OverdueDeliveries,
    SharedCredit,
    TimedOutDeliveries,
)
from fluffle.broker.queues.quorum.facts import (
    ConsumerAttached,
    Delivered,
    DeliveredWithoutAck,
    GetterAttached,
    Key,
)
from fluffle.broker.queues.quorum.log_journal import LogJournal
from fluffle.broker.queues.quorum.messages import Deliver, Effect, Token, deliver_of
from fluffle.broker.queues.quorum.proposals import EffectBuffer
from fluffle.broker.queues.quorum.runs import MarkedRuns, runs_of, without
from fluffle.broker.queues.quorum.state import Hold, QueueState
from fluffle.protocol.spec import ProtocolError
from fluffle.protocol.wire import FieldTable, encode_table, read_table

TIMEOUT, EPOCH = "x-consumer-timeout", "epoch"
"""Names of what the leader must know of a consumer: see `Consumer`."""

LEAVING_BYTES_MAX = 8 << 20
"""Bytes of deliveries of one queue that may wait to be sent."""

Room = Callable[[Key], int]
"""How many messages the client of a consumer takes now; it wakes the consumer after a 0."""


class HolderNotifications(Protocol):
    """Notifications to clients about their consumers."""

    def deliver(self, holder: Key, delivery_batch: DeliveryBatch) -> None:
        """A consumer is handed messages."""

    def cancelled(self, holder: Key) -> None:
        """A consumer is not served any more, for the queue is gone or has crashed."""

    def overdue(self, holder: Key, late: OverdueDeliveries) -> None:
        """See `Holder`."""

    def activity_changed(self, holder: Key, consumer: Consumer) -> None:
        """See `Sink`."""


class Terms(NamedTuple):
    """The properties that a consumer is attached with."""

    channel: int
    tag: str
    prefetch: int = 0
    priority: int = 0
    no_ack: bool = False
    is_exclusive: bool = False
    arguments: bytes = b""

    def attached(self, key: Key, session: Key) -> ConsumerAttached:
        """Fact that attaches a consumer with these terms."""
        return ConsumerAttached(
            key,
            session,
            self.channel,
            self.priority,
            self.prefetch,
            self.no_ack,
            self.is_exclusive,
            self.tag,
            self.arguments,
        )


def arguments_of(consumer: Consumer) -> bytes:
    """Consumer arguments that the leader must know, as a field table; empty if none."""
    known = {TIMEOUT: consumer.timeout_ms, EPOCH: consumer.epoch or None}
    table: FieldTable = {name: ("l", value) for name, value in known.items() if value is not None}
    return encode_table(table) if table else b""


def timeout_of(arguments: bytes) -> int | None:
    """How long a consumer may hold a message; None if its arguments do not say, or are none."""
    return _number_in(arguments, TIMEOUT)


def epoch_of(arguments: bytes) -> int:
    """Return the epoch of a consumer; 0 if it has none."""
    return _number_in(arguments, EPOCH) or 0


def _number_in(arguments: bytes, name: str) -> int | None:
    if not arguments:
        return None
    try:
        table, _end = read_table(arguments, 0)
    except ProtocolError:
        return None
    _tag, value = table.get(name, ("V", None))
    return value if isinstance(value, int) and value >= 0 else None


class RemoteGetter:
    """Holder of the messages that basic.get gave a channel."""

    __slots__ = ("_on_overdue", "no_ack", "queue")

    timeout_ms = None

    def __init__(
        self,
        queue: Queue,
        *,
        no_ack: bool,
        on_overdue: Callable[[OverdueDeliveries], None] | None = None,
    ) -> None:
        self.queue = queue
        self.no_ack = no_ack
        self._on_overdue = on_overdue
        """None for one that holds nothing."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError("what is got leaves with its answer")

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Nothing limits it."""

    def settled(self, count: int) -> None:
        """Nothing waits for room."""

    def overdue(self, late: OverdueDeliveries) -> None:
        assert self._on_overdue is not None
        self._on_overdue(late)

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        raise AssertionError("its client gets a TimeoutNotice")


class UnsentContents:
    """Contents that are handed out, and have not left for their clients.

    However many the consumers of a queue have room for, there is a limit to them.
    """

    __slots__ = ("_bytes", "_waiting")

    def __init__(self) -> None:
        self._bytes = 0
        self._waiting: dict[Consumer, None] = EMPTY_DICT

    def has_room(self, consumer: Consumer) -> bool:
        """True if there is room; else the consumer is woken once there is."""
        if self._bytes < LEAVING_BYTES_MAX:
            return True
        if self._waiting is EMPTY_DICT:
            self._waiting = {}
        self._waiting[consumer] = None
        return False

    def add(self, delivery_batch: DeliveryBatch) -> None:
        self._bytes += delivery_batch.content_bytes

    def end(self) -> None:
        """Wake no consumer any more."""
        self._waiting = EMPTY_DICT

    def left(self, delivery_batch: DeliveryBatch) -> None:
        """Take a delivery off the count, once it is sent or need not be."""
        self._bytes -= delivery_batch.content_bytes
        if self._waiting and self._bytes < LEAVING_BYTES_MAX:
            waiting, self._waiting = self._waiting, EMPTY_DICT
            for consumer in waiting:
                if consumer.parked:
                    consumer.queue.wake(consumer)


class RemoteSink:
    """The `Sink` of a consumer that a session has attached."""

    __slots__ = ("_leaving", "_notifications", "_room", "key", "unnoted")

    def __init__(
        self, key: Key, notifications: HolderNotifications, room: Room, leaving: UnsentContents
    ) -> None:
        self.key = key
        self._notifications = notifications
        self._room = room
        self._leaving = leaving
        self.unnoted = 0
        """Messages that the engine has delivered and that the room does not count yet: it delivers
        more than once in a turn."""

    def room(self, consumer: Consumer) -> int:
        room = max(0, self._room(self.key) - self.unnoted)
        return room if room and self._leaving.has_room(consumer) else 0

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        self.unnoted += len(delivery_batch.sequences)
        self._leaving.add(delivery_batch)

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self._notifications.deliver(self.key, delivery_batch)

    def cancelled(self, consumer: Consumer) -> None:
        self._notifications.cancelled(self.key)

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        self._notifications.overdue(self.key, late)

    def timed_out(self, consumer: Consumer, lost: TimedOutDeliveries) -> None:
        raise AssertionError("its client gets a TimeoutNotice")

    def activity_changed(self, consumer: Consumer) -> None:
        self._notifications.activity_changed(self.key, consumer)


class DeliveryPart(NamedTuple):
    """Messages of a hand-out, from `start` up to, not including, `stop`."""

    run: range
    delivery_batch: DeliveryBatch
    start: int
    stop: int


@dataclass(slots=True)
class HolderState:
    """Consumer or getter, and the deliveries it has not settled."""

    attached: ConsumerAttached | GetterAttached
    holder: Consumer | RemoteGetter
    is_detached: bool = False
    """Invariant: it holds something."""
    delivery_batches: MarkedRuns[DeliveryBatch] = field(default_factory=MarkedRuns)

    @property
    def session(self) -> Key:
        return self.attached.session

    def add(self, delivery_batch: DeliveryBatch) -> None:
        for run in runs_of(delivery_batch.sequences):
            self.delivery_batches.put(run, delivery_batch)
        self.note(delivery_batch)

    def note(self, delivery_batch: DeliveryBatch) -> None:
        """Count messages as held, or as sent without acknowledgement: the sink's room is less."""
        if isinstance(self.holder, Consumer):
            assert isinstance(self.holder.sink, RemoteSink)
            self.holder.sink.unnoted -= len(delivery_batch.sequences)

    def holding(self, run: range, ordinal: int) -> list[tuple[range, DeliveryBatch]]:
        """Parts of a run that are held with this delivery ordinal, with their hand-outs."""
        return [
            (piece, delivery_batch)
            for piece, delivery_batch in self.delivery_batches.found(run)
            if delivery_batch.counts.acquired == ordinal  # mutant: R5
        ]

    def take(self, run: range, ordinal: int) -> tuple[list[DeliveryPart], list[range]]:
        """Remove the parts of a run that are held with this ordinal; returns them, and the runs not
        held."""
        pieces = self.holding(run, ordinal)
        parts = [self._part(*piece) for piece in pieces]
        return parts, without(run, (part.run for part in parts))

    def take_all(self) -> list[DeliveryPart]:
        """Everything, in the order in which it was handed out."""
        return [
            self._part(run, delivery_batch) for run, delivery_batch in list(self.delivery_batches)
        ]

    def take_of(self, delivery_batches: Collection[DeliveryBatch]) -> list[DeliveryPart]:
        """Remove all that is held of these hand-outs, in their order."""
        return [
            self._part(run, delivery_batch)
            for run, delivery_batch in list(self.delivery_batches)
            if delivery_batch in delivery_batches
        ]

    def _part(self, run: range, delivery_batch: DeliveryBatch) -> DeliveryPart:
        self.delivery_batches.take(run)
        start = bisect_left(delivery_batch.sequences, run.start)
        return DeliveryPart(run, delivery_batch, start, start + len(run))


class Holders:
    """All of a queue, by key; in the order in which they were attached."""

    __slots__ = ("_getters", "_held", "_leaving", "_notifications", "_queue", "_room", "counts")

    def __init__(self, queue: Queue, notifications: HolderNotifications, room: Room) -> None:
        self._held: dict[Key, HolderState] = EMPTY_DICT
        self._getters: dict[tuple[Key, int], Key] = EMPTY_DICT
        """Holders of what `basic.get` fetched, by session and channel."""
        self.counts: dict[Key, int] = EMPTY_DICT
        """How many a session has, if any."""
        self._queue = queue
        self._notifications = notifications
        self._room = room
        self._leaving = UnsentContents()

    def end(self) -> None:
        """Forget all of them: the leadership is over."""
        self._held = self._getters = self.counts = EMPTY_DICT
        self._leaving.end()

    def left(self, delivery_batch: DeliveryBatch) -> None:
        """Messages that consumers were handed are on their way, or need not be."""
        self._leaving.left(delivery_batch)

    def get(self, key: Key) -> HolderState | None:
        return self._held.get(key)

    def of_session(self, session: Key) -> Iterator[Key]:
        return (key for key, held in list(self._held.items()) if held.session == session)

    def earlier(self, terms: Terms) -> list[tuple[Key, Key]]:
        """Return the consumers in whose place one with these terms comes, with their sessions."""
        epoch = epoch_of(terms.arguments)
        if not epoch:
            return []
        return [
            (key, held.session)
            for key, held in self._held.items()
            if isinstance(held.attached, ConsumerAttached)
            and held.attached.tag == terms.tag
            and 0 < epoch_of(held.attached.arguments) < epoch  # mutant: MQ42
        ]

    def tokens_of(self, key: Key) -> list[Token]:
        """Messages that a holder has."""
        held = self._held[key].delivery_batches
        return [Token(key, delivery_batch.counts.acquired, run) for run, delivery_batch in held]

    def key_of(self, delivery_batch: DeliveryBatch) -> Key:
        """Key of the consumer to which the engine has delivered."""
        holder = delivery_batch.holder
        assert isinstance(holder, Consumer)
        assert isinstance(holder.sink, RemoteSink)
        return holder.sink.key

    def add(
        self, attached: ConsumerAttached | GetterAttached, *, is_detached: bool = False
    ) -> HolderState:
        """Add a holder; a consumer is not served before the engine has it."""
        holder: Consumer | RemoteGetter
        if isinstance(attached, GetterAttached):
            on_overdue = partial(self._notifications.overdue, attached.key)
            holder = RemoteGetter(self._queue, no_ack=False, on_overdue=on_overdue)
        else:
            holder = Consumer(
                attached.tag,
                self._queue,
                RemoteSink(attached.key, self._notifications, self._room, self._leaving),
                shared=SharedCredit(),
                prefetch=attached.prefetch,
                priority=attached.priority,  # mutant: C1
                no_ack=attached.no_ack,
                exclusive=attached.is_exclusive,
                timeout_ms=timeout_of(attached.arguments),
            )
        if self._held is EMPTY_DICT:
            self._held, self._getters, self.counts = {}, {}, {}
        held = self._held[attached.key] = HolderState(attached, holder)
        self.counts[held.session] = self.counts.get(held.session, 0) + 1
        if isinstance(holder, RemoteGetter) and not is_detached:
            self._getters[held.session, attached.channel] = attached.key
        held.is_detached = is_detached
        return held

    def getter(self, session: Key, channel: int) -> tuple[Key, HolderState] | None:
        """Holder of what this channel got with `basic.get`, or None."""
        key = self._getters.get((session, channel))
        return (key, self._held[key]) if key is not None else None

    def wake(self, key: Key) -> None:
        """The client of a consumer may have room again."""
        held = self._held.get(key)
        if held is not None and isinstance(held.holder, Consumer) and held.holder.parked:
            self._queue.wake(held.holder)

    def detach(self, key: Key) -> None:
        """Serve the holder no more."""
        held = self._held[key]
        held.is_detached = True
        if isinstance(held.holder, RemoteGetter):
            del self._getters[held.session, held.attached.channel]  # mutant: LE5
        self.release(key)

    def release(self, key: Key) -> None:
        """Forget a detached holder that holds nothing any more."""
        held = self._held.get(key)
        if held is not None and held.is_detached and not held.delivery_batches:  # mutant: LE4
            del self._held[key]
            self.counts[held.session] -= 1
            if not self.counts[held.session]:
                del self.counts[held.session]


def sent(key: Key, delivery_batch: DeliveryBatch) -> Deliver:
    """Message that delivers a hand-out, which forgets its contents: the log has them, however long
    it is held."""
    deliver = deliver_of(key, delivery_batch)
    delivery_batch.forget()
    return deliver


def effects_of(key: Key, delivery_batch: DeliveryBatch, holders: Holders) -> list[Effect]:
    """Effects of a delivery: none, if the consumer went before it could leave."""
    held = holders.get(key)
    if held is None or delivery_batch.has_gone_back:
        return []
    return [Effect(held.session, sent(key, delivery_batch))]


class DeliveryResender:
    """Deliveries on record before one leadership began."""

    __slots__ = ("_contents", "_effects", "_holders", "_state")

    def __init__(
        self, state: QueueState, holders: Holders, contents: LogJournal, effects: EffectBuffer
    ) -> None:
        self._state = state
        self._holders = holders
        self._contents = contents
        self._effects = effects

    def holds(self, session: Key) -> list[tuple[Key, int, range]]:
        """Messages that the consumers of a session hold: key, delivery ordinal, run.

        These are the deliveries of the applied state without those settled since: all are sent.
        """
        return [
            (key, hold.counts.acquired, piece)
            for key in self._holders.of_session(session)
            for run, hold in self._of(key)
            for piece, _handout in self._held_too(key, run, hold.counts.acquired)
        ]

    def deliver_again(self, holder: Key, tokens: Sequence[tuple[int, range]]) -> None:
        """Deliver messages again with the same ordinal, for they never arrived."""
        for ordinal, run in tokens:
            for piece, delivery_batch in self._held_too(holder, run, ordinal):
                try:
                    again = self._read_again(piece, delivery_batch)
                except UnreadableMessages:
                    return  # the damage is reported already
                self._effects.keep_known(partial(self._repeated, holder, again))

    def _of(self, key: Key) -> list[tuple[range, Hold]]:
        row = self._state.holders.get(key)
        return list(row.held) if row is not None else []

    def _held_too(self, key: Key, run: range, ordinal: int) -> list[tuple[range, DeliveryBatch]]:
        """Parts of a run that a holder has both by the applied state and by the decisions since."""
        row, held = self._state.holders.get(key), self._holders.get(key)
        if row is None or held is None:
            return []
        return [
            part
            for piece, hold in row.held.found(run)
            if hold.counts.acquired == ordinal
            for part in held.holding(piece, ordinal)
        ]

    def _read_again(self, run: range, delivery_batch: DeliveryBatch) -> DeliveryBatch:
        origins, contents = self._contents.fetch(run)
        return DeliveryBatch(
            delivery_batch.holder,
            origins,
            contents,
            run,
            redelivered=delivery_batch.redelivered,
            is_recorded=True,
            counts=delivery_batch.counts,
        )

    def _repeated(self, key: Key, again: DeliveryBatch) -> list[Effect]:
        """Nothing, if any of it has been settled or has come back before this could leave."""
        runs = runs_of(again.sequences)
        held = [piece for run in runs for piece in self._held_too(key, run, again.counts.acquired)]
        if sum(len(piece) for piece, _handout in held) < len(again.sequences):
            return []
        return effects_of(key, again, self._holders)


def on_record_before(
    holder: Holder, run: range, counts: Counts, since_ms: int, expiries: Expiries | None
) -> DeliveryBatch:
    """Hand-out made before this leadership: it has been sent, or is sent again."""
    return DeliveryBatch(
        holder,
        [],
        [b""] * len(run),
        run,
        redelivered=counts.acquired > 0,
        is_recorded=True,
        counts=counts,
        expiries=expiries,
        delivered_at_ms=since_ms,
    )


def facts_of(
    delivery_batches: Sequence[DeliveryBatch], key_of: Callable[[DeliveryBatch], Key]
) -> Iterator[Delivered | DeliveredWithoutAck]:
    """Facts of hand-outs: one for those that share a run in turn, one for each other."""
    at = 0
    while at < len(delivery_batches):
        together = delivery_batches[at : at + dealt_together(delivery_batches, at)]
        first = together[0]
        runs = runs_of(first.sequences)
        if len(together) > 1:
            start = first.sequences[0]
            runs = [range(start, start + len(together) * len(first.sequences))]
        kind = DeliveredWithoutAck if first.holder.no_ack else Delivered
        # mutant: LE9
        yield kind(
            first.counts.acquired, [key_of(delivery_batch) for delivery_batch in together], runs
        )
        at += len(together)


def dealt_together(delivery_batches: Sequence[DeliveryBatch], at: int) -> int:
    """How many, from one on, are the shares of one run of consecutive messages."""
    first = delivery_batches[at]
    count = first.sequences.step if isinstance(first.sequences, range) else 1
    others = delivery_batches[at + 1 : at + count]
    if len(others) + 1 < count:
        return 1
    for place, other in enumerate(others, 1):
        share = range(first.sequences[0] + place, first.sequences[-1] + place + 1, count)
        is_alike = other.counts == first.counts and other.holder.no_ack == first.holder.no_ack
        if other.sequences != share or not is_alike:
            return 1
    return count
