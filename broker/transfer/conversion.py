"""Conversion of a queue: its messages are copied, then the successor takes its place.

    delivers nothing --> nothing unacked --> copied, those first that were delivered before
                                                    |
          another queue <-- one change of definitions, once all are safe there <-- takes nothing

The queue has all of its messages until that change, and the other all of them before it: whatever
ends meanwhile, one of the two is whole, and what is left of the other is deleted.  Both ends, and
nothing else, are what definitions say.  It may be given up at any moment before the change is asked
for; afterwards it is waited for, however long it takes.

Three changes of definitions make it; here they are decided, not done:

    classic --begin--> classic, with a successor --finish--> the successor, under that name
       ^                        |
       +-------- give_up -------+

Before the second the messages are in the one, after it in the other: there is nothing in between.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple, TypeAlias, TypeVar

from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.base.message import Origin
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Kind
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.metadata.nodes import CHANGES_TYPES, Nodes, check_supported
from fluffle.broker.queues.arguments import (
    QUEUE_TYPE,
    Declaration,
    QueueSpec,
    QueueType,
    queue_spec,
)
from fluffle.broker.queues.conversion_buffer import ConversionBuffer, ConversionHold
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import INSTANT_MS, NEVER_MS
from fluffle.broker.queues.journal import QueueDefinition, UnreadableMessages
from fluffle.broker.queues.priority_ready_list import QUORUM_LEVELS
from fluffle.broker.queues.publish_target import EnqueueResult, PublishReceipt
from fluffle.broker.queues.queue_api import (
    Consumer,
    Deferred,
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
    QueueClock,
    QueueCounts,
    QueueHandle,
    SharedCredit,
    TimedOutDeliveries,
)
from fluffle.broker.queues.queue_view import ReadyMessages, StoredMessage, messages_from
from fluffle.broker.queues.settings import Overflow, SettingsFrom
from fluffle.broker.routing.bindings import DestinationKind
from fluffle.broker.routing.exchange import LOCAL_RANDOM, routes_as
from fluffle.broker.runtime.background import Task
from fluffle.broker.runtime.commits import when_safe
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.vhosts.vhost import VirtualHost, existing_queue
from fluffle.protocol.properties import is_persistent, priority_of, raw_properties

AHEAD = 4096
"""Most messages that may come at once."""

PORTION_MESSAGES = 500

PORTION_BYTES = 1 << 20
"""Bytes read in one turn, or one message."""

WINDOW_MESSAGES = 4_000
"""Most messages on their way to the other queue, and a portion."""

SHORT = 1_000
"""Messages that are copied while publishers wait."""

TICK_S = 0.05

PATIENCE_MS = 30_000
"""Time for clients to settle what they hold; and for the other queue to take anything."""

WAITS = "clients hold {} messages of it and have not settled them in time"
STUCK = "the quorum queue has taken nothing for too long"
REFUSED = "the quorum queue does not take all of its messages"
TAKEN = "messages have left it"
ENDED = "it was interrupted"
DELETED = "it is deleted"


# Changes of definitions


MEANINGLESS = frozenset(
    {"x-max-priority", "x-queue-mode", "x-queue-version", "x-queue-master-locator"}
)
"""To a quorum queue: it always has priorities, keeps messages on disk, and is on several nodes."""


def as_quorum(spec: QueueSpec, settings_from: SettingsFrom, vhost: str) -> QueueSpec:
    """Return a classic queue as a quorum queue; PreconditionFailed if it cannot be one.

    An argument that means the same stays; one that a quorum queue has no use for goes; what would
    mean another thing is refused.  `settings_from` gives the settings of the queue that it is and
    of the one that it would be: policies may be for one type.
    """
    where = f"queue '{spec.name}' in vhost '{vhost}'"
    settings = settings_from(vhost, spec)
    for is_so, why in (
        (spec.queue_type is QueueType.QUORUM, "is a quorum queue already"),
        (spec.exclusive, "is exclusive: it ends with its connection, and a quorum queue does not"),
        (spec.auto_delete, "goes with its last consumer, and a quorum queue does not"),
        (not spec.durable, "is transient, and a quorum queue is durable"),
        (
            spec.max_priority is not None and spec.max_priority > QUORUM_LEVELS.highest,
            f"tells {spec.max_priority} priorities apart, and a quorum queue "
            f"{QUORUM_LEVELS.highest}",
        ),
        (
            settings.overflow is Overflow.REJECT_PUBLISH_DLX,
            "dead-letters what it refuses (reject-publish-dlx), and a quorum queue cannot",
        ),
        (
            settings.cache is not None,
            "takes each message once (x-message-deduplication), and as a quorum queue it would not "
            "know those that it has had",
        ),
    ):
        if is_so:
            raise PreconditionFailed(f"{where} {why}")
    arguments = {name: each for name, each in spec.arguments.items() if name not in MEANINGLESS}
    arguments[QUEUE_TYPE] = ("S", QueueType.QUORUM.encode())
    declared = Declaration(spec.name, durable=True, arguments=arguments, guarantee=spec.guarantee)
    quorum = queue_spec(declared, vhost)
    if settings_from(vhost, quorum).cache is not None:
        raise PreconditionFailed(
            f"{where} would take each message once as a quorum queue (x-message-deduplication, by "
            "a policy), and not know those that it has had"
        )
    return quorum


def begin(vhost: VirtualHost, name: str, settings_from: SettingsFrom, nodes: Nodes) -> Change:
    """Begin a conversion.  NotFound, PreconditionFailed."""
    queue = existing_queue(vhost, name)
    before = queue.definition
    spec = as_quorum(queue.spec, settings_from, vhost.name)
    where = f"queue '{name}' in vhost '{vhost.name}'"
    if before.successor is not None:
        raise PreconditionFailed(f"{where} is being changed already")
    if queue.unreachable_error is not None:
        raise queue.unreachable_error
    if queue.damage is not None:
        raise PreconditionFailed(f"{where} has crashed")
    for binding in vhost.topology.bindings_to(DestinationKind.QUEUE, name):
        if routes_as(vhost.topology.require(binding.source).spec) == LOCAL_RANDOM:
            raise PreconditionFailed(
                f"{where} is bound to exchange '{binding.source}', which leads to classic queues "
                "alone"
            )
    known = check_supported(CHANGES_TYPES, nodes)
    boot = nodes[before.home].boot if before.home else 0
    successor = vhost.maker.define(spec, None, vhost.name)._replace(boot=boot)
    change = put(vhost, before._replace(successor=successor))
    return change._replace(rests_on=(*change.rests_on, *known))


def finish(vhost: VirtualHost, name: str, successor: int) -> Change:
    """Finish a conversion whose messages are there; nothing, if it is over in another way."""
    now = changing(vhost, name, successor)
    if now is None or now.successor is None:
        return NOTHING
    return put(vhost, now.successor._replace(boot=0))


def give_up(vhost: VirtualHost, name: str, successor: int) -> Change:
    """Give up a conversion: the queue stays what it is; nothing, if it is over."""
    now = changing(vhost, name, successor)
    return put(vhost, now._replace(successor=None)) if now is not None else NOTHING


def changing(vhost: VirtualHost, name: str, successor: int) -> QueueDefinition | None:
    """Return a queue, while it has this successor."""
    queue = vhost.queues.get(name)
    if queue is None or queue.definition.successor is None:
        return None
    return queue.definition if queue.definition.successor.id == successor else None


def put(vhost: VirtualHost, definition: QueueDefinition) -> Change:
    fact = Fact(Kind.QUEUE, (vhost.name, definition.spec.name), definition)
    return Change(puts=(fact,), rests_on=(fact.name,))


# Copying


class RedeliveredMarker:
    """Consumer of a new queue that gives its messages back, so that `redelivered` does not lie.

    It is a `Sink` and its consumer; no client uses the queue yet.
    """

    __slots__ = ("_consumer", "_handouts", "_queue")

    def __init__(self, queue: QueueHandle) -> None:
        self._queue = queue
        self._handouts: list[DeliveryBatch] = []
        self._consumer = Consumer(
            "fluffle.seen", queue, self, shared=SharedCredit(), timeout_ms=NEVER_MS
        )

    def begin(self) -> Deferred[None] | None:
        return self._queue.attach(self._consumer)

    @property
    def count(self) -> int:
        """Messages that it holds."""
        return sum(len(delivery_batch.contents) for delivery_batch in self._handouts)

    def end(self) -> Deferred[None] | None:
        """Requeue all, in order, as if nothing had been sent."""
        for delivery_batch in self._handouts:
            self._queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.UNSENT)
        self._queue.detach(self._consumer)
        return self._queue.settling

    # A `Sink`

    def room(self, consumer: Consumer) -> int:
        del consumer
        return AHEAD

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        """Contents are forgotten at once."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self._handouts.append(delivery_batch)

    def cancelled(self, consumer: Consumer) -> None:
        """Do nothing: there is nothing left to requeue."""

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        raise AssertionError(f"{consumer.tag} may hold {late} for ever")

    def timed_out(self, consumer: Consumer, lost: TimedOutDeliveries) -> None:
        """Do nothing: they are in the queue again."""

    def activity_changed(self, consumer: Consumer) -> None:
        """Do nothing: this consumer alone is served, always."""


