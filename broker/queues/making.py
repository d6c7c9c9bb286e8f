"""The port to what makes queues: they live here, or somewhere in a cluster."""

from __future__ import annotations

from typing import Protocol

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.served import ServedQueue


class QueueMaker(Protocol):
    """Makes the queues of all virtual hosts of a node."""

    types: frozenset[QueueType]
    """Those that it makes.  Others are refused: a classic queue in their place would break what
    clients count on."""

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
