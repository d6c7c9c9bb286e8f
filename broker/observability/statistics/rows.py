"""Rows of numbers with their rates, and how those of several nodes become one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
"""Values that JSON has, by RabbitMQ's names: numbers, and beside `x` its `x_details`."""


EPOCH = datetime.fromtimestamp(0, UTC)


def time_of(at_ms: int) -> str:
    """A moment of the wall clock as RabbitMQ writes it; what is later sorts behind."""
    return (EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")


def added(rows: Iterable[Row]) -> Row:
    """What several nodes say of one thing, as one: counts and rates add, and samples of the same
    time.  What only some of them have counts as nothing with the others; of texts the
    one that sorts last is told, and so of times the latest."""
    total: Row = {}
    for row in rows:
        for name, value in row.items():
            total[name] = joined(total[name], value) if name in total else value
    return total


def joined(one: Any, other: Any) -> Any:
    """Two values of the same name."""
    if isinstance(one, dict):
        return added((one, other))
    if isinstance(one, list):
        return joined_samples(one, other)
    if isinstance(one, int | float):
        return one + other
    if isinstance(one, str):
        return max(one, other)
    return one


def joined_samples(one: list[Row], other: list[Row]) -> list[Row]:
    """Latest first.  Nodes that sample at different times have neighbours that are half empty."""
    by_time: dict[int, int] = {}
    for each in (*one, *other):
        at_ms = each["timestamp"]
        by_time[at_ms] = by_time.get(at_ms, 0) + each["sample"]
    return [{"sample": by_time[at], "timestamp": at} for at in sorted(by_time, reverse=True)]
