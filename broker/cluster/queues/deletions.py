"""The outcome of messages for a queue that was deleted before anybody knew whether it has them.

They have gone with it, as with RabbitMQ, and are confirmed.  But a node may hear late that a queue
was deleted and another declared in its place: what came after that was for the other one, which
does not have it.  So they are confirmed only by a node that knows all that was answered before they
came, and refused if there is another queue of that name, or if that cannot be known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.metadata.read_barrier import ReadBarrier
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import EnqueueResult
from fluffle.broker.vhosts.vhost import VirtualHost

OnFate = Callable[[EnqueueResult], None]


class Deletions:
    """Deletions of queues that one node has heard of."""

    __slots__ = ("_read_barrier", "_vhosts")

    def __init__(self, read_barrier: ReadBarrier, vhosts: Mapping[str, VirtualHost]) -> None:
        self._read_barrier = read_barrier
        self._vhosts = vhosts

    def decide(self, queue: QueueDefinition, vhost: str, tell: OnFate) -> None:
        """Answer for messages that had no outcome when that queue was deleted."""

        def known() -> None:
            is_replaced = self._is_replaced(queue, vhost)
            tell(EnqueueResult.REFUSED if is_replaced else EnqueueResult.ACCEPTED)

        def unknown(_error: BrokerError) -> None:
            tell(EnqueueResult.REFUSED)

        self._read_barrier.ask(known, unknown)  # mutant: I7 I9

    def _is_replaced(self, queue: QueueDefinition, vhost: str) -> bool:
        """Whether another has its name."""
        there = self._vhosts.get(vhost)
        found = there.queues.get(queue.spec.name) if there is not None else None
        return found is not None and found.definition.id != queue.id  # mutant: I8
