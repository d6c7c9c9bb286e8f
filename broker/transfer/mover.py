"""Messages go from one queue to another, and none is lost on the way.

    got from the source --> published to the target --> safe there --> acknowledged at the source
            |                                             |
            +---- not meant: held until the end           +---- not taken: goes back, and it is over
                  goes back to where it was

Each message is in one of the two queues at any moment, or in both: after a crash the source has
what was not acknowledged, so some may be there twice.  At most what was ready in the beginning is
taken, so that what comes back by itself does not go round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import NamedTuple

from fluffle.broker.base.errors import BrokerError, SyntaxFailure
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.publish_target import EnqueueResult, PartialResult, PublishReceipt
from fluffle.broker.queues.queue_api import (
    Deferred,
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
    QueueHandle,
    TimedOutDeliveries,
)
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.topic import TopicMatcher
from fluffle.broker.runtime.background import Task
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.transfer.republish import current_queue, lifetime_ms
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import (
    FLAG_HEADERS,
    decode_properties,
    is_persistent,
    property_flags,
    raw_properties,
)
from fluffle.protocol.wire import FieldValue


class Selection:
    """Condition on messages to be moved; every message meets an empty one."""

    def __init__(self, headers: Iterable[str] = (), routing_key: str | None = None) -> None:
        """`headers`: `name=value`; `routing_key`: as a binding of a topic exchange has it.

        SyntaxFailure; PreconditionFailed.
        """
        self._headers = dict(map(read_header, headers))
        self._keys = TopicMatcher()
        if routing_key is not None:
            binding = Binding("", "", DestinationKind.QUEUE, routing_key)
            self._keys.check(binding)
            self._keys.add(binding)

    @property
    def is_of_all(self) -> bool:
        return not (self._headers or len(self._keys))

    def takes(self, routing_key: str, raw_properties: bytes) -> bool:
        """True if a message is meant."""
        matching = chain.from_iterable(self._keys.search((routing_key,), None))
        if len(self._keys) and not any(matching):
            return False
        if not self._headers:
            return True
        if not property_flags(raw_properties) & FLAG_HEADERS:
            return False
        found = decode_properties(raw_properties).headers or {}
        return all(
            name in found and text_of(found[name][1]) == value
            for name, value in self._headers.items()
        )


def read_header(text: str) -> tuple[str, str]:
    """Parse `name=value`.  SyntaxFailure."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise SyntaxFailure(f"'{text}' is no header; write name=value")
    return name, value


def text_of(value: FieldValue) -> str | None:
    """Return a value as it would be typed; None for what is more than a word."""
    match value:
        case bytes():
            return value.decode(errors="surrogateescape")
        case bool():
            return "true" if value else "false"
        case int() | float() | str():
            return str(value)
    return None


WINDOW_MESSAGES = 128
WINDOW_BYTES = 4 << 20
"""So much is on its way between the queues; of one message at least, and of those that were asked
for it is taken that they are as large as the others."""

HELD_MESSAGES_MAX = 50_000
HELD_BYTES_MAX = 64 << 20
"""Messages that are not meant are held until the last behind them that is has been taken: a move
that would hold more ends."""

REST_S = 0.02
"""A move that is ahead of the rate looks again after this, or when the next message may go."""

TICK_S = 1.0
PATIENCE_MS = 30_000
"""A target that has taken nothing for so long takes nothing."""

INTERRUPTED = "it was interrupted"


class MovePlan(NamedTuple):
    """Plan of a move: which messages, and how fast."""

    selection: Selection
    quota: int
    """How many messages are looked at, at most."""
    limit: int | None = None
    """How many are moved."""
    rate: int | None = None
    """How many in a second."""


