"""The quorum queues that are defined, wherever they are, and by what each is to go."""

from __future__ import annotations

from fluffle.broker.cluster.queues.ports import QueueId, named
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.settings import QueueSettings, SettingsFrom

GONE_MAX = 4096
"""Queues of which it is known that they are deleted: the last ones."""


class DefinedQueues:
    """The quorum queues that a node knows of, and the last that were deleted."""

    __slots__ = ("_gone", "_settings", "known", "successors")

    def __init__(self, settings: SettingsFrom) -> None:
        self.known: dict[QueueId, tuple[QueueDefinition, str]] = {}
        """With their virtual hosts."""
        self.successors: set[QueueId] = set()
        """Those that are to take the place of another queue, and are nobody's yet; whoever defines
        them knows."""
        self._gone: dict[QueueId, None] = {}
        """Deleted while this node was there, the last of them."""
        self._settings = settings

    def define(self, definition: QueueDefinition, vhost: str) -> None:
        self.known[definition.id] = definition, vhost

    def forget(self, queue: QueueId) -> None:
        """It is deleted."""
        self.known.pop(queue, None)
        self.successors.discard(queue)
        self._gone[queue] = None
        if len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]

    def is_there(self, group: QueueId) -> bool:
        """Whether a queue is defined."""
        return group in self.known

    def is_gone(self, group: QueueId) -> bool:
        """Whether one was, in this life of the node, and is no more."""
        return group in self._gone

    def settings_of(self, vhost: str, definition: QueueDefinition) -> QueueSettings:
        """By what a queue of a virtual host is to go now."""
        settings = self._settings(vhost, definition.spec)
        return settings.of_successor if definition.id in self.successors else settings

    def named(self, queue: QueueId) -> dict[str, object]:
        """What people call it, as far as that is known."""
        definition, vhost = self.known.get(queue, (None, ""))
        return named(queue, vhost, definition)
