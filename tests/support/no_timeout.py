"""Parts of consumers and getters in tests where nothing is ever taken because they are slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluffle.broker.queues.queue_api import Consumer, OverdueDeliveries, TimedOutDeliveries


class NoTimeoutSink:
    """Sink that fails if it is said to be slow."""

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        raise AssertionError(f"{consumer.tag} may hold {late} for ever")

    def timed_out(self, consumer: Consumer, lost: TimedOutDeliveries) -> None:
        raise AssertionError(f"{consumer.tag} may hold {lost} for ever")


class NoTimeoutHolder:
    """Holder that fails if it is said to be slow."""

    timeout_ms = None

    def overdue(self, late: OverdueDeliveries) -> None:
        raise AssertionError(f"{late} may be held for ever")

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        raise AssertionError(f"{lost} may be held for ever")
