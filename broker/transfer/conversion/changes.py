"""The three changes of definitions that turn a queue into one of another type: decided, not done.

    classic --begin--> classic, with a successor --finish--> the successor, under that name
       ^                        |
       +-------- give_up -------+

Before the second the messages are in the one, after it in the other: there is nothing in between.
"""

from __future__ import annotations

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.metadata.change import NOTHING, Change, Fact
from fluffle.broker.metadata.facts import Kind
from fluffle.broker.metadata.nodes import CHANGES_TYPES, Nodes, check_supported
from fluffle.broker.queues.arguments import (
    QUEUE_TYPE,
    Declaration,
    QueueSpec,
    QueueType,
    queue_spec,
)
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.priority_ready_list import QUORUM_LEVELS
from fluffle.broker.queues.settings import Overflow, SettingsFrom
from fluffle.broker.routing.bindings import DestinationKind
from fluffle.broker.routing.exchange import LOCAL_RANDOM, routes_as
from fluffle.broker.vhosts.vhost import VirtualHost, existing_queue

MEANINGLESS = frozenset(
    {"x-max-priority", "x-queue-mode", "x-queue-version", "x-queue-master-locator"}
)
"""To a quorum queue: it always has priorities, keeps messages on disk, and is on several nodes."""


def as_quorum(spec: QueueSpec, settings_from: SettingsFrom, vhost: str) -> QueueSpec:
    """Return a classic queue as a quorum queue; PreconditionFailed if it cannot be one.

    An argument that means the same stays; one that a quorum queue has no use for goes; what would
    mean another thing is refused.  `settings_from` gives the settings of the queue that it is and
    of the one that it would be: policies may be for one type.
    """
    where = f"queue '{spec.name}' in vhost '{vhost}'"
    settings = settings_from(vhost, spec)
    for is_so, why in (
        (spec.queue_type is QueueType.QUORUM, "is a quorum queue already"),
        (spec.exclusive, "is exclusive: it ends with its connection, and a quorum queue does not"),
        (spec.auto_delete, "goes with its last consumer, and a quorum queue does not"),
        (not spec.durable, "is transient, and a quorum queue is durable"),
        (
            spec.max_priority is not None and spec.max_priority > QUORUM_LEVELS.highest,
            f"tells {spec.max_priority} priorities apart, and a quorum queue "
            f"{QUORUM_LEVELS.highest}",
        ),
        (
            settings.overflow is Overflow.REJECT_PUBLISH_DLX,
            "dead-letters what it refuses (reject-publish-dlx), and a quorum queue cannot",
        ),
        (
            settings.cache is not None,
            "takes each message once (x-message-deduplication), and as a quorum queue it would not "
            "know those that it has had",
        ),
    ):
        if is_so:
            raise PreconditionFailed(f"{where} {why}")
    arguments = {name: each for name, each in spec.arguments.items() if name not in MEANINGLESS}
    arguments[QUEUE_TYPE] = ("S", QueueType.QUORUM.encode())
    quorum = queue_spec(Declaration(spec.name, durable=True, arguments=arguments), vhost)
    if settings_from(vhost, quorum).cache is not None:
        raise PreconditionFailed(
            f"{where} would take each message once as a quorum queue (x-message-deduplication, by "
            "a policy), and not know those that it has had"
        )
    return quorum


def begin(vhost: VirtualHost, name: str, settings_from: SettingsFrom, nodes: Nodes) -> Change:
    """Begin a conversion.  NotFound, PreconditionFailed."""
    queue = existing_queue(vhost, name)
    before = queue.definition
    spec = as_quorum(queue.spec, settings_from, vhost.name)
    where = f"queue '{name}' in vhost '{vhost.name}'"
    if before.successor is not None:
        raise PreconditionFailed(f"{where} is being changed already")
    if queue.unreachable_error is not None:
        raise queue.unreachable_error
    if queue.damage is not None:
        raise PreconditionFailed(f"{where} has crashed")
    for binding in vhost.topology.bindings_to(DestinationKind.QUEUE, name):
        if routes_as(vhost.topology.require(binding.source).spec) == LOCAL_RANDOM:
            raise PreconditionFailed(
                f"{where} is bound to exchange '{binding.source}', which leads to classic queues "
                "alone"
            )
    known = check_supported(CHANGES_TYPES, nodes)
    boot = nodes[before.home].boot if before.home else 0
    successor = vhost.maker.define(spec, None, vhost.name)._replace(boot=boot)
    change = put(vhost, before._replace(successor=successor))
    return change._replace(rests_on=(*change.rests_on, *known))


def finish(vhost: VirtualHost, name: str, successor: int) -> Change:
    """Finish a conversion whose messages are there; nothing, if it is over in another way."""
    now = changing(vhost, name, successor)
    if now is None or now.successor is None:
        return NOTHING
    return put(vhost, now.successor._replace(boot=0))


def give_up(vhost: VirtualHost, name: str, successor: int) -> Change:
    """Give up a conversion: the queue stays what it is; nothing, if it is over."""
    now = changing(vhost, name, successor)
    return put(vhost, now._replace(successor=None)) if now is not None else NOTHING


def changing(vhost: VirtualHost, name: str, successor: int) -> QueueDefinition | None:
    """Return a queue, while it has this successor."""
    queue = vhost.queues.get(name)
    if queue is None or queue.definition.successor is None:
        return None
    return queue.definition if queue.definition.successor.id == successor else None


def put(vhost: VirtualHost, definition: QueueDefinition) -> Change:
    fact = Fact(Kind.QUEUE, (vhost.name, definition.spec.name), definition)
    return Change(puts=(fact,), rests_on=(fact.name,))
