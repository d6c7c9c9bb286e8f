"""The port to what makes queues: they live here, or somewhere in a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.queue_api import QueueHandle

OnQueueExpired: TypeAlias = Callable[[str, QueueDefinition, Callable[[], bool]], None]
"""Has a queue deleted that nobody has used for long enough: its virtual host, what it is, and
whether that is still so."""


class QueueFactory(Protocol):
    """Makes the queues of all virtual hosts of a node, or those of one type."""

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        """Where a queue that is about to be declared will live."""

    def make(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        """For a definition that has just become true."""

    def reopen(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        """For one that was true when the process before this ended.  Raises `StorageError`."""

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        """It is the same queue, in other places."""

    def renew(self, queue: QueueHandle, vhost: str) -> None:
        """It may fall under other policies than it did."""

    def end(self, queue: QueueHandle) -> None:
        """It is defined no more: its messages are gone, and so are its consumers."""

    def create_successor(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        """One that is to take the place of another, and is nobody's before."""

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        """One that was born has taken that place."""

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        """`end`, of one whose messages its heir has; what was asked for and has come to nothing
        yet is for the heir, too."""


class FactoryByType:
    """A `QueueFactory` that asks the one of the type, each made when it is first asked."""

    __slots__ = ("_made", "_makers")

    def __init__(self, makers: Mapping[QueueType, Callable[[], QueueFactory]]) -> None:
        self._makers = makers
        self._made: dict[QueueType, QueueFactory] = {}

    def _of(self, spec: QueueSpec) -> QueueFactory:
        kind = spec.queue_type
        if kind not in self._made:
            self._made[kind] = self._makers[kind]()
        return self._made[kind]

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        return self._of(spec).define(spec, owner, vhost)

    def make(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self._of(definition.spec).make(definition, vhost)

    def reopen(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self._of(definition.spec).reopen(definition, vhost)

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        self._of(queue.spec).redefine(queue, definition)

    def renew(self, queue: QueueHandle, vhost: str) -> None:
        self._of(queue.spec).renew(queue, vhost)

    def end(self, queue: QueueHandle) -> None:
        self._of(queue.spec).end(queue)

    def create_successor(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self._of(definition.spec).create_successor(definition, vhost)

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        self._of(successor.spec).promote(successor, definition, vhost)

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        self._of(queue.spec).part(queue, successor)
