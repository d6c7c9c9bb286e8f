"""What RabbitMQ says of quorum queues that do not answer."""

from __future__ import annotations

from fluffle.broker.base.errors import BrokerError, InternalError
from fluffle.broker.cluster.queues.error_texts import Doing


class QuorumManners:
    """Of queues that are led by a Raft group."""

    tells_counts = True

    def unanswered(self, doing: Doing, where: str) -> BrokerError:
        """Nobody has led the queue for too long, or nobody knows what became of a consumer."""
        if doing is Doing.GETTING:
            return InternalError(f"Cannot get a message from queue '{where}': timeout")
        return InternalError(f"timed out {doing.value} quorum {where}: no leader has answered")
