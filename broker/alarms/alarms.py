"""Resource alarms: while one is raised, here or on another node, publishers are not read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluffle.broker.config.config import Config

RESOURCES = ("memory", "disk")


class Watermarks:
    """From where on resources are low; an operator may move them while the node runs."""

    __slots__ = ("disk_free_bytes_min", "memory_bytes_max")

    def __init__(self, memory_bytes_max: int = sys.maxsize, disk_free_bytes_min: int = 0) -> None:
        self.memory_bytes_max = memory_bytes_max
        self.disk_free_bytes_min = disk_free_bytes_min


def watermarks_of(config: Config) -> Watermarks:
    """Return the watermarks that a node begins with."""
    return Watermarks(config.memory_bytes_max, config.disk_free_bytes_min)


class Alarms:
    """Which resources are low, and who must hear of it."""

    __slots__ = ("_elsewhere", "_listeners", "_raised", "watermarks")

    def __init__(self, watermarks: Watermarks | None = None) -> None:
        """Without watermarks nothing is ever low."""
        self.watermarks = watermarks or Watermarks()
        self._raised: dict[str, None] = {}
        self._elsewhere: dict[str, Collection[str]] = {}
        """By node: what others are low on."""
        self._listeners: dict[Callable[[], None], None] = {}

    @property
    def reason(self) -> str:
        """Text of connection.blocked, as RabbitMQ's: `low on disk & memory`; empty without an
        alarm."""
        if not (self._raised or self._elsewhere):
            return ""
        return f"low on {' & '.join(sorted({*self._raised}.union(*self._elsewhere.values())))}"

    @property
    def raised(self) -> tuple[str, ...]:
        """Resources that are low on this node."""
        return tuple(self._raised)

    @property
    def elsewhere(self) -> Mapping[str, Collection[str]]:
        """Resources that are low on other nodes, as last reported by them."""
        return self._elsewhere

    def is_raised(self, resource: str) -> bool:
        return resource in self._raised

    def set(self, resource: str, *, low: bool) -> None:
        """Raise or clear the alarm of a resource (`memory`, `disk`)."""
        if low == (resource in self._raised):
            return
        if low:
            self._raised[resource] = None
        else:
            del self._raised[resource]
        self._notify()

    def set_elsewhere(self, node: str, resources: Collection[str]) -> None:
        """Replace the resources that another node is low on."""
        before = self.reason
        if resources:
            self._elsewhere[node] = resources
        else:
            self._elsewhere.pop(node, None)
        if self.reason != before:
            self._notify()

    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever an alarm is raised or cleared."""
        self._listeners[listener] = None

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.pop(listener, None)
