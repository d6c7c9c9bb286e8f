"""Where the queues of a cluster live: each on the node on which it was declared.

What lives on another node can be declared, bound and deleted from here, but not read.
"""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.journals.by_id import JournalsById
from fluffle.broker.local_queues import LocalQueues
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Damage, Owner, QueueDefinition
from fluffle.broker.queues.served import ServedQueue
from fluffle.raft.config import NodeId

ID_BITS = 63


class HomeQueues:
    """A `QueueMaker` of a node of a cluster."""

    types = frozenset({QueueType.CLASSIC})

    __slots__ = ("_boot", "_draw_bits", "_journals", "_local", "_node")

    def __init__(
        self,
        node: NodeId,
        boot: int,
        local: LocalQueues,
        journals: JournalsById,
        *,
        draw_bits: Callable[[int], int],
    ) -> None:
        """`boot`: which life of the node this is; `local` makes those that live here, `journals`
        are theirs."""
        self._node = node
        self._boot = boot
        self._local = local
        self._journals = journals
        self._draw_bits = draw_bits

    def define(self, spec: QueueSpec, owner: Owner | None) -> QueueDefinition:
        boot = 0 if spec.durable and owner is None else self._boot
        queue = self._draw_bits(ID_BITS)
        return QueueDefinition(spec, owner=owner, id=queue, home=self._node, boot=boot)

    def make(self, definition: QueueDefinition, vhost: str) -> Queue:
        """It may have been here before: the log of definitions is read again at each start."""
        if definition.home != self._node:
            queue = self._local.make(definition, vhost)
            queue.damage = Damage(f"node {definition.home}", "it lives there")
            return queue
        if not definition.spec.durable:
            return self._local.make(definition, vhost)
        journal, was_there = self._journals.open(definition.id)
        queue = self._local.make_with(journal, definition, vhost)
        if was_there:
            queue.recover()
        return queue

    def reopen(self, definition: QueueDefinition, vhost: str) -> Queue:
        return self.make(definition, vhost)

    def redefine(self, queue: ServedQueue, definition: QueueDefinition) -> None:
        raise AssertionError(f"queue '{queue.name}' stays at its home")

    def end(self, queue: ServedQueue) -> None:
        self._local.end(queue)
        self._journals.forget(queue.definition.id)
