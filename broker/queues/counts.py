"""How often a message was handed out in vain."""

from typing import NamedTuple


class Counts(NamedTuple):
    """What a client is told as x-acquired-count and x-delivery-count."""

    acquired: int
    """Hand-outs that have ended without settling it.  Of the next one this is the ordinal."""
    failed: int
    """Those of them that count against the delivery limit."""


NEW = Counts(0, 0)
