"""`Counts`: what is expected of a queue, and what is there."""

from __future__ import annotations

from typing import NamedTuple


class Counts(NamedTuple):
    """Counts of a queue, found or expected; an expected None matches anything."""

    messages: int | None = None
    """In all."""
    ready: int | None = None
    unacked: int | None = None
    consumers: int | None = None


NO_COUNTS = Counts()


def wanted_counts(
    count: int | None, ready: int | None, unacked: int | None, consumers: int | None
) -> Counts:
    """Return what is expected.  TypeError if nothing is."""
    wanted = Counts(count, ready, unacked, consumers)
    if wanted == NO_COUNTS:
        raise TypeError("expect needs at least one of count, ready, unacked, consumers")
    return wanted


def is_met(wanted: Counts, found: Counts) -> bool:
    return all(want in (None, there) for want, there in zip(wanted, found, strict=True))


def shown(counts: Counts) -> str:
    """Show the counts that are known."""
    names = ("messages", "ready", "unacknowledged", "consumers")
    pairs = zip(names, counts, strict=True)
    return ", ".join(f"{number} {name}" for name, number in pairs if number is not None)
