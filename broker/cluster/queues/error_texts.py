"""What clients wait for that ask something of a queue elsewhere, and what they hear if in vain."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from fluffle.broker.base.errors import BrokerError


class Doing(Enum):
    """What a client waits for."""

    CONSUMING = "consuming from"
    GETTING = "getting from"
    PURGING = "purging"
    SETTLING = "settling messages of"
    ASKING = "asking"


class Manners(Protocol):
    """What differs between queues of several types that are led elsewhere."""

    tells_counts: bool
    """Whether messages say in their headers how often they were handed out in vain."""

    def unanswered(self, doing: Doing, where: str) -> BrokerError:
        """Nobody has led the queue for too long."""
