"""How often a message was handed out in vain."""

from typing import NamedTuple


class Counts(NamedTuple):
    """The values that a client gets as x-acquired-count and x-delivery-count."""

    acquired: int
    """Hand-outs that have ended without settling it.  Of the next one this is the ordinal."""
    failed: int
    """Those of them that count against the delivery limit."""


NEW = Counts(0, 0)


def brought_along(counts: Counts, *, is_rejected: bool) -> Counts:
    """What of the counts of a message that has died goes with it into the next quorum queue.

    To be rejected is a failure, too.  What has never failed is new there, however often clients
    gave it back: so it is in RabbitMQ, which passes on failures alone.
    """
    if is_rejected:
        counts = Counts(counts.acquired + 1, counts.failed + 1)
    return counts if counts.failed else NEW
