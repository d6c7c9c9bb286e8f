"""What becomes of queues when somebody asks for a change: decided, not done.

Errors have RabbitMQ's texts.
"""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.access.limits import is_reached
from fluffle.broker.errors import PreconditionFailed
from fluffle.broker.facts import Kind
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Name, Room
from fluffle.broker.metadata.nodes import node_name
from fluffle.broker.queues.arguments import Declaration, check_equivalent, queue_spec
from fluffle.broker.queues.journal import Owner, QueueDefinition
from fluffle.broker.queues.served import ServedQueue
from fluffle.broker.routing import deciding
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.deciding import Going, removal
from fluffle.broker.routing.exchange import check_not_default
from fluffle.broker.vhost import VirtualHost


def queue_name(vhost: VirtualHost, name: str) -> Name:
    return Kind.QUEUE, (vhost.name, name)


def declare_queue(vhost: VirtualHost, declared: Declaration, owner: Owner | None) -> Change:
    """Make a queue, unless the same is there.

    Raises ResourceLocked, PreconditionFailed, NotImplementedHere with RabbitMQ's texts.
    """
    expected_owner = owner if declared.exclusive else None
    queue = vhost.queues.get(declared.name)
    if queue is not None:
        if queue.owner != expected_owner:
            raise vhost.locked(declared.name)
        check_equivalent(queue.spec, declared, vhost.name)
        return NOTHING
    spec = queue_spec(declared, vhost.name)
    limit = vhost.limits.max_queues
    if is_reached(limit, len(vhost.queues)):
        raise PreconditionFailed(
            f"cannot declare queue '{spec.name}': queue limit in vhost '{vhost.name}' ({limit}) "
            "is reached"
        )
    definition = vhost.maker.define(spec, expected_owner)
    kind, key = name = queue_name(vhost, spec.name)
    rests_on = name, *map(node_name, places_of(definition))
    change = Change(puts=(Fact(kind, key, definition, spec.durable),), rests_on=rests_on)
    if limit is None:
        return change
    return change._replace(
        rests_on=(*rests_on, (Kind.VHOST, (vhost.name,))),
        room=(Room(Kind.QUEUE, vhost.name, limit),) if limit >= 0 else (),
    )


def places_of(definition: QueueDefinition) -> tuple[str, ...]:
    """The nodes that a queue is on: they must be of the cluster, and in the life that was seen."""
    members = tuple(node for node, _ in definition.members)
    return (definition.home, *members) if definition.home else members


def delete_queue(vhost: VirtualHost, queue: ServedQueue) -> Change:
    """Remove a queue with its bindings, unless it is gone already."""
    return delete_queues(vhost, (queue,))


def delete_queues(vhost: VirtualHost, queues: tuple[ServedQueue, ...]) -> Change:
    """Those that are there."""
    facts: list[Fact] = []
    bindings: list[Binding] = []
    for queue in filter(vhost.has, queues):
        facts.append(queue_fact(vhost, queue))
        bindings += vhost.topology.bindings_to(DestinationKind.QUEUE, queue.name)
    change = removal(facts)
    if not bindings:
        return change
    going = Going(vhost.topology)
    going.add_bindings(bindings)
    return going.change().joined(change)


def delete_ended(
    vhost: VirtualHost, queues: tuple[ServedQueue, ...], is_ended: Callable[[QueueDefinition], bool]
) -> Change:
    """Remove those of which it is so."""
    ended = tuple(queue for queue in queues if is_ended(queue.definition))
    return delete_queues(vhost, ended)


def queue_fact(vhost: VirtualHost, queue: ServedQueue) -> Fact:
    """What is so of a queue that is there."""
    kind, key = queue_name(vhost, queue.name)
    return Fact(kind, key, queue.definition, queue.spec.durable)


def redefinition(vhost: str, definition: QueueDefinition) -> Change:
    """A queue is the same, in other places."""
    fact = Fact(Kind.QUEUE, (vhost, definition.spec.name), definition, definition.spec.durable)
    return Change(puts=(fact,), rests_on=(fact.name,))


def delete_unused(vhost: VirtualHost, queue: ServedQueue) -> Change:
    """Remove a queue that goes with its last consumer, if that is gone."""
    is_unused = queue.spec.auto_delete and queue.is_unused
    return delete_queue(vhost, queue) if is_unused else NOTHING


def delete_owned(vhost: VirtualHost, owner: Owner) -> Change:
    """Remove the exclusive queues of a connection that ends."""
    return delete_queues(vhost, vhost.owned_by(owner))


def bind(vhost: VirtualHost, binding: Binding, owner: Owner | None) -> Change:
    """Bind; of ends that are missing the source is reported first, as RabbitMQ does."""
    if binding.destination_kind is DestinationKind.QUEUE:
        check_not_default(binding.source)
        vhost.topology.require(binding.source)
        vhost.queue(binding.destination, owner)
    return deciding.bind(vhost.topology, binding)


def unbind(vhost: VirtualHost, binding: Binding, owner: Owner | None) -> Change:
    """Unbind; what does not exist needs no unbinding, and nobody is asked whose it is."""
    kind, destination = binding.destination_kind, binding.destination
    is_bound = binding in vhost.topology.bindings_to(kind, destination)
    if is_bound and kind is DestinationKind.QUEUE:
        vhost.queue(destination, owner)
    return deciding.unbind(vhost.topology, binding)
