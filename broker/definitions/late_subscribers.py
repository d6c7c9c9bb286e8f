"""Late subscribers of a message that is being retained: those that it was not routed to.

    routed by its node --> subscription applied, and retained messages read --> message retained

In a cluster a message is routed by what its node has applied, and is retained by a change that
follows in the log.  A subscription between the two is too late for the route, and its client, at
another node, may read retained messages too early for the change.  So the node of the publisher
looks once more when it applies that change, and puts the message into the queues that have come to
be bound; in its place among messages of the topic, so that none which it routes later overtakes it.

What is bound by a later change than that of the message finds it as a retained one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, cast

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.publish_target import PublishReceipt, PublishTarget, QueueTarget
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.steps import Steps

TARGETS_AT_ONCE = 256
"""Most queues into which a message is put in one step."""


class KnownRoute(NamedTuple):
    """Where a message has been published to."""

    targets: Sequence[PublishTarget]
    epoch: int
    """Epoch of the topology by which it was routed."""


class RoutedMessage(NamedTuple):
    """Message that was routed, as it was put into queues."""

    topic: str
    origin: Origin
    content: bytes
    persistent: bool
    lifetime_ms: int | None


class Newer(Protocol):
    """Later message of the same topic that waits to be retained."""

    def has_reached(self, queue: tuple[str, int]) -> bool: ...


class LateSubscribers:
    """Late subscribers of one message, as far as it has reached them."""

    __slots__ = ("_epoch", "_known", "_message", "_receipts", "_targets", "_vhost", "readers")

    def __init__(self, vhost: VirtualHost, message: RoutedMessage, route: KnownRoute) -> None:
        self._vhost = vhost
        self._message = message
        self._targets: Sequence[PublishTarget] = route.targets
        """Where it was routed to; empty once they are in `_known`."""
        self._epoch = route.epoch
        """Epoch of the topology up to which it has reached all."""
        self._known: set[tuple[str, int]] = set()
        """Names and ids of queues that have the message."""
        self.readers: set[str] = set()
        """Names of queues whose clients read it as one that is about to be retained."""
        self._receipts: list[PublishReceipt] = []

    @property
    def is_settled(self) -> bool:
        """True if it has reached all, and is safe there."""
        return self._epoch == self._vhost.topology.epoch and not self._receipts

    def has_reached(self, queue: tuple[str, int]) -> bool:
        """True if the message is in a queue of this name and id, or its client has read it."""
        if self._targets:
            self._known.update(map(named, self._targets))
            self._targets = ()
        return queue in self._known or queue[0] in self.readers

    def reach(self, newer: Newer | None) -> Steps[None]:
        """Put the message into queues of subscriptions that have been bound since it was routed,
        unless they have a newer one."""
        vhost, message = self._vhost, self._message
        epoch = vhost.topology.epoch
        if epoch == self._epoch:
            return
        exchange = message.origin.exchange
        targets, _, _ = yield from vhost.route_in_steps(exchange, (), None, message.topic)
        count = 0
        for target in targets:
            queue = named(target)
            # mutant: RT11
            if self.has_reached(queue) or (newer is not None and newer.has_reached(queue)):
                continue
            self._known.add(queue)
            self._put_into(target)
            count += 1
            if not count % TARGETS_AT_ONCE:
                yield
        self._epoch = epoch

    def _put_into(self, target: QueueTarget) -> None:
        message = self._message
        answer = target.enqueue(
            [message.origin],
            [message.content],
            len(message.content),
            persistent=message.persistent,
            expiration_ms=message.lifetime_ms,
        )
        if isinstance(answer, PublishReceipt):
            self._receipts.append(answer)

    def settle(self, newer: Newer | None, then: Callable[[], None]) -> Steps[None]:
        """Reach all, and call `then` once each queue elsewhere has answered."""
        yield from self.reach(newer)
        receipts, self._receipts = self._receipts, []
        if receipts:
            AllReceipts(receipts, then)
        else:
            then()


class AllReceipts:
    """Receipts of one message each, of which the last one is awaited."""

    __slots__ = ("_left", "_then")

    def __init__(self, receipts: Iterable[PublishReceipt], then: Callable[[], None]) -> None:
        self._then = then
        self._left = 1
        for receipt in receipts:
            self._left += 1
            receipt.then(self._known)
        self._known(0, 1, is_accepted=True)

    def _known(self, start: int, stop: int, *, is_accepted: bool) -> None:
        """Count a queue that has answered: one that refuses a message is as if it had not been
        bound yet."""
        del start, stop, is_accepted
        self._left -= 1
        if not self._left:
            self._then()


def named(target: PublishTarget) -> tuple[str, int]:
    """Return the name of a queue, and the id that none of the same name has after it."""
    return target.name, cast(QueueTarget, target).definition.id
