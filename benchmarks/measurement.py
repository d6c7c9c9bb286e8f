"""Measurement: a name, a value and its unit."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple, Self


class Measurement(NamedTuple):
    what: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    """Maximum of several runs, of which the value is the median."""

    @classmethod
    def of(cls, what: str, values: Sequence[float], unit: str) -> Self:
        """That of several runs."""
        return cls(what, median(values), unit, min(values), max(values))

    def shown(self) -> str:
        """Three digits that matter, and the unit."""
        text = f"{_number(self.value)} {self.unit}"
        if self.least is None or self.most is None:
            return text
        return f"{text} ({_number(self.least)} to {_number(self.most)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
