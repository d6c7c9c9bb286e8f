"""The catalogue of one virtual host: its exchanges, its queues, and where a message goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fluffle.broker.access.limits import VhostLimits, is_reached
from fluffle.broker.errors import AccessRefused, NotFound, PreconditionFailed, ResourceLocked
from fluffle.broker.facts import FORGOTTEN, Facts, Kind
from fluffle.broker.logs import event
from fluffle.broker.message import Origins
from fluffle.broker.queues.arguments import Declaration, QueueSpec, check_equivalent, queue_spec
from fluffle.broker.queues.consumers import Consumer
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import DurableQueue, Journal, Journals
from fluffle.broker.recording.image import VhostImage
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import check_not_default
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.types import FieldTable

logger = logging.getLogger(__name__)


class QueueCounts:
    """How often queues were declared, made and deleted, since the node started."""

    __slots__ = ("created", "declared", "deleted")

    def __init__(self) -> None:
        self.declared = self.created = self.deleted = 0


class VirtualHost:
    """Exchanges, bindings and queues that know nothing of those of other virtual hosts.

    What of it is durable is told to `facts`, and `image` is what was told to those of an earlier
    process.
    """

    __slots__ = (
        "_facts",
        "_journals",
        "_owned",
        "_touch",
        "counts",
        "epoch",
        "name",
        "origin",
        "queues",
        "router",
        "settings",
        "topology",
    )

    def __init__(
        self,
        name: str,
        *,
        touch: Callable[[Queue], None],
        journals: Journals | None = None,
        facts: Facts = FORGOTTEN,
        image: VhostImage | None = None,
    ) -> None:
        """Raises `StorageError` when the journal of a queue cannot be read."""
        image = image or VhostImage()
        self.name = name
        self.settings = image.settings
        """To be changed by `change` alone."""
        self.queues: dict[str, Queue] = {}
        self.epoch = 0
        """Rises when a queue comes or goes, with which the default exchange leads elsewhere; the
        other exchanges lead where the topology says, which has an epoch of its own."""
        self.topology = Topology(
            name,
            facts=facts,
            is_durable_queue=lambda queue: self.queues[queue].spec.durable,
            exchanges=image.exchanges,
            bindings=image.bindings,
        )
        self.router = Router(self.topology, self.queues.__contains__)
        self.counts = QueueCounts()
        self.origin = Origins().of
        """The one object that stands for an exchange and a routing key."""
        self._touch = touch
        self._journals = journals
        self._facts = facts
        self._owned: dict[object, dict[str, Queue]] = {}
        """Exclusive queues by their owner; no owner without one."""
        for spec, groups in image.queues:
            journal = journals.reopen(groups) if journals else None
            self.queues[spec.name] = self._make_queue(spec, journal)
            if journal is not None:
                self.queues[spec.name].recover()

    @property
    def limits(self) -> VhostLimits:
        return self.settings.limits

    @property
    def metadata(self) -> Mapping[str, object]:
        """What definitions say of it besides."""
        return self.settings.metadata

    def change(
        self,
        *,
        limits: VhostLimits | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Set what is given; new limits take nothing away."""
        if limits is not None:
            self.settings = replace(self.settings, limits=limits)
        if metadata is not None:
            self.settings = replace(self.settings, metadata=metadata)
        self._facts.put(Kind.VHOST, (self.name,), self.settings)

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
            queue = self.queues[spec.name] = self._make_queue(spec, journal, expected_owner)
            if queue.owner is not None:
                self._owned.setdefault(queue.owner, {})[queue.name] = queue
            self.epoch += 1
            self.counts.created += 1
            if spec.durable:
                kept = DurableQueue(spec, journal.groups if journal else ())
                self._facts.put(Kind.QUEUE, (self.name, spec.name), kept)
            return queue
        if queue.owner is not expected_owner:
            raise self._locked(declared.name)
        check_equivalent(queue.spec, declared, self.name)
        return queue

    def delete_queue(self, queue: Queue) -> None:
        """Remove a queue with its bindings and cancel its consumers, unless it is gone already."""
        if not self.has(queue):
            return
        self.topology.drop_queue(queue.name)
        if queue.spec.durable:
            self._facts.remove(Kind.QUEUE, (self.name, queue.name))
        del self.queues[queue.name]
        self.counts.deleted += 1
        if queue.owner is not None:
            self._disown(queue.owner, queue.name)
        self.epoch += 1
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

    def _make_queue(
        self, spec: QueueSpec, journal: Journal | None, owner: object | None = None
    ) -> Queue:
        spill = self._journals.spill if self._journals else None
        return Queue(
            spec,
            touch=self._touch,
            owner=owner,
            journal=journal,
            spill=spill,
            on_crash=self._on_crash,
        )

    def _on_crash(self, queue: Queue) -> None:
        """A queue hands out nothing any more: its consumers must know, and so must operators."""
        assert queue.damage is not None
        event(
            logger,
            logging.ERROR,
            "queue_crashed",
            vhost=self.name,
            queue=queue.name,
            place=queue.damage.place,
            reason=queue.damage.what,
        )
        for consumer in queue.consumers:
            queue.detach(consumer)
            consumer.sink.cancelled(consumer)

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
