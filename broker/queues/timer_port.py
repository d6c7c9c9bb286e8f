"""The port to time, for queues in which something is due by it alone."""

from __future__ import annotations

from typing import Protocol

from fluffle.broker.queues.delivery import DeliverySource


class QueueClock(Protocol):
    """The time of a queue, in which all is measured that is to happen there later."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 in UTC, more or less: what is written down in it holds after a
        restart, and on other nodes.  It seldom jumps."""

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        """Have `pump` called then, or somewhat later; earlier wishes are not taken back."""


class StoppedClock:
    """Clock of a queue in which nothing is ever due: its time stands still."""

    __slots__ = ()

    def now_ms(self) -> int:
        return 0

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        """Nobody looks."""


STOPPED_CLOCK = StoppedClock()
