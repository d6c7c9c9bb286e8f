"""When messages expire that lie together: one time a message, or none at all if none ever does.

What was enqueued together mostly expires at the same moment, but what lies together was enqueued at
several: so there is a number for each, which costs eight octets beside the message, and nothing is
done for each of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple, TypeAlias

NEVER_MS = (1 << 63) - 1
"""When nothing happens, in any time."""

Expiries: TypeAlias = "array[int]"

INSTANT_MS = 1
"""When a message expires that has no time to live: long ago.  Consumers that have room in the turn
in which it comes get it all the same, as in RabbitMQ, and no others."""


Lifetimes: TypeAlias = int | list[int] | None
"""Per-message TTL in ms of messages that arrive together: one for all, or one each; None: not
given."""


class Spread(NamedTuple):
    """When messages expire that come together and expire apart."""

    expiries: Expiries
    earliest_ms: int
    latest_ms: int


Deadlines: TypeAlias = int | Spread
"""When messages expire that come together: all of them, or each.  Never, if that is 0."""

FEW_OF = 16
"""Number of messages with the same expiry from which on that expiry is packed once."""

pack_time = Struct("@Q").pack
"""Pack a time in ms in the machine's order of bytes, as `array` does."""


def lifetimes_in(lifetimes_ms: Lifetimes, part: slice) -> Lifetimes:
    """TTLs of a slice of the messages."""
    return lifetimes_ms[part] if isinstance(lifetimes_ms, list) else lifetimes_ms


def lifetimes_at(lifetimes_ms: Lifetimes, places: Iterable[int]) -> Lifetimes:
    """TTLs of the messages at these places."""
    if not isinstance(lifetimes_ms, list):
        return lifetimes_ms
    return [lifetimes_ms[place] for place in places]


def deadlines_of(lifetimes_ms: Lifetimes, message_ttl_ms: int | None, now_ms: int) -> Deadlines:
    """Expiry times of incoming messages: now plus the smaller of the publisher's and the queue's
    TTL; at least one of both is given."""
    if lifetimes_ms is None:
        assert message_ttl_ms is not None, "one of the two says so"
        lifetimes_ms = message_ttl_ms
    elif isinstance(lifetimes_ms, list):
        return spread_of(
            lifetimes_ms, NEVER_MS if message_ttl_ms is None else message_ttl_ms, now_ms
        )
    elif message_ttl_ms is not None and message_ttl_ms < lifetimes_ms:
        lifetimes_ms = message_ttl_ms
    return now_ms + lifetimes_ms if lifetimes_ms else INSTANT_MS


def spread_of(lifetimes_ms: list[int], most_ms: int, now_ms: int) -> Spread:
    """The same of messages that say it each.  Of equal ones it is found out once."""
    found: dict[int, int] = {
        each: now_ms + (each if each < most_ms else most_ms) if each and most_ms else INSTANT_MS
        for each in {*lifetimes_ms}
    }
    if len(found) * FEW_OF > len(lifetimes_ms):
        expiries = array("Q", [*map(found.__getitem__, lifetimes_ms)])
    else:
        packed = {each: pack_time(time) for each, time in found.items()}
        expiries = array("Q", b"".join(map(packed.__getitem__, lifetimes_ms)))
    return Spread(expiries, min(found.values()), max(found.values()))


def spread_over(expiries: Expiries) -> Spread:
    """When messages expire of which each does then."""
    return Spread(expiries, min(expiries), max(expiries))


def is_instant(deadlines_ms: Deadlines) -> bool:
    """True if some of the messages have no time to live."""
    if isinstance(deadlines_ms, int):
        return deadlines_ms == INSTANT_MS
    return deadlines_ms.earliest_ms == INSTANT_MS


NO_SPAN = NEVER_MS, NEVER_MS
"""Earliest and latest expiry of messages that never expire."""


def alike(expires_at_ms: int, count: int) -> Expiries:
    """Expiry times of `count` messages that expire together."""
    return array("Q", (expires_at_ms,)) * count


def part_of(expiries: Expiries | None, part: slice) -> Expiries | None:
    """Expiry times of a slice of the messages."""
    return None if expiries is None else expiries[part]


def grown(
    expiries: Expiries | None, count: int, more_count: int, deadlines_ms: Deadlines
) -> Expiries | None:
    """The same of `count` messages and of more that come together; the first array may be the one
    that grows."""
    if expiries is None:
        if not deadlines_ms:
            return None
        expiries = alike(NEVER_MS, count)
    if isinstance(deadlines_ms, int):
        expiries.extend(alike(deadlines_ms or NEVER_MS, more_count))
    else:
        expiries.extend(deadlines_ms.expiries)
    return expiries


def joined(
    expiries: Expiries | None, count: int, others: Expiries | None, others_count: int
) -> Expiries | None:
    """Expiry times of `count` messages followed by `others_count` more; the first array may be
    extended in place."""
    if expiries is None and others is None:
        return None
    if expiries is None:
        expiries = alike(NEVER_MS, count)
    expiries.extend(alike(NEVER_MS, others_count) if others is None else others)
    return expiries


def span_of(expiries: Expiries | None) -> tuple[int, int]:
    """When the first and when the last of them expires."""
    return NO_SPAN if expiries is None else (min(expiries), max(expiries))


def is_due(expires_at_ms: int, now_ms: int, *, is_new: bool) -> bool:
    """True if a message has expired; `is_new`: it has come in this turn."""
    return expires_at_ms <= now_ms and not (is_new and expires_at_ms == INSTANT_MS)  # mutant: X1


def due_count(
    expiries: Sequence[int], start: int, stop: int, now_ms: int, new_from: int = NEVER_MS
) -> int:
    """How many messages from `start` on, one behind the other, have expired.

    Those from `new_from` on have come in this turn.
    """
    at = start
    while at < stop and is_due(expiries[at], now_ms, is_new=at >= new_from):
        at += 1
    return at - start


def undue_count(
    expiries: Sequence[int], start: int, stop: int, now_ms: int, new_from: int = NEVER_MS
) -> int:
    """How many have not."""
    at = start
    while at < stop and not is_due(expiries[at], now_ms, is_new=at >= new_from):  # mutant: X2
        at += 1
    return at - start
