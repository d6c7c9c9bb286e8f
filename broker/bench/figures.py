"""Figures of a run: counts, rates, and latencies of messages and confirms."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import ceil
from typing import Any

PERCENTILES: Mapping[str, float] = {"p50": 50, "p95": 95, "p99": 99, "p99_9": 99.9}


class Latencies:
    """Latencies in seconds, as many as there were."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples = array("d")

    def add(self, seconds: float) -> None:
        self._samples.append(seconds)

    def row(self) -> dict[str, float | None]:
        """Return percentiles and the largest, in milliseconds; None without any."""
        ordered = sorted(self._samples)
        places = {name: percentile(ordered, share) for name, share in PERCENTILES.items()}
        largest = ordered[-1] if ordered else None
        return {name: in_ms(value) for name, value in {**places, "max": largest}.items()}


def percentile(ordered: list[float], share: float) -> float | None:
    """Return the least value that so many of a hundred do not exceed."""
    if not ordered:
        return None
    return ordered[max(0, ceil(len(ordered) * share / 100) - 1)]


def in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


class Tally:
    """Counters and latencies of a whole run."""

    __slots__ = ("confirm", "confirmed", "end_to_end", "published", "received", "refused")

    def __init__(self) -> None:
        self.published = 0
        self.confirmed = 0
        self.refused = 0
        """By basic.nack."""
        self.received = 0
        self.confirm = Latencies()
        self.end_to_end = Latencies()

    def row(self, seconds: float) -> dict[str, Any]:
        """Return all figures, for `seconds` of work."""
        return {
            "seconds": round(seconds, 3),
            "published": self.published,
            "confirmed": self.confirmed,
            "refused": self.refused,
            "received": self.received,
            "published_per_s": round(self.published / seconds, 1),
            "confirmed_per_s": round(self.confirmed / seconds, 1),
            "received_per_s": round(self.received / seconds, 1),
            "confirm_ms": self.confirm.row(),
            "end_to_end_ms": self.end_to_end.row(),
        }
