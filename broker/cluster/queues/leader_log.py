"""That queues are led by others than before is logged: one by one, or how many at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from fluffle.broker.base.logs import event
from fluffle.broker.cluster.queues.ports import KnownLeader, QueueId
from fluffle.raft.config import NodeId

COLLECT_S = 1.0
"""What changes within this is said together: a node that is lost has led many."""

LINES_MAX = 10
"""If more queues have changed hands, how many is said instead of which."""

logger = logging.getLogger(__name__)


class LeaderLog:
    """Log of leader changes, as the members on this node hear of them."""

    __slots__ = ("_call_later", "_changed", "_last", "_named")

    def __init__(
        self,
        named: Callable[[QueueId], Mapping[str, object]],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`named`: what people call a queue, as fields of a line."""
        self._named = named
        self._call_later = call_later
        self._last: dict[QueueId, KnownLeader] = {}
        """Who has led each last: nobody in between is no news."""
        self._changed: dict[QueueId, NodeId] = {}
        """Those of which it may have to be said, with who has led them before."""

    def heard(self, queue: QueueId, known: KnownLeader) -> None:
        """Who leads it, as far as it is known.

        The first of whom that is heard here is no news: the queue was just declared, or this node
        just started, and it may have been led by the same all the time.
        """
        if not known.node:
            return
        former, self._last[queue] = self._last.get(queue), known
        if former is not None and former.node != known.node:
            if not self._changed:
                self._call_later(COLLECT_S, self._say)
            self._changed.setdefault(queue, former.node)

    def forget(self, queue: QueueId) -> None:
        """There is no member here any more."""
        self._last.pop(queue, None)

    def _say(self) -> None:
        news = [
            (queue, known, before)
            for queue, before in self._changed.items()
            if (known := self._last.get(queue)) is not None and known.node != before
        ]
        self._changed = {}
        if len(news) > LINES_MAX:
            event(logger, logging.INFO, "queue_leaders_changed", count=len(news))
            return
        for queue, known, before in news:
            event(
                logger, logging.INFO, "queue_leader_changed", **self._named(queue),
                leader=known.node, former=before, term=known.term,
            )  # fmt: skip
