"""What goes wrong in the queue that is led here ends its leadership, and nothing of the others."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping

from fluffle.broker.cluster.queues.ports import QueueId, Served

AGAIN_S_MAX = 60
"""A queue that cannot be led is tried again after two seconds, and then after twice as long."""

logger = logging.getLogger(__name__)


class Guard:
    """Of all queues that may be led on a node."""

    __slots__ = ("_call_later", "_failures", "_queues")

    def __init__(
        self,
        queues: Mapping[QueueId, Served],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._queues = queues
        self._call_later = call_later
        self._failures: Counter[QueueId] = Counter()

    def run(self, queue: QueueId, act: Callable[[], None]) -> None:
        """Do something for a queue; if it fails, the queue is led anew after a while.

        Also if something that was believed is not so: nothing of it was told to anybody that is not
        on record, and with that the next leadership begins.
        """
        try:
            act()
        except Exception:
            served = self._queues.get(queue)
            if served is None:
                raise
            self._failures[queue] += 1
            again_s = min(2 ** self._failures[queue], AGAIN_S_MAX)
            logger.exception("leading queue %s failed; again in %s s", queue, again_s)
            served.fail()
            self._call_later(again_s, served.lead_again)
