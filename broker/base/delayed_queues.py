"""Calendars: the queues in which messages of x-delayed-message exchanges wait for their time.

Each such exchange has one, which comes and goes with it.  It is a quorum queue of the broker's own:
clients cannot name it, operators see it.
"""

DELAYED_QUEUE_PREFIX = "amq.delayed."
"""No client may declare a name that begins so, and no definitions are imported under one."""


def delayed_queue_of(exchange: str) -> str:
    """Return the name of the delayed queue of an exchange."""
    return DELAYED_QUEUE_PREFIX + exchange


def is_delayed_queue(queue: str) -> bool:
    """True if a queue of this name is one."""
    return queue.startswith(DELAYED_QUEUE_PREFIX)


def exchange_of(queue: str) -> str:
    """Return the exchange that a delayed queue belongs to."""
    return queue.removeprefix(DELAYED_QUEUE_PREFIX)
