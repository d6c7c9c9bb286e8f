"""The port to what makes queues: they live here, or somewhere in a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.served import ServedQueue


class QueueMaker(Protocol):
    """Makes the queues of all virtual hosts of a node, or those of one type."""

    def define(self, spec: QueueSpec, owner: Owner | None) -> QueueDefinition:
        """Where a queue that is about to be declared will live."""

    def make(self, definition: QueueDefinition, vhost: str) -> ServedQueue:
        """For a definition that has just become true."""

    def reopen(self, definition: QueueDefinition, vhost: str) -> ServedQueue:
        """For one that was true when the process before this ended.  Raises `StorageError`."""

    def redefine(self, queue: ServedQueue, definition: QueueDefinition) -> None:
        """It is the same queue, in other places."""

    def end(self, queue: ServedQueue) -> None:
        """It is defined no more: its messages are gone, and so are its consumers."""


class QueuesByType:
    """A `QueueMaker` that asks the one of the type, each made when it is first asked."""

    __slots__ = ("_made", "_makers")

    def __init__(self, makers: Mapping[QueueType, Callable[[], QueueMaker]]) -> None:
        self._makers = makers
        self._made: dict[QueueType, QueueMaker] = {}

    def _of(self, spec: QueueSpec) -> QueueMaker:
        kind = spec.queue_type
        if kind not in self._made:
            self._made[kind] = self._makers[kind]()
        return self._made[kind]

    def define(self, spec: QueueSpec, owner: Owner | None) -> QueueDefinition:
        return self._of(spec).define(spec, owner)

    def make(self, definition: QueueDefinition, vhost: str) -> ServedQueue:
        return self._of(definition.spec).make(definition, vhost)

    def reopen(self, definition: QueueDefinition, vhost: str) -> ServedQueue:
        return self._of(definition.spec).reopen(definition, vhost)

    def redefine(self, queue: ServedQueue, definition: QueueDefinition) -> None:
        self._of(queue.spec).redefine(queue, definition)

    def end(self, queue: ServedQueue) -> None:
        self._of(queue.spec).end(queue)
