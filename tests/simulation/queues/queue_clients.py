"""All clients of one queue at one node, as channels use an `SessionQueue`.

What they ask for goes through the queue that the node has; the model hears of what its stream is
asked, and of what it hears before the queue does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from fluffle.broker.base.errors import AccessRefused, BrokerError
from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queue_sessions.events import Event
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient, SessionRequests
from fluffle.broker.cluster.queues.ports import SessionPort
from fluffle.broker.cluster.queues.session_queue import SessionQueue
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.publish_target import DeadLetterIds, PublishReceipt
from fluffle.broker.queues.queue_api import (
    FINAL,
    UNLIMITED,
    Consumer,
    Deferred,
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
    SettlementStatus,
    SharedCredit,
    TimedOutDeliveries,
)
from fluffle.broker.queues.quorum import messages as m
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.broker.cluster.queue_sessions.queue_client import UniqueNames
from tests.broker.cluster.queue_sessions.reference_model import ReferenceModel
from tests.broker.queues.quorum.sample_facts import ORIGIN
from tests.simulation.queues.dead_letter_checks import DeadLetterChecks
from tests.simulation.queues.deduplication_checks import headers_of
from tests.simulation.queues.redeclared_queues import RedeclaredQueues

Message = tuple[int, int]
"""A sequence number, and under which ordinal it is in a client's hands."""


class RecordedRequests(SessionRequests):
    """Requests of a queue to its session, which the model hears of."""

    __slots__ = ("_clients",)

    def __init__(self, clients: QueueClients) -> None:
        super().__init__(clients.session)
        self._clients = clients

    def publish(
        self,
        origins: list[Origin],
        contents: list[bytes],
        *,
        persistent: bool = True,
        expiration_ms: Lifetimes = None,
        dead_letter_ids: DeadLetterIds | None = None,
        counts: Counts = NEW,
    ) -> int:
        first = super().publish(
            origins, contents,
            persistent=persistent, expiration_ms=expiration_ms,
            dead_letter_ids=dead_letter_ids, counts=counts,
        )  # fmt: skip
        self._clients.published(first, contents)
        return first

    def settle(self, tokens: Iterable[m.Token], outcome: Outcome) -> None:
        tokens = list(tokens)
        hands = self._session.unacked
        held = [each._replace(run=run) for each in tokens for run in hands.found(each)]
        self._clients.model.settled(self._clients.node, held, outcome)
        super().settle(tokens, outcome)


@dataclass(eq=False)
class ConsumerSink:
    """Where the client of a consumer is: a `Sink`."""

    clients: QueueClients
    number: int
    channel: int
    is_open: bool = True
    """True if what comes for it is for its client."""
    is_stuck: bool = False
    """Its socket does not drain."""
    most: int = 0
    """So many its leader may ever have heard that it takes."""

    consumer: Consumer = field(init=False)

    def room(self, _consumer: Consumer) -> int:
        return 0 if self.is_stuck else UNLIMITED

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        """Its room is as it is."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        if self.is_open:
            self.clients.took(self.channel, delivery_batch)
        else:
            delivery_batch.holder.queue.settle(
                delivery_batch, 0, len(delivery_batch.contents), Outcome.UNSENT
            )

    def cancelled(self, _consumer: Consumer) -> None:
        self.is_open = False

    def overdue(self, _consumer: Consumer, late: OverdueDeliveries) -> None:
        raise AssertionError(f"{late} were held at an edge")

    def timed_out(self, _consumer: Consumer, lost: TimedOutDeliveries) -> None:
        """Handle a delivery timeout; what the client still settles is ignored."""
        self.is_open = False
        self.clients.timed_out += lost.messages

    def activity_changed(self, _consumer: Consumer) -> None:
        """Ignore the change: deliveries show it."""


@dataclass(eq=False)
class Getter:
    """Client that gets one message: a `Holder`."""

    clients: QueueClients
    queue: SessionQueue
    number: int
    channel: int
    no_ack: bool
    is_open: bool = True

    timeout_ms = None

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        if self.is_open:
            self.clients.took(self.channel, delivery_batch)
        else:
            self.queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.UNSENT)

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Nothing limits it."""

    def settled(self, count: int) -> None:
        """Nothing waits for room."""

    def overdue(self, late: OverdueDeliveries) -> None:
        raise AssertionError(f"{late} were held at an edge")

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        self.clients.timed_out += lost.messages


