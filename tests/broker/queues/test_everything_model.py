"""Everything that the engine does with messages, together, against `ReferenceQueue`.

Limits by number and bytes, lifetimes, priorities, what is held for too long, a single active
consumer, sockets that do not drain, memory that is short, and settings that change in between.  All
messages that were published wait, are in hands, or are gone for a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import fluffle.broker.queues.length_limit as bounds
import fluffle.broker.queues.ready_list as ready_lists
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.consumers import GAP_MS
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.engine import Queue, QueueStores
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_in
from fluffle.broker.queues.publish_target import accepted_spans
from fluffle.broker.queues.queue_api import (
    UNLIMITED,
    Consumer,
    DeliveryBatch,
    DeliverySource,
    Outcome,
    OverdueDeliveries,
    SharedCredit,
)
from fluffle.broker.queues.requeue import RequeueFifo
from fluffle.broker.queues.settings import Overflow, QueueSettings
from fluffle.protocol.headers import DeathReason
from fluffle.protocol.properties import body_of, raw_properties
from tests.broker.queues.priority_harness import with_priority
from tests.broker.queues.queue_harness import ORIGIN, FakeSink, MemorySpill
from tests.broker.queues.reference_queue import Message, ReferenceQueue
from tests.suite.seeds import machine_settings
from tests.support.queue_host import FakeQueueHost

PLENTY = 1 << 30
SIZES = st.sampled_from([0, 1, 3, 12, 50])
BATCHES = st.one_of(
    st.lists(st.tuples(SIZES, st.none()), min_size=1, max_size=6),
    st.lists(st.tuples(SIZES, st.sampled_from([0, 1, 3, 4, 5, 40, 255])), min_size=1, max_size=6),
)
"""Sizes of bodies, and priorities: all that come together have one, or none has."""
LIFETIMES_MS = st.sampled_from([None, None, None, 0, 0, 3, 10, 50])
EXPIRATIONS_MS = LIFETIMES_MS | st.lists(st.sampled_from([0, 3, 10, 50]), min_size=6, max_size=6)
"""TTLs of messages that come together: one for all, or one each."""


@st.composite
def some_settings(draw: st.DrawFn, queue_type: QueueType) -> QueueSettings:
    overflows = [each for each in Overflow if each is not Overflow.REJECT_PUBLISH_DLX]
    if queue_type is QueueType.CLASSIC:
        overflows = [*Overflow]
    return QueueSettings(
        max_length=draw(st.sampled_from([None, None, None, None, 0, 1, 3, 10])),
        max_length_bytes=draw(st.sampled_from([None, None, None, None, 0, 7, 40, 200])),
        overflow=draw(st.sampled_from(overflows)),
        message_ttl_ms=draw(LIFETIMES_MS),
        consumer_timeout_ms=draw(st.sampled_from([None, None, 5, 40])),
        dead_letter_exchange="dlx",
    )


SPECS = st.sampled_from(
    [
        QueueSpec("q"),
        QueueSpec("q", single_active_consumer=True),
        QueueSpec("q", max_priority=1),
        QueueSpec("q", max_priority=5),
        QueueSpec("q", max_priority=255),
        QueueSpec("q", queue_type=QueueType.QUORUM),
        QueueSpec("q", queue_type=QueueType.QUORUM),
        QueueSpec("q", queue_type=QueueType.QUORUM, single_active_consumer=True),
    ]
)


@dataclass(eq=False)
class Held:
    """A message in somebody's hands."""

    delivery_batch: DeliveryBatch
    index: int
    message: Message
    since_ms: int


class Sink(FakeSink):
    """A client that loses what it holds for too long, and is served no more then."""

    def __init__(self, machine: EverythingMachine) -> None:
        super().__init__()
        self.machine = machine

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError("the machine sees what is handed out")

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        self.machine.lose(late)
        if consumer in consumer.queue.consumers:  # it may only hold what it got before it left
            consumer.queue.detach(consumer)


