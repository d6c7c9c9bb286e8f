"""What RabbitMQ says of classic queues whose home does not answer."""

from __future__ import annotations

from fluffle.broker.cluster.queues.edge_queue import Doing
from fluffle.broker.errors import BrokerError, NotFound
from fluffle.raft.config import NodeId


class ClassicManners:
    """Of the queues that live on one node."""

    tells_counts = False

    __slots__ = ("_home",)

    def __init__(self, home: NodeId) -> None:
        self._home = home

    def unanswered(self, doing: Doing, where: str) -> BrokerError:
        """RabbitMQ finds other words for this, and takes a minute, while it still hopes."""
        del doing
        return NotFound(f"home node '{self._home}' of durable {where} is down or inaccessible")
