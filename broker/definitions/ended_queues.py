"""Queues and sessions that have ended with the process that they were on: still defined, queues
have to go, and the sessions of a lost node are reported (`node_loss_listeners`).

A node removes what its own earlier lives have left before it takes clients.  For a node that is
dead the one does it that leads, once all the others have said that they do not see it either: that
a link between two nodes is cut says nothing of either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from functools import partial
from itertools import chain
from typing import Protocol, TypeAlias

from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.client_session import WillName
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.metadata import Metadata, ignore_done
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.routing.bindings import DestinationKind
from fluffle.broker.vhosts.queue_changes import (
    delete_queues,
    delete_with_sessions,
    is_renewable,
    nodes_of,
    renewal,
)
from fluffle.broker.vhosts.vhost import VirtualHost

BATCH_FACTS = 1_000
"""Most queues and bindings removed by one change, unless one queue has more: to apply them takes a
node 10 ms."""

LOOK_S = 1.0
"""Between two looks of the one that leads, while a node is away."""

IsEnded: TypeAlias = Callable[[QueueDefinition], bool]
QueueBatch: TypeAlias = tuple[QueueHandle, ...]


def ended_before(node: str, boot: int) -> IsEnded:
    """Function that says if a queue was on this node in an earlier boot."""
    return lambda definition: definition.home == node and 0 < definition.boot < boot  # mutant: E3


def remove_ended(
    catalogue: Catalogue,
    metadata: Metadata,
    is_ended: IsEnded,
    finished: Callable[[], None] = ignore_done,
) -> None:
    """Remove the queues of which it is so, some at a time."""
    for vhost in (*catalogue.vhosts.values(), *catalogue.doomed.values()):
        if queues := tuple(ended_in(vhost, is_ended)):
            look_again = partial(remove_ended, catalogue, metadata, is_ended, finished)
            decide = partial(decide_end, catalogue, vhost, is_ended)
            remove_batches(metadata, decide, in_batches(vhost, queues), look_again)
            return
    finished()


def remove_batches(
    metadata: Metadata,
    decide: Callable[[QueueBatch], Change],
    batches: Iterator[QueueBatch],
    finished: Callable[[], None],
) -> None:
    """Remove queues by one change for each batch, the next when the one before is applied."""
    batch = next(batches, ())
    if batch:
        go_on = partial(remove_batches, metadata, decide, batches, finished)
        metadata.ensure(partial(decide, batch), go_on)
    else:
        finished()


def in_batches(vhost: VirtualHost, queues: Iterable[QueueHandle]) -> Iterator[QueueBatch]:
    """Yield the queues in batches of `BATCH_FACTS` queues and bindings at most."""
    batch: list[QueueHandle] = []
    fact_count = 0
    for queue in queues:
        count = 1 + len(vhost.topology.bindings_to(DestinationKind.QUEUE, queue.name))
        if batch and fact_count + count > BATCH_FACTS:
            yield tuple(batch)
            batch, fact_count = [], 0
        batch.append(queue)
        fact_count += count
    if batch:
        yield tuple(batch)


def decide_end(
    catalogue: Catalogue, vhost: VirtualHost, is_ended: IsEnded, queues: QueueBatch
) -> Change:
    """Delete the queues that have ended, with the sessions that need them.  A queue of a session
    that promises nothing for its messages is made anew, empty: the session goes on.  Of a virtual
    host that is being deleted the queues just go."""
    ended = tuple(queue for queue in queues if is_ended(queue.definition) and vhost.has(queue))
    if catalogue.vhosts.get(vhost.name) is not vhost:
        return delete_queues(vhost, ended)
    renewed = [queue for queue in ended if is_renewable(queue.spec)]  # mutant: MQ65
    change = delete_with_sessions(vhost, tuple(each for each in ended if each not in renewed))
    for queue in renewed:
        change = change.joined(renewal(vhost, queue))
    return change


def ended_in(vhost: VirtualHost, is_ended: IsEnded) -> Iterator[QueueHandle]:
    return (queue for queue in vhost.queues.values() if is_ended(queue.definition))


def nodes_of_sessions(catalogue: Catalogue) -> frozenset[str]:
    """Return the nodes to which the clients of sessions are connected, or were last, and those that
    are to publish wills."""
    sessions = [vhost.client_sessions for vhost in catalogue.vhosts.values()]
    of_clients = (kept.node for each in sessions for kept in each.by_client.values())
    of_wills = (will.node for each in sessions for will in each.due_wills.values())
    return frozenset(chain(of_clients, of_wills))


def count_on(catalogue: Catalogue, node: str) -> int:
    """Return how many queues are on that node alone."""
    return sum(1 for _ in queues_on(catalogue, node))


def queues_on(catalogue: Catalogue, node: str) -> Iterator[tuple[str, QueueHandle]]:
    """Yield the queues that are on that node alone, each behind the name of its virtual host."""
    is_its = partial(is_on_alone, catalogue, node)
    for vhost in (*catalogue.vhosts.values(), *catalogue.doomed.values()):
        for queue in ended_in(vhost, is_its):
            yield vhost.name, queue


def is_on_alone(catalogue: Catalogue, node: str, definition: QueueDefinition) -> bool:
    """True if a queue is on that node, or has a member there, and is on no other of the cluster."""
    places = set(nodes_of(definition))
    return node in places and places.isdisjoint(catalogue.nodes.entries.keys() - {node})


def is_orphan_of(catalogue: Catalogue, node: str, definition: QueueDefinition) -> bool:
    """True if a queue was on this node alone, which was forgotten."""
    is_forgotten = node not in catalogue.nodes.entries
    return is_forgotten and is_on_alone(catalogue, node, definition)


class ClusterMetadata(Metadata, Protocol):
    """Definitions of a cluster, whose changes one node orders."""

    @property
    def leads(self) -> bool:
        """True if this node orders the changes of all."""


class NodeStates(Protocol):
    """States of the other nodes, as this one believes."""

    def is_alive(self, node: str, /) -> bool: ...

    def is_dead(self, node: str, /) -> bool:
        """True if nothing that ends with its process is of any use any more."""


class NodeSightings(Protocol):
    """Views that the other nodes have of each other."""

    def ask(
        self, nodes: Collection[str], done: Callable[[Mapping[str, frozenset[str]]], None], /
    ) -> None:
        """Ask `nodes` in their order, and call `done` once, later, with the nodes that each of them
        that answers sees."""


class WatchedCluster(Protocol):
    """Cluster, as far as it is known which nodes of it are dead."""

    @property
    def name(self) -> str:
        """Name of this node."""

    @property
    def metadata(self) -> ClusterMetadata: ...

    @property
    def absent(self) -> NodeStates: ...

    @property
    def peer_views(self) -> NodeSightings: ...


class EndedQueues:
    """Looks after queues and sessions of nodes that are dead, or none of the cluster any more."""

    def __init__(
        self,
        catalogue: Catalogue,
        cluster: WatchedCluster,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
    ) -> None:
        self._catalogue = catalogue
        self._cluster = cluster
        self._call_later = call_later
        self._timer: asyncio.TimerHandle | None = None
        self._done: dict[str, int] = {}
        """Nodes of which nothing is left, and of which of their lives."""
        self._queried: set[str] = set()
        """Nodes about which the others have not answered yet."""
        self._names: frozenset[str] = frozenset()
        """Nodes that there were when it was last looked for queues of others."""
        catalogue.transient_listeners.append(self._on_transient_queue)
        catalogue.session_listeners.append(self._on_session)
        catalogue.will_listeners.append(self._on_will)

    def _on_transient_queue(self, _vhost: VirtualHost, definition: QueueDefinition) -> None:
        """Look again: what a node had proposed may come true after its death, and after what it
        left was looked for."""
        if self._done.get(definition.home, 0) >= definition.boot:
            self._done.pop(definition.home, None)

    def _on_session(self, vhost: str, client_id: str) -> None:
        """Look again, as for a queue, if a node that is dead has one more session."""
        found = self._catalogue.vhosts.get(vhost)
        kept = None if found is None else found.client_sessions.by_client.get(client_id)
        if kept is not None:
            self._done.pop(kept.node, None)

    def _on_will(self, vhost: str, name: WillName) -> None:
        """Look again, as for a queue, if a node that is dead has one more will to publish."""
        found = self._catalogue.vhosts.get(vhost)
        will = None if found is None else found.client_sessions.due_wills.get(name)
        if will is not None:
            self._done.pop(will.node, None)

    def watch(self) -> None:
        """Look now, and then for ever."""
        self.look()
        self._timer = self._call_later(LOOK_S, self.watch)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """A few nodes each time; queues only when one has died."""
        if not self._cluster.metadata.leads:
            self._done.clear()
            self._names = frozenset()
            return
        names = frozenset(self._catalogue.nodes.entries)
        if names != self._names:
            self._names = names
            remove_ended(self._catalogue, self._cluster.metadata, self._is_orphaned)
            for node in nodes_of_sessions(self._catalogue) - names:
                self._lost(node, partial(self._is_forgotten, node))
        for node, known in self._catalogue.nodes.entries.items():
            if not self._cluster.absent.is_dead(node):
                self._done.pop(node, None)
            elif self._done.get(node) != known.boot and node not in self._queried:
                self._ask(node, known.boot)

    def _ask(self, node: str, boot: int) -> None:
        self._queried.add(node)
        is_alive = self._cluster.absent.is_alive
        others = sorted(filter(is_alive, self._catalogue.nodes.entries))
        on_sightings = partial(self._on_sightings, node, boot, frozenset(others))
        self._cluster.peer_views.ask(others, on_sightings)

    def _on_sightings(
        self, node: str, boot: int, others: Set[str], sights: Mapping[str, Set[str]]
    ) -> None:
        """Ask again in a while if a node sees it, or one that was not asked or did not answer, or
        if it has been seen here meanwhile."""
        self._queried.discard(node)
        known = self._catalogue.nodes.entries.keys() - {self._cluster.name}
        seen = known.intersection(frozenset[str]().union(*sights.values()))
        if sights.keys() != others or seen - others or not self._cluster.metadata.leads:
            return
        if not self._cluster.absent.is_dead(node):
            return
        self._done[node] = boot
        is_ended = partial(self._is_ended, node, boot)
        remove_ended(self._catalogue, self._cluster.metadata, is_ended)
        self._lost(node, partial(self._cluster.absent.is_dead, node))

    def _lost(self, node: str, is_lost: Callable[[], bool]) -> None:
        for listener in self._catalogue.node_loss_listeners:
            call_listener(partial(listener, node, is_lost))

    def _is_forgotten(self, node: str) -> bool:
        return node not in self._catalogue.nodes.entries

    def _is_orphaned(self, definition: QueueDefinition) -> bool:
        """True if all nodes that it was on were forgotten."""
        places = nodes_of(definition)
        return bool(places) and is_orphan_of(self._catalogue, places[0], definition)

    def _is_ended(self, node: str, boot: int, definition: QueueDefinition) -> bool:
        is_its = definition.home == node and 0 < definition.boot <= boot
        return is_its and self._cluster.absent.is_dead(node)
