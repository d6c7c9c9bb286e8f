"""Queues that go when nobody has used them for long enough: x-expires."""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.queues.timer_port import NEVER_MS


def ignore_expiry(_queue: object) -> None:
    """Where a queue may stay for ever."""


class QueueExpiry:
    """Since when nobody has used a queue.  While it has consumers they do."""

    __slots__ = ("_after_ms", "_is_told", "_now_ms", "_since_ms", "_wake")

    def __init__(
        self, after_ms: int, now_ms: Callable[[], int], wake: Callable[[int], None]
    ) -> None:
        """It begins now, also where the queue was there before the process.  `wake` is told when it
        is worth while to look whether it is over."""
        self._after_ms = after_ms
        self._now_ms = now_ms
        self._wake = wake
        self.used()

    def used(self) -> None:
        """Somebody has used it, or its last consumer has gone."""
        self._since_ms = self._now_ms()
        self._is_told = False
        self._wake(self.due_ms)

    @property
    def due_ms(self) -> int:
        """When it is to go, if nobody uses it until then."""
        return NEVER_MS if self._is_told else self._since_ms + self._after_ms

    @property
    def is_over(self) -> bool:
        """Whether it is to go, if it has no consumers."""
        return self._now_ms() >= self._since_ms + self._after_ms  # mutant: X4

    def is_to_be_told(self) -> bool:
        """Whether it is over and nobody has been told: who asks tells."""
        if self._is_told or not self.is_over:  # mutant: X5
            return False
        self._is_told = True
        return True
