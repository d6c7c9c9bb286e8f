"""Calendars: the queues in which messages of x-delayed-message exchanges wait for their time.

Each such exchange has one, which comes and goes with it.  It is a quorum queue of the broker's own:
clients cannot name it, operators see it.
"""

CALENDAR_PREFIX = "amq.delayed."
"""No client may declare a name that begins so, and no definitions are imported under one."""


def calendar_of(exchange: str) -> str:
    """The name of the calendar of an exchange."""
    return CALENDAR_PREFIX + exchange


def is_calendar(queue: str) -> bool:
    """Whether a queue of this name is one."""
    return queue.startswith(CALENDAR_PREFIX)


def exchange_of(calendar: str) -> str:
    """Whose it is."""
    return calendar.removeprefix(CALENDAR_PREFIX)
