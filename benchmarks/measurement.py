"""One figure of the broker alone: what was measured, how much of which unit."""

from typing import NamedTuple


class Measurement(NamedTuple):
    what: str
    value: float
    unit: str

    def shown(self) -> str:
        """Three digits that matter, and the unit."""
        value = self.value
        number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        return f"{number} {self.unit}"
