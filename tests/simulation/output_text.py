"""Outputs as lines that a person can read: what is empty or as usual is left out."""

from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from fluffle.raft.log import Entry
from fluffle.raft.output import Output
from fluffle.raft.ranges import Ranges
from tests.simulation.virtual_time import SECOND_US


def line_of(when_us: int, node: str, output: Output) -> str | None:
    """Line about one turn; None if nothing came of it."""
    parts = [f"{name}: {brief(getattr(output, name))}" for name in names_set(output)]
    return f"{when_us / SECOND_US:10.6f} {node}  {'; '.join(parts)}" if parts else None


def names_set(thing: Any) -> list[str]:
    """The fields of a dataclass that say something."""
    return [field.name for field in fields(thing) if getattr(thing, field.name)]


def brief(value: Any) -> str:
    """Short text of a value."""
    if isinstance(value, Entry):
        return f"{value.index}/{value.term}{'ndc'[value.kind]}{len(value.payload)}"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, Ranges):
        return "{" + " ".join(f"{first}-{stop - 1}" for first, stop in value) + "}"
    if isinstance(value, dict):
        return " ".join(f"to {key} {brief(item)}" for key, item in value.items())
    if is_dataclass(value):
        parts = " ".join(f"{name}={brief(getattr(value, name))}" for name in names_set(value))
        return f"{type(value).__name__}({parts})"
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return f"[{', '.join(map(brief, value))}]"
    return str(value)
