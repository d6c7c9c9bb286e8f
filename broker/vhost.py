"""The catalogue of one virtual host: its exchanges, its queues, and where a message goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fluffle.broker.access.limits import VhostLimits
from fluffle.broker.errors import (
    AccessRefused,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    ResourceLocked,
)
from fluffle.broker.message import Origins
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.consumers import Consumer
from fluffle.broker.queues.journal import Owner, QueueDefinition, is_same
from fluffle.broker.queues.making import QueueMaker
from fluffle.broker.queues.served import Later, ServedQueue
from fluffle.broker.recording.image import VhostImage
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.types import FieldTable


class QueueCounts:
    """How often queues were declared, made and deleted, since the node started."""

    __slots__ = ("created", "declared", "deleted")

    def __init__(self) -> None:
        self.declared = self.created = self.deleted = 0


def nobody_notes(_spec: QueueSpec, _vhost: str) -> None:
    """Where nobody wants to know what queues are made."""


class VirtualHost:
    """Exchanges, bindings and queues that know nothing of those of other virtual hosts.

    What is to change is decided in `deciding`; here is what is so.  `image` is what was so when an
    earlier process ended.
    """

    __slots__ = (
        "_on_new_queue",
        "_owned",
        "counts",
        "epoch",
        "maker",
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
        maker: QueueMaker,
        *,
        on_new_queue: Callable[[QueueSpec, str], None] = nobody_notes,
        image: VhostImage | None = None,
    ) -> None:
        """`on_new_queue` is told what a queue is and the name of this, whenever one is made.

        Raises `StorageError` when the journal of a queue cannot be read.
        """
        image = image or VhostImage()
        self.name = name
        self.settings = image.settings
        """As the fact of this virtual host has it."""
        self.queues: dict[str, ServedQueue] = {}
        self.epoch = 0
        """Rises when a queue comes or goes, with which the default exchange leads elsewhere; the
        other exchanges lead where the topology says, which has an epoch of its own."""
        self.topology = Topology(
            name,
            is_durable_queue=lambda queue: self.queues[queue].spec.durable,
            exchanges=image.exchanges,
            bindings=image.bindings,
        )
        self.router = Router(self.topology, self.queues.__contains__)
        self.counts = QueueCounts()
        self.origin = Origins().of
        """The one object that stands for an exchange and a routing key."""
        self.maker = maker
        self._on_new_queue = on_new_queue
        self._owned: dict[Owner, dict[str, ServedQueue]] = {}
        """Exclusive queues by their owner; no owner without one."""
        for definition in image.queues:
            self.queues[definition.spec.name] = maker.reopen(definition, name)

    @property
    def limits(self) -> VhostLimits:
        return self.settings.limits

    @property
    def metadata(self) -> Mapping[str, object]:
        """What definitions say of it besides."""
        return self.settings.metadata

    def route(
        self, exchange: str, routing_keys: Sequence[str], headers: FieldTable | None
    ) -> tuple[ServedQueue, ...]:
        """The queues that a message goes to, each once."""
        names = self.router.route(exchange, routing_keys, headers)
        return tuple(self.queues[name] for name in names)

    def queue(self, name: str, owner: Owner | None) -> ServedQueue:
        """The queue that `owner` may use.  NotFound; ResourceLocked when it is another's."""
        queue = self.queues.get(name)
        if queue is None:
            raise NotFound(f"no queue '{name}' in vhost '{self.name}'")
        if queue.owner is not None and queue.owner != owner:
            raise self.locked(name)
        return queue

    # Facts

    def put_queue(self, definition: QueueDefinition) -> None:
        """There is a queue, where there was none; or one of this id has other members."""
        there = self.queues.get(definition.spec.name)
        if there is not None and is_same(there.definition, definition):
            self.maker.redefine(there, definition)
            return
        spec, owner = definition.spec, definition.owner
        queue = self.queues[spec.name] = self.maker.make(definition, self.name)
        if owner is not None:
            self._owned.setdefault(owner, {})[spec.name] = queue
        self.epoch += 1
        self.counts.created += 1
        self._on_new_queue(spec, self.name)

    def remove_queue(self, name: str) -> tuple[Consumer, ...]:
        """A queue is gone with its messages; its consumers, which have to be told."""
        queue = self.queues.pop(name)
        self.counts.deleted += 1
        if queue.owner is not None:
            self._disown(queue.owner, name)
        self.epoch += 1
        consumers = queue.consumers
        self.maker.end(queue)
        return consumers

    # Questions, and consumers

    def has(self, queue: ServedQueue) -> bool:
        """Whether a queue, not another one of its name, is still there."""
        return self.queues.get(queue.name) is queue

    def check_deletable(self, queue: ServedQueue, *, unused: bool, empty: bool) -> None:
        """PreconditionFailed when a condition that was asked for fails; NotImplementedHere if it
        cannot be asked for."""
        if queue.spec.queue_type is QueueType.QUORUM and (unused or empty):
            flag = "if-unused" if unused else "if-empty"
            raise NotImplementedHere(
                f"cannot delete queue '{queue.name}' in vhost '{self.name}'. queue.delete "
                f"operations with {flag} flag set are not supported by quorum queues"
            )
        if empty and queue.ready_count:
            raise PreconditionFailed(f"queue '{queue.name}' in vhost '{self.name}' not empty")
        if unused and queue.consumer_count:
            raise PreconditionFailed(f"queue '{queue.name}' in vhost '{self.name}' in use")

    def attach(self, consumer: Consumer) -> Later[None] | None:
        """Start a consumer.  AccessRefused when one of two that meet is exclusive, which means
        nothing to a quorum queue."""
        queue = consumer.queue
        is_classic = queue.spec.queue_type is QueueType.CLASSIC
        if is_classic and (queue.in_exclusive_use or (consumer.exclusive and queue.consumer_count)):
            raise AccessRefused(f"queue '{queue.name}' in vhost '{self.name}' in exclusive use")
        return queue.attach(consumer)

    def detach(self, consumer: Consumer) -> None:
        """Stop a consumer, unless its queue is gone, and it with it."""
        if self.has(consumer.queue):
            consumer.queue.detach(consumer)

    def owned_by(self, owner: Owner) -> tuple[ServedQueue, ...]:
        """The exclusive queues of a connection."""
        return tuple(self._owned.get(owner, {}).values())

    def _disown(self, owner: Owner, name: str) -> None:
        owned = self._owned[owner]
        del owned[name]
        if not owned:
            del self._owned[owner]

    def locked(self, name: str) -> ResourceLocked:
        """What who may not use an exclusive queue is told."""
        return ResourceLocked(
            f"cannot obtain exclusive access to locked queue '{name}' in vhost '{self.name}'. "
            "It could be originally declared on another connection or the exclusive property "
            "value does not match that of the original declaration."
        )
