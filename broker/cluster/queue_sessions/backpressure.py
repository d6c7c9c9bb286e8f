"""Backpressure of a session: messages it put into a queue that is behind its consumers.

The edge is told how many messages that is, and has its publishers wait until they have been handed
out, as those of the leader's own node do at a queue that is there.
"""

from __future__ import annotations

from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import PublishTarget


class SessionBackpressure:
    """A queue's `BlockedPublisher`: the messages of one session."""

    __slots__ = ("_count", "_queue", "_told")

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._count = 0
        """Invariant: if there are any, this is among the queue's debtors."""
        self._told = 0
        """What the edge takes it for."""

    def __bool__(self) -> bool:
        """Whether the edge is to hear of it, now or later."""
        return bool(self._count or self._told)

    def add(self, count: int) -> None:
        """So many more were put in."""
        if not self._count:
            self._queue.blocked_publishers.append(self)
        self._count += count

    def paid(self, queue: PublishTarget, count: int) -> int:
        """Some were handed out; how many of these are somebody else's."""
        paid = min(count, self._count)
        self._count -= paid
        if not self._count:
            queue.blocked_publishers.remove(self)
        return count - paid

    def forgive(self) -> None:
        """The queue is not behind any more, or the session is over."""
        if self._count:
            self._count = 0
            self._queue.blocked_publishers.remove(self)

    def news(self) -> int | None:
        """How many to tell the edge; None if it is not much otherwise than what it was told."""
        if not self._queue.is_behind:
            self.forgive()
        if self._count and self._told < 2 * self._count and self._count < 2 * self._told:
            return None
        if self._count == self._told:
            return None
        self._told = self._count
        return self._told
