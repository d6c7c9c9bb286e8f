"""Publishes of this node to one queue without an outcome, and the receipts given for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queue_sessions.codec import MESSAGES_MAX
from fluffle.broker.cluster.queue_sessions.messages import Publish
from fluffle.broker.cluster.queue_sessions.pending_operations import PendingOperations
from fluffle.broker.cluster.queue_sessions.requests import QueueRequests
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_in
from fluffle.broker.queues.queue_api import (
    DeadLetterIds,
    EnqueueResult,
    PublishReceipt,
    QueueTarget,
    enqueue_again,
)

RUN_BYTES_MAX = 1 << 20
"""Of an operation of more than one message, so that others come between."""


@dataclass(slots=True)
class PublishRun:
    """Operations with consecutive numbers, a message each."""

    first: int
    count: int
    receipt: PublishReceipt
    offset: int
    """Of the first message, among those of the receipt."""
    left: int
    """How many have no outcome."""


class PublishReceipts:
    """PublishReceipts of unconfirmed publishes, by the numbers of their operations."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: dict[int, PublishRun] = EMPTY_DICT
        """By the number of the first operation."""

    def __len__(self) -> int:
        return len(self._runs)

    def ask(
        self,
        asking: QueueRequests,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes,
        posted: DeadLetterIds | None = None,
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
            first = asking.publish(  # mutant: BA18 BA19
                origins[start:stop],
                contents[start:stop],
                persistent=persistent,
                expiration_ms=lifetimes_in(expiration_ms, slice(start, stop)),  # mutant: BA16 BA17
                posted=posted.part(start, stop) if posted is not None else None,
                counts=counts,  # mutant: BA20
            )
            # mutant: BA22
            self._runs[first] = PublishRun(first, stop - start, receipt, start, stop - start)
        return receipt

    def pass_on(self, pending: PendingOperations, successor: QueueTarget) -> None:
        """What has no outcome is for another queue, which has all that has one."""
        publishes = pending.of_kinds(0, pending.next, (Publish,))  # mutant: BA23
        for operation, first, count in publishes:
            assert isinstance(operation, Publish)
            start, posted = first - operation.first, operation.posted  # mutant: BA24
            part = slice(start, start + count)
            contents = operation.contents[part]
            posted = posted.part(start, part.stop) if posted is not None else None  # mutant: BA26
            put = enqueue_again(successor, posted, operation.counts)  # mutant: BA27
            fate = put(
                operation.origins[part],
                contents,
                sum(map(len, contents)),
                persistent=operation.is_persistent,
                expiration_ms=lifetimes_in(operation.expiration_ms, part),  # mutant: BA25
            )
            if isinstance(fate, PublishReceipt):
                fate.then(partial(self._passed, first))
            else:
                self.known(first, count, is_taken=fate is not EnqueueResult.REFUSED)  # mutant: BA28

    def _passed(self, first: int, start: int, stop: int, *, is_taken: bool) -> None:
        self.known(first + start, stop - start, is_taken=is_taken)

    def known(self, first: int, count: int, *, is_taken: bool) -> None:
        """Numbers of one run have this outcome: all of it, mostly."""
        run = self._runs.get(first) or self._find(first)
        run.left -= count
        if not run.left:
            del self._runs[run.first]
        start = run.offset + first - run.first
        run.receipt.known(start, start + count, is_taken=is_taken)

    def _find(self, number: int) -> PublishRun:
        return next(
            run for run in self._runs.values() if run.first <= number < run.first + run.count
        )