class CopyBatch(NamedTuple):
    """Messages that a queue takes together."""

    origins: list[Origin]
    contents: list[bytes]
    persistent: bool
    expiration_ms: int | None
    """Remaining TTL in ms."""


def portion(stocks: Sequence[ReadyMessages], offset: int) -> list[StoredMessage]:
    """Return messages behind the first `offset`.  Raises `UnreadableMessages`."""
    messages: list[StoredMessage] = []
    size_bytes = 0
    for message in messages_from(stocks, offset):
        messages.append(message)
        size_bytes += len(message.content)
        if len(messages) == PORTION_MESSAGES or size_bytes >= PORTION_BYTES:
            break
    return messages


def first_of(stocks: Sequence[ReadyMessages]) -> int | None:
    """The number of the message that is next; None if there is none."""
    for stock in stocks:
        for run in stock.requeued.batches:
            return run.sequences[run.head]
        for segment in stock.segments:
            return segment.next_sequence
    return None


def runs_of(messages: Sequence[StoredMessage], now_ms: int) -> Iterator[CopyBatch]:
    """Divide messages into runs, in order; what has expired may wait no more.  `now_ms`: in the
    time of the queue."""
    for (_priority, persistent, expires_at_ms), alike in groupby(messages, likeness):
        together = list(alike)
        expiration_ms = None if expires_at_ms == NEVER_MS else max(0, expires_at_ms - now_ms)
        if expires_at_ms == INSTANT_MS:
            expiration_ms = 0
        yield CopyBatch(
            [each.origin for each in together],
            [each.content for each in together],
            persistent,
            expiration_ms,
        )


