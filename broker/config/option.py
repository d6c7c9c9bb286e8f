"""An option of `fluffle serve`: how one is written, what it means, where it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PREFIX = "FLUFFLE_"
"""Of an option's variable in the environment."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.  `parse` raises ValueError with what to write instead."""

    name: str
    metavar: str
    help: str
    parse: Callable[[str], object] = str
    config_field: str | None = None
    default: str = ""
    """What holds without it, as one would write it; the value itself is in `Config`."""
    collect: Callable[[list[Any]], object] | None = None
    """Makes one value of those of an option that may be given many times."""
    is_secret: bool = False
    """Whether its value must not be shown, not even in an error."""
    is_switch: bool = False
    """Whether it is `yes` when it is given without a value."""

    @property
    def description(self) -> str:
        """All there is to say of it on a line of help."""
        parts = (
            self.help,
            "May be given many times." if self.collect else "",
            f"[default: {self.default}]" if self.default else "",
        )
        return "  ".join(part for part in parts if part)

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.name.upper().replace("-", "_")
