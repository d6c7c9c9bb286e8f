"""Where the classic queues of a cluster live: each on the node on which it was declared.

There it is the engine's queue, with what serves it to the edges of other nodes beside it.
Everywhere else it is the edge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from fluffle.broker.base.clock import CallLater
from fluffle.broker.cluster.queue_sessions.messages import Leader
from fluffle.broker.cluster.queues.classic_host import ClassicQueueHost
from fluffle.broker.cluster.queues.deletions import Deletions
from fluffle.broker.cluster.queues.error_texts import ClassicErrorTexts
from fluffle.broker.cluster.queues.placement import ID_BITS
from fluffle.broker.cluster.queues.remote_queue import RemoteQueue
from fluffle.broker.cluster.queues.session_router import SessionRouter
from fluffle.broker.durability.journals.cluster_journals import ClusterJournals
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.vhosts.queue_changes import delete_unused
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.config import NodeId


class ClassicQueuesEnvironment(NamedTuple):
    """The parts of a node that its classic queues are made with."""

    hub: SessionRouter
    call_later: CallLater
    commits: Commits
    metadata: Metadata
    vhosts: Mapping[str, VirtualHost]
    deletions: Deletions


class ClassicQueues:
    """The `QueueFactory` of the classic queues of a node of a cluster."""

    __slots__ = ("_boot", "_draw_bits", "_journals", "_local", "_node", "reach")

    def __init__(
        self,
        node: NodeId,
        boot: int,
        local: LocalQueues,
        journals: ClusterJournals,
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
        self.reach: ClassicQueuesEnvironment
        """Set before anything is made."""

    def define(self, spec: QueueSpec, owner: Owner | None, vhost: str) -> QueueDefinition:
        del vhost
        boot = 0 if spec.durable and owner is None else self._boot
        queue = self._draw_bits(ID_BITS)
        return QueueDefinition(spec, owner=owner, id=queue, home=self._node, boot=boot)

    def make(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        reach = self.reach
        if definition.home != self._node:
            manners = ClassicErrorTexts(definition.home, is_durable=definition.spec.durable)
            return RemoteQueue(
                definition, vhost, reach.hub, reach.call_later, manners, deletions=reach.deletions
            )
        queue = self._made_here(definition, vhost)
        leading, id_ = reach.hub.leading, definition.id
        homed = ClassicQueueHost(
            queue,
            Leader(self._node, reach.hub.boot, reach.hub.boot.counter),
            vhost=vhost,
            commits=reach.commits,
            on_unused=partial(self._delete_unused, vhost),
            on_told=partial(leading.speak, id_),
        )
        leading.queues[id_] = homed
        leading.greet(id_, homed.sessions)
        return queue

    def _delete_unused(self, vhost: str, queue: Queue) -> None:
        """If it is to go with its last consumer."""
        if queue.spec.auto_delete:
            decide = partial(delete_unused, self.reach.vhosts[vhost], queue)
            self.reach.metadata.settle(decide)

    def _made_here(self, definition: QueueDefinition, vhost: str) -> Queue:
        """It may have been here before: the log of definitions is read again at each start."""
        if not definition.spec.durable:
            return self._local.make(definition, vhost)
        journal, was_there = self._journals.open(definition.id)
        queue = self._local.make_with(journal, definition, vhost)
        if was_there:
            queue.recover()
        return queue

    def reopen(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self.make(definition, vhost)

    def redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        """It stays at its home: it has another successor, or none any more."""
        assert isinstance(queue, Queue | RemoteQueue), "it was made here"
        queue.definition = definition

    def renew(self, queue: QueueHandle, vhost: str) -> None:
        if isinstance(queue, Queue):
            self._local.renew(queue, vhost)

    def create_successor(self, definition: QueueDefinition, vhost: str) -> QueueHandle:
        return self._local.create_successor(definition, vhost)

    def promote(self, successor: QueueHandle, definition: QueueDefinition, vhost: str) -> None:
        self._local.promote(successor, definition, vhost)

    def part(self, queue: QueueHandle, successor: QueueHandle) -> None:
        if isinstance(queue, RemoteQueue):
            queue.pass_on(successor)
        self.end(queue)

    def end(self, queue: QueueHandle) -> None:
        if isinstance(queue, RemoteQueue):
            queue.end()
            return
        homed = self.reach.hub.leading.queues.pop(queue.definition.id, None)
        self._local.end(queue)
        if isinstance(homed, ClassicQueueHost):
            homed.end()
        self._journals.forget(queue.definition.id)
