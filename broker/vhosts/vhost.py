"""Virtual host: its exchanges, its queues, where a message goes, and which observers see that.

Tracers see what clients publish, are given and purge on this node; the firehose is one
(`core.firehose`).  Each is there under a name, and knows nothing of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from fluffle.broker.access.limits import VhostLimits
from fluffle.broker.base.errors import (
    AccessRefused,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    ResourceLocked,
)
from fluffle.broker.base.message import Origin, Origins
from fluffle.broker.base.queue_names import exchange_of, is_delayed_queue
from fluffle.broker.durability.fact_codec import VhostImage
from fluffle.broker.metadata.change import Fact, Kind
from fluffle.broker.policies.policies import Policies
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Owner, QueueDefinition, is_same_or_changing
from fluffle.broker.queues.publish_target import PublishTarget, QueueTarget
from fluffle.broker.queues.queue_api import (
    Consumer,
    Deferred,
    DeliveryBatch,
    QueueFactory,
    QueueHandle,
)
from fluffle.broker.routing.bindings import DestinationKind
from fluffle.broker.routing.exchange_host import ExchangeHost, at_once, first
from fluffle.broker.routing.recent_history import HistoryMessage, MessageHistory
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.topology import Topology
from fluffle.broker.vhosts.client_sessions import ClientSessions
from fluffle.broker.vhosts.retained import RetainedTopics
from fluffle.protocol.properties import Properties
from fluffle.protocol.steps import Steps, whole


class TracedClient(NamedTuple):
    """Client that publishes, is given messages, or purges a queue."""

    connection: str
    channel: int
    """0 where its protocol has none."""
    user: str
    is_transactional: bool = False
    """True if what it publishes waits for a commit."""


class TracedBatch(Protocol):
    """Messages that go to the same queues, as `RoutedBatch` has them."""

    @property
    def origins(self) -> Sequence[Origin]: ...

    @property
    def contents(self) -> Sequence[bytes]: ...

    @property
    def places(self) -> Sequence[int]:
        """Where each message stands among those that are published together."""

    @property
    def targets(self) -> Sequence[PublishTarget]: ...

    @property
    def mandatory(self) -> bool: ...


class Tracer(Protocol):
    """Observer of what clients of a virtual host on this node publish, receive and purge."""

    def published(
        self,
        client: TracedClient,
        routed_batches: Sequence[TracedBatch],
        more_routing_keys: Sequence[str],
    ) -> None:
        """A client has published messages, which are about to be put into queues.  All have
        `more_routing_keys`, of CC and BCC."""

    def delivered(
        self, client: TracedClient, delivery_batch: DeliveryBatch, first_tag: int
    ) -> None:
        """A client is about to be given messages of a queue, with delivery tags from this one."""

    def purging(self, client: TracedClient, queue: QueueHandle) -> Callable[[], None]:
        """A client purges a queue: what comes from now on stays.  What is returned is called once
        that is done, if it is."""


class Tracers:
    """Several tracers used as one."""

    def __init__(self, tracers: Sequence[Tracer]) -> None:
        self._tracers = tracers

    def published(
        self,
        client: TracedClient,
        routed_batches: Sequence[TracedBatch],
        more_routing_keys: Sequence[str],
    ) -> None:
        for each in self._tracers:
            each.published(client, routed_batches, more_routing_keys)

    def delivered(
        self, client: TracedClient, delivery_batch: DeliveryBatch, first_tag: int
    ) -> None:
        for each in self._tracers:
            each.delivered(client, delivery_batch, first_tag)

    def purging(self, client: TracedClient, queue: QueueHandle) -> Callable[[], None]:
        all_done = [each.purging(client, queue) for each in self._tracers]

        def done() -> None:
            for each in all_done:
                each()

        return done


OnKept: TypeAlias = "Callable[[str, str, HistoryMessage], None]"
"""Called with a virtual host, an exchange, and a message that it has kept."""


class QueueLifecycleCounters:
    """How often queues were declared, made and deleted, since the node started."""

    def __init__(self) -> None:
        self.declared = self.created = self.deleted = 0


def ignore_new_queue(_spec: QueueSpec, _vhost: str) -> None:
    """Do nothing: new queues are not observed."""


def ignore_kept(_vhost: str, _exchange: str, _message: HistoryMessage) -> None:
    """Do nothing: there are no other nodes."""


def check_usable(queue: QueueHandle, vhost: str) -> None:
    """AccessRefused for a queue of the broker's own, into which no client may put anything."""
    if is_delayed_queue(queue.name):
        raise AccessRefused(
            f"queue '{queue.name}' in vhost '{vhost}' holds the delayed messages of "
            f"exchange '{exchange_of(queue.name)}'"
        )


