"""Messages that queues refuse: their publishers get basic.nack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import chain, islice
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.base.errors import PreconditionFailed, SyntaxFailure
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.deduplication import spans_of
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_at
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.publish_target import (
    BlockedPublisher,
    EnqueueResult,
    PartialResult,
    PublishReceipt,
    PublishTarget,
    taken_spans,
)
from fluffle.broker.testing.faults.fault_scope import FaultScope
from fluffle.broker.vhosts.vhost import VirtualHost


class NackQuota:
    """How many messages are still to be refused, of an exchange or of any."""

    __slots__ = ("_contents", "_exchange", "_left", "_places", "_spent")

    def __init__(self, left: int, exchange: str | None, spent: Callable[[], None]) -> None:
        """`spent` is called in the turn after the last."""
        self._left = left
        self._exchange = exchange
        self._spent = spent
        self._contents: list[bytes] = []
        """What was asked about last."""
        self._places: list[int] = []

    def take(self, origins: list[Origin], contents: list[bytes]) -> list[int]:
        """Which of these are refused: their places, rising.

        The same list is put into several queues one after the other: then all refuse the same.
        """
        if contents is self._contents:
            return self._places
        exchange = self._exchange
        meant = (
            place
            for place, origin in enumerate(origins)
            if exchange is None or origin.exchange == exchange
        )
        self._contents, self._places = contents, list(islice(meant, self._left))
        self._left -= len(self._places)
        if self._places and not self._left:
            asyncio.get_running_loop().call_soon(self._spent)
        return self._places


class NackQueue:
    """Stands in the place of a queue: a `QueueTarget`."""

    __slots__ = ("_name", "_quota", "_vhost")

    def __init__(self, name: str, vhost: VirtualHost, quota: NackQuota) -> None:
        self._name = name
        self._vhost = vhost
        self._quota = quota

    @property
    def _queue(self) -> PublishTarget:
        return self._vhost.queues[self._name]

    @property
    def name(self) -> str:
        return self._name

    @property
    def definition(self) -> QueueDefinition:
        return self._vhost.queues[self._name].definition

    @property
    def blocked_publishers(self) -> list[BlockedPublisher]:
        return self._queue.blocked_publishers

    @blocked_publishers.setter
    def blocked_publishers(self, blocked_publishers: list[BlockedPublisher]) -> None:
        self._queue.blocked_publishers = blocked_publishers

    @property
    def is_behind(self) -> bool:
        return self._queue.is_behind

    @property
    def is_full(self) -> bool:
        return self._queue.is_full

    def enqueue(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes = None,
    ) -> EnqueueResult | PartialResult | PublishReceipt:
        refused = self._quota.take(origins, contents)
        if not refused:
            return self._queue.enqueue(
                origins, contents, content_bytes, persistent=persistent, expiration_ms=expiration_ms
            )
        left = sorted(set(range(len(contents))).difference(refused))
        if not left:
            return EnqueueResult.REFUSED
        contents = [contents[place] for place in left]
        answer = self._queue.enqueue(
            [origins[place] for place in left],
            contents,
            sum(map(len, contents)),
            persistent=persistent,
            expiration_ms=lifetimes_at(expiration_ms, left),
        )
        return among(refused, left, answer)


def among(
    refused: list[int], left: list[int], answer: EnqueueResult | PartialResult | PublishReceipt
) -> PartialResult | PublishReceipt:
    """What becomes of messages of which those in some places are refused, and of what is left there
    is that."""
    count = len(refused) + len(left)
    if isinstance(answer, PublishReceipt):
        receipt = PublishReceipt(count)

        def report(start: int, stop: int, *, is_taken: bool) -> None:
            for span in spans_of(left[start:stop]):
                receipt.known(*span, is_taken=is_taken)

        def refuse() -> None:
            for span in spans_of(refused):
                receipt.known(*span, is_taken=False)

        answer.then(report)
        asyncio.get_running_loop().call_soon(refuse)
        return receipt
    fates = taken_spans(answer, len(left))
    theirs = (left[start:stop] for start, stop, is_taken in fates if not is_taken)
    taken = answer.taken if isinstance(answer, PartialResult) else answer
    if taken is EnqueueResult.REFUSED:
        taken = EnqueueResult.ACCEPTED  # of none
    return PartialResult(count, taken, spans_of(sorted(chain(refused, *theirs))))


def nack_next(
    scope: FaultScope, *, count: int = 1, queue: str | None = None, exchange: str | None = None
) -> Row:
    """Refuse the next so many messages that come to a queue, be it there yet or not, or through an
    exchange to one that is there now.  They are not taken, and their publishers hear basic.nack.

    As with RabbitMQ, what leads to no queue is confirmed, and without confirms nobody is told.
    """
    vhost = scope.vhost()
    if (queue is None) == (exchange is None) or count < 1:
        raise SyntaxFailure("say either 'queue' or 'exchange', and a 'count' of at least 1")
    if exchange:
        vhost.topology.require(exchange)
    names = [queue] if queue is not None else list(vhost.queues)
    if taken := [name for name in names if name in vhost.redirects]:
        raise PreconditionFailed(f"queue '{taken[0]}' is refusing messages or changing already")
    where = f"queue '{queue}'" if queue is not None else f"exchange '{exchange}'"
    what = f"the next {count} messages to {where} are refused"

    def spent() -> None:
        if any(vhost.redirects.get(name) is target for name, target in targets.items()):
            scope.end(quota)

    quota = NackQuota(count, exchange, spent)
    targets = {name: NackQueue(name, vhost, quota) for name in names}
    for name, target in targets.items():
        vhost.redirect(name, target)

    def end() -> None:
        for name, target in targets.items():
            if vhost.redirects.get(name) is target:
                vhost.redirect(name, None)

    scope.begin(quota, what, end)
    return {}


OPERATIONS: Mapping[str, Callable[..., Any]] = {"publishes.nack_next": nack_next}