@dataclass(eq=False)
class Getter:
    """Holder of what basic.get took."""

    machine: EverythingMachine
    queue: Queue
    no_ack: bool
    timeout_ms = None

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Nothing limits it."""

    def settled(self, count: int) -> None:
        """Nothing waits."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError("what basic.get takes is its answer, not a delivery")

    def overdue(self, late: OverdueDeliveries) -> None:
        self.machine.lose(late)

    def timed_out(self, lost: object) -> None:
        raise AssertionError("it is reported elsewhere")


class EverythingMachine(RuleBasedStateMachine):
    """Each rule does something to the queue and the same to the naive one."""

    @initialize(data=st.data(), spec=SPECS, is_spilled=st.booleans())
    def make(self, data: st.DataObject, spec: QueueSpec, is_spilled: bool) -> None:
        self.spec, said = spec, data.draw(some_settings(spec.queue_type))
        self.naive = ReferenceQueue(spec.queue_type, said)
        self.naive.now_ms = 1_000
        self.wakes: list[int] = []
        self.is_touched = self.is_late = False
        self.delivery_batches: list[DeliveryBatch] = []
        """Not looked at yet."""
        self.held: list[Held] = []
        self.dead: list[bytes] = []
        self.gone: Counter[str] = Counter()
        """Removed messages by reason."""
        self.published = self.looked_ms = 0
        requeued = RequeueFifo(self.fetch) if spec.queue_type is QueueType.QUORUM else None
        self.queue = Queue(
            spec,
            FakeQueueHost(self.touch, time=self, deliver=self.deliver, dead_letter=self.on_dead),
            QueueStores(spill=MemorySpill() if is_spilled else None, requeued=requeued),
            settings=said,
        )

    # As those around the queue

    def touch(self, _queue: Queue) -> None:
        self.is_touched = True

    def now_ms(self) -> int:
        return self.naive.now_ms

    def wake(self, _queue: DeliverySource, at_ms: int) -> None:
        self.wakes.append(at_ms)

    def deliver(self, delivery_batches: list[DeliveryBatch]) -> None:
        self.delivery_batches += delivery_batches

    def fetch(
        self, sequences: Sequence[int], bytes_max: int = 0
    ) -> tuple[list[Origin], list[bytes]]:
        raise AssertionError(f"{sequences} came back with contents")

    def on_dead(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        assert (queue, settings) == ("q", self.queue.settings)
        assert dead.reason in {DeathReason.MAXLEN, DeathReason.EXPIRED, DeathReason.REJECTED}
        self.gone[dead.reason] += len(dead.contents)
        if dead.reason is not DeathReason.REJECTED:
            self.dead += dead.contents

    def lose(self, late: OverdueDeliveries) -> None:
        """Requeue messages that were held for too long."""
        for one in [one for one in self.held if one.delivery_batch in late.delivery_batches]:
            assert self.naive.now_ms - one.since_ms >= late.timeout_ms
            self.end(one, Outcome.TIMED_OUT)

    # What happens

    @rule(batches=st.lists(st.tuples(BATCHES, EXPIRATIONS_MS), min_size=1, max_size=3))
    def publish(self, batches: list[tuple[list[tuple[int, int | None]], Lifetimes]]) -> None:
        """Several in one turn, but where there is a limit to which the queue keeps at once."""
        if self.naive.has_limit:
            batches = batches[:1]
        self.count_room()
        published, are_taken = list[Message](), list[bool]()
        for said, expiration_ms in batches:
            expiration_ms = lifetimes_in(expiration_ms, slice(len(said)))
            each_ms = expiration_ms if isinstance(expiration_ms, list) else repeat(expiration_ms)
            batch = [self.made(*each, own_ms) for each, own_ms in zip(said, each_ms, strict=False)]
            contents = [message.content for message in batch]
            origins, size_bytes = [ORIGIN] * len(batch), sum(map(len, contents))
            result = self.queue.enqueue(origins, contents, size_bytes, expiration_ms=expiration_ms)
            for start, stop, is_accepted in accepted_spans(result, len(batch)):
                are_taken += [is_accepted] * (stop - start)
            published += batch
        assert are_taken == self.naive.publish(published)
        if self.naive.settings.overflow is not Overflow.REJECT_PUBLISH_DLX:
            self.gone["refused"] += are_taken.count(False)
        self.turn()

    def made(self, size: int, priority: int | None, expiration_ms: int | None) -> Message:
        self.published += 1
        name = f"{self.published},".ljust(size)
        content = with_priority(name, priority)
        size_bytes = len(body_of(content))
        if self.naive.is_quorum:
            size_bytes += len(raw_properties(content))
        level = self.spec.max_priority if not self.naive.is_quorum else 31
        missing = 4 if self.naive.is_quorum else 0
        level = min(missing if priority is None else priority, level or 0)
        at_ms = self.naive.expires_at_ms(expiration_ms)
        return Message(name, content, size_bytes, level, 0, at_ms, at_ms == self.naive.now_ms)

    @rule(prefetch=st.integers(0, 3), no_ack=st.sampled_from([False, False, True]))
    def attach(self, prefetch: int, no_ack: bool) -> None:
        shared = SharedCredit()
        self.queue.attach(
            Consumer("c", self.queue, Sink(self), shared=shared, prefetch=prefetch, no_ack=no_ack)
        )
        self.turn()

    @precondition(lambda self: self.queue.consumer_count)
    @rule(place=st.integers(0, 9))
    def detach(self, place: int) -> None:
        consumers = self.queue.consumers
        self.queue.detach(consumers[place % len(consumers)])
        self.turn()

    @precondition(lambda self: self.queue.consumer_count)
    @rule(place=st.integers(0, 9), is_shut=st.booleans())
    def shut(self, place: int, is_shut: bool) -> None:
        consumers = self.queue.consumers
        sink = consumers[place % len(consumers)].sink
        assert isinstance(sink, Sink)
        sink.open(0 if is_shut else UNLIMITED)
        self.turn()

    @precondition(lambda self: not self.spec.single_active_consumer)
    @rule(no_ack=st.booleans())
    def get(self, no_ack: bool) -> None:
        self.turn()
        delivery_batch, message = self.queue.get(Getter(self, self.queue, no_ack)), self.naive.get()
        assert (delivery_batch is None) == (message is None)
        if delivery_batch is not None and message is not None:
            assert delivery_batch.contents == [message.content]
            self.take(delivery_batch, [message])
        self.turn()

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(
            [
                Outcome.ACKED,
                Outcome.NACK_REQUEUED,
                Outcome.LOST,
                Outcome.REJECTED,
                Outcome.REJECT_REQUEUED,
            ]
        ),
    )
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        self.end(data.draw(st.sampled_from(self.held)), outcome)
        self.turn()

    def end(self, one: Held, outcome: Outcome) -> None:
        self.held.remove(one)
        self.queue.settle(one.delivery_batch, one.index, one.index + 1, outcome)
        if outcome is Outcome.ACKED:
            self.gone["acked"] += 1
        elif outcome is not Outcome.REJECTED:
            self.naive.give_back(one.message)

    @rule()
    def purge(self) -> None:
        self.turn()
        purged = self.queue.purge()
        assert purged == self.naive.purge()
        self.gone["purged"] += purged
        self.is_touched = True
        self.turn()

    @rule()
    def weigh(self) -> None:
        """Not after each step: that would be another way to weigh."""
        byte_count = self.queue._ready_list.byte_count
        assert (
            byte_count is None
            or byte_count.sum.is_unsure
            or byte_count.sum.size_bytes == self.naive.size_bytes
        )

    @rule()
    def shed(self) -> None:
        self.queue.shed()

    @rule(by_ms=st.integers(1, 30), is_late=st.booleans())
    def advance(self, by_ms: int, is_late: bool) -> None:
        """Its timer fires when it has asked for that, or late."""
        if is_late and self.naive.settings.consumer_timeout_ms is None:
            self.naive.now_ms += by_ms
            self.is_late = True
            return
        for _ in range(by_ms):
            self.naive.now_ms += 1
            self.is_touched |= any(at_ms <= self.naive.now_ms for at_ms in self.wakes)
            self.wakes = [at_ms for at_ms in self.wakes if at_ms > self.naive.now_ms]
            self.turn()

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        said = data.draw(some_settings(self.spec.queue_type))
        self.turn()
        self.queue.settings = said
        self.naive.go_by(said)
        self.turn()

    # Turns

    def count_room(self) -> None:
        """Count the room of served consumers, less deliveries not checked yet."""
        served = self.queue.consumers
        if self.spec.single_active_consumer:
            served = tuple(consumer for consumer in served if consumer.is_active)
            assert bool(served) == (self.queue.consumer_count > 0)
        self.naive.room = sum(map(self.room_of, served)) - len(self.naive.taken)

    def room_of(self, consumer: Consumer) -> int:
        assert isinstance(consumer.sink, Sink)
        if not consumer.sink.left:
            return 0
        if consumer.no_ack or not consumer.prefetch:
            return PLENTY
        return consumer.prefetch - sum(one.delivery_batch.holder is consumer for one in self.held)

    def turn(self) -> None:
        """The broker pumps until nothing is asked for any more."""
        self.is_touched |= self.is_late
        self.is_late = False
        while self.is_touched:
            self.is_touched = False
            self.deliver(self.queue.pump())
        self.count_room()
        self.naive.serve()
        self.look()

    def look(self) -> None:
        """Check that each delivery was the next message, and in order for each consumer."""
        places = {message.content: at for at, message in enumerate(self.naive.taken)}
        delivery_batches, self.delivery_batches = self.delivery_batches, []
        found = [
            content for delivery_batch in delivery_batches for content in delivery_batch.contents
        ]
        assert sorted(found) == sorted(places)
        for delivery_batch in delivery_batches:
            at = [places[content] for content in delivery_batch.contents]
            assert at == sorted(at), "a consumer gets them in order"
            self.take(delivery_batch, [self.naive.taken[place] for place in at])
        self.naive.taken.clear()

    def take(self, delivery_batch: DeliveryBatch, messages: list[Message]) -> None:
        for index, message in enumerate(messages):
            assert delivery_batch.redelivered == message.was_handed_out
            message.was_handed_out, message.is_new = True, False
            if delivery_batch.holder.no_ack:
                self.gone["handed over"] += 1
            else:
                self.held.append(Held(delivery_batch, index, message, self.naive.now_ms))

    # What holds

    @invariant()
    def queues_agree(self) -> None:
        assert sorted(self.dead) == sorted(message.content for message in self.naive.died)
        assert self.queue.ready_count == len(self.naive.ready)
        assert self.queue.in_flight == len(self.held)
        byte_count = self.queue._ready_list.byte_count
        assert (byte_count is None) == (self.naive.settings.max_length_bytes is None)
        if byte_count is not None:
            most_bytes = byte_count.sum._weighed_bytes + byte_count.sum._rough_bytes
            assert byte_count.sum.is_unsure or most_bytes >= self.naive.size_bytes

    @invariant()
    def all_are_somewhere(self) -> None:
        """Or gone, for a reason."""
        somewhere = self.queue.ready_count + self.queue.in_flight
        assert self.published == somewhere + sum(self.gone.values())

    @invariant()
    def nobody_holds_anything_for_too_long(self) -> None:
        timeout_ms = self.naive.settings.consumer_timeout_ms
        if timeout_ms is not None and not self.is_late:
            # What nobody minded when it was handed out may be held for ever.
            since_ms = [one.since_ms for one in self.held if one.delivery_batch.delivered_at_ms]
            oldest_ms = min(since_ms, default=self.naive.now_ms)
            assert self.naive.now_ms - oldest_ms <= timeout_ms + GAP_MS


def test_everything_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SEGMENT_MESSAGES_MAX": 4,
        "FRONT_SEGMENTS": 1,
        "RECENT_SEGMENTS": 1,
    }.items():
        monkeypatch.setattr(ready_lists, name, value)
    monkeypatch.setattr(bounds, "DROPPED_BYTES_MAX", 2 * bounds.MESSAGE_COST_BYTES)
    run_state_machine_as_test(
        EverythingMachine,
        settings=machine_settings(examples=300, stateful_step_count=40),
    )
