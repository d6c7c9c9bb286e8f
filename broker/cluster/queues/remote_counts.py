"""How much there is in a queue that is led elsewhere, as far as this node has heard."""

from __future__ import annotations

from fluffle.broker.cluster.queues.ports import LeaderCounts, QueueId, SessionDirectory, SessionPort
from fluffle.broker.queues.queue_api import Deferred, QueueCounts

UNKNOWN = QueueCounts(0, 0, 0)
"""What is told, as RabbitMQ does, of a queue that cannot be asked."""


class RemoteCounts:
    """Message and consumer counts of a queue led elsewhere, as its leader last reported them."""

    __slots__ = ("_hub", "_is_whole", "_port", "_queue", "last")

    def __init__(self, queue: QueueId, hub: SessionDirectory, port: SessionPort) -> None:
        self._queue = queue
        self._hub = hub
        self._port = port
        self.last = UNKNOWN
        """What was last heard."""
        self._is_whole = False
        """Whether all of that was told when it was asked for last."""

    @property
    def is_known(self) -> bool:
        """Whether somebody has counted what is there."""
        return self._is_whole and not self._port.is_away

    @property
    def local_counts(self) -> QueueCounts | None:
        """If this node leads the queue."""
        counts = self._hub.counts_here(self._queue)
        return QueueCounts(*counts) if counts is not None else None

    def ask(self, *, in_use: bool) -> QueueCounts | Deferred[QueueCounts]:
        """RabbitMQ says 0 of what it cannot ask; so does this."""
        if self._port.is_away:
            self.last, self._is_whole = UNKNOWN, False
            return UNKNOWN
        later: Deferred[QueueCounts] = Deferred()

        def told(counts: LeaderCounts | None) -> None:
            self._is_whole = counts is not None
            self.last = QueueCounts(*counts) if counts is not None else UNKNOWN
            later.answer(self.last)

        self._hub.ask_counts(self._queue, told, in_use=in_use)
        return later

    def left(self, ready: int) -> None:
        """So many wait now, says whoever has handed one out or dropped all."""
        self.last = self.last._replace(ready=ready)
