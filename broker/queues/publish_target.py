"""Targets of publishes, and what becomes of the messages there.

A queue of this node answers at once, with an `EnqueueResult` or a `PartialResult`.  One that is led
elsewhere gives a `PublishReceipt`, which says of each message later whether it was taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from functools import partial
from operator import itemgetter
from typing import NamedTuple, Protocol, runtime_checkable

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.journal import QueueDefinition


class EnqueueResult(Enum):
    """Result of publishing a run of messages to a queue of this node: the same for all of them."""

    ACCEPTED = auto()
    """The messages are in the queue."""
    RECORDED = auto()
    """The messages are in the queue, and safe once the commit that collects has been done."""
    REJECTED = auto()
    """The messages are not in the queue, and the publisher must know."""


class PartialResult:
    """Result of publishing a run of messages of which a queue of this node takes some."""

    __slots__ = ("accepted", "count", "duplicates", "rejected")

    def __init__(
        self,
        count: int,
        accepted: EnqueueResult,
        rejected: list[tuple[int, int]],
        duplicates: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.count = count
        self.accepted = accepted
        """Result of all other messages: `ACCEPTED` or `RECORDED`."""
        self.rejected = rejected
        """Rejected messages, as rising ranges of places."""
        self.duplicates = duplicates
        """Duplicates, as rising ranges of places: dropped, and confirmed as taken."""

    def then(self, on_result: OnPublishResult) -> None:
        """Call `on_result` for each message at once, as a `PublishReceipt` does later."""
        for start, stop, is_accepted in accepted_spans(self, self.count):
            on_result(start, stop, is_accepted=is_accepted)


class MessageResult(Enum):
    """Result of publishing some messages of a run."""

    ACCEPTED = auto()
    REJECTED = auto()
    DUPLICATE = auto()
    """The messages are dropped, for the queue has had them before."""


def results_of(
    result: EnqueueResult | PartialResult, count: int
) -> list[tuple[int, int, MessageResult]]:
    """From where to where the same becomes of messages, in order."""
    if not isinstance(result, PartialResult):
        return [
            (
                0,
                count,
                MessageResult.REJECTED
                if result is EnqueueResult.REJECTED
                else MessageResult.ACCEPTED,
            )
        ]
    others = [(*span, MessageResult.REJECTED) for span in result.rejected]
    if result.duplicates:
        others += [(*span, MessageResult.DUPLICATE) for span in result.duplicates]
        others.sort(key=itemgetter(0))
    parts, at = [], 0
    for start, stop, part in others:
        parts += [(at, start, MessageResult.ACCEPTED), (start, stop, part)]
        at = stop
    parts.append((at, count, MessageResult.ACCEPTED))
    return [(start, stop, part) for start, stop, part in parts if start < stop]


def accepted_spans(
    result: EnqueueResult | PartialResult, count: int
) -> list[tuple[int, int, bool]]:
    """From where to where messages are taken, or not, in order."""
    parts = results_of(result, count)
    return [(start, stop, part is not MessageResult.REJECTED) for start, stop, part in parts]


class BlockedPublisher(Protocol):
    """A publisher that waits until the queue has handed out what it put in."""

    def paid(self, queue: BackloggedTarget, count: int) -> int:
        """Take what it owes of `count` messages that left `queue`; how many are left of them."""


def release_publishers(queue: BackloggedTarget, count: int) -> None:
    """Call the waiting publishers, in turn, when `count` messages have left."""
    for publisher in tuple(queue.blocked_publishers):
        count = publisher.paid(queue, count)
        if not count:
            break


class OnPublishResult(Protocol):
    """Hears of the messages of a run from `start` up to `stop`, of each once."""

    def __call__(self, start: int, stop: int, *, is_accepted: bool) -> None: ...


class PublishReceipt:
    """Messages of a run that a queue elsewhere was asked to take.

    It says of each whether it has, or of several together, once that is known: a leader may have to
    be found first, and what is unknown counts as not taken.
    """

    __slots__ = ("_early", "_on_result", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self._early: list[tuple[int, int, bool]] | None = None
        """Outcomes that became known before `then`: from where to where, and whether they were
        taken."""
        self._on_result: OnPublishResult | None = None

    def then(self, on_result: OnPublishResult) -> None:
        """Have `on_result` called with each outcome; with those that are known already, at once.

        No outcome is known before the call that gave this receipt returns.  A message for thousands
        of queues is put in over several turns, so that some are known before this is called.
        """
        self._on_result = on_result
        early, self._early = self._early, None
        for start, stop, is_accepted in early or ():
            on_result(start, stop, is_accepted=is_accepted)

    def on_outcome(self, start: int, stop: int, *, is_accepted: bool) -> None:
        """These messages are in the queue and safe, or they are not."""
        if self._on_result is not None:
            self._on_result(start, stop, is_accepted=is_accepted)
            return
        if self._early is None:
            self._early = []
        self._early.append((start, stop, is_accepted))  # mutant: PU1


class DeadLetterIds(NamedTuple):
    """Ids of dead letters of a quorum queue that must arrive: one that comes again is not accepted
    again, even from another leader."""

    source: int
    """Raft group of the source queue."""
    term: int
    """In which it is led.  Who leads in a later one is believed, and no leader before it any
    more."""
    below: int
    """None of those below is kept there as dead."""
    settled: list[int]
    """These are not kept any more, either."""
    sequences: list[int]
    """Numbers of the messages in the source queue, one for each."""

    def part(self, start: int, stop: int) -> DeadLetterIds:
        """Ids of a slice of the messages; only the first slice carries `settled`."""
        settled = [] if start else self.settled
        return self._replace(settled=settled, sequences=self.sequences[start:stop])

    def after(self, count: int) -> DeadLetterIds:
        """Ids of the messages behind the first `count`."""
        return self._replace(sequences=self.sequences[count:])


class BackloggedTarget(Protocol):
    """A place where more may come in than goes out."""

    blocked_publishers: list[BlockedPublisher]

    @property
    def is_full(self) -> bool:
        """True if publishers must wait until they are called again."""


class PublishTarget(BackloggedTarget, Protocol):
    """Where messages go: a queue, or a requester of direct reply-to."""

    @property
    def name(self) -> str: ...

    @property
    def is_behind(self) -> bool:
        """True if publishers should slow down."""

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

    def enqueue_dead_letters(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes = None,
        dead_letter_ids: DeadLetterIds | None = None,
        counts: Counts = NEW,
    ) -> EnqueueResult | PublishReceipt:
        """`enqueue` dead letters, which bring along such counts."""


class QueueTarget(PublishTarget, Protocol):
    """A queue, or what takes messages in its place."""

    @property
    def definition(self) -> QueueDefinition:
        """Definition of the queue."""


def enqueue_again(
    target: QueueTarget, dead_letter_ids: DeadLetterIds | None, counts: Counts
) -> EnqueueFunction:
    """How messages that were for another queue get into this one: those with numbers or counts keep
    them, if it is one that knows them."""
    if (dead_letter_ids is not None or counts is not NEW) and isinstance(
        target, AcceptsDeadLetters
    ):
        return partial(target.enqueue_dead_letters, dead_letter_ids=dead_letter_ids, counts=counts)
    return target.enqueue
