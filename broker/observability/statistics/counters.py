"""Counters of all objects of a node, and the counts that are yet to be entered there.

What happens is counted beside the channel on which it does, in few steps.  It is entered into the
counts of queue, exchange, virtual host and node when somebody asks, at each look, or once much is
left: then an addition stands for many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from fluffle.broker.observability.statistics.counts import (
    OF_BYTES,
    OF_CHANNEL,
    OF_EXCHANGE,
    OF_LENGTHS,
    OF_NODE,
    OF_QUEUE,
    Counts,
)
from fluffle.broker.queues.publish_target import PublishTarget
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.routing.exchange import Exchange
from fluffle.broker.vhosts.vhost import VirtualHost

TOUCHED_MAX = 1_024
"""So many are entered together, for a few milliseconds."""


class PendingCounts(Protocol):
    """Counts that are yet to be entered into those of the node."""

    def enter(self) -> None: ...


class VhostCounters:
    """Counters of a virtual host and of what is in it.  Objects that were never used have none;
    those that are gone have some until the next sample."""

    __slots__ = (
        "bytes", "counts", "exchanges", "lengths", "of_lengths", "publishers", "queues", "seen",
        "vhost",
    )  # fmt: skip

    def __init__(self, vhost: VirtualHost) -> None:
        self.vhost = vhost
        self.counts = Counts(OF_CHANNEL)
        self.lengths = Counts(OF_LENGTHS)
        """Of all its queues that are led here."""
        self.bytes = Counts(OF_BYTES)
        self.queues: dict[QueueHandle, Counts] = {}
        self.of_lengths: dict[QueueHandle, Counts] = {}
        self.exchanges: dict[Exchange, Counts] = {}
        self.seen: dict[QueueHandle, int] = {}
        """At which tick each queue was there first."""
        self.publishers: dict[QueueHandle, int] = {}
        """How many open channels have published to each quorum queue, where any has."""

    def queue_of(self, target: PublishTarget) -> QueueHandle | None:
        """The queue that this is, or stands for; None if it is gone, or never was one."""
        vhost, name = self.vhost, target.name
        queue = vhost.queues.get(name)
        if queue is None or (queue is not target and vhost.redirects.get(name) is not target):
            return None
        return queue

    def of_queue(self, target: PublishTarget) -> Counts | None:
        """The counts of the queue that this is, or stands for; None if it is gone, or never was
        one."""
        queue = self.queue_of(target)
        return None if queue is None else self.counts_of(queue)

    def counts_of(self, queue: QueueHandle) -> Counts:
        """The counts of a queue that exists; zeros if it had none yet."""
        if queue not in self.queues:
            self.queues[queue] = Counts(OF_QUEUE)
        return self.queues[queue]

    def add_publisher(self, queue: QueueHandle) -> None:
        """A channel has published to a quorum queue for the first time."""
        self.publishers[queue] = self.publishers.get(queue, 0) + 1

    def remove_publishers(self, queues: Iterable[QueueHandle]) -> None:
        """A channel that has published to quorum queues has ended; some of them may be gone."""
        for queue in queues:
            left = self.publishers.pop(queue, 0) - 1
            if left > 0:
                self.publishers[queue] = left

    def of_exchange(self, exchange: Exchange) -> Counts | None:
        """None if it is gone."""
        if not self.has(exchange):
            return None
        if exchange not in self.exchanges:
            self.exchanges[exchange] = Counts(OF_EXCHANGE)
        return self.exchanges[exchange]

    def has(self, exchange: Exchange) -> bool:
        """Whether an exchange, not another one of its name, is still there."""
        return self.vhost.topology.find(exchange.spec.name) is exchange


class NodeCounters:
    """Counters of one node, by virtual host and object."""

    __slots__ = ("_touched", "changed", "confirming", "node", "vhosts")

    def __init__(self) -> None:
        self.vhosts: dict[VirtualHost, VhostCounters] = {}
        self.node = Counts(OF_NODE)
        self.changed: dict[Counts, None] = {}
        """Since the last look."""
        self.confirming: dict[PendingCounts, None] = {}
        """Channels with publishes that were not confirmed when they were asked last."""
        self._touched: list[PendingCounts] = []

    def of(self, vhost: VirtualHost) -> VhostCounters:
        if vhost not in self.vhosts:
            self.vhosts[vhost] = VhostCounters(vhost)
        return self.vhosts[vhost]

    def touch(self, touched: PendingCounts) -> None:
        """It has something to enter, which it had not."""
        if len(self._touched) >= TOUCHED_MAX:
            self.enter_touched()
        self._touched.append(touched)

    def enter(self, at: int, counted: Sequence[int], where: Iterable[Counts]) -> None:
        """Add it, each from the name on that is there `at`."""
        for counts in where:
            counts.add(at, counted)
            self.changed[counts] = None

    def enter_all(self) -> None:
        """From now on the counts are those of this moment."""
        self.enter_touched()
        confirming, self.confirming = self.confirming, {}
        for each in confirming:
            each.enter()

    def enter_touched(self) -> None:
        """The same but for confirms that have come meanwhile: each channel that waits for any is
        asked of those, and they count neither for queues nor for exchanges."""
        while self._touched:  # who sends enters what it has where its channel takes
            touched, self._touched = self._touched, []
            for each in touched:
                each.enter()
