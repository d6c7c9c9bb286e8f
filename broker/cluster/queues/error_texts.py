"""Errors that clients get when a queue led elsewhere does not answer."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from fluffle.broker.base.errors import BrokerError


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