def check_unneeded(queue: QueueHandle, vhost: str, *, unused: bool, empty: bool) -> None:
    """Check the conditions of a deletion.  PreconditionFailed if one fails; NotFound if the node
    that could check it did not answer.

    A queue is unused whose node is known to be away, which may hold messages all the same.
    """
    check_usable(queue, vhost)
    unknown = queue.counts_error if empty or (unused and queue.unreachable_error is None) else None
    if unknown is not None:
        raise unknown
    if empty and queue.ready_count:
        raise PreconditionFailed(f"queue '{queue.name}' in vhost '{vhost}' not empty")
    if unused and queue.consumer_count:
        raise PreconditionFailed(f"queue '{queue.name}' in vhost '{vhost}' in use")


class VirtualHost:
    """Exchanges, bindings and queues that know nothing of those of other virtual hosts.

    `queue_changes` decides what is to change; here is what is so.  `image` is what was so when an
    earlier process ended.
    """

    def __init__(
        self,
        name: str,
        maker: QueueFactory,
        *,
        on_new_queue: Callable[[QueueSpec, str], None] = ignore_new_queue,
        policies: Policies | None = None,
        image: VhostImage | None = None,
        on_kept: OnKept = ignore_kept,
        pick: Callable[[int], int] = first,
        later: Callable[[Iterator[None]], None] = at_once,
    ) -> None:
        """`on_new_queue` is called with a queue's spec and the name of this, whenever one is made.
        `policies` may say where messages go that an exchange does not match.
        `on_kept` is called with the name of this, of an exchange, and a message that it keeps.
        `pick` gives by chance one of so many numbers, from 0 on.
        `later` has work done piece by piece that need not be done before others have their turns.

        Raises `StorageError` when the journal of a queue cannot be read.
        """
        image = image or VhostImage()
        self.name = name
        self.settings = image.settings
        """Settings in the fact of this virtual host."""
        self.queues: dict[str, QueueHandle] = {}
        self.successors: dict[str, QueueHandle] = {}
        """Successors by the names of the queues that they are to replace, which refer to them
        (`successor`)."""
        self.predecessors: dict[object, object] = {}
        """Former form of queues that were converted in this boot of the node, by id."""
        self.redirects: dict[str, QueueTarget] = {}
        """Where messages go in the place of a queue that takes none for now: see `redirect`."""
        self.epoch = 0
        """Rises when a queue comes or goes, with which the default exchange leads elsewhere; the
        other exchanges lead where the topology says, which has an epoch of its own."""
        self.topology = Topology(
            name,
            host=VhostExchangeHost(self, on_kept, pick, later, policies or Policies()),
            exchanges=image.exchanges,
            bindings=image.bindings,
        )
        self.router = Router(
            self.topology, lambda queue: queue in self.queues and not is_delayed_queue(queue)
        )
        self.client_sessions = ClientSessions(
            image.client_sessions, image.client_packets, image.due_wills
        )
        self.retained = RetainedTopics(image.retained)
        """Retained messages of topics, for later subscribers; for reading."""
        self.counts = QueueLifecycleCounters()
        self.origin = Origins().of
        """The one object that stands for an exchange and a routing key."""
        self.tracers: dict[str, Tracer] = {}
        self.tracer: Tracer | None = None
        """Observer of this node's clients: `tracers` as one (`set_tracer`)."""
        self.maker, self._on_new_queue = maker, on_new_queue
        self._owned: dict[Owner, dict[str, QueueHandle]] = {}
        """Exclusive queues by their owner; no owner without one."""
        for definition in image.queues:
            self.queues[definition.spec.name] = maker.reopen(definition, name)

    @property
    def limits(self) -> VhostLimits:
        return self.settings.limits

    @property
    def metadata(self) -> Mapping[str, object]:
        """Metadata that definitions have of it besides."""
        return self.settings.metadata

    def route(
        self, exchange: str, routing_keys: Sequence[str], properties: Properties | None
    ) -> tuple[tuple[QueueTarget, ...], tuple[MessageHistory, ...], bool]:
        """Return the queues that a message goes to, each once, what keeps it, and whether that
        rests on something not being there (`router.Route.misses`)."""
        return whole(self.route_in_steps(exchange, routing_keys, properties))

    def route_in_steps(
        self,
        exchange: str,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
    ) -> Steps[tuple[tuple[QueueTarget, ...], tuple[MessageHistory, ...], bool]]:
        """Find a route as `route` does; `topic` as for `Router.route_in_steps`."""
        epoch = self.topology.epoch, self.epoch
        way = yield from self.router.route_in_steps(exchange, routing_keys, properties, topic)
        names = way.queues
        if epoch != (self.topology.epoch, self.epoch):
            names = tuple(filter(self.queues.__contains__, names))  # some may have gone meanwhile
        return self._inlets_of(names), way.histories, way.misses or len(names) < len(way.queues)

    def _inlets_of(self, names: Iterable[str]) -> tuple[QueueTarget, ...]:
        if not self.redirects:
            return tuple(self.queues[name] for name in names)
        return tuple(self.redirects.get(name) or self.queues[name] for name in names)

    def redirect(self, name: str, target: QueueTarget | None) -> None:
        """Send what is for a queue to another target meanwhile; None: to the queue again."""
        if target is not None:
            self.redirects[name] = target
        else:
            self.redirects.pop(name, None)
        self._lead_elsewhere()

    def _lead_elsewhere(self) -> None:
        """Note that a name does not lead to the same queue any more."""
        self.epoch += 1
        self.topology.epoch += 1

    def queue(self, name: str, owner: Owner | None) -> QueueHandle:
        """Return the queue that `owner` may use.  NotFound; ResourceLocked when it is another's;
        AccessRefused for those of the broker."""
        queue = existing_queue(self, name)
        check_usable(queue, self.name)
        if queue.owner is not None and queue.owner != owner:
            raise self.locked(name)
        return queue

    # Facts

    def put_queue(self, definition: QueueDefinition) -> tuple[Consumer, ...]:
        """Put a queue: a new one; or one of this id with other members, arguments or another
        successor; or one that has taken the place of another, whose consumers have to be
        notified."""
        there = self.queues.get(definition.spec.name)
        if there is not None:
            if is_same_or_changing(there.definition, definition):
                self._redefine(there, definition)
                return ()
            successor = self.successors.pop(definition.spec.name, None)
            if successor is not None and successor.definition.id == definition.id:
                return self._inherit(there, successor, definition)
        spec, owner = definition.spec, definition.owner
        queue = self.queues[spec.name] = self.maker.make(definition, self.name)
        if owner is not None:
            self._owned.setdefault(owner, {})[spec.name] = queue
        self.epoch += 1
        if self.topology.bindings_to(DestinationKind.QUEUE, spec.name):
            self.topology.epoch += 1  # they have led to the queue that this one replaces
        self.counts.created += 1
        self._on_new_queue(spec, self.name)
        if definition.successor is not None:
            self.successors[spec.name] = self.maker.create_successor(
                definition.successor, self.name
            )
        return ()

    def _redefine(self, queue: QueueHandle, definition: QueueDefinition) -> None:
        before, after = queue.definition.successor, definition.successor
        has_other_arguments = queue.spec.arguments != definition.spec.arguments
        self.maker.redefine(queue, definition)
        if has_other_arguments:
            self.maker.renew_settings(queue, self.name)
        if before == after:
            return
        if (successor := self.successors.pop(queue.name, None)) is not None:
            self.maker.end(successor)
        if after is not None:
            self.successors[queue.name] = self.maker.create_successor(after, self.name)

    def _inherit(
        self, queue: QueueHandle, successor: QueueHandle, definition: QueueDefinition
    ) -> tuple[Consumer, ...]:
        """Put the successor, which has the messages, in the place of the queue of that name."""
        consumers = queue.consumers
        self.queues[queue.name] = successor
        self.predecessors[definition.id] = queue.definition.id or queue
        self.redirects.pop(queue.name, None)
        self._lead_elsewhere()
        self.maker.promote(successor, definition, self.name)
        self.maker.part(queue, successor)
        return consumers

    def remove_queue(self, name: str) -> tuple[Consumer, ...]:
        """Remove a queue with its messages; return its consumers, which have to be notified."""
        queue = self.queues.pop(name)
        was: object | None = queue.definition.id
        while was is not None:
            was = self.predecessors.pop(was, None)
        self.counts.deleted += 1
        if queue.owner is not None:
            self._disown(queue.owner, name)
        self.epoch += 1
        consumers = queue.consumers
        self.maker.end(queue)
        self.redirects.pop(name, None)
        if (successor := self.successors.pop(name, None)) is not None:
            self.maker.end(successor)
        return consumers

    # Questions, and consumers

    def has(self, queue: QueueHandle) -> bool:
        """True if a queue, not another one of its name, is still there."""
        return self.queues.get(queue.name) is queue

    def check_deletable(self, queue: QueueHandle, *, unused: bool, empty: bool) -> None:
        """Check as `check_unneeded` for a client; NotImplementedHere if that cannot be asked
        for."""
        check_usable(queue, self.name)
        if queue.spec.queue_type is QueueType.QUORUM and (unused or empty):
            flag = "if-unused" if unused else "if-empty"
            raise NotImplementedHere(
                f"cannot delete queue '{queue.name}' in vhost '{self.name}'. queue.delete "
                f"operations with {flag} flag set are not supported by quorum queues"
            )
        check_unneeded(queue, self.name, unused=unused, empty=empty)

    def attach(self, consumer: Consumer) -> Deferred[None] | None:
        """Start a consumer.  AccessRefused when one of two that meet is exclusive, which means
        nothing to a quorum queue."""
        queue = consumer.queue
        is_classic = queue.spec.queue_type is QueueType.CLASSIC
        is_accepted = queue.consumer_count or queue.spec.single_active_consumer
        if is_classic and (queue.in_exclusive_use or (consumer.exclusive and is_accepted)):
            raise AccessRefused(f"queue '{queue.name}' in vhost '{self.name}' in exclusive use")
        return queue.attach(consumer)

    def detach(self, consumer: Consumer) -> None:
        """Stop a consumer, unless its queue is gone, and it with it."""
        if self.has(consumer.queue):
            consumer.queue.detach(consumer)

    def owned_by(self, owner: Owner) -> tuple[QueueHandle, ...]:
        """The exclusive queues of a connection."""
        return tuple(self._owned.get(owner, {}).values())

    def _disown(self, owner: Owner, name: str) -> None:
        owned = self._owned[owner]
        del owned[name]
        if not owned:
            del self._owned[owner]

    def locked(self, name: str) -> ResourceLocked:
        """Return the error for clients that may not use an exclusive queue."""
        return ResourceLocked(
            f"cannot obtain exclusive access to locked queue '{name}' in vhost '{self.name}'. "
            "It could be originally declared on another connection or the exclusive property "
            "value does not match that of the original declaration."
        )