@dataclass
class Held:
    """Message in a client's hands, as the client believes."""

    channel: int
    delivery_batch: DeliveryBatch
    index: int


@dataclass
class FinalSettlement:
    """Messages that clients had in hands and are done with, and what is known of that."""

    messages: list[Message]
    settling: SettlementStatus
    """Has an error, if it has not come true."""


@dataclass
class QueueClients:
    """Clients of one boot of a node."""

    node: str
    queue: SessionQueue
    port: SessionPort
    model: ReferenceModel
    names: UniqueNames
    dead_letter_checks: DeadLetterChecks
    consumers: list[int] = field(default_factory=list)
    """Numbers of those that are attached; the model keeps it."""
    subscribers: dict[int, ConsumerSink] = field(default_factory=dict)
    """Subscribers by number."""
    getters: dict[int, Getter] = field(default_factory=dict)
    """Waiting getters by number."""
    places: dict[int, int] = field(default_factory=dict)
    """Channels of gets by their places: those of a place are named anew when they end."""
    held: dict[Message, Held] = field(default_factory=dict)
    finals: list[FinalSettlement] = field(default_factory=list)
    timed_out: int = 0
    """Messages that were taken from them, for they had held them for too long."""
    unpaid: int = 0
    """Messages without a receipt."""
    is_over: bool = False
    """True if the queue is gone: what they settled has gone with it."""
    redeclared_queues: RedeclaredQueues = field(init=False)

    def __post_init__(self) -> None:
        self.queue._requests = RecordedRequests(self)

    @property
    def session(self) -> SessionClient:
        return self.port.session

    # What they hear

    def reported(self, events: list[Event]) -> None:
        """The model before them: what they then do rests on it."""
        self.model.reported(self.node, self, events)
        try:
            self.queue.on_events(events)
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"{self.node} cannot take {events}: {error!r}") from error
        self._note_credits()

    def room_of(self, consumer: int) -> int | None:
        """Room of a consumer, for the model."""
        return self.subscribers[consumer].most

    def _note_credits(self) -> None:
        for number, credit in self.session.credits.items():
            subscriber = self.subscribers[number]
            subscriber.most = max(subscriber.most, credit)

    def took(self, channel: int, delivery_batch: DeliveryBatch) -> None:
        """Messages are in a client's hands; without acknowledgements they are its own."""
        if not delivery_batch.holder.no_ack:
            for index, sequence in enumerate(delivery_batch.sequences):
                message = sequence, delivery_batch.counts.acquired
                assert message not in self.held, f"{message} comes twice"
                self.held[message] = Held(channel, delivery_batch, index)

    # What they ask for

    def published(self, first: int, contents: list[bytes]) -> None:
        """Record publishes of these clients, or of dead letters of another queue."""
        is_for_dead = self.dead_letter_checks.put(self.queue.name, contents)
        self.model.published(self.node, first, contents, may_repeat=is_for_dead)

    def publish(
        self,
        count: int,
        size: int = 0,
        expiration_ms: Lifetimes = None,
        priorities: Sequence[int | None] = (None,),
        keys: Sequence[int | None] = (None,),
    ) -> None:
        """`priorities` and `keys` are theirs in turn: of the former all name one, or none does, as
        channels have it."""
        heads = [
            encode_properties(
                Properties(delivery_mode=2, priority=priority, headers=headers_of(key))
            )
            for key in keys
            for priority in priorities
        ]
        bodies = self.names.contents(count, size)
        contents = [
            build_content(head, body) for head, body in zip(cycle(heads), bodies, strict=False)
        ]
        receipt = self.queue.enqueue(
            [ORIGIN] * count,
            contents,
            sum(map(len, contents)),
            persistent=True,
            expiration_ms=expiration_ms,
        )
        assert isinstance(receipt, PublishReceipt)
        self.unpaid += count
        waiting, asked_us = set(range(count)), self.redeclared_queues.now_us

        def known(start: int, stop: int, *, is_accepted: bool) -> None:
            for at in range(start, stop):
                waiting.remove(at)
                if contents[at] in self.model.undecided:
                    queue = self.queue.definition
                    self.redeclared_queues.on_outcome(queue, asked_us, is_accepted=is_accepted)
                    continue
                known_of = self.model.confirmed if is_accepted else self.model.refused
                assert contents[at] in known_of, f"{contents[at]!r} is taken: {is_accepted}"
            self.unpaid -= stop - start

        receipt.then(known)

    def attach(
        self,
        *,
        prefetch: int,
        no_ack: bool,
        priority: int = 0,
        is_exclusive: bool = False,
        timeout_ms: int | None = None,
        channel: int | None = None,
    ) -> ConsumerSink:
        channel = self.names.channel() if channel is None else channel
        subscriber = ConsumerSink(self, self.session.pending.next, channel)
        number = subscriber.number
        subscriber.consumer = Consumer(
            f"tag {number}",
            self.queue,
            subscriber,
            shared=SharedCredit(),
            prefetch=prefetch,
            priority=priority,
            no_ack=no_ack,
            exclusive=is_exclusive,
            timeout_ms=timeout_ms,
        )
        self.subscribers[number] = subscriber
        attached = self.queue.attach(subscriber.consumer)
        self._note_credits()
        self.model.asks(self.node, number, "attach", channel, no_ack=no_ack)
        self._ask(number, attached)
        return subscriber

    def get_once(self, place: int, *, no_ack: bool) -> None:
        """Unless the channel at this place waits for one."""
        channel = self.places.get(place)
        if channel is None:
            channel = self.places[place] = self.names.channel()
        if any(getter.channel == channel for getter in self.getters.values()):
            return
        getter = Getter(self, self.queue, self.session.pending.next, channel, no_ack)
        number = getter.number
        self.getters[number] = getter
        got = self.queue.get(getter)
        self.model.asks(self.node, number, "get", channel, no_ack=False)

        def answered(delivery_batch: DeliveryBatch | None) -> None:
            del self.getters[number]
            if delivery_batch is not None:
                getter.deliver(delivery_batch)

        got.then(answered, lambda _error: self._given_up(number))

    def _ask(self, number: int, later: Deferred[None]) -> None:
        def failed(error: BrokerError) -> None:
            assert not isinstance(error, AccessRefused), "nobody has a quorum queue for himself"
            self._given_up(number)

        later.then(lambda _answer: None, failed)

    def _given_up(self, number: int) -> None:
        """Forget a request that was given up."""
        self.getters.pop(number, None)
        self.model.asked.pop((self.node, number), None)

    def purge(self) -> None:
        self.queue.purge().then(_nothing, _failed)

    def settle(self, messages: list[Message], outcome: Outcome) -> None:
        """In stretches of what was handed out together."""
        by_handout: dict[int, list[Message]] = {}
        for message in sorted(messages):
            by_handout.setdefault(id(self.held[message].delivery_batch), []).append(message)
        for of_it in by_handout.values():
            stretch: list[Message] = []
            for message in of_it:
                if stretch and self.held[message].index != self.held[stretch[-1]].index + 1:
                    self._settle(stretch, outcome)
                    stretch = []
                stretch.append(message)
            self._settle(stretch, outcome)

    def _settle(self, messages: list[Message], outcome: Outcome) -> None:
        first, last = self.held[messages[0]], self.held[messages[-1]]
        for message in messages:
            del self.held[message]
        in_hands = [message for message in messages if self._is_in_hands(message)]
        settling = self.queue.settle(first.delivery_batch, first.index, last.index + 1, outcome)
        self._note_credits()
        assert settling is not None
        if outcome in FINAL and in_hands and not self.is_over:
            self.finals.append(FinalSettlement(in_hands, settling))

    def _is_in_hands(self, message: Message) -> bool:
        sequence, ordinal = message
        return any(
            sequence in run and ordinal == each for _holder, each, run in self.session.unacked
        )

    def in_hands(self) -> list[Message]:
        """Also what was taken from them, unless they have heard of it."""
        return list(self.held)

    def detach(self, consumer: int) -> None:
        """Cancel a consumer; what is under way to it still comes, and is acknowledged."""
        subscriber = self.subscribers[consumer]
        self.queue.detach(subscriber.consumer)
        left = self.queue.settling

        def gone(_: object) -> None:
            subscriber.is_open = False

        if left is None:
            gone(None)
        else:
            left.then(gone, gone)

    def channels(self) -> list[int]:
        """Open channels that are used."""
        open_ = (each.channel for each in self.subscribers.values() if each.is_open)
        return sorted({*open_, *self.places.values()})

    def end_channel(self, channel: int) -> None:
        """End a channel, as `Channel.close` does."""
        for number, subscriber in self.subscribers.items():
            if subscriber.channel == channel and subscriber.is_open:
                subscriber.is_open = False
                self.queue.detach(subscriber.consumer)
                self.model.asked.pop((self.node, number), None)
        for getter in self.getters.values():
            getter.is_open = getter.is_open and getter.channel != channel
        self.places = {at: name for at, name in self.places.items() if name != channel}
        held = [message for message, each in self.held.items() if each.channel == channel]
        self.settle(held, Outcome.LOST)

    def leave(self) -> None:
        """All of them."""
        for channel in self.channels():
            self.end_channel(channel)

    def get_stuck(self, consumer: int) -> None:
        """Or drain."""
        subscriber = self.subscribers[consumer]
        subscriber.is_stuck = not subscriber.is_stuck
        if subscriber.consumer.parked and not subscriber.is_stuck:
            self.queue.wake(subscriber.consumer)
            self._note_credits()

    def ask_settling(self) -> None:
        """Await the settlements of a closed channel: they are done, or refused.

        Of everything that was done with before that.
        """
        finals, later = list(self.finals), self.queue.settling
        if later is None:
            self.are_known(finals)
        else:
            later.then(lambda _answer: self.are_known(finals), _failed)

    def are_known(self, finals: list[FinalSettlement]) -> None:
        """Check that messages of final settlements are gone, or that clients heard
        otherwise."""
        if self.is_over:
            return
        for final in finals:
            for sequence, ordinal in final.messages:
                is_gone = sequence in self.model.gone and (sequence, ordinal) not in self.model.back
                assert is_gone or final.settling.error is not None, (
                    f"G4: {sequence} was acknowledged, and is not gone; nothing is reported"
                )

    def at_rest(self) -> None:
        """Check that no request is open, and that the outcome of every settlement is known."""
        assert not self.unpaid, f"{self.unpaid} messages have no receipt"
        assert not self.getters, "every get has an answer"
        assert not self.held, "everything in hands was acknowledged"
        self.are_known(self.finals)

    def unanswered(self) -> list[int]:
        """Publishes, attachments and gets."""
        waiting = (*self.model.pending, *self.model.asked)
        return [number for node, number in waiting if node == self.node]


def _nothing(_count: int) -> None:
    """Ignore the number of purged messages."""


def _failed(_error: BrokerError) -> None:
    """Ignore the error: it took too long."""
