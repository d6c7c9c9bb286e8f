"""The port to whoever republishes what has died in a queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fluffle.broker.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.counts import NEW, Counts
from fluffle.protocol.deaths import DeathReason


@dataclass(slots=True)
class DeadMessages:
    """Messages of one queue that have died together, in order; one origin a content."""

    reason: DeathReason
    origins: list[Origin]
    contents: list[bytes]
    time_ms: int | None = None
    """When, if it is on record."""
    counts: Counts = NEW
    """Of each of them."""


class DeadLetter(Protocol):
    """Publishes them where the queue's arguments say, and is done with them when it returns."""

    def __call__(self, queue: QueueSpec, dead: DeadMessages) -> None: ...


DeadLetterFrom: TypeAlias = Callable[[str, QueueSpec, DeadMessages], None]
"""A `DeadLetter` for queues of the virtual host with a name."""