def likeness(message: StoredMessage) -> tuple[int | None, bool, int]:
    content = message.content
    return (
        priority_of(content),
        is_persistent(raw_properties(content)),
        message.expires_at_ms,
    )


T = TypeVar("T")

Steps: TypeAlias = Generator[bool, None, T]
"""Each ends where something has to be waited for, or with `SOON`: others are to have their turn."""

SOON, LATER = True, False


class Conversion:
    """Conversion of a queue in this process, which takes and delivers nothing meanwhile.

    `look` is to be called whenever its definition has changed.
    """

    def __init__(
        self,
        vhost: VirtualHost,
        queue: Queue,
        *,
        runtime: Runtime,
        time: QueueClock,
        metadata: Metadata,
        on_end: Callable[[Conversion], None],
    ) -> None:
        successor = queue.definition.successor
        assert successor is not None
        self._vhost = vhost
        self._queue = queue
        self._target = vhost.successors[queue.name]
        self.successor = successor.id
        """The id of the other queue."""
        self._runtime, self._time, self._metadata = runtime, time, metadata
        self._on_end = on_end
        self._pause = queue.pause = ConversionHold(f"queue '{queue.name}' in vhost '{vhost.name}'")
        self._first: int | None = None
        """The number of the message that is next in the queue, and stays so."""
        self._unconfirmed = 0
        """Messages that are on their way to the other queue, and not known to be safe there."""
        self._last_ms = time.now_ms()
        """When it got on."""
        self._is_proposed = False
        """True if the change that ends it is asked for."""
        self._is_scheduled = False
        self.why: str | None = None
        """Reason of the failure, or None."""
        self._work = self._works()

    @property
    def key(self) -> tuple[str, str]:
        return self._vhost.name, self._queue.name

    @property
    def is_over(self) -> bool:
        return self._queue.pause is not self._pause

    def look(self) -> None:
        """Compare with the definitions, and end if they no longer ask for this conversion."""
        if self.is_over:
            return
        vhost, queue, standstill = self._vhost, self._queue, self._pause.standstill
        successor = queue.definition.successor
        if vhost.has(queue) and successor is not None and successor.id == self.successor:
            return
        queue.pause = None
        if not vhost.has(self._target):
            self.why = self.why or (ENDED if vhost.has(queue) else DELETED)
        if vhost.has(queue):
            vhost.redirect(queue.name, None)
            self._runtime.turn.touch_queue(queue)
        if standstill is not None and self.why is None:
            standstill.pass_on(self._target)
        elif standstill is not None:
            standstill.give_back(queue)  # or nowhere, if it is deleted
        self._on_end(self)

    def give_up(self, why: str) -> None:
        """Give up, unless it is too late for that."""
        if not (self._is_proposed or self.is_over):
            self._is_proposed = True
            self.why = why
            self._settle(give_up)

    def _settle(self, decide: Callable[[VirtualHost, str, int], Change]) -> None:
        """Have a change made, and `look`; the catalogue notifies whatever asked for anything
        else."""
        decided = partial(decide, self._vhost, self._queue.name, self.successor)
        self._metadata.ensure(decided, self.look)

    # To go on

    def begin(self) -> None:
        self._tick()

    def _tick(self) -> None:
        self.look()
        if self.is_over:
            return
        self._runtime.call_later(TICK_S, self._tick)
        if self._time.now_ms() - self._last_ms >= PATIENCE_MS:
            held = self._queue.in_flight
            self.give_up(WAITS.format(held) if held else STUCK)
        self._wake()

    def _wake(self) -> None:
        if not (self._is_scheduled or self._is_proposed):
            self._is_scheduled = True
            self._runtime.background_tasks.add(
                self._piece(), lambda error: self.give_up(repr(error))
            )

    def _piece(self) -> Task:
        self._is_scheduled = False
        self.look()
        if not (self.is_over or self._is_proposed):
            try:
                if next(self._work, LATER):
                    self._wake()
            except (UnreadableMessages, BrokerError) as error:
                self.give_up(str(error))
        yield None

    # What is done, in steps: each yields where something has to be waited for

    def _works(self) -> Steps[None]:
        queue = self._queue
        while queue.in_flight:
            yield LATER
        self._got_on()
        self._first = first_of(queue.ready_view.stocks)
        if self._is_spread:  # what comes in does not come behind all others
            self._hold()
        seen = yield from self._copy_seen()
        if seen:
            yield from self._mark_seen(seen)
        yield from self._copy_rest(0 if self._is_spread else seen)
        if self._is_as_it_was():
            self._is_proposed = self._pause.is_decided = True
            self._settle(finish)

    @property
    def _is_spread(self) -> bool:
        """True if it has priorities, so that those seen before are not in front of all others."""
        return self._queue.spec.max_priority is not None

    def _hold(self) -> None:
        """Hold what comes in from now on in a buffer."""
        standstill = ConversionBuffer(self._queue, partial(when_safe, self._runtime.commits))
        self._pause.standstill = standstill
        self._vhost.redirect(self._queue.name, standstill)

    def _copy_seen(self) -> Steps[int]:
        """Copy the messages that were delivered before; return how many they are."""
        offset = seen_count = 0
        while messages := self._portion(offset):
            seen = [message for message in messages if message.redelivered]
            offset, seen_count = offset + len(messages), seen_count + len(seen)
            self._put(seen)
            if len(seen) < len(messages) and not self._is_spread:
                break
            yield from self._room()
        return seen_count

    def _mark_seen(self, count: int) -> Steps[None]:
        """Mark messages as delivered before: deliver them to a consumer that requeues them.

        Those that have expired meanwhile have not been.
        """
        yield from self._safe()
        seeing = RedeliveredMarker(self._target)
        yield from self._answered(seeing.begin())
        while seeing.count < count:
            before = seeing.count
            queue_counts = yield from self._answered(self._target.queue_counts)
            if (
                isinstance(queue_counts, QueueCounts)
                and not queue_counts.ready
                and queue_counts.unacked == seeing.count
            ):
                break
            if seeing.count > before:
                self._got_on()
            yield LATER
        yield from self._answered(seeing.end())

    def _copy_rest(self, offset: int) -> Steps[None]:
        """Copy all others, and what comes in meanwhile as long as that is allowed."""
        goal = 2 * self._queue.ready_count
        while True:
            left = self._queue.ready_count - offset
            if self._pause.standstill is None and (left <= SHORT or offset > goal):
                self._hold()
            messages = self._portion(offset)
            if not messages:
                break
            offset += len(messages)
            self._put([each for each in messages if not (self._is_spread and each.redelivered)])
            yield from self._room()
        yield from self._safe()

    def _portion(self, offset: int) -> list[StoredMessage]:
        """Raises `UnreadableMessages`."""
        return portion(self._queue.ready_view.stocks, offset) if self._is_as_it_was() else []

    def _is_as_it_was(self) -> bool:
        """True if nothing has left it: else it is given up, for too much has been copied."""
        first = first_of(self._queue.ready_view.stocks)
        if self._first is None:
            self._first = first
        if first != self._first:
            self.give_up(TAKEN)
        return first == self._first

    def _put(self, messages: list[StoredMessage]) -> None:
        """Put messages into the other queue."""
        for run in runs_of(messages, self._time.now_ms()):
            count = len(run.contents)
            result = self._target.enqueue(
                run.origins,
                run.contents,
                sum(map(len, run.contents)),
                persistent=run.persistent,
                expiration_ms=run.expiration_ms,
            )
            if isinstance(result, PublishReceipt):
                self._unconfirmed += count
                result.then(self._on_outcome)
            elif result is EnqueueResult.REJECTED:
                self.give_up(REFUSED)

    def _on_outcome(self, start: int, stop: int, *, is_accepted: bool) -> None:
        self._unconfirmed -= stop - start
        self._got_on()
        if not is_accepted:
            self.give_up(REFUSED)
        self._wake()

    def _got_on(self) -> None:
        self._last_ms = self._time.now_ms()

    def _room(self) -> Steps[None]:
        """Let others have their turn, and no more be on its way than may be."""
        yield SOON
        while self._unconfirmed >= WINDOW_MESSAGES or self._target.is_full:
            yield LATER

    def _safe(self) -> Steps[None]:
        while self._unconfirmed:
            yield LATER

    def _answered(self, later: object) -> Steps[object]:
        """Raises the error that comes in the place of an answer."""
        if not isinstance(later, Deferred):
            return later
        answers: list[object] = []
        errors: list[BrokerError] = []
        later.then(partial(self._note, answers), partial(self._note, errors))
        while not (answers or errors):
            yield LATER
        for error in errors:
            raise error
        return answers[0]

    def _note(self, noted: list[T], answer: T) -> None:
        noted.append(answer)
        self._wake()
