"""Error texts of quorum queues that do not answer, as RabbitMQ's."""

from __future__ import annotations

from fluffle.broker.base.errors import BrokerError, InternalError
from fluffle.broker.cluster.queues.error_texts import ClientRequest


class QuorumErrorTexts:
    """Error texts of quorum queues, which a Raft group leads."""

    tells_counts = True

    def unanswered(self, doing: ClientRequest, where: str) -> BrokerError:
        """Nobody has led the queue for too long, or nobody knows what became of a consumer."""
        if doing is ClientRequest.GETTING:
            return InternalError(f"Cannot get a message from queue '{where}': timeout")
        return InternalError(f"timed out {doing.value} quorum {where}: no leader has answered")
