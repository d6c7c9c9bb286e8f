"""The catalogue of one virtual host: its exchanges, its queues, and where a message goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fluffle.broker.access.limits import VhostLimits, is_reached
from fluffle.broker.errors import AccessRefused, NotFound, PreconditionFailed, ResourceLocked
from fluffle.broker.message import Origin
from fluffle.broker.queues.arguments import Declaration, check_equivalent, queue_spec
from fluffle.broker.queues.consumers import Consumer
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import Journals
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import check_not_default
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.types import FieldTable

ORIGINS_MAX = 65_536
"""Origins are interned until there are so many; then afresh, and older messages keep theirs."""


class QueueCounts:
    """How often queues were declared, made and deleted, since the node started."""

    __slots__ = ("created", "declared", "deleted")

    def __init__(self) -> None:
        self.declared = self.created = self.deleted = 0


class VirtualHost:
    """Exchanges, bindings and queues that know nothing of those of other virtual hosts."""

    __slots__ = (
        "_journals",
        "_origins",
        "_owned",
        "_touch",
        "counts",
        "epoch",
        "limits",
        "metadata",
        "name",
        "queues",
        "router",
        "topology",
    )

    def __init__(
        self, name: str, *, touch: Callable[[Queue], None], journals: Journals | None = None
    ) -> None:
        self.name = name
        self.limits = VhostLimits()
        self.metadata: Mapping[str, object] = {}
        """What definitions say of it besides: description, tags, default_queue_type."""
        self.queues: dict[str, Queue] = {}
        self.epoch = 0
        """Rises when a queue comes or goes, with which the default exchange leads elsewhere; the
        other exchanges lead where the topology says, which has an epoch of its own."""
        self.topology = Topology(name)
        self.router = Router(self.topology, self.queues.__contains__)
        self.counts = QueueCounts()
        self._touch = touch
        self._journals = journals
        self._origins: dict[tuple[str, str], Origin] = {}
        self._owned: dict[object, dict[str, Queue]] = {}
        """Exclusive queues by their owner; no owner without one."""

    def origin(self, exchange: str, routing_key: str) -> Origin:
        """The one object that stands for this exchange and this routing key."""
        key = (exchange, routing_key)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= ORIGINS_MAX:
                self._origins.clear()
            origin = self._origins[key] = Origin(exchange, routing_key)
        return origin

    def route(
        self, exchange: str, routing_keys: Sequence[str], headers: FieldTable | None
    ) -> tuple[Queue, ...]:
        """The queues that a message goes to, each once."""
        names = self.router.route(exchange, routing_keys, headers)
        return tuple(self.queues[name] for name in names)

    def queue(self, name: str, owner: object) -> Queue:
        """The queue that `owner` may use.  NotFound; ResourceLocked when it is another's."""
        queue = self.queues.get(name)
        if queue is None:
            raise NotFound(f"no queue '{name}' in vhost '{self.name}'")
        if queue.owner is not None and queue.owner is not owner:
            raise self._locked(name)
        return queue

    def declare_queue(self, declared: Declaration, owner: object) -> Queue:
        """The queue of that name: created if there is none, compared with `declared` if there is.

        Raises ResourceLocked, PreconditionFailed, NotImplementedHere with RabbitMQ's texts.
        """
        self.counts.declared += 1
        expected_owner = owner if declared.exclusive else None
        queue = self.queues.get(declared.name)
        if queue is None:
            spec = queue_spec(declared, self.name)
            self._check_queue_limit(spec.name)
            journal = self._journals.create() if self._journals and spec.durable else None
            queue = self.queues[spec.name] = Queue(
                spec,
                touch=self._touch,
                owner=expected_owner,
                journal=journal,
                spill=self._journals.spill if self._journals else None,
            )
            if queue.owner is not None:
                self._owned.setdefault(queue.owner, {})[queue.name] = queue
            self.epoch += 1
            self.counts.created += 1
            return queue
        if queue.owner is not expected_owner:
            raise self._locked(declared.name)
        check_equivalent(queue.spec, declared, self.name)
        return queue

    def delete_queue(self, queue: Queue) -> None:
        """Remove a queue with its bindings and cancel its consumers, unless it is gone already."""
        if not self.has(queue):
            return
        del self.queues[queue.name]
        self.counts.deleted += 1
        if queue.owner is not None:
            self._disown(queue.owner, queue.name)
        self.epoch += 1
        self.topology.drop_queue(queue.name)
        for consumer in queue.consumers:
            queue.detach(consumer)
            consumer.sink.cancelled(consumer)
        queue.purge()
        if queue.journal is not None:
            queue.journal.drop()

    def has(self, queue: Queue) -> bool:
        """Whether a queue, not another one of its name, is still there."""
        return self.queues.get(queue.name) is queue

    def check_deletable(self, queue: Queue, *, unused: bool, empty: bool) -> None:
        """PreconditionFailed when a condition that was asked for fails."""
        if empty and queue.ready_count:
            raise PreconditionFailed(f"queue '{queue.name}' in vhost '{self.name}' not empty")
        if unused and queue.consumer_count:
            raise PreconditionFailed(f"queue '{queue.name}' in vhost '{self.name}' in use")

    def attach(self, consumer: Consumer) -> None:
        """Start a consumer.  AccessRefused when one of two that meet is exclusive."""
        queue = consumer.queue
        if queue.in_exclusive_use or (consumer.exclusive and queue.consumer_count):
            raise AccessRefused(f"queue '{queue.name}' in vhost '{self.name}' in exclusive use")
        queue.attach(consumer)

    def detach(self, consumer: Consumer) -> None:
        """Stop a consumer, and delete its queue if that was the last and it wants that."""
        queue = consumer.queue
        queue.detach(consumer)
        if queue.spec.auto_delete and not queue.consumer_count:
            self.delete_queue(queue)

    def bind(self, binding: Binding, owner: object) -> None:
        """Bind; of ends that are missing the source is reported first, as RabbitMQ does."""
        if binding.destination_kind is DestinationKind.QUEUE:
            check_not_default(binding.source)
            self.topology.require(binding.source)
            self.queue(binding.destination, owner)
        self.topology.bind(binding)

    def unbind(self, binding: Binding, owner: object) -> None:
        """Unbind; what does not exist needs no unbinding, and nobody is asked whose it is."""
        kind, destination = binding.destination_kind, binding.destination
        is_bound = binding in self.topology.bindings_to(kind, destination)
        if is_bound and kind is DestinationKind.QUEUE:
            self.queue(destination, owner)
        self.topology.unbind(binding)

    def drop_owned(self, owner: object) -> None:
        """Delete the exclusive queues of a connection that ends."""
        for queue in tuple(self._owned.get(owner, {}).values()):
            self.delete_queue(queue)

    def _check_queue_limit(self, name: str) -> None:
        limit = self.limits.max_queues
        if is_reached(limit, len(self.queues)):
            raise PreconditionFailed(
                f"cannot declare queue '{name}': queue limit in vhost '{self.name}' ({limit}) "
                "is reached"
            )

    def _disown(self, owner: object, name: str) -> None:
        owned = self._owned[owner]
        del owned[name]
        if not owned:
            del self._owned[owner]

    def _locked(self, name: str) -> ResourceLocked:
        return ResourceLocked(
            f"cannot obtain exclusive access to locked queue '{name}' in vhost '{self.name}'. "
            "It could be originally declared on another connection or the exclusive property "
            "value does not match that of the original declaration."
        )
