"""A queue that channels of this node use through its session: led by a Raft group, or elsewhere.

    channels --> requests --> `SessionClient` --> the leader, on this node or another
        ^                                             |
        +---- deliveries, receipts, replies <---- events of the session

Channels see the same as of an engine's queue, later.  A request while no node leads the queue
waits: for a bounded time where a client waits for the reply, else as long as it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fluffle.broker.base.clock import CallLater
from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.errors import AccessRefused, BrokerError, QueueCrashed, QueueDeleted
from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queue_sessions.session_client import PendingOperations, SessionRequests
from fluffle.broker.cluster.queues.pending_replies import (
    NO_PENDING_REPLIES,
    ClientRequest,
    DeferredRequests,
    Deletions,
    ErrorTexts,
    PendingGets,
    PendingReplies,
    SettlementBarriers,
    answered,
)
from fluffle.broker.cluster.queues.ports import LeaderCounts, QueueId, SessionDirectory, SessionPort
from fluffle.broker.cluster.queues.session_consumers import (
    ConsumerSlot,
    SessionConsumer,
    delivery_of,
    losers_of,
    terms_of,
)
from fluffle.broker.queues.arguments import DeliveryGuarantee, QueueSpec
from fluffle.broker.queues.conversion_buffer import conversion_in_progress
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_in
from fluffle.broker.queues.journal import Damage, Owner, QueueDefinition
from fluffle.broker.queues.publish_target import (
    BlockedPublisher,
    DeadLetterIds,
    EnqueueResult,
    PublishReceipt,
    QueueTarget,
    enqueue_again,
)
from fluffle.broker.queues.queue_api import (
    Consumer,
    Deferred,
    DeliveryBatch,
    Holder,
    Outcome,
    PeekRequest,
    PeekResult,
    QueueCounts,
    SettlementStatus,
)
from fluffle.broker.queues.quorum.messages import (
    MESSAGES_MAX,
    Deliver,
    GetAnswer,
    NotLeader,
    Publish,
    RevokeNotice,
    Token,
    tokens_of,
)
from fluffle.broker.queues.quorum.runs import runs_of

UNKNOWN = QueueCounts(0, 0, 0)
"""Counts of a queue that cannot be asked, as RabbitMQ has them."""

RUN_BYTES_MAX = 1 << 20
"""Bytes of an operation with more than one message, so that others come between."""


@dataclass(slots=True)
class PublishRun:
    """Operations with consecutive numbers, a message each."""

    first: int
    count: int
    receipt: PublishReceipt
    offset: int
    """Place of the first message among those of the receipt."""
    left: int
    """How many have no outcome."""


class PublishReceipts:
    """Receipts of publishes without an outcome, by the numbers of their operations."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: dict[int, PublishRun] = EMPTY_DICT
        """Runs by the number of their first operation."""

    def __len__(self) -> int:
        return len(self._runs)

    def ask(
        self,
        requests: SessionRequests,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes,
        dead_letter_ids: DeadLetterIds | None = None,
        counts: Counts = NEW,
    ) -> PublishReceipt:
        """Have messages published, so many in a run that others come between."""
        count = len(contents)
        receipt = PublishReceipt(count)
        step = min(MESSAGES_MAX, count)
        if content_bytes > RUN_BYTES_MAX:
            step = max(1, min(step, count * RUN_BYTES_MAX // content_bytes))
        if self._runs is EMPTY_DICT:
            self._runs = {}
        for start in range(0, count, step):  # mutant: BA21
            stop = min(start + step, count)
            first = requests.publish(  # mutant: BA18 BA19
                origins[start:stop],
                contents[start:stop],
                persistent=persistent,
                expiration_ms=expiration_ms
                and lifetimes_in(expiration_ms, slice(start, stop)),  # mutant: BA16 BA17
                dead_letter_ids=dead_letter_ids.part(start, stop)
                if dead_letter_ids is not None
                else None,
                counts=counts,  # mutant: BA20
            )
            # mutant: BA22
            self._runs[first] = PublishRun(first, stop - start, receipt, start, stop - start)
        return receipt

    def pass_on(self, pending: PendingOperations, successor: QueueTarget) -> None:
        """Publish what has no outcome into another queue, which has all that has one."""
        publishes = pending.of_kinds(0, pending.next, (Publish,))  # mutant: BA23
        for operation, first, count in publishes:
            assert isinstance(operation, Publish)
            start, ids = first - operation.number, operation.dead_letter_ids  # mutant: BA24
            part = slice(start, start + count)
            contents = operation.contents[part]
            ids = ids.part(start, part.stop) if ids is not None else None  # mutant: BA26
            put = enqueue_again(successor, ids, operation.counts)  # mutant: BA27
            result = put(
                operation.origins[part],
                contents,
                sum(map(len, contents)),
                persistent=operation.is_persistent,
                expiration_ms=lifetimes_in(operation.expiration_ms, part),  # mutant: BA25
            )
            if isinstance(result, PublishReceipt):
                result.then(partial(self._passed, first))
            else:
                self.on_outcome(
                    first, count, is_accepted=result is not EnqueueResult.REJECTED
                )  # mutant: BA28

    def _passed(self, first: int, start: int, stop: int, *, is_accepted: bool) -> None:
        self.on_outcome(first + start, stop - start, is_accepted=is_accepted)

    def on_outcome(self, first: int, count: int, *, is_accepted: bool) -> None:
        """Numbers of one run have this outcome: all of it, mostly."""
        run = self._runs.get(first) or self._find(first)
        run.left -= count
        if not run.left:
            del self._runs[run.first]
        start = run.offset + first - run.first
        run.receipt.on_outcome(start, start + count, is_accepted=is_accepted)

    def _find(self, number: int) -> PublishRun:
        return next(
            run for run in self._runs.values() if run.first <= number < run.first + run.count
        )


class ReportedCounts:
    """Message and consumer counts of a queue led elsewhere, as its leader last reported them."""

    __slots__ = ("_directory", "_is_whole", "_port", "_queue", "last")

    def __init__(self, queue: QueueId, directory: SessionDirectory, port: SessionPort) -> None:
        self._queue = queue
        self._directory = directory
        self._port = port
        self.last = UNKNOWN
        """Counts of its last reply."""
        self._is_whole = False
        """True if the last request for counts was answered."""

    @property
    def is_known(self) -> bool:
        """True if these are counts of its leader."""
        return self._is_whole and not self._port.is_away

    @property
    def local_counts(self) -> QueueCounts | None:
        """If this node leads the queue."""
        counts = self._directory.counts_here(self._queue)
        return QueueCounts(*counts) if counts is not None else None

    def ask(self, *, in_use: bool) -> QueueCounts | Deferred[QueueCounts]:
        """RabbitMQ says 0 of what it cannot ask; so does this."""
        if self._port.is_away:
            self.last, self._is_whole = UNKNOWN, False
            return UNKNOWN
        later: Deferred[QueueCounts] = Deferred()

        def counted(counts: LeaderCounts | None) -> None:
            self._is_whole = counts is not None
            self.last = QueueCounts(*counts) if counts is not None else UNKNOWN
            later.answer(self.last)

        self._directory.ask_counts(self._queue, counted, in_use=in_use)
        return later

    def set_ready(self, ready: int) -> None:
        """Take the number of ready messages from the reply to a get or a purge."""
        self.last = self.last._replace(ready=ready)


T = TypeVar("T")


class SessionQueue:
    """A `QueueHandle` whose requests go through a session to the leader of the queue."""

    damage: Damage | None = None
    in_exclusive_use = False
    """Always False here: the leader knows both."""

    __slots__ = (
        "_attached", "_attaching", "_by_number", "_call_later", "_counted", "_deletions",
        "_delivered_count", "_directory", "_error_texts", "_gets", "_is_over", "_port",
        "_postponed", "_purging", "_receipts", "_requests", "_settlements", "_slots", "_vhost",
        "blocked_publishers", "definition",
    )  # fmt: skip

    def __init__(
        self, definition: QueueDefinition, vhost: str, directory: SessionDirectory,
        call_later: CallLater, error_texts: ErrorTexts, *, deletions: Deletions,
    ) -> None:  # fmt: skip
        self.definition = definition
        self.blocked_publishers: list[BlockedPublisher] = []
        self._vhost, self._directory, self._call_later = vhost, directory, call_later
        self._error_texts = error_texts
        self._deletions = deletions
        self._port = directory.open(definition, self.on_events)
        self._requests = SessionRequests(self._port.session)
        self._is_over = False
        """True if it has been deleted."""
        self._counted = ReportedCounts(definition.id, directory, self._port)
        self._delivered_count = 0
        """Messages handed out of a queue that is behind, which blocked publishers wait for."""
        self._receipts = PublishReceipts()
        self._slots: dict[Holder, ConsumerSlot] = EMPTY_DICT
        self._attached: dict[Consumer, SessionConsumer] = EMPTY_DICT
        self._by_number: dict[int, SessionConsumer] = EMPTY_DICT
        self._gets: PendingGets | None = None
        self._settlements: SettlementBarriers | None = None
        """Each made with the first."""
        self._attaching: PendingReplies[None] = NO_PENDING_REPLIES
        self._purging: PendingReplies[int] = NO_PENDING_REPLIES
        self._postponed = DeferredRequests(call_later)
        """Requests that wait because too much is pending."""

    # What it is

    @property
    def spec(self) -> QueueSpec:
        return self.definition.spec

    @property
    def name(self) -> str:
        return self.definition.spec.name

    @property
    def owner(self) -> Owner | None:
        return self.definition.owner

    @property
    def ready_count(self) -> int:
        return self._counted.last.ready

    @property
    def in_flight(self) -> int:
        return self._counted.last.unacked

    @property
    def apart_count(self) -> int:
        return self._counted.last.apart

    @property
    def consumer_count(self) -> int:
        return self._counted.last.consumers

    @property
    def consumers(self) -> tuple[Consumer, ...]:
        return tuple(each for each, attached in self._attached.items() if attached.is_served)

    @property
    def is_unused(self) -> bool:
        """Always False here: the leader knows, and acts on it."""
        return False

    @property
    def unreachable_error(self) -> BrokerError | None:
        return self._not_done(ClientRequest.ASKING) if self._port.is_away else None

    def _not_done(self, doing: ClientRequest) -> BrokerError:
        return self._error_texts.unanswered(doing, self._where)

    @property
    def queue_counts(self) -> QueueCounts | Deferred[QueueCounts]:
        return self._counted.ask(in_use=False)

    @property
    def queue_counts_in_use(self) -> QueueCounts | Deferred[QueueCounts]:
        return self._counted.ask(in_use=True)

    def peek(self, view: PeekRequest) -> Deferred[PeekResult]:
        later, unanswered = Deferred[PeekResult](), self._not_done(ClientRequest.ASKING)
        self._directory.peek(self.definition.id, view, partial(answered, later, unanswered))
        return later

    @property
    def counts_error(self) -> BrokerError | None:
        return None if self._counted.is_known else self._not_done(ClientRequest.ASKING)

    @property
    def local_counts(self) -> QueueCounts | None:
        return self._counted.local_counts

    # Publishing

    @property
    def is_behind(self) -> bool:
        session = self._port.session
        return session.is_full or session.backlog > 0

    @property
    def is_full(self) -> bool:
        return self._port.session.is_full

    def enqueue(
        self, origins: list[Origin], contents: list[bytes], content_bytes: int,
        *, persistent: bool, expiration_ms: Lifetimes = None,
        dead_letter_ids: DeadLetterIds | None = None, counts: Counts = NEW,
    ) -> EnqueueResult | PublishReceipt:  # fmt: skip
        is_lossy = self.definition.spec.guarantee is DeliveryGuarantee.AT_MOST_ONCE
        if self._port.is_away or self._is_over:
            return EnqueueResult.ACCEPTED if is_lossy else EnqueueResult.REJECTED
        receipt = self._receipts.ask(
            self._requests, origins, contents, content_bytes,
            persistent=persistent, expiration_ms=expiration_ms,
            dead_letter_ids=dead_letter_ids, counts=counts,
        )  # fmt: skip
        self._port.touch()
        return EnqueueResult.ACCEPTED if is_lossy else receipt

    enqueue_dead_letters = enqueue

    # What has an answer

    def get(self, holder: Holder) -> Deferred[DeliveryBatch | None]:
        return self._ask(holder, partial(self._get, holder), ClientRequest.GETTING)

    def purge(self) -> Deferred[int]:
        return self._ask(object(), self._purge, ClientRequest.PURGING)

    def attach(self, consumer: Consumer) -> Deferred[None]:
        return self._ask(consumer, partial(self._attach, consumer), ClientRequest.CONSUMING)

    def _ask(
        self, caller: object, ask: Callable[[], Deferred[T]], doing: ClientRequest
    ) -> Deferred[T]:
        """Now, unless others wait or so much is pending that they must."""
        if not (self._postponed.requests or self.is_full):
            return ask()
        return self._postponed.add(caller, ask, self._not_done(doing))

    def _get(self, holder: Holder) -> Deferred[DeliveryBatch | None]:
        if self._gets is None:
            unanswered = partial(self._error_texts.unanswered, ClientRequest.GETTING, self._where)
            self._gets = PendingGets(self._requests, self._call_later, unanswered)
        later = self._gets.ask(holder)
        self._port.touch()
        return later

    def _purge(self) -> Deferred[int]:
        if self._purging is NO_PENDING_REPLIES:
            self._purging = PendingReplies(self._call_later)
        number = self._requests.purge()
        self._port.touch()
        return self._purging.ask(number, self._purged_too_late)

    def _attach(self, consumer: Consumer) -> Deferred[None]:
        consumer.is_active = not self.spec.single_active_consumer
        if self._attached is EMPTY_DICT:
            self._attached, self._by_number = {}, {}
            self._attaching = PendingReplies(self._call_later)
        slot = self._add_slot(consumer, ConsumerSlot())
        attached = self._attached[consumer] = SessionConsumer(consumer, slot)
        attached.limit = attached.first_limit
        attached.number = self._requests.attach(0, terms_of(consumer), attached.limit)
        self._by_number[attached.number] = attached
        self._port.touch()
        return self._attaching.ask(attached.number, self._attached_too_late)

    def detach(self, consumer: Consumer) -> None:
        """Cancel a consumer once it has what is on its way.  Nothing, if it is cancelled
        already."""
        attached = self._attached.get(consumer)
        if attached is None or attached.slot.is_left:
            self._postponed.give_up(consumer, None)
            return
        self._return_waiting(attached)
        if attached.is_served:
            attached.slot.is_left = True
        else:
            self._leave(attached)
        self._requests.detach(attached.number)
        self._port.touch()
        self._attaching.answer(attached.number, None)  # the consumer that asked is gone

    def _leave(self, attached: SessionConsumer) -> None:
        """A consumer gets nothing more; what it has it keeps."""
        consumer = attached.consumer
        self._return_waiting(attached)
        consumer.parked = False
        del self._attached[consumer], self._by_number[attached.number]
        attached.slot.is_left = True
        self._clear(consumer, attached.slot)

    def _return_waiting(self, attached: SessionConsumer) -> None:
        """Give back what waits for a consumer, instead of delivering it."""
        if tokens := attached.taken_back():
            self._requests.settle(tokens, Outcome.UNSENT)
            self._port.touch()

    def _add_slot(self, holder: Holder, slot: ConsumerSlot) -> ConsumerSlot:
        if self._slots is EMPTY_DICT:
            self._slots = {}
        self._slots[holder] = slot
        return slot

    def _clear(self, holder: Holder, slot: ConsumerSlot) -> None:
        if slot.is_left and not slot.held:
            del self._slots[holder]

    def _purged_too_late(self, number: int) -> BrokerError:
        self._requests.give_up(number)
        return self._not_done(ClientRequest.PURGING)

    def _attached_too_late(self, number: int) -> BrokerError:
        self._leave(self._by_number[number])
        self._requests.detach(number)
        self._port.touch()
        return self._not_done(ClientRequest.CONSUMING)

    @property
    def _gone(self) -> BrokerError:
        """The answer to what was pending when it was deleted."""
        return QueueDeleted(f"no {self._where}")

    @property
    def _where(self) -> str:
        return f"queue '{self.name}' in vhost '{self._vhost}'"

    # Messages in hands

    def deliver_ready(self) -> None:
        """Do nothing: the leader delivers before its next request."""

    def wake(self, consumer: Consumer) -> None:
        attached = self._attached.get(consumer)
        if attached is not None and consumer.parked:
            attached.take_turn(partial(self._serve, attached), self._call_later)

    def _serve(self, attached: SessionConsumer) -> None:
        self._deliver(attached, attached.admitted())
        self._credit(attached)

    def _credit(self, attached: SessionConsumer) -> None:
        """Send the leader a new credit limit, if it has changed much."""
        if not attached.is_served:
            return
        if (limit := attached.wanted()) is not None:
            attached.limit = limit
            self._port.session.set_credit(attached.number, limit)
            self._port.touch()

    def settle(
        self, delivery_batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> SettlementStatus | None:
        """Settle deliveries, without those requeued before: with RabbitMQ, too, that is in vain."""
        holder, count = delivery_batch.holder, stop - start
        sequences, ordinal = delivery_batch.sequences[start:stop], delivery_batch.counts.acquired
        delivery_batch.release(start, stop)
        if holder.no_ack and isinstance(holder, Consumer):
            return None  # it is gone, sent or not
        slot = self._slots[holder]
        assert slot.key is not None
        tokens = [Token(slot.key, ordinal, run) for run in runs_of(sequences)]
        self._requests.settle(tokens, outcome)
        self._port.touch()
        slot.held -= count
        holder.settled(count)
        attached = self._attached.get(holder) if isinstance(holder, Consumer) else None
        if attached is not None:
            self._credit(attached)
        else:
            self._clear(holder, slot)
        return (self._settlements or self._made_settlements()).asked()

    @property
    def settling(self) -> Deferred[None] | None:
        return (self._settlements or self._made_settlements()).ask()

    def _made_settlements(self) -> SettlementBarriers:
        unsettled = partial(self._error_texts.unanswered, ClientRequest.SETTLING, self._where)
        self._settlements = SettlementBarriers(self._port, self._call_later, unsettled, self._where)
        return self._settlements

    # Events of the session

    def on_events(self, events: list[Event]) -> None:
        for event in events:
            EVENT_HANDLERS[type(event)](self, event)
        if self._settlements is not None:
            self._settlements.look()
        while self._postponed.requests and self._port.session.has_room and not self._is_over:
            self._postponed.ask()
        if self.blocked_publishers and self._port.session.has_room:
            count, self._delivered_count = self._delivered_count, 0
            for publisher in tuple(self.blocked_publishers):
                count = publisher.paid(self, count)

    def _on_confirmed(self, event: happened.PublishConfirmed) -> None:
        self._receipts.on_outcome(event.first, event.count, is_accepted=True)

    def _on_rejected(self, event: happened.PublishRejected) -> None:
        self._receipts.on_outcome(event.first, event.count, is_accepted=False)  # mutant: F4

    def _on_undecided(self, event: happened.PublishUndecided) -> None:
        decided = partial(self._on_decided, event.first, event.count)
        self._deletions.decide(self.definition, self._vhost, decided)

    def _on_decided(self, first: int, count: int, result: EnqueueResult) -> None:
        self._receipts.on_outcome(first, count, is_accepted=result is not EnqueueResult.REJECTED)

    def _on_backlog_reduced(self, event: happened.BacklogReduced) -> None:
        if self.blocked_publishers:
            self._delivered_count += event.count

    def _on_attached(self, event: happened.Attached) -> None:
        attached = self._by_number[event.consumer]
        attached.slot.key = event.holder
        self._attaching.answer(event.consumer, None)
        self._credit(attached)

    def _on_not_attached(self, event: happened.AttachRejected) -> None:
        self._leave(self._by_number[event.consumer])
        self._attaching.fail(event.consumer, AccessRefused(f"{self._where} in exclusive use"))

    def _on_delivered(self, event: happened.MessagesDelivered) -> None:
        """Deliver, unless the consumer has gone by an event just before: then requeue."""
        deliver, attached = event.deliver, self._by_number.get(event.consumer)
        if attached is None:
            self._requests.settle(tokens_of(deliver), Outcome.UNSENT)
            self._port.touch()
            return
        self._deliver(attached, attached.admit(deliver))
        if attached.slot.is_left:
            self._return_waiting(attached)
        self._credit(attached)

    def _deliver(self, attached: SessionConsumer, delivers: Iterator[Deliver]) -> None:
        for deliver in delivers:
            delivery_batch = delivery_of(
                attached.consumer, deliver, shows_counts=self._error_texts.shows_counts
            )
            if not attached.consumer.no_ack:
                attached.slot.held += len(delivery_batch.contents)
            attached.measure(delivery_batch)
            attached.consumer.deliver(delivery_batch)
            delivery_batch.forget()

    def _on_activity(self, event: happened.ActiveConsumerChanged) -> None:
        if (attached := self._by_number.get(event.consumer)) is not None:
            attached.consumer.is_active = event.is_active

    def _on_revoked(self, event: RevokeNotice) -> None:
        """Drop revoked messages that wait; clients need not know, for what they settle later is
        ignored."""
        for attached in self._attached.values():
            if attached.waiting:
                attached.revoke(event.tokens)

    def _on_got(self, event: GetAnswer) -> None:
        """Deliver what a get brought; without acknowledgement it is settled once it is sent to the
        client."""
        assert self._gets is not None
        holder = self._gets.end(event.number)
        self._counted.set_ready(event.ready)
        if event.is_crashed:
            self._gets.fail(event.number, QueueCrashed(self._where))
            return
        if self._is_over and not event.delivers:
            self._gets.fail(event.number, self._gone)
            return
        delivery_batch = None
        for deliver in event.delivers:
            first = deliver.runs[0].start
            self._add_slot(holder, ConsumerSlot(deliver.holder, 1, is_left=True, sequence=first))
            delivery_batch = delivery_of(
                holder, deliver, shows_counts=self._error_texts.shows_counts
            )
        self._gets.answer(event.number, delivery_batch)
        if delivery_batch is not None:
            delivery_batch.forget()
            if holder.no_ack and holder in self._slots:
                self.settle(delivery_batch, 0, 1, Outcome.ACKED)

    def _on_unanswered(self, event: happened.AnswerLost) -> None:
        if event.number in self._purging:
            self._purging.fail(event.number, self._purged_too_late(event.number))
        elif self._gets is not None:
            self._gets.unanswered(event.number)

    def _on_unsettled(self, _event: happened.SettleFailed) -> None:
        (self._settlements or self._made_settlements()).failed()  # mutant: F2

    def _on_purged(self, event: happened.PurgeDone) -> None:
        self._counted.set_ready(0)
        if not self._is_over:
            self._purging.answer(event.number, event.count)
        elif event.number in self._purging:
            self._purging.fail(event.number, self._gone)

    def _on_not_purged(self, event: happened.PurgeRejected) -> None:
        if event.number in self._purging:
            self._purging.fail(event.number, conversion_in_progress(self._where))

    def _on_cancelled(self, event: happened.ConsumerCancelled) -> None:
        """Cancel a consumer; of a queue that is deleted, the deletion does that."""
        attached = self._by_number.get(event.consumer)
        if attached is None:
            return
        is_asked = attached.slot.is_left
        self._leave(attached)
        if event.consumer in self._attaching:
            unanswered = self._not_done(ClientRequest.CONSUMING)
            self._attaching.fail(event.consumer, self._gone if self._is_over else unanswered)
        elif not (self._is_over or is_asked):
            attached.consumer.sink.cancelled(attached.consumer)

    def _on_timed_out(self, event: happened.DeliveryTimedOut) -> None:
        """Report a delivery timeout; what the channel still settles of these messages is
        ignored."""
        attached = self._by_number.get(event.consumer)
        losers = losers_of(event, self._slots, attached)
        if attached is not None:
            self._leave(attached)
        for holder, lost in losers:
            holder.timed_out(lost)

    def pass_on(self, successor: QueueTarget) -> None:
        """Another queue takes its place; `end` is to come."""
        self._receipts.pass_on(self._port.session.pending, successor)

    def end(self) -> None:
        """End the queue: it is deleted."""
        self._is_over = True
        self._directory.close(self.definition.id)
        self._postponed.end(self._gone)


def ignore_event(_queue: SessionQueue, _event: Event) -> None:
    """Do nothing: no channel needs this event."""


EVENT_HANDLERS: Mapping[type[Event], Callable[[SessionQueue, Any], None]] = {
    happened.PublishConfirmed: SessionQueue._on_confirmed,
    happened.PublishRejected: SessionQueue._on_rejected,
    happened.PublishUndecided: SessionQueue._on_undecided,
    happened.SettlementsDone: ignore_event,
    happened.Attached: SessionQueue._on_attached,
    happened.AttachRejected: SessionQueue._on_not_attached,
    happened.PurgeDone: SessionQueue._on_purged,
    happened.PurgeRejected: SessionQueue._on_not_purged,
    happened.AnswerLost: SessionQueue._on_unanswered,
    happened.SettleFailed: SessionQueue._on_unsettled,
    happened.MessagesDelivered: SessionQueue._on_delivered,
    GetAnswer: SessionQueue._on_got,
    happened.ConsumerCancelled: SessionQueue._on_cancelled,
    RevokeNotice: SessionQueue._on_revoked,
    NotLeader: ignore_event,
    happened.BacklogReduced: SessionQueue._on_backlog_reduced,
    happened.ActiveConsumerChanged: SessionQueue._on_activity,
    happened.DeliveryTimedOut: SessionQueue._on_timed_out,
}
