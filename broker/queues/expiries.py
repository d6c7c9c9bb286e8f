"""When messages expire that lie together: one time a message, or none at all if none ever does.

What was enqueued together expires at the same moment, but what lies together was enqueued at
several: so there is a number for each, which costs eight octets beside the message, and nothing is
done for each of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TypeAlias

from fluffle.broker.queues.timing import NEVER_MS

Expiries: TypeAlias = "array[int]"

INSTANT_MS = 1
"""When a message expires that has no time to live: long ago.  Consumers that have room in the turn
in which it comes get it all the same, as in RabbitMQ, and nobody else."""


def lifetime_of(expiration_ms: int | None, message_ttl_ms: int | None) -> int:
    """For how long messages may wait: what their publisher says or the queue, whatever is less."""
    if message_ttl_ms is None:
        assert expiration_ms is not None, "one of the two says so"
        return expiration_ms
    return message_ttl_ms if expiration_ms is None else min(expiration_ms, message_ttl_ms)


NO_SPAN = NEVER_MS, NEVER_MS
"""Of messages that never expire."""


def alike(expires_at_ms: int, count: int) -> Expiries:
    """Of messages that expire together."""
    return array("Q", (expires_at_ms,)) * count


def part_of(expiries: Expiries | None, part: slice) -> Expiries | None:
    """Of some of the messages."""
    return None if expiries is None else expiries[part]


def grown(
    expiries: Expiries | None, count: int, more_count: int, expires_at_ms: int
) -> Expiries | None:
    """The same of `count` messages and of more that expire together, or never if that is 0."""
    if expiries is None:
        if not expires_at_ms:
            return None
        expiries = alike(NEVER_MS, count)
    expiries.extend(alike(expires_at_ms or NEVER_MS, more_count))
    return expiries


def joined(
    expiries: Expiries | None, count: int, others: Expiries | None, others_count: int
) -> Expiries | None:
    """Of `count` messages, and of more behind them; the first array may be the one that grows."""
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
    """Whether a message has expired; `is_new`: it has come in this turn."""
    return expires_at_ms <= now_ms and not (is_new and expires_at_ms == INSTANT_MS)


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
    while at < stop and not is_due(expiries[at], now_ms, is_new=at >= new_from):
        at += 1
    return at - start
