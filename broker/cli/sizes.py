"""Amounts of memory and disk, as RabbitMQ's commands write them: 0.4 of what there is, or 2GB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

UNITS: Mapping[str, int] = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate(("kb", "mb", "gb", "tb", "pb"), 1)},
    **{unit: 1024**power for power, unit in enumerate(("k", "m", "g", "t", "p"), 1)},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib", "pib"), 1)},
}
SIZE = re.compile(r"(\d+)\s*([a-z]*)")


class ShareOrSize(NamedTuple):
    """A share of what there is, or a size in bytes."""

    share: float | None = None
    size_bytes: int | None = None

    def argument(self) -> dict[str, float | int]:
        """Argument for a verb that takes either."""
        given = {"share": self.share, "size_bytes": self.size_bytes}
        return {name: value for name, value in given.items() if value is not None}


def amount_of(text: str) -> ShareOrSize:
    """Parse a share, which is a number with a point, or a size.  ValueError."""
    if re.fullmatch(r"\d*\.\d+", text):
        return ShareOrSize(share=float(text))
    return ShareOrSize(size_bytes=size_of(text))


def size_of(text: str) -> int:
    """Parse a size in bytes.  ValueError."""
    found = SIZE.fullmatch(text.strip().lower())
    if found is None or found[2] not in UNITS:
        raise ValueError(f"'{text}' is no size such as 50MB or 2GiB, and no share such as 0.4")
    return int(found[1]) * UNITS[found[2]]
