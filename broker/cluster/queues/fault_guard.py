"""Guard of leaderships: an error in one queue ends its leadership, and no other."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.queues.ports import HostedQueue, OnFailure, QueueId

AGAIN_S_MAX = 60
"""A queue that cannot be led is tried again after two seconds, and then after twice as long."""

logger = logging.getLogger(__name__)


def log_failure(named: Mapping[str, object], error: Exception) -> None:
    """With where it was raised."""
    logger.error("queue_failed", exc_info=error, extra={FIELDS_ATTRIBUTE: named})


class FaultGuard:
    """FaultGuard of all queues that may be led on a node."""

    __slots__ = ("_call_later", "_failures", "_on_failure", "_queues")

    def __init__(
        self,
        queues: Mapping[QueueId, HostedQueue],
        call_later: Callable[[float, Callable[[], None]], object],
        on_failure: OnFailure,
    ) -> None:
        self._queues = queues
        self._on_failure = on_failure
        self._call_later = call_later
        self._failures: Counter[QueueId] = Counter()

    def run(self, queue: QueueId, act: Callable[[], None]) -> None:
        """Do something for a queue; if it fails, the queue is led anew after a while.

        Also if something that was believed is not so: nothing of it was told to anybody that is not
        on record, and with that the next leadership begins.
        """
        try:
            act()
        except Exception as error:
            served = self._queues.get(queue)
            if served is None:
                raise
            self._on_failure(served.named, error)
            self._failures[queue] += 1
            again_s = min(2 ** self._failures[queue], AGAIN_S_MAX)
            served.fail()
            self._call_later(again_s, served.lead_again)
