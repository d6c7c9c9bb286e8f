"""Where the queues that channels see meet what connects them to their leaders."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from fluffle.broker.cluster.streams.edge import Edge
from fluffle.broker.cluster.streams.events import Event
from fluffle.broker.queues.journal import QueueDefinition

OnEvents = Callable[[list[Event]], None]


class EdgePort(Protocol):
    """One edge, connected."""

    edge: Edge

    def touch(self) -> None:
        """Something was asked of the edge: its `output` is sent before this turn ends."""


class Counts(NamedTuple):
    """What a queue holds, as its leader knows it."""

    ready: int
    unacked: int
    consumers: int


class Hub(Protocol):
    """The edges of a node, by the id of their queue."""

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> EdgePort:
        """An edge for a queue, which is told what its leader says, from within a turn."""

    def close(self, queue: int) -> None:
        """A queue is gone for good: its edge tells what becomes of what was asked."""

    def ask_counts(self, queue: int, done: Callable[[Counts | None], None]) -> None:
        """Told once, within seconds; None if nobody could be asked."""