class MoveGetter:
    """Holder of one message that is moved."""

    no_ack = False
    timeout_ms = NEVER_MS

    def __init__(self, queue: QueueHandle) -> None:
        self.queue = queue

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        raise AssertionError("nothing comes that is not asked for")

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Do nothing: the window limits it."""

    def settled(self, count: int) -> None:
        """Do nothing: no delivery waits for room."""

    def overdue(self, late: OverdueDeliveries) -> None:
        raise AssertionError(f"{late} may be held for ever")

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        """Drop messages that the queue's leader, elsewhere, has timed out: they are there still,
        and may be moved again."""


class MovedMessage(NamedTuple):
    """A message in hands."""

    delivery_batch: DeliveryBatch
    origin: Origin
    content: bytes


class MoveCommit:
    """Messages that are safe with a commit."""

    def __init__(self, taken: list[DeliveryBatch], safe: Callable[[DeliveryBatch], None]) -> None:
        self._taken = taken
        self._safe = safe

    def on_durable(self, ticket: int) -> None:
        del ticket
        for delivery_batch in self._taken:
            self._safe(delivery_batch)


class Mover:
    """Mover of messages from one queue to another."""

    def __init__(
        self,
        vhost: VirtualHost,
        source: QueueHandle,
        target: QueueHandle,
        plan: MovePlan,
        runtime: Runtime,
    ) -> None:
        self._vhost = vhost
        self._source = source
        self._target = target
        self._plan = plan
        self._runtime = runtime
        self._began_ms = self._last_ms = runtime.clock.now_ms()
        self._requested = 0
        """Gets that have no answer yet."""
        self._arrived: list[MovedMessage] = []
        """Messages for which the selection was not checked yet."""
        self._unconfirmed: dict[DeliveryBatch, int] = {}
        """Published, and not known to be safe; with their sizes."""
        self._recorded: list[DeliveryBatch] = []
        """Messages that are part of the commit that collects."""
        self._results: list[tuple[DeliveryBatch, bool]] = []
        """Results that are known: whether the messages are safe."""
        self._held: list[DeliveryBatch] = []
        """Hand-outs that go back in the end."""
        self._held_bytes = self._mean_bytes = 0
        self._is_empty = self._is_stopping = self._is_scheduled = False
        self._is_ending = False
        """True if all has been given back or acknowledged."""
        self._is_resting = False
        """True if it is ahead of its rate; a timer runs."""
        self._news: Deferred[None] | None = None
        self.moved = self.looked_at = 0
        self.is_over = False
        self.why: str | None = None
        """Reason of an early end, or None."""

    # For listings

    def begin(self) -> None:
        self._wake()
        self._runtime.clients_call_later(TICK_S, self._tick)

    def stop(self, why: str) -> None:
        """Take nothing more, and give back what is not on its way.  Nothing, if it is over."""
        if not (self._is_stopping or self._is_ending):
            self._is_stopping = True
            self.why = why
            self._wake()

    @property
    def held(self) -> int:
        """Messages that were looked at and not moved."""
        return len(self._held)

    def news(self) -> Deferred[None]:
        """Wait for progress, or for the end.  It is not over, and no other caller waits."""
        self._news = Deferred()
        return self._news

    def _report_progress(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.answer(None)

    def _tick(self) -> None:
        if not (self.is_over or self._vhost.has(self._source)):
            self._end_without_source()
        if self.is_over:
            return
        self._runtime.clients_call_later(TICK_S, self._tick)
        if self._unconfirmed and self._runtime.clock.now_ms() - self._last_ms >= PATIENCE_MS:
            self._held += self._unconfirmed
            self._unconfirmed.clear()
            self.stop(
                f"{self._where(self._target)} has taken nothing for {PATIENCE_MS // 1000} s; what "
                "was on its way is in the other queue, and may come to this one yet"
            )
        self._report_progress()

    def _where(self, queue: QueueHandle) -> str:
        return f"queue '{queue.name}' in vhost '{self._vhost.name}'"

    # What happens

    def _got(self, delivery_batch: DeliveryBatch | None) -> None:
        """Take the source's answer; a delivery is there for this moment only."""
        self._requested -= 1
        self._take_in(delivery_batch)
        self._wake()

    def _take_in(self, delivery_batch: DeliveryBatch | None) -> None:
        if delivery_batch is None:
            self._is_empty = True
            return
        content = delivery_batch.contents[0]
        self._mean_bytes = (
            (self._mean_bytes + len(content)) // 2 if self._mean_bytes else len(content)
        )
        self._arrived.append(MovedMessage(delivery_batch, delivery_batch.origins[0], content))

    def _not_got(self, error: BrokerError) -> None:
        self._requested -= 1
        self.stop(error.explanation)
        self._wake()

    def _on_outcome(
        self, delivery_batch: DeliveryBatch, _start: int, _stop: int, *, is_accepted: bool
    ) -> None:
        self._know(delivery_batch, is_accepted=is_accepted)

    def _safe(self, delivery_batch: DeliveryBatch) -> None:
        self._know(delivery_batch, is_accepted=True)

    def _know(self, delivery_batch: DeliveryBatch, *, is_accepted: bool) -> None:
        self._results.append((delivery_batch, is_accepted))
        self._wake()

    # What is done

    def _wake(self) -> None:
        """Go on in a turn of the node."""
        if not (self._is_scheduled or self._is_ending):
            self._is_scheduled = True
            self._runtime.background_tasks.add(self._piece(), self._failed)

    def _piece(self) -> Task:
        self._is_scheduled = False
        if not self._is_ending:
            self._step()
        yield None

    def _failed(self, error: Exception) -> None:
        """Note a bug: what is unsettled stays so until the node ends."""
        self.why = f"the node has made a mistake: {error!r}"
        self._end()

    def _step(self) -> None:
        if not self._vhost.has(self._source):
            self._end_without_source()
            return
        self._settle()
        self._pass_on()
        if not self._is_stopping:
            self._take()
            self._pass_on()
        if self._recorded:
            waiting, self._recorded = MoveCommit(self._recorded, self._safe), []
            self._runtime.commits.wait(waiting, self._runtime.commits.ticket)
        is_busy = self._requested or self._arrived or self._unconfirmed or self._results
        if is_busy:
            return
        if self._is_stopping or self._has_all:
            self._give_back()
        elif not self._is_resting:
            self._wake()

    def _settle(self) -> None:
        """Acknowledge what is safe, unless the target is gone with it."""
        results, self._results = self._results, []
        for delivery_batch, is_accepted in results:
            if self._unconfirmed.pop(delivery_batch, None) is None:
                continue  # it was waited for too long
            is_there = current_queue(self._vhost, self._target) is not None
            if is_accepted and is_there:
                self._last_ms = self._runtime.clock.now_ms()
                self._source.settle(delivery_batch, 0, 1, Outcome.ACKED)
                self.moved += 1
                continue
            self._held.append(delivery_batch)
            self.stop(
                f"{self._where(self._target)} does not take what is published to it"
                if is_there
                else f"{self._where(self._target)} is gone"
            )

    def _pass_on(self) -> None:
        """Publish the messages that are selected."""
        arrived, self._arrived = self._arrived, []
        for taken in arrived:
            delivery_batch, origin, content = taken
            raw = raw_properties(content)
            self.looked_at += 1
            if self._is_stopping or not self._plan.selection.takes(origin.routing_key, raw):
                self._held.append(delivery_batch)
                self._held_bytes += len(content)
            else:
                self._publish(taken, raw)

    def _publish(self, taken: MovedMessage, raw: bytes) -> None:
        delivery_batch, origin, content = taken
        if not self._unconfirmed:
            self._last_ms = self._runtime.clock.now_ms()
        self._unconfirmed[delivery_batch] = len(content)
        target = current_queue(self._vhost, self._target) or self._target
        result = target.enqueue(
            [origin],
            [content],
            len(content),
            persistent=is_persistent(raw),
            expiration_ms=lifetime_ms(decode_properties(raw)),
        )
        if isinstance(result, PublishReceipt):
            result.then(partial(self._on_outcome, delivery_batch))
            return
        if isinstance(result, PartialResult):  # a duplicate, which the target has had before
            result = result.accepted
        if result is EnqueueResult.RECORDED:
            self._recorded.append(delivery_batch)
        else:
            self._know(delivery_batch, is_accepted=result is EnqueueResult.ACCEPTED)

    # What is taken

    @property
    def _has_all(self) -> bool:
        """True if nothing more is to be taken."""
        is_enough = self._plan.limit is not None and self.moved >= self._plan.limit
        return is_enough or self._is_empty or self.looked_at >= self._plan.quota

    def _take(self) -> None:
        """Ask for as many as may be on their way."""
        while not self._is_empty and (room := self._room()) > 0:
            if len(self._held) >= HELD_MESSAGES_MAX or self._held_bytes >= HELD_BYTES_MAX:
                self.stop(
                    f"{len(self._held)} messages in front of {self._where(self._source)} are not "
                    "meant, and no more can be held"
                )
                return
            for _ in range(room):
                got = self._source.get(MoveGetter(self._source))
                if isinstance(got, Deferred):
                    self._requested += 1
                    got.then(self._got, self._not_got)
                else:
                    self._take_in(got)
                if got is None:
                    break
            if self._arrived:
                return
        if self._source.damage is not None:
            self.stop(f"{self._where(self._source)} has crashed")

    def _room(self) -> int:
        """Return how many messages may be requested now."""
        not_looked_at = self._requested + len(self._arrived)
        under_way = not_looked_at + len(self._unconfirmed)
        window = WINDOW_MESSAGES
        if self._mean_bytes:
            window = max(1, min(window, WINDOW_BYTES // self._mean_bytes))
        room = min(window - under_way, self._plan.quota - self.looked_at - not_looked_at)
        sent = self.moved + under_way
        if self._plan.limit is not None:
            room = min(room, self._plan.limit - sent)
        if self._plan.rate is not None and room > 0:
            room = min(room, self._plan.rate * self._lasted_ms // 1000 - sent)
            if room <= 0 and not self._is_resting:
                self._is_resting = True
                self._runtime.clients_call_later(max(REST_S, 1 / self._plan.rate), self._rested)
        return room

    @property
    def _lasted_ms(self) -> int:
        return self._runtime.clock.now_ms() - self._began_ms

    def _rested(self) -> None:
        self._is_resting = False
        self._wake()

    # The end

    def _give_back(self) -> None:
        """Requeue what was not moved, in the order in which it was."""
        self._is_ending = True
        self._held.sort(key=lambda delivery_batch: delivery_batch.sequences[0])
        for delivery_batch in self._held:
            self._source.settle(delivery_batch, 0, 1, Outcome.UNSENT)
        settling = self._source.settling
        if settling is None:
            self._end()
        else:
            settling.then(lambda _none: self._end(), self._unsettled)

    def _unsettled(self, error: BrokerError) -> None:
        self.why = f"what was moved may be in both queues: {error.explanation}"
        self._end()

    def _end_without_source(self) -> None:
        """End since the source is deleted, with all that is unsettled; requests to it may never be
        answered."""
        self.why = self.why or f"{self._where(self._source)} is gone"
        self._end()

    def _end(self) -> None:
        self._is_ending = self.is_over = True
        self._report_progress()
