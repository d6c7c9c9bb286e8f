"""Requests of clients and operators of one node for other definitions, made as in a real node.

Whoever asks waits for nothing: it looks at what is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial

from fluffle.broker.admin.members import Redefine
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import set_vhost
from fluffle.broker.definitions.parameters import clear, set_policy
from fluffle.broker.metadata.change import NOTHING, Change, Kind
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.metadata.nodes import admit, dismiss
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.vhosts import queue_changes
from fluffle.broker.vhosts.queue_changes import redefinition
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.wire import FieldTable
from fluffle.raft.config import NodeId
from fluffle.raft.log import GroupId
from tests.simulation.queues.node_registration import VHOST


def done() -> None:
    """Do nothing: a client that waited for it looks at what is there."""


def nobody_asks(_group: GroupId) -> None:
    """Ignore which queue it is."""


def failed(_error: BrokerError) -> None:
    """Do nothing: it may have been the turn of another, or too late."""


class DefinitionRequests:
    """Requests that are made at one node."""

    def __init__(self, catalogue: Catalogue, metadata: Metadata, applied_barrier: Metadata) -> None:
        """`applied_barrier` answers once all have it, `metadata` once it is so here."""
        self._catalogue = catalogue
        self._metadata = metadata
        self._everywhere = applied_barrier

    @property
    def vhost(self) -> VirtualHost | None:
        return self._catalogue.vhosts.get(VHOST)

    def change(
        self, decide: Callable[[VirtualHost], Change], then: Callable[[], None] = done
    ) -> None:
        """Have definitions changed, and go on."""
        vhost = self.vhost
        if vhost is not None:
            with contextlib.suppress(BrokerError):
                self._everywhere.change(partial(decide, vhost), then, failed)

    def declare(
        self, name: str, arguments: FieldTable, answered: Callable[[GroupId], None] = nobody_asks
    ) -> None:
        """Unless it is there, whatever it is like; `answered` gets which one it is."""
        declared = Declaration(name, durable=True, arguments=arguments)
        made: GroupId = 0

        def decide(vhost: VirtualHost) -> Change:
            nonlocal made
            change = queue_changes.declare_queue(vhost, declared, None)
            values = (fact.value for fact in change.puts)
            made = next((each.id for each in values if isinstance(each, QueueDefinition)), 0)
            return change

        def then() -> None:
            if made:
                answered(made)

        if self.vhost is not None and name not in self.vhost.queues:
            self.change(decide, then)

    def delete(self, name: str, then: Callable[[], None] = done) -> None:
        def decide(vhost: VirtualHost) -> Change:
            queue = vhost.queues.get(name)
            return NOTHING if queue is None else queue_changes.delete_queue(vhost, queue)

        self.change(decide, then)

    def redefine_queue(self, name: str, redefine: Redefine) -> None:
        """An operator wants it otherwise."""

        def decide(vhost: VirtualHost) -> Change:
            queue = vhost.queues.get(name)
            if queue is None:
                return NOTHING
            after = redefine(queue.definition)
            return NOTHING if after == queue.definition else redefinition(VHOST, after)

        self.change(decide)

    def set_policy(self, name: str, pattern: str, definition: Mapping[str, object]) -> None:
        """In the place of one of that name."""
        fields = {"pattern": pattern, "definition": dict(definition)}
        self.change(lambda _vhost: set_policy(self._catalogue, VHOST, name, fields))

    def clear_policy(self, name: str) -> None:
        """If it is there."""
        self.change(lambda _vhost: clear(self._catalogue, Kind.POLICY, (VHOST, name)))

    def admit(self, node: NodeId, address: ListenAddress, drawn: int) -> None:
        """An operator lets a node in."""
        nodes = self._catalogue.nodes
        self.change(lambda _vhost: admit(nodes.entries, node, address, drawn))

    def dismiss(self, node: NodeId) -> None:
        """An operator has one forgotten, as it is known now: what is decided late must not dismiss
        another that has been let in under its name."""
        nodes = self._catalogue.nodes.entries
        known = nodes.get(node)
        self.change(lambda _vhost: dismiss(nodes, node) if nodes.get(node) == known else NOTHING)

    def touch(self, number: int) -> None:
        """A change that makes no difference."""
        tags = {"tags": [f"{number}"]}
        self._metadata.change(
            lambda: set_vhost(self._catalogue, VHOST, metadata=tags), done, failed
        )
