"""Rows of statistics: numbers with rates and samples, and sums of the rows of several nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from fluffle.broker.statistics.counters import ObjectCounts

SAMPLES_MAX = 500
"""Most samples in an answer, besides the present one."""


class SampleWindow(NamedTuple):
    """The last `age_s` seconds with a sample each `increment_s`; both are more than 0."""

    age_s: int
    increment_s: int


class SampleWindows(NamedTuple):
    """Windows of samples that a request wants; None where only the current rate is wanted."""

    messages: SampleWindow | None = None
    """Window for counts of messages and churn."""
    lengths: SampleWindow | None = None
    """Window for lengths of queues."""
    data: SampleWindow | None = None
    """Window for bytes on connections."""


NO_PAST = SampleWindows()


def windows_of(query: Mapping[str, str]) -> SampleWindows:
    """The pasts that the parameters of a request ask for.  ValueError, with RabbitMQ's text.

    The past of numbers of nodes is not kept: what asks for it must only be right.
    """
    window_of(query, "node_stats")
    return SampleWindows(
        messages=window_of(query, "msg_rates"),
        lengths=window_of(query, "lengths"),
        data=window_of(query, "data_rates"),
    )


def window_of(query: Mapping[str, str], kind: str) -> SampleWindow | None:
    """None unless both of its parameters are there and are numbers."""
    try:
        age, increment = int(query[f"{kind}_age"]), int(query[f"{kind}_incr"])
    except (KeyError, ValueError):
        return None
    if age <= 0 or increment <= 0 or age // increment > SAMPLES_MAX:
        raise ValueError(f"Invalid range parameters: age {age}, incr {increment}")
    return SampleWindow(age, increment)


Row: TypeAlias = dict[str, Any]
"""Values that JSON has, by RabbitMQ's names: numbers, and beside `x` its `x_details`."""


EPOCH = datetime.fromtimestamp(0, UTC)


def time_of(at_ms: int) -> str:
    """A moment of the wall clock as RabbitMQ writes it; what is later sorts behind."""
    return (EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")


def added(rows: Iterable[Row]) -> Row:
    """Sum of the rows of several nodes about one object: counts, rates and samples of the same time
    add.  What only some of them have counts as nothing with the others; of texts the one that sorts
    last counts, and so of times the latest."""
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


class SampleTimes(NamedTuple):
    """Times of the last two samples."""

    last: int
    """The tick of the last time."""
    before: int
    """Tick of the sample before it."""
    apart_ms: int
    """Time in ms between these two; more than 0."""
    tick_ms: int

    def rates(self, counts: ObjectCounts) -> list[float]:
        """Growth of each counter in a second between them."""
        last, before = counts.at(self.last), counts.at(self.before)
        return [1_000 * (b - a) / self.apart_ms for a, b in zip(before, last, strict=True)]


def row_of(counts: ObjectCounts, looks: SampleTimes, age: SampleWindow | None) -> Row:
    """Row of the groups in which anything has happened."""
    row: Row = {}
    start, details = 0, list[Row]()
    for names in counts.kind.groups:
        stop = start + len(names)
        if any(counts.values[start:stop]):
            details = details or details_of(counts, looks, age)
            row |= named(names, counts.values[start:stop], details[start:stop])
        start = stop
    return row


def whole_row_of(counts: ObjectCounts, looks: SampleTimes, age: SampleWindow | None) -> Row:
    """Row of all groups."""
    return named(counts.kind.names, counts.values, details_of(counts, looks, age))


def named(names: Iterable[str], values: Iterable[int], details: Iterable[Row]) -> Row:
    row: Row = {}
    for name, value, detail in zip(names, values, details, strict=True):
        row[name] = value
        row[f"{name}_details"] = detail
    return row


def only_details(counts: ObjectCounts, looks: SampleTimes, age: SampleWindow | None) -> Row:
    """Without the numbers themselves."""
    details = details_of(counts, looks, age)
    return {f"{name}_details": each for name, each in zip(counts.kind.names, details, strict=True)}


def details_of(counts: ObjectCounts, looks: SampleTimes, age: SampleWindow | None) -> list[Row]:
    """Rate, and samples if asked for, of each counter."""
    if age is None:
        return [{"rate": rate} for rate in looks.rates(counts)]
    end_ms, step_ms = looks.last * looks.tick_ms, 1_000 * age.increment_s
    times_ms = [end_ms - step_ms * back for back in range(age.age_s // age.increment_s + 1)]
    was = [counts.at(max(0, at_ms // looks.tick_ms)) for at_ms in times_ms]
    return [past(values, times_ms, age.increment_s) for values in zip(*was, strict=True)]


def past(values: tuple[int, ...], times_ms: list[int], step_s: int) -> Row:
    """Samples of a number, latest first, with rates from what is shown."""
    pairs = zip(values, times_ms, strict=True)
    samples = [{"sample": value, "timestamp": at_ms} for value, at_ms in pairs]
    if len(values) == 1:
        return {"rate": 0.0, "samples": samples}
    return {
        "rate": (values[0] - values[1]) / step_s,
        "samples": samples,
        "avg_rate": (values[0] - values[-1]) / (step_s * (len(values) - 1)),
        "avg": sum(values) / len(values),
    }
