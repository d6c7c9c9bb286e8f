"""A queue as the rest of a node sees it, wherever it is led.

The engine's `Queue` answers at once.  One that is led elsewhere has to ask: where the return type
allows it, it gives a `Deferred`, which is answered or fails some turns afterwards, within a bounded
time.  So whoever can only meet the engine's may go on without looking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes

if TYPE_CHECKING:
    from fluffle.broker.queues.consumers import Consumer
    from fluffle.broker.queues.delivery import DeliveryBatch, Holder, Outcome
    from fluffle.broker.queues.journal import Damage, Owner, QueueDefinition

T = TypeVar("T")


class EnqueueResult(Enum):
    """Result of publishing a run of messages to a queue of this node: the same for all of them."""

    ACCEPTED = auto()
    """They are in the queue."""
    RECORDED = auto()
    """They are in the queue, and safe once the commit that collects has been done."""
    REFUSED = auto()
    """They are not, and the publisher must know."""


class PartialResult:
    """Result of publishing a run of messages of which a queue of this node takes some."""

    __slots__ = ("count", "duplicates", "refused", "taken")

    def __init__(
        self,
        count: int,
        taken: EnqueueResult,
        refused: list[tuple[int, int]],
        duplicates: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.count = count
        self.taken = taken
        """Of all others: `ACCEPTED` or `RECORDED`."""
        self.refused = refused
        """Which are not in the queue: from where to where, rising."""
        self.duplicates = duplicates
        """Which are not either, for the queue has had them before: they count as taken."""

    def then(self, tell: OnPublishResult) -> None:
        """Tell of each at once, as a `PublishReceipt` does later."""
        for start, stop, is_taken in taken_spans(self, self.count):
            tell(start, stop, is_taken=is_taken)


class MessageResult(Enum):
    """Result of publishing some messages of a run."""

    TAKEN = auto()
    REFUSED = auto()
    DUPLICATE = auto()
    """They are dropped, for the queue has had them before."""


def results_of(
    fate: EnqueueResult | PartialResult, count: int
) -> list[tuple[int, int, MessageResult]]:
    """From where to where the same becomes of messages, in order."""
    if not isinstance(fate, PartialResult):
        return [
            (
                0,
                count,
                MessageResult.REFUSED if fate is EnqueueResult.REFUSED else MessageResult.TAKEN,
            )
        ]
    others = [(*span, MessageResult.REFUSED) for span in fate.refused]
    if fate.duplicates:
        others += [(*span, MessageResult.DUPLICATE) for span in fate.duplicates]
        others.sort(key=itemgetter(0))
    parts, at = [], 0
    for start, stop, part in others:
        parts += [(at, start, MessageResult.TAKEN), (start, stop, part)]
        at = stop
    parts.append((at, count, MessageResult.TAKEN))
    return [(start, stop, part) for start, stop, part in parts if start < stop]


def taken_spans(fate: EnqueueResult | PartialResult, count: int) -> list[tuple[int, int, bool]]:
    """From where to where messages are taken, or not, in order."""
    parts = results_of(fate, count)
    return [(start, stop, part is not MessageResult.REFUSED) for start, stop, part in parts]


class BlockedPublisher(Protocol):
    """A publisher that waits until the queue has handed out what it put in."""

    def paid(self, queue: PublishTarget, count: int) -> int:
        """Take what it owes of `count` messages that left `queue`; how many are left of them."""


def release_publishers(queue: QueueHandle, count: int) -> None:
    """Tell the publishers that wait for it, in turn, that `count` messages have left."""
    for debtor in tuple(queue.blocked_publishers):
        count = debtor.paid(queue, count)
        if not count:
            break


class QueueCounts(NamedTuple):
    """Counts of the messages and the consumers of a queue."""

    ready: int
    unacked: int
    consumers: int
    apart: int = 0
    """Messages that wait to be ready again, and those that have died and must arrive elsewhere."""


class PeekRequest(NamedTuple):
    """Which of the ready messages somebody wants to see, and how much of each."""

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
    """Its beginning."""
    size_bytes: int
    """Of the whole body."""
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


class OnPublishResult(Protocol):
    """Hears of the messages of a run from `start` up to `stop`, of each once."""

    def __call__(self, start: int, stop: int, *, is_taken: bool) -> None: ...


class PublishReceipt:
    """Messages of a run that a queue elsewhere was asked to take.

    It says of each whether it has, or of several together, once that is known: a leader may have to
    be found first, and what nobody can tell counts as not taken.
    """

    __slots__ = ("_early", "_tell", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self._early: list[tuple[int, int, bool]] | None = None
        """Outcomes that became known before `then`: from where to where, and whether they were
        taken."""
        self._tell: OnPublishResult | None = None

    def then(self, tell: OnPublishResult) -> None:
        """Have `tell` called with each outcome; with those that are known already, at once.

        No outcome is known before the call that gave this receipt returns.  A message for thousands
        of queues is put in over several turns, so that some are known before this is called.
        """
        self._tell = tell
        early, self._early = self._early, None
        for start, stop, is_taken in early or ():
            tell(start, stop, is_taken=is_taken)

    def known(self, start: int, stop: int, *, is_taken: bool) -> None:
        """These messages are in the queue and safe, or they are not."""
        if self._tell is not None:
            self._tell(start, stop, is_taken=is_taken)
            return
        if self._early is None:
            self._early = []
        self._early.append((start, stop, is_taken))  # mutant: PU1


class Deferred(Generic[T]):
    """An answer that has yet to come, or the error that comes in its place."""

    __slots__ = ("_answered", "_failed")

    def __init__(self) -> None:
        self._answered: Callable[[T], None] | None = None
        self._failed: Callable[[BrokerError], None] | None = None

    def then(self, answered: Callable[[T], None], failed: Callable[[BrokerError], None]) -> None:
        """Whom to tell: one of the two, once.  Nothing is told before the call that gave this
        has returned."""
        self._answered, self._failed = answered, failed

    def answer(self, value: T) -> None:
        """It is there."""
        assert self._answered is not None, "nobody waits, or has been told"
        answered, self._answered = self._answered, None
        answered(value)

    def fail(self, error: BrokerError) -> None:
        """It will not come."""
        assert self._answered is not None, "nobody waits, or has been told"
        assert self._failed is not None
        self._answered = None
        self._failed(error)


@dataclass(slots=True, eq=False)
class SettlementStatus:
    """Status of the settlements that clients asked of a remote queue, between two moments when all
    was known."""

    error: BrokerError | None = None
    """Some of it has not come true, and never will: what was acknowledged may come again."""


class DeadLetterIds(NamedTuple):
    """Dead letters of a quorum queue that must arrive, as it knows them: one that comes again is
    not taken again, whoever leads that queue by then."""

    source: int
    """Its group."""
    term: int
    """In which it is led.  Who leads in a later one is believed, and nobody before it any more."""
    below: int
    """None of those below is kept there as dead."""
    settled: list[int]
    """These are not kept any more, either."""
    sequences: list[int]
    """Its numbers of the messages, one for each."""

    def part(self, start: int, stop: int) -> DeadLetterIds:
        """Of some of them, which go in parts: the first says what is settled."""
        settled = [] if start else self.settled
        return self._replace(settled=settled, sequences=self.sequences[start:stop])

    def after(self, count: int) -> DeadLetterIds:
        """Of those that are left when so many at the front are known."""
        return self._replace(sequences=self.sequences[count:])


class PublishTarget(Protocol):
    """Where messages go: a queue, or a requester of direct reply-to."""

    blocked_publishers: list[BlockedPublisher]

    @property
    def name(self) -> str: ...

    @property
    def is_behind(self) -> bool:
        """Whether who publishes should wait."""

    @property
    def is_full(self) -> bool:
        """Whether he must, until it tells its debtors."""

    def enqueue(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes = None,
    ) -> EnqueueResult | PartialResult | PublishReceipt:
        """Add messages at the end, which all name a priority or do not.  The caller may keep the
        lists, and must not change them.

        `expiration_ms`: for how long they may wait at most.
        """


class EnqueueFunction(Protocol):
    """Function with the signature of `PublishTarget.enqueue`."""

    def __call__(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes = None,
    ) -> EnqueueResult | PartialResult | PublishReceipt: ...


class Enqueue(Protocol):
    """The `enqueue` of a queue that is led here, or what calls it with less."""

    def __call__(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes,
    ) -> EnqueueResult | PartialResult: ...


@runtime_checkable
class AcceptsDeadLetters(Protocol):
    """A queue that others may lead."""

    def post(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes = None,
        posted: DeadLetterIds | None = None,
        counts: Counts = NEW,
    ) -> EnqueueResult | PublishReceipt:
        """`enqueue` dead letters, which bring along such counts."""


class QueueTarget(PublishTarget, Protocol):
    """A queue, or what takes messages in its place."""

    @property
    def definition(self) -> QueueDefinition:
        """Of the queue."""


def enqueue_again(
    target: QueueTarget, posted: DeadLetterIds | None, counts: Counts
) -> EnqueueFunction:
    """How messages that were for another queue get into this one: those with numbers or counts keep
    them, if it is one that knows them."""
    if (posted is not None or counts is not NEW) and isinstance(target, AcceptsDeadLetters):
        return partial(target.post, posted=posted, counts=counts)
    return target.enqueue


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
        """What it is, for those who have to remember."""

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
        """As far as this node knows."""

    @property
    def consumers(self) -> tuple[Consumer, ...]:
        """Those of this node."""

    @property
    def is_unused(self) -> bool:
        """Whether it is for this node to say that it has no consumer, and it has none."""

    @property
    def unreachable_error(self) -> BrokerError | None:
        """What is said to who asks something of it, while it lives on a node that is away."""

    @property
    def in_exclusive_use(self) -> bool:
        """Whether it is known here that its consumer is exclusive, and so the only one."""

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
        """What is said to who needs the counts, if nobody has told them when asked for last."""

    @property
    def local_counts(self) -> QueueCounts | None:
        """How it is, if this node leads it: who adds up what nodes say counts each once."""

    def get(self, holder: Holder) -> DeliveryBatch | Deferred[DeliveryBatch | None] | None:
        """Hand out the next message to `holder` (basic.get), if there is one."""

    def settle(
        self, delivery_batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> SettlementStatus | None:
        """The messages `start` to `stop` of a run are in nobody's hands any more.

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
