"""Consumers of this node at a queue that is led elsewhere, and how much they may be sent.

What is on its way to a client takes room here, so the leader is given a limit: of messages in the
client's hands and on their way together.  Without a prefetch it is what the client has and a
window more; while its socket does not drain it is what the client has.

A prefetch that the consumers of a channel share is known here alone, so each of them may be sent as
many, and what is too much waits here until there is room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from fluffle.broker.base.clock import CallLater
from fluffle.broker.cluster.queue_sessions.events import DeliveryTimedOut
from fluffle.broker.cluster.queue_sessions.session_client import AttachTerms
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, Holder, TimedOutDeliveries
from fluffle.broker.queues.quorum.facts import Key
from fluffle.broker.queues.quorum.holders import arguments_of
from fluffle.broker.queues.quorum.messages import Deliver, Token, tokens_of
from fluffle.protocol.headers import counted

WINDOW_BYTES = 2 << 20
"""So much may be on its way to a consumer: what a leader sends in the time of a round trip and a
commit.  Of more than one message, if the last were smaller."""

PREFETCH_BYTES = 8 << 20
"""The same of a consumer that has said how many it can take."""

TURN_S = 0.001
WINDOW_MAX = 2_000
WINDOW_FIRST = 100
"""Messages, before anything is known of how large they are."""


@dataclass(slots=True)
class ConsumerSlot:
    """The deliveries of one holder: a consumer, or a channel that got a message."""

    key: Key | None = None
    """Key by which the leader knows it; None until it is attached."""
    held: int = 0
    """Messages held by the client, those included that were revoked by now."""
    is_left: bool = False
    """True if it wants nothing more."""
    sequence: int = 0
    """Sequence number of the message that a getter got: the leader may have other getters under the
    same key."""

    def of(self, tokens: Collection[Token]) -> list[Token]:
        """Tokens of these that the client holds."""
        sequence, own = self.sequence, [token for token in tokens if token.holder == self.key]
        if not sequence:
            return own
        run = range(sequence, sequence + 1)
        return [token._replace(run=run) for token in own if sequence in token.run]


@dataclass(slots=True)
class SessionConsumer:
    """A consumer of this node at a queue led elsewhere."""

    consumer: Consumer
    slot: ConsumerSlot
    number: int = 0
    """Number by which the session knows it."""
    window: int = WINDOW_FIRST
    limit: int = 0
    """Credit limit last sent to the leader."""
    waiting: deque[Deliver] = field(default_factory=deque)
    """A message each: what its client may not be sent yet."""
    was_first: bool = False
    """True if it had its turn before the others of its channel the last time."""

    @property
    def is_served(self) -> bool:
        """True if it is attached, and wants to be."""
        return self.slot.key is not None and not self.slot.is_left

    @property
    def prefetch(self) -> int:
        """How many may be in hands; 0 means no limit.

        One that consumers of a channel share is each one's own: one that keeps some of it for a
        queue that is empty starves the others.
        """
        consumer = self.consumer
        limits = (consumer.prefetch, consumer.shared.limit)
        return 0 if consumer.no_ack else min(filter(None, limits), default=0)

    @property
    def first_limit(self) -> int:
        """First credit limit for the leader."""
        return self.prefetch if 0 < self.prefetch < WINDOW_FIRST else WINDOW_FIRST

    def admit(self, deliver: Deliver) -> Iterator[Deliver]:
        """Messages have come: those for which there is room by now, to be delivered one by one."""
        consumer = self.consumer
        if not (consumer.shared.limit or self.waiting):
            yield deliver
            return
        self.waiting += one_by_one(deliver)
        yield from self.admitted()

    def admitted(self) -> Iterator[Deliver]:
        """Waiting deliveries that may go to the client now."""
        while self.waiting and self.may_have_more:
            yield self.waiting.popleft()

    def take_turn(self, serve: Callable[[], None], call_later: CallLater) -> None:
        """Serve a consumer that has room: the others of its channel first, if it was first the last
        time.

        Queues that are here hand out at the end of a turn what there is room for then.
        """
        self.was_first = bool(self.waiting) and not self.was_first
        if self.waiting and not self.was_first:
            call_later(TURN_S, serve)
        else:
            serve()

    @property
    def may_have_more(self) -> bool:
        """True if a shared prefetch limit leaves room; it is woken when there is."""
        consumer = self.consumer
        return consumer.shared.room(consumer) > 0

    def taken_back(self) -> list[Token]:
        """Remove the waiting deliveries and return their tokens."""
        waiting, self.waiting = self.waiting, deque()
        return [token for deliver in waiting for token in tokens_of(deliver)]

    def revoke(self, revoked: Collection[Token]) -> None:
        """Drop waiting deliveries whose messages were revoked."""
        gone = {(holder, ordinal, number) for holder, ordinal, run in revoked for number in run}
        self.waiting = deque(
            each
            for each in self.waiting
            if (each.holder, each.ordinal, each.runs[0].start) not in gone
        )

    def measure(self, delivery_batch: DeliveryBatch) -> None:
        """See from what has come how large messages are."""
        size_bytes = max(1, delivery_batch.content_bytes // len(delivery_batch.contents))
        way_bytes = PREFETCH_BYTES if self.prefetch else WINDOW_BYTES
        self.window = max(1, min(WINDOW_MAX, way_bytes // size_bytes))

    def wanted(self) -> int | None:
        """Limit to send to the leader; None if the last one is good enough.

        The consumer is woken when there is room, if there is none now.
        """
        consumer = self.consumer
        in_hands = consumer.in_flight + len(self.waiting)
        on_way = self.limit - in_hands
        is_unread = consumer.sink.room(consumer) <= 0
        consumer.parked = is_unread or not self.may_have_more
        if is_unread:
            limit = in_hands if on_way > 0 else self.limit
        elif 0 < self.prefetch <= in_hands + self.window:
            limit = self.prefetch
        elif self.window <= 2 * on_way and on_way <= 2 * self.window:
            return None
        else:
            limit = in_hands + self.window
        return limit if limit != self.limit else None


def one_by_one(deliver: Deliver) -> Iterator[Deliver]:
    """The same, a message each."""
    numbers = (number for run in deliver.runs for number in run)
    for number, origin, content in zip(numbers, deliver.origins, deliver.contents, strict=True):
        yield replace(
            deliver, runs=[range(number, number + 1)], origins=[origin], contents=[content]
        )


def delivery_of(holder: Holder, deliver: Deliver, *, shows_counts: bool) -> DeliveryBatch:
    """Messages are in a consumer's hands."""
    contents, runs = deliver.contents, deliver.runs
    if deliver.ordinal and shows_counts:
        contents = counted(contents, deliver.ordinal, deliver.failed)
    delivery_batch = DeliveryBatch(
        holder,
        deliver.origins,
        contents,
        runs[0] if len(runs) == 1 else [sequence for run in runs for sequence in run],
        redelivered=deliver.redelivered,
        counts=Counts(deliver.ordinal, deliver.failed),
    )
    holder.took(delivery_batch)
    return delivery_batch


def terms_of(consumer: Consumer) -> AttachTerms:
    """Terms of attaching a consumer."""
    return AttachTerms(
        consumer.tag,
        consumer.prefetch,
        consumer.priority,
        consumer.no_ack,
        consumer.exclusive,
        arguments_of(consumer),
    )


def losers_of(
    event: DeliveryTimedOut, slots: Mapping[Holder, ConsumerSlot], attached: SessionConsumer | None
) -> list[tuple[Holder, TimedOutDeliveries]]:
    """Holders with what each lost: the consumer that the event is about if it is attached, else
    those that held the messages."""
    if attached is not None:
        return [(attached.consumer, lost_of(event, event.tokens))]
    had = ((holder, slot.of(event.tokens)) for holder, slot in slots.items())
    return [(holder, lost_of(event, tokens)) for holder, tokens in had if tokens]


def lost_of(event: DeliveryTimedOut, tokens: list[Token]) -> TimedOutDeliveries:
    first = min((token.run.start for token in tokens), default=0)
    return TimedOutDeliveries(
        sum(len(token.run) for token in tokens), first, event.held_ms, event.timeout_ms
    )
