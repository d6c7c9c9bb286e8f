"""Messages for a queue that takes none for now: held back, until it is known which queue is to have
them.

No publisher hears anything before.  What comes from other nodes is kept there, too,
until it has an outcome: if another queue takes the place of this one they publish it again.  Dead
letters that must arrive keep their numbers: their source may try again where they are by then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.publish_target import (
    BlockedPublisher,
    DeadLetterIds,
    EnqueueResult,
    PartialResult,
    PublishReceipt,
    QueueTarget,
    accepted_spans,
    enqueue_again,
)


class ConversionHold:
    """Hold on a queue during its conversion: its users stay, and are served again afterwards."""

    __slots__ = ("_where", "is_decided", "standstill")

    def __init__(self, where: str) -> None:
        """`where`: the queue, for people."""
        self._where = where
        self.is_decided = False
        """True once the change that gives the messages to another queue is proposed.  That cannot
        be undone by taking them away here."""
        self.standstill: ConversionBuffer | None = None
        """Buffer that takes messages in the queue's place; None while the queue takes them
        itself."""

    def check_purge(self) -> None:
        """PreconditionFailed once all that is purged would be back."""
        if self.is_decided:
            raise conversion_in_progress(self._where)


def conversion_in_progress(where: str) -> PreconditionFailed:
    return PreconditionFailed(f"{where} is becoming a quorum queue; purge it again")


FULL_BYTES = 2 << 20
"""Publishers are paused from then on."""

HELD_BYTES_MAX = 16 << 20
"""Held bytes above which messages are refused; they were sent before their publisher was paused."""

MESSAGE_COST_BYTES = 256

WhenSafe: TypeAlias = Callable[[Callable[[], None]], None]
"""Function that calls back once the commit that collects has been done."""


class BufferedRun(NamedTuple):
    """A run of messages, as it was published."""

    origins: list[Origin]
    contents: list[bytes]
    content_bytes: int
    persistent: bool
    expiration_ms: Lifetimes
    dead_letter_ids: DeadLetterIds | None
    counts: Counts
    receipt: PublishReceipt

    def put_into(self, target: QueueTarget, when_safe: WhenSafe) -> None:
        """Publish the messages into another queue, which confirms them to their publisher."""
        result = enqueue_again(target, self.dead_letter_ids, self.counts)(
            self.origins,
            self.contents,
            self.content_bytes,
            persistent=self.persistent,
            expiration_ms=self.expiration_ms,
        )
        if isinstance(result, PublishReceipt):
            result.then(self.receipt.on_outcome)
            return
        taken = result.accepted if isinstance(result, PartialResult) else result
        for start, stop, is_accepted in accepted_spans(result, len(self.contents)):
            report = partial(self.receipt.on_outcome, start, stop, is_accepted=is_accepted)
            if is_accepted and taken is EnqueueResult.RECORDED:
                when_safe(report)
            else:
                report()


class ConversionBuffer:
    """An `QueueTarget`, in the place of a queue."""

    __slots__ = ("_elsewhere", "_held", "_held_bytes", "_when_safe", "blocked_publishers", "queue")

    def __init__(self, queue: QueueTarget, when_safe: WhenSafe) -> None:
        self.queue = queue
        self.blocked_publishers: list[BlockedPublisher] = []
        self._when_safe = when_safe
        self._held: list[BufferedRun] = []
        self._held_bytes = 0
        self._elsewhere: set[PublishReceipt] = set()
        """Receipts of messages that other nodes hold, too."""

    @property
    def definition(self) -> QueueDefinition:
        return self.queue.definition

    @property
    def name(self) -> str:
        return self.definition.spec.name

    @property
    def is_full(self) -> bool:
        return self._held_bytes >= FULL_BYTES

    is_behind = is_full

    def enqueue(
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
        cost_bytes = content_bytes + MESSAGE_COST_BYTES * len(contents)
        if self._held and self._held_bytes + cost_bytes > HELD_BYTES_MAX:
            return EnqueueResult.REJECTED
        receipt = PublishReceipt(len(contents))
        self._held_bytes += cost_bytes
        self._held.append(
            BufferedRun(
                origins,
                contents,
                content_bytes,
                persistent,
                expiration_ms,
                dead_letter_ids,
                counts,
                receipt,
            )
        )
        return receipt

    enqueue_dead_letters = enqueue

    def is_elsewhere(self, receipt: PublishReceipt) -> None:
        """Another node has these messages until it hears what becomes of them."""
        self._elsewhere.add(receipt)

    def give_back(self, queue: QueueTarget) -> None:
        """The queue takes messages again: all of these, in order."""
        self._end(queue, self._held)

    def pass_on(self, successor: QueueTarget) -> None:
        """Another queue has taken its place: it gets those that only this node has."""
        self._end(successor, [held for held in self._held if held.receipt not in self._elsewhere])

    def _end(self, target: QueueTarget, held: list[BufferedRun]) -> None:
        self._held, self._held_bytes = [], 0
        for each in held:
            each.put_into(target, self._when_safe)
        for publisher in tuple(self.blocked_publishers):
            publisher.paid(self, 0)
