"""Counts as rows: each number with its rate, and with what it was if that is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fluffle.broker.observability.statistics.counts import Counts
from fluffle.broker.observability.statistics.rows import Row
from fluffle.broker.observability.statistics.sample_window import SampleWindow


class SampleTimes(NamedTuple):
    """When numbers were looked at."""

    last: int
    """The tick of the last time."""
    before: int
    """That of the time before it."""
    apart_ms: int
    """What has passed between these two; more than 0."""
    tick_ms: int

    def rates(self, counts: Counts) -> list[float]:
        """By how much each has grown in a second between them."""
        last, before = counts.at(self.last), counts.at(self.before)
        return [1_000 * (b - a) / self.apart_ms for a, b in zip(before, last, strict=True)]


def row_of(counts: Counts, looks: SampleTimes, age: SampleWindow | None) -> Row:
    """Of the groups of which anything has happened."""
    row: Row = {}
    start, details = 0, list[Row]()
    for names in counts.kind.groups:
        stop = start + len(names)
        if any(counts.values[start:stop]):
            details = details or details_of(counts, looks, age)
            row |= named(names, counts.values[start:stop], details[start:stop])
        start = stop
    return row


def whole_row_of(counts: Counts, looks: SampleTimes, age: SampleWindow | None) -> Row:
    """Of all of them."""
    return named(counts.kind.names, counts.values, details_of(counts, looks, age))


def named(names: Iterable[str], values: Iterable[int], details: Iterable[Row]) -> Row:
    row: Row = {}
    for name, value, detail in zip(names, values, details, strict=True):
        row[name] = value
        row[f"{name}_details"] = detail
    return row


def only_details(counts: Counts, looks: SampleTimes, age: SampleWindow | None) -> Row:
    """Without the numbers themselves."""
    details = details_of(counts, looks, age)
    return {f"{name}_details": each for name, each in zip(counts.kind.names, details, strict=True)}


def details_of(counts: Counts, looks: SampleTimes, age: SampleWindow | None) -> list[Row]:
    """Of each of the numbers."""
    if age is None:
        return [{"rate": rate} for rate in looks.rates(counts)]
    end_ms, step_ms = looks.last * looks.tick_ms, 1_000 * age.increment_s
    times_ms = [end_ms - step_ms * back for back in range(age.age_s // age.increment_s + 1)]
    was = [counts.at(max(0, at_ms // looks.tick_ms)) for at_ms in times_ms]
    return [past(values, times_ms, age.increment_s) for values in zip(*was, strict=True)]


def past(values: tuple[int, ...], times_ms: list[int], step_s: int) -> Row:
    """What a number was at each time, the last one first.  Rates are those of what is shown."""
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
