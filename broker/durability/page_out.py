"""When memory is short queues keep on disk what they can, at the pace of the disk.

Connections forget what they can find out again, and who leaves very many answers unread is not
waited for any longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import PageStore
from fluffle.broker.runtime.commits import Commits


class PageOut:
    """Goes from queue to queue, and on when the disk has taken what came from them.

    A queue may be longer than what is left of memory, and what is being written is there twice.
    """

    def __init__(
        self,
        queues: Callable[[], Iterable[Queue]],
        spill: PageStore,
        commits: Commits,
        relieve: Callable[[], None],
    ) -> None:
        """`relieve` has connections do with less."""
        self._relieve = relieve
        self._queues = queues
        self._spill = spill
        self._commits = commits
        self._left: list[Queue] = []
        """Queues whose turn is yet to come."""

    def rest(self) -> None:
        """Stop: messages may stay in memory again."""
        self._spill.is_wanted = False
        self._left.clear()

    def shed(self) -> None:
        """Have messages leave memory, unless that is under way."""
        self._spill.is_wanted = True
        self._relieve()
        if not self._left:
            self._left = sorted(self._queues(), key=lambda queue: queue.ready_count)
            self._go_on()

    def _go_on(self) -> None:
        """Page out queues, the longest first, until the disk is behind."""
        while self._left:
            if self._commits.is_behind:
                self._commits.when_caught_up(self._go_on)
                return
            if self._left[-1].shed():
                self._left.pop()
