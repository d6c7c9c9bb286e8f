"""Publishes whose confirms come late or not while a test has it so, or that queues refuse.

Where confirms are held back, what the broker has done is done: messages are in their queues.  Of a
publish that is refused, the publisher gets basic.nack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import chain, count, islice
from typing import Any

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
    accepted_spans,
)
from fluffle.broker.testing.faults.frames import frames_of
from fluffle.broker.testing.faults.tapped_transport import (
    FaultScope,
    TappedConnection,
    WireUnit,
)
from fluffle.broker.vhosts.vhost import VirtualHost

HELD = "confirms are held back"


@dataclass(slots=True, eq=False)
class HeldConfirms:
    """A `ByteFilter` of one connection."""

    _tap: TappedConnection
    _scope: FaultScope
    """Says whether the tap is concerned."""
    _delay: Callable[[Callable[[], None]], object]
    """Calls something when it is time."""
    _numbers: Iterator[int] = field(default_factory=count, init=False)
    _held: dict[int, WireUnit] = field(default_factory=dict, init=False)
    """Numbered: a later channel of the same number gets the same."""

    def from_client(self, data: bytes) -> Iterable[bytes]:
        return (data,)

    def to_client(self, data: bytes) -> bytes:
        if not self._scope.has(self._tap):
            return data
        go_on, stay = list[bytes](), dict[int, WireUnit]()
        units_of = self._tap.units_of or frames_of
        for unit in units_of(data):
            if unit.is_confirm:
                stay[next(self._numbers)] = unit
                continue
            if unit.ends_channel:
                self._held = without_channel(unit.channel, self._held)
                stay = without_channel(unit.channel, stay)
            go_on.append(unit.data)
        if stay:
            self._held |= stay
            self._delay(partial(self._release, list(stay)))
        return b"".join(go_on)

    def _release(self, numbers: list[int]) -> None:
        due = [self._held.pop(number) for number in numbers if number in self._held]
        if due:
            self._tap.pass_on(b"".join(unit.data for unit in due), behind=self)

    def end(self) -> None:
        """Say what has been held back, and hold back nothing more."""
        self._release(list(self._held))
        self._tap.filters.remove(self)


def without_channel(channel: int, units: Mapping[int, WireUnit]) -> dict[int, WireUnit]:
    """Without those of a channel that has ended: what comes on it now belongs to another."""
    return {number: unit for number, unit in units.items() if unit.channel != channel}


def hold_confirms(scope: FaultScope) -> None:
    """Confirm nothing, neither with ack nor with nack, until that is over; nor with PUBACK, PUBREC
    or PUBCOMP to clients of MQTT."""
    begin_holding(scope, HELD, lambda _act: None)


def delay_confirms(scope: FaultScope, *, ms: int) -> None:
    """Say each confirm so much later, by the clock that can be moved."""
    what = f"{HELD} for {timedelta(milliseconds=ms)}"
    begin_holding(scope, what, partial(scope.call_later, ms / 1_000))


def begin_holding(
    scope: FaultScope, what: str, wait: Callable[[Callable[[], None]], object]
) -> None:
    release_confirms(scope)
    filters: dict[TappedConnection, HeldConfirms] = {}

    def attach(tap: TappedConnection) -> None:
        filters[tap] = HeldConfirms(tap, scope, wait)
        tap.filters.append(filters[tap])
        tap.when_lost.append(partial(filters.pop, tap, None))

    def end() -> None:
        scope.acceptor.lasting_plans.pop((scope, HELD), None)
        for each in filters.values():
            each.end()
        filters.clear()

    for tap in scope.acceptor.taps():
        attach(tap)
    scope.acceptor.lasting_plans[scope, HELD] = attach
    scope.begin(HELD, what, end)


def release_confirms(scope: FaultScope) -> None:
    """Say all that has been held back, and hold back nothing more."""
    scope.end(HELD)


class NackQuota:
    """How many messages are still to be refused, of an exchange or of any."""

    def __init__(self, left: int, exchange: str | None, spent: Callable[[], None]) -> None:
        """`spent` is called in the turn after the last."""
        self._left = left
        self._exchange = exchange
        self._spent = spent
        self._contents: list[bytes] = []
        """Contents of the last call of `take`."""
        self._places: list[int] = []

    def take(self, origins: list[Origin], contents: list[bytes]) -> list[int]:
        """Places of the messages that are refused, rising.

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
            return EnqueueResult.REJECTED
        contents = [contents[place] for place in left]
        answer = self._queue.enqueue(
            [origins[place] for place in left],
            contents,
            sum(map(len, contents)),
            persistent=persistent,
            expiration_ms=lifetimes_at(expiration_ms, left),
        )
        return merge_rejected(refused, left, answer)


def merge_rejected(
    refused: list[int], left: list[int], answer: EnqueueResult | PartialResult | PublishReceipt
) -> PartialResult | PublishReceipt:
    """Result of a batch of messages of which `refused` are refused, and `left` have the result
    `answer`."""
    count = len(refused) + len(left)
    if isinstance(answer, PublishReceipt):
        receipt = PublishReceipt(count)

        def report(start: int, stop: int, *, is_accepted: bool) -> None:
            for span in spans_of(left[start:stop]):
                receipt.on_outcome(*span, is_accepted=is_accepted)

        def refuse() -> None:
            for span in spans_of(refused):
                receipt.on_outcome(*span, is_accepted=False)

        answer.then(report)
        asyncio.get_running_loop().call_soon(refuse)
        return receipt
    results = accepted_spans(answer, len(left))
    theirs = (left[start:stop] for start, stop, is_accepted in results if not is_accepted)
    taken = answer.accepted if isinstance(answer, PartialResult) else answer
    if taken is EnqueueResult.REJECTED:
        taken = EnqueueResult.ACCEPTED  # of none
    return PartialResult(count, taken, spans_of(sorted(chain(refused, *theirs))))


def nack_next(
    scope: FaultScope, *, count: int = 1, queue: str | None = None, exchange: str | None = None
) -> None:
    """Refuse the next so many messages that come to a queue, be it there yet or not, or through an
    exchange to one that is there now.  They are not taken, and their publishers hear basic.nack.

    As with RabbitMQ, what leads to no queue is confirmed, and a channel without confirms gets
    nothing.
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


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "confirms.hold": hold_confirms,
    "confirms.delay": delay_confirms,
    "confirms.release": release_confirms,
    "publishes.nack_next": nack_next,
}
