"""Random operations: a list that can be printed, cut down and played anywhere.

Queues are called `q0` …, or `g0` … if only dead letters come to them, exchanges `x0` ….  Whoever
plays puts the name of the run in front.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

OWN_NAME = re.compile(r"[gqx]\d")


@dataclass(frozen=True, slots=True)
class Operation:
    """`verb` on channel number `channel` of those that act, with what it says."""

    channel: int
    verb: str
    said: Mapping[str, Any]

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.said.items())
        return f"{self.channel}: {self.verb}({said})"


Case: TypeAlias = tuple[Operation, ...]


def named(value: Any, prefix: str) -> Any:
    """The same with the name of the run before each name of a queue or an exchange in it."""
    if isinstance(value, str):
        return prefix + value if OWN_NAME.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {key: named(item, prefix) for key, item in value.items()}
    if isinstance(value, list):
        return [named(item, prefix) for item in value]
    return value
