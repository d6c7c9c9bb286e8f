"""Error texts of classic queues whose home does not answer, as RabbitMQ's."""

from __future__ import annotations

from fluffle.broker.base.errors import BrokerError, Unreachable
from fluffle.broker.cluster.queues.error_texts import ClientRequest
from fluffle.raft.config import NodeId


class ClassicErrorTexts:
    """Error texts of classic queues, which live on one node."""

    tells_counts = False

    __slots__ = ("_home", "_is_durable")

    def __init__(self, home: NodeId, *, is_durable: bool) -> None:
        self._home = home
        self._is_durable = is_durable
        """One that is not ends with its home."""

    def unanswered(self, doing: ClientRequest, where: str) -> BrokerError:
        """RabbitMQ finds other words for this, and takes a minute, while it still hopes."""
        del doing
        if not self._is_durable:
            return Unreachable(f"no {where}")
        return Unreachable(f"home node '{self._home}' of durable {where} is down or inaccessible")
