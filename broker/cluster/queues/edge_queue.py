"""A queue as channels of this node see it when it is led elsewhere, or by a Raft group.

    channels --> operations --> the edge of this node's stream to the queue --> its leader
        ^                                                                           |
        +---- handouts, receipts, answers <---- events of the edge <----------------+

Channels see the same as of a queue that is here, later.  What is asked when nobody leads it waits:
for a bounded time where a client waits for an answer, and as long as it takes for messages and
settlements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol

from fluffle.broker.cluster.queues.ports import Counts, Hub
from fluffle.broker.cluster.queues.questions import CallLater, Questions
from fluffle.broker.cluster.queues.receipts import Receipts
from fluffle.broker.cluster.queues.settlements import Settlements
from fluffle.broker.cluster.queues.takers import WINDOW_FIRST, Seat, Taker
from fluffle.broker.cluster.streams import events as happened
from fluffle.broker.cluster.streams.asking import Asking, Terms
from fluffle.broker.cluster.streams.codec import MESSAGES_MAX
from fluffle.broker.cluster.streams.edge import OPERATIONS_MAX, PENDING_BYTES_MAX
from fluffle.broker.cluster.streams.events import Event
from fluffle.broker.cluster.streams.messages import Deliver, Token, tokens_of
from fluffle.broker.errors import AccessRefused, BrokerError, NotFound
from fluffle.broker.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.consumers import Consumer
from fluffle.broker.queues.counts import Counts as HandedOut
from fluffle.broker.queues.handout import FINAL, Handout, Holder, Outcome
from fluffle.broker.queues.journal import Damage, Owner, QueueDefinition
from fluffle.broker.queues.replicated.runs import runs_of
from fluffle.broker.queues.served import (
    Admission,
    Debtor,
    Later,
    Receipt,
    Settling,
    Tally,
)
from fluffle.protocol.headers import counted

RUN_BYTES_MAX = 1 << 20
"""Of an operation of more than one message, so that others come between."""


class Doing(Enum):
    """What a client waits for."""

    CONSUMING = "consuming from"
    GETTING = "getting from"
    PURGING = "purging"
    SETTLING = "settling messages of"
    ASKING = "asking"


class Manners(Protocol):
    """What differs between queues of several types that are led elsewhere."""

    tells_counts: bool
    """Whether messages say in their headers how often they were handed out in vain."""

    def unanswered(self, doing: Doing, where: str) -> BrokerError:
        """Nobody has led the queue for too long."""


NOTHING = Tally(0, 0, 0)


class EdgeQueue:
    """A `ServedQueue`."""

    damage: Damage | None = None
    """Its leader knows."""
    in_exclusive_use = False
    """Its leader knows."""

    __slots__ = (
        "_asking",
        "_attaching",
        "_by_number",
        "_getting",
        "_got",
        "_hub",
        "_is_over",
        "_manners",
        "_paid",
        "_port",
        "_purging",
        "_receipts",
        "_seats",
        "_settlements",
        "_slots",
        "_takers",
        "_told",
        "_vhost",
        "debtors",
        "definition",
    )

    def __init__(
        self,
        definition: QueueDefinition,
        vhost: str,
        hub: Hub,
        call_later: CallLater,
        manners: Manners,
    ) -> None:
        self.definition = definition
        self.debtors: list[Debtor] = []
        self._vhost = vhost
        self._hub = hub
        self._manners = manners
        self._port = hub.open(definition, self.hear)
        self._asking = Asking(self._port.edge)
        self._is_over = False
        """Whether it has been deleted."""
        self._told = NOTHING
        """What was last heard."""
        self._paid = 0
        """Messages that were handed out of a queue that is behind, which debtors wait for."""
        self._receipts = Receipts()
        self._seats: dict[Holder, Seat] = {}
        """Of all who hold something, or may."""
        self._takers: dict[Consumer, Taker] = {}
        self._by_number: dict[int, Taker] = {}
        """The same."""
        self._slots: list[int] = []
        """Channels of the stream that have had a get, and have none now.  Clients share them."""
        self._getting: dict[int, tuple[Holder, int]] = {}
        """By operation: for whom, and in which slot; until its answer has come."""
        self._attaching: Questions[None] = Questions(call_later, self._attached_too_late)
        self._got: Questions[Handout | None] = Questions(call_later, self._got_too_late)
        self._purging: Questions[int] = Questions(call_later, self._purged_too_late)
        self._settlements = Settlements(
            self._port.edge, call_later, self._unsettled, where=self._where
        )

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
        return self._told.ready

    @property
    def in_flight(self) -> int:
        return self._told.unacked

    @property
    def consumer_count(self) -> int:
        return self._told.consumers

    @property
    def consumers(self) -> tuple[Consumer, ...]:
        return tuple(each for each, taker in self._takers.items() if taker.is_served)

    @property
    def is_unused(self) -> bool:
        """Its leader knows, and acts on it."""
        return False

    @property
    def absence(self) -> BrokerError | None:
        if not self._port.is_away:
            return None
        return self._manners.unanswered(Doing.ASKING, self._where)

    @property
    def tally(self) -> Tally | Later[Tally]:
        """RabbitMQ says 0 of what it cannot ask; so does this."""
        if self._port.is_away:
            return NOTHING
        later: Later[Tally] = Later()

        def told(counts: Counts | None) -> None:
            self._told = Tally(*counts) if counts is not None else NOTHING
            later.answer(self._told)

        self._hub.ask_counts(self.definition.id, told)
        return later

    @property
    def here(self) -> Tally | None:
        counts = self._hub.counts_here(self.definition.id)
        return Tally(*counts) if counts is not None else None

    # Publishing

    @property
    def is_behind(self) -> bool:
        return self.is_full or self._port.edge.owing > 0

    @property
    def is_full(self) -> bool:
        return self._port.edge.is_full

    def enqueue(
        self, origins: list[Origin], contents: list[bytes], content_bytes: int, *, persistent: bool
    ) -> Admission | Receipt:
        if self._is_over:
            return Admission.ACCEPTED
        if self._port.is_away:
            return Admission.REFUSED
        count = len(contents)
        receipt = Receipt(count)
        step = min(MESSAGES_MAX, count)
        if content_bytes > RUN_BYTES_MAX:
            step = max(1, min(step, count * RUN_BYTES_MAX // content_bytes))
        for start in range(0, count, step):
            stop = min(start + step, count)
            number = self._asking.publish(
                origins[start:stop], contents[start:stop], persistent=persistent
            )
            self._receipts.add(number, stop - start, receipt, start)
        self._port.touch()
        return receipt

    # What has an answer

    def get(self, holder: Holder) -> Later[Handout | None]:
        slot = self._slots.pop() if self._slots else len(self._getting) + 1
        number = self._asking.get(slot, no_ack=False)
        self._getting[number] = holder, slot
        self._port.touch()
        return self._got.ask(number)

    def purge(self) -> Later[int]:
        number = self._asking.purge()
        self._port.touch()
        return self._purging.ask(number)

    def attach(self, consumer: Consumer) -> Later[None]:
        seat = self._seats[consumer] = Seat()
        taker = self._takers[consumer] = Taker(consumer, seat)
        taker.limit = taker.prefetch if 0 < taker.prefetch < WINDOW_FIRST else WINDOW_FIRST
        terms = Terms(
            consumer.tag,
            taker.prefetch,
            consumer.priority,
            consumer.no_ack,
            consumer.exclusive,
        )
        taker.number = self._asking.attach(0, terms, taker.limit)
        self._by_number[taker.number] = taker
        self._port.touch()
        return self._attaching.ask(taker.number)

    def detach(self, consumer: Consumer) -> None:
        """It gets what is on its way, and is gone then.  Nothing, if it is gone already."""
        taker = self._takers.get(consumer)
        if taker is None or taker.seat.is_left:
            return
        if taker.is_served:
            taker.seat.is_left = True
        else:
            self._leave(taker)
        self._asking.detach(taker.number)
        self._port.touch()
        self._attaching.answer(taker.number, None)  # whoever asked is there no more

    def _leave(self, taker: Taker) -> None:
        """A consumer gets nothing more; what it has it keeps."""
        consumer = taker.consumer
        consumer.parked = False
        del self._takers[consumer], self._by_number[taker.number]
        taker.seat.is_left = True
        self._clear(consumer, taker.seat)

    def _clear(self, holder: Holder, seat: Seat) -> None:
        if seat.is_left and not seat.held:
            del self._seats[holder]

    def _got_too_late(self, number: int) -> BrokerError:
        self._slots.append(self._getting.pop(number)[1])
        self._asking.give_up(number)
        return self._manners.unanswered(Doing.GETTING, self._where)

    def _purged_too_late(self, number: int) -> BrokerError:
        self._asking.give_up(number)
        return self._manners.unanswered(Doing.PURGING, self._where)

    def _attached_too_late(self, number: int) -> BrokerError:
        taker = self._by_number[number]
        self._leave(taker)
        self._asking.detach(number)
        self._port.touch()
        return self._manners.unanswered(Doing.CONSUMING, self._where)

    @property
    def _where(self) -> str:
        return f"queue '{self.name}' in vhost '{self._vhost}'"

    # Messages in hands

    def wake(self, consumer: Consumer) -> None:
        taker = self._takers.get(consumer)
        if taker is not None:
            self._credit(taker)

    def _credit(self, taker: Taker) -> None:
        """Tell the leader how much it may send, if that has changed much."""
        if not taker.is_served:
            return
        limit = taker.wanted()
        if limit is not None:
            taker.limit = limit
            self._port.edge.set_credit(taker.number, limit)
            self._port.touch()

    def settle(self, handout: Handout, start: int, stop: int, outcome: Outcome) -> Settling | None:
        """What is in nobody's hands any more is asked of nobody, and that is said."""
        holder, count = handout.holder, stop - start
        sequences, ordinal = handout.sequences[start:stop], handout.counts.acquired
        handout.release(start, stop)
        if holder.no_ack and isinstance(holder, Consumer):
            return None  # it is gone, sent or not
        seat = self._seats[holder]
        assert seat.key is not None
        tokens = [Token(seat.key, ordinal, run) for run in runs_of(sequences)]
        was_held = self._asking.settle(tokens, outcome)
        self._port.touch()
        seat.held -= count
        holder.settled(count)
        taker = self._by_consumer(holder)
        if taker is not None:
            self._credit(taker)
        else:
            self._clear(holder, seat)
        is_lost = was_held < count and outcome in FINAL and not self._is_over
        return self._settlements.lost() if is_lost else self._settlements.asked()

    @property
    def settling(self) -> Later[None] | None:
        return self._settlements.ask()

    def _unsettled(self) -> BrokerError:
        return self._manners.unanswered(Doing.SETTLING, self._where)

    def _by_consumer(self, holder: Holder) -> Taker | None:
        return self._takers.get(holder) if isinstance(holder, Consumer) else None

    def _handout(self, holder: Holder, deliver: Deliver) -> Handout:
        """Messages are in somebody's hands."""
        contents, runs = deliver.contents, deliver.runs
        if deliver.ordinal and self._manners.tells_counts:
            contents = counted(contents, deliver.ordinal, deliver.failed)
        handout = Handout(
            holder,
            deliver.origins,
            contents,
            runs[0] if len(runs) == 1 else [sequence for run in runs for sequence in run],
            redelivered=deliver.redelivered,
            counts=HandedOut(deliver.ordinal, deliver.failed),
        )
        holder.took(handout)
        return handout

    # What the edge tells

    def hear(self, events: list[Event]) -> None:
        for event in events:
            HEAR[type(event)](self, event)
        self._settlements.look()
        if self.debtors and self._has_room:
            count, self._paid = self._paid, 0
            for debtor in tuple(self.debtors):
                count = debtor.paid(self, count)

    @property
    def _has_room(self) -> bool:
        """Whether publishers that were stopped go on: not for one message each."""
        pending = self._port.edge.pending
        return len(pending) * 2 < OPERATIONS_MAX and pending.content_bytes * 2 < PENDING_BYTES_MAX

    def _on_confirmed(self, event: happened.Confirmed) -> None:
        self._receipts.known(event.first, event.count, is_taken=True)

    def _on_refused(self, event: happened.Refused) -> None:
        self._receipts.known(event.first, event.count, is_taken=False)

    def _on_paid(self, event: happened.Paid) -> None:
        if self.debtors:
            self._paid += event.count

    def _on_attached(self, event: happened.Attached) -> None:
        taker = self._by_number[event.consumer]
        taker.seat.key = event.holder
        self._attaching.answer(event.consumer, None)
        self._credit(taker)

    def _on_not_attached(self, event: happened.NotAttached) -> None:
        self._leave(self._by_number[event.consumer])
        error = AccessRefused(f"{self._where} in exclusive use")
        self._attaching.fail(event.consumer, error)

    def _on_delivered(self, event: happened.Delivered) -> None:
        """Unless the consumer has gone by what was told just before: then it comes back."""
        deliver, taker = event.deliver, self._by_number.get(event.consumer)
        if taker is None:
            self._asking.settle(tokens_of(deliver), Outcome.UNSENT)
            self._port.touch()
            return
        handout = self._handout(taker.consumer, deliver)
        if not taker.consumer.no_ack:
            taker.seat.held += len(handout.contents)
        taker.measure(handout)
        taker.consumer.deliver(handout)
        self._credit(taker)

    def _on_got(self, event: happened.Got) -> None:
        """What a client does not acknowledge is settled once it is on its way to it."""
        holder, slot = self._getting.pop(event.number)
        self._slots.append(slot)
        self._told = self._told._replace(ready=event.ready)
        handout = None
        if event.is_crashed:
            if event.number in self._got:
                crashed = NotFound(f"{self._where} has crashed and failed to restart")
                self._got.fail(event.number, crashed)
            return
        if event.deliver is not None:
            self._seats[holder] = Seat(event.deliver.holder, held=1, is_left=True)
            handout = self._handout(holder, event.deliver)
        self._got.answer(event.number, handout)
        if handout is not None and holder.no_ack and holder in self._seats:
            self.settle(handout, 0, 1, Outcome.ACKED)

    def _on_unanswered(self, event: happened.Unanswered) -> None:
        if event.number in self._purging:
            self._purging.fail(event.number, self._purged_too_late(event.number))
        else:
            self._got.fail(event.number, self._got_too_late(event.number))

    def _on_unsettled(self, _event: happened.Unsettled) -> None:
        self._settlements.failed()

    def _on_purged(self, event: happened.Purged) -> None:
        self._told = self._told._replace(ready=0)
        self._purging.answer(event.number, event.count)

    def _on_cancelled(self, event: happened.Cancelled) -> None:
        """Consumers of a queue that is deleted are told of that by whoever deletes it."""
        taker = self._by_number.get(event.consumer)
        if taker is None:
            return
        is_asked = taker.seat.is_left
        self._leave(taker)
        if event.consumer in self._attaching:
            gone = NotFound(f"no {self._where}")
            error = (
                gone if self._is_over else self._manners.unanswered(Doing.CONSUMING, self._where)
            )
            self._attaching.fail(event.consumer, error)
        elif not (self._is_over or is_asked):
            taker.consumer.sink.cancelled(taker.consumer)

    def end(self) -> None:
        """It is deleted."""
        self._is_over = True
        self._hub.close(self.definition.id)


def pass_over(_queue: EdgeQueue, _event: Event) -> None:
    """What no channel need know: it swallows what a client says of messages that it lost."""


HEAR: Mapping[type[Event], Callable[[EdgeQueue, Any], None]] = {
    happened.Confirmed: EdgeQueue._on_confirmed,
    happened.Refused: EdgeQueue._on_refused,
    happened.Acted: pass_over,
    happened.Attached: EdgeQueue._on_attached,
    happened.NotAttached: EdgeQueue._on_not_attached,
    happened.Purged: EdgeQueue._on_purged,
    happened.Unanswered: EdgeQueue._on_unanswered,
    happened.Unsettled: EdgeQueue._on_unsettled,
    happened.Delivered: EdgeQueue._on_delivered,
    happened.Got: EdgeQueue._on_got,
    happened.Cancelled: EdgeQueue._on_cancelled,
    happened.Revoked: pass_over,
    happened.Misled: pass_over,
    happened.Paid: EdgeQueue._on_paid,
}