def existing_queue(vhost: VirtualHost, name: str) -> QueueHandle:
    """Return a queue that must be there.  NotFound."""
    queue = vhost.queues.get(name)
    if queue is None:
        raise NotFound(f"no queue '{name}' in vhost '{vhost.name}'")
    return queue


class VhostExchangeHost(ExchangeHost):
    """A virtual host as its exchanges see it."""

    def __init__(
        self,
        vhost: VirtualHost,
        on_kept: OnKept,
        pick: Callable[[int], int],
        later: Callable[[Iterator[None]], None],
        policies: Policies,
    ) -> None:
        self._vhost = vhost
        self._on_kept = on_kept
        self._policies = policies
        self._pick = pick
        self._later = later

    def is_durable_queue(self, queue: str) -> bool:
        return self._vhost.queues[queue].spec.durable

    def queue_type(self, queue: str) -> str | None:
        """Type of a queue; of one that is being converted, its new type."""
        served = self._vhost.queues.get(queue)
        if served is None:
            return None
        definition = served.definition.successor or served.definition
        return definition.spec.queue_type.module

    def queue_fact(self, queue: str) -> Fact | None:
        served = self._vhost.queues.get(queue)
        if served is None:
            return None
        key = self._vhost.name, queue
        return Fact(Kind.QUEUE, key, served.definition, served.spec.durable)

    def is_here(self, queue: str) -> bool:
        return isinstance(self._vhost.queues.get(queue), Queue)

    def kept(self, exchange: str, message: HistoryMessage) -> None:
        self._on_kept(self._vhost.name, exchange, message)

    def pick(self, count: int) -> int:
        return self._pick(count)

    def later(self, pieces: Iterator[None]) -> None:
        self._later(pieces)

    def alternate_of(self, exchange: str) -> str | None:
        return self._policies.alternate_of(self._vhost.name, exchange)


def set_tracer(vhost: VirtualHost, name: str, tracer: Tracer | None) -> None:
    """Have this tracer under a name from now on, or none."""
    if tracer is not None:
        vhost.tracers[name] = tracer
    else:
        vhost.tracers.pop(name, None)
    tracers = tuple(vhost.tracers.values())
    vhost.tracer = tracers[0] if len(tracers) == 1 else Tracers(tracers) if tracers else None
