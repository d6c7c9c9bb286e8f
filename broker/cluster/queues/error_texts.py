"""Errors that clients get when a queue led elsewhere does not answer."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from fluffle.broker.base.errors import BrokerError, InternalError, Unreachable
from fluffle.raft.config import NodeId


class ClientRequest(Enum):
    """The kind of request that a client waits for."""

    CONSUMING = "consuming from"
    GETTING = "getting from"
    PURGING = "purging"
    SETTLING = "settling messages of"
    ASKING = "asking"


class ErrorTexts(Protocol):
    """Error texts of one queue type, where the types differ."""

    tells_counts: bool
    """Whether messages say in their headers how often they were handed out in vain."""

    def unanswered(self, doing: ClientRequest, where: str) -> BrokerError:
        """Nobody has led the queue for too long."""


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


class QuorumErrorTexts:
    """Error texts of quorum queues, which a Raft group leads."""

    tells_counts = True

    def unanswered(self, doing: ClientRequest, where: str) -> BrokerError:
        """Nobody has led the queue for too long, or nobody knows what became of a consumer."""
        if doing is ClientRequest.GETTING:
            return InternalError(f"Cannot get a message from queue '{where}': timeout")
        return InternalError(f"timed out {doing.value} quorum {where}: no leader has answered")
