"""Changes of queues and exchanges: decided here, applied elsewhere, with warnings for a declare.

Errors have RabbitMQ's texts.  Arguments without effect are logged once each, for the first queue
that has one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeAlias

from fluffle.broker.access.limits import is_reached
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.logs import event
from fluffle.broker.base.queue_names import clients_of, exchange_of, is_delayed_queue
from fluffle.broker.metadata.change import NOTHING, Change, CountLimit, Fact, Kind, Name
from fluffle.broker.metadata.nodes import Nodes, check_supported, node_name
from fluffle.broker.queues.arguments import (
    Declaration,
    DeliveryGuarantee,
    QueueSpec,
    check_close,
    check_equivalent,
    delayed_queue_spec,
    queue_spec,
    takes_for_classic,
)
from fluffle.broker.queues.journal import Owner, QueueDefinition, is_same
from fluffle.broker.queues.queue_api import QueueHandle
from fluffle.broker.queues.settings import (
    NO_POLICY,
    EffectivePolicy,
    QueueSettings,
    SettingsFrom,
    unusable_arguments,
    why_at_most_once,
)
from fluffle.broker.routing import changes
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.changes import RemovalPlan, removal
from fluffle.broker.routing.exchange import (
    DELAYED,
    Exchange,
    ExchangeSpec,
    check_not_default,
    since_of,
)
from fluffle.broker.routing.topic_filter import FilterBinding, connection_of, subscription_of
from fluffle.broker.vhosts.client_sessions import end_sessions_later
from fluffle.broker.vhosts.vhost import VirtualHost

logger = logging.getLogger(__name__)


def queue_name(vhost: VirtualHost, name: str) -> Name:
    return Kind.QUEUE, (vhost.name, name)


Compare: TypeAlias = Callable[[VirtualHost, QueueHandle, Declaration, Owner | None], None]
"""Raises what is to be said if a queue that is there, and whose owner should be that one, is not as
it is declared again."""


def compare(
    vhost: VirtualHost, queue: QueueHandle, declared: Declaration, owner: Owner | None
) -> None:
    if queue.owner != owner:
        raise vhost.locked(declared.name)
    check_equivalent(queue.spec, declared, vhost.name)


def compare_relaxed(
    vhost: VirtualHost, queue: QueueHandle, declared: Declaration, owner: Owner | None
) -> None:
    """A quorum queue may be declared again as a classic one, also as none that lasts or is not
    exclusive."""
    if takes_for_classic(queue.spec, declared):
        check_close(queue.spec, declared, vhost.name)
    else:
        compare(vhost, queue, declared, owner)


def declare_queue(
    vhost: VirtualHost, declared: Declaration, owner: Owner | None, compare: Compare = compare
) -> Change:
    """Make a queue, unless the same is there.

    Raises ResourceLocked, PreconditionFailed, NotImplementedHere with RabbitMQ's texts.
    """
    expected_owner = owner if declared.exclusive else None
    queue = vhost.queues.get(declared.name)
    if queue is not None:
        compare(vhost, queue, declared, expected_owner)
        return NOTHING
    return new_queue(vhost, queue_spec(declared, vhost.name), expected_owner)


def new_queue(vhost: VirtualHost, spec: QueueSpec, owner: Owner | None) -> Change:
    """Make one that is not there.  PreconditionFailed if there can be no more."""
    limit = vhost.limits.max_queues
    if is_reached(limit, len(vhost.queues)):
        raise PreconditionFailed(
            f"cannot declare queue '{spec.name}': queue limit in vhost '{vhost.name}' ({limit}) "
            "is reached"
        )
    definition = vhost.maker.define(spec, owner, vhost.name)
    kind, key = name = queue_name(vhost, spec.name)
    rests_on = name, *map(node_name, nodes_of(definition))
    change = Change(puts=(Fact(kind, key, definition, spec.durable),), rests_on=rests_on)
    if limit is None:
        return change
    return change._replace(
        rests_on=(*rests_on, (Kind.VHOST, (vhost.name,))),
        room=(CountLimit(Kind.QUEUE, vhost.name, limit),) if limit >= 0 else (),
    )


def declare_exchange(vhost: VirtualHost, spec: ExchangeSpec, nodes: Nodes) -> Change:
    """Make an exchange, unless the same is there; with its delayed queue, if it has one.

    Raises as `routing.changes.declare_exchange` does, and PreconditionFailed if there can be no
    more queues, or one of the nodes is of a version that does not know the type.
    """
    change = changes.declare_exchange(vhost.topology, spec)
    if change.changes_nothing:
        return change
    if since := since_of(spec):
        change = change._replace(rests_on=(*change.rests_on, *check_supported(since, nodes)))
    if spec.type != DELAYED:
        return change
    delayed_queue = delayed_queue_spec(spec.name, vhost.name, durable=spec.durable)
    return new_queue(vhost, delayed_queue, None).joined(change)


def nodes_of(definition: QueueDefinition) -> tuple[str, ...]:
    """Return the nodes that a queue is on: they must be of the cluster, and in the life that was
    seen."""
    members = tuple(node for node, _ in definition.members)
    return (definition.home, *members) if definition.home else members


def delete_queue(vhost: VirtualHost, queue: QueueHandle) -> Change:
    """Remove a queue with its bindings, unless it is gone already; a session does not outlive
    it."""
    return delete_with_sessions(vhost, (queue,))


def delete_with_sessions(vhost: VirtualHost, queues: tuple[QueueHandle, ...]) -> Change:
    """Delete the queues that are there, and end the sessions that need them: each would go on
    without what came for it, and without the subscriptions that were bindings of the queue."""
    names = [queue.name for queue in queues if vhost.has(queue) and is_for_sessions(queue.spec)]
    ending = end_sessions_later(vhost, clients_of(names, vhost.client_sessions.by_client))
    return delete_queues(vhost, queues).joined(ending)  # mutant: MQ64


def is_for_sessions(spec: QueueSpec) -> bool:
    """True if it is a queue of sessions that outlive their connections, and none that a client of
    another protocol has declared under such a name."""
    return spec.guarantee.takes_keys and not spec.exclusive


def delete_queues(vhost: VirtualHost, queues: tuple[QueueHandle, ...]) -> Change:
    """Delete the queues that are there."""
    facts: list[Fact] = []
    bindings: list[Collection[Binding]] = []
    exchanges: list[Exchange] = []
    for queue in filter(vhost.has, queues):
        exchange = (
            vhost.topology.find(exchange_of(queue.name)) if is_delayed_queue(queue.name) else None
        )
        if exchange is not None:
            exchanges.append(exchange)
            continue
        facts.append(queue_fact(vhost, queue))
        if found := vhost.topology.bindings_to(DestinationKind.QUEUE, queue.name):
            bindings.append(found)
    change = removal(facts)
    if not (bindings or exchanges):
        return change
    going = RemovalPlan(vhost.topology)
    for exchange in exchanges:
        going.add_exchange(exchange)
    for found in bindings:
        going.add_bindings(found)
    return going.change().joined(change)


def is_renewable(spec: QueueSpec) -> bool:
    """True if a session goes on without what was in its queue."""
    return is_for_sessions(spec) and spec.guarantee is DeliveryGuarantee.AT_MOST_ONCE


def renewal(vhost: VirtualHost, queue: QueueHandle) -> Change:
    """Have another queue, without messages, in the place of one that is there; its bindings, and
    with them their exchanges, stay."""
    definition = vhost.maker.define(queue.spec, None, vhost.name)
    nodes = map(node_name, nodes_of(definition))
    change = removal([queue_fact(vhost, queue)]).joined(redefinition(vhost.name, definition))
    return change.joined(Change(rests_on=((Kind.VHOST, (vhost.name,)), *nodes)))


def queue_fact(vhost: VirtualHost, queue: QueueHandle) -> Fact:
    """Return the fact of a queue that is there."""
    kind, key = queue_name(vhost, queue.name)
    return Fact(kind, key, queue.definition, queue.spec.durable)


def redefinition(vhost: str, definition: QueueDefinition) -> Change:
    """A queue is the same, in other places or with other arguments."""
    fact = Fact(Kind.QUEUE, (vhost, definition.spec.name), definition, definition.spec.durable)
    return Change(puts=(fact,), rests_on=(fact.name,))


def delete_unused(vhost: VirtualHost, queue: QueueHandle) -> Change:
    """Remove a queue that goes with its last consumer, if that is gone."""
    is_unused = queue.spec.auto_delete and queue.is_unused
    return delete_queue(vhost, queue) if is_unused else NOTHING


def delete_disused(
    vhost: VirtualHost, definition: QueueDefinition, is_queue_expired: Callable[[], bool]
) -> Change:
    """Remove a queue that was unused for its x-expires time, if that is still so."""
    queue = vhost.queues.get(definition.spec.name)
    if queue is None or not is_queue_expired():
        return NOTHING
    is_it = queue.definition is definition or is_same(queue.definition, definition)
    return delete_queue(vhost, queue) if is_it else NOTHING


def delete_owned(vhost: VirtualHost, owner: Owner) -> Change:
    """Remove the exclusive queues of a connection that ends."""
    owned = vhost.owned_by(owner)
    return delete_queues(vhost, owned) if owned else NOTHING


def bind(vhost: VirtualHost, binding: Binding, owner: Owner | None) -> Change:
    """Bind; of ends that are missing the source is reported first, as RabbitMQ does."""
    if binding.destination_kind is DestinationKind.QUEUE:
        check_not_default(binding.source)
        vhost.topology.require(binding.source)
        vhost.queue(binding.destination, owner)
    return changes.bind(vhost.topology, binding)


def subscribe(
    vhost: VirtualHost,
    bindings: Sequence[Binding],
    owner: Owner | None,
    new: Collection[str] = (),
) -> Change:
    """Have bindings of queues that have topic filters, each in the place of those with the same
    filter, and of a shared queue of the same client.  Of ends that are missing the source is
    reported first; `new` are durable queues that are there once this is."""
    for source in {each.source: None for each in bindings}:
        check_not_default(source)
        vhost.topology.require(source)
    for destination in {each.destination: None for each in bindings if each.destination not in new}:
        vhost.queue(destination, owner)
    return changes.subscribe(vhost.topology, bindings, new)


def unsubscribe(
    vhost: VirtualHost, source: str, queue: str, topic_filters: Sequence[str], owner: Owner | None
) -> Change:
    """Have no binding of a queue with these topic filters; neither they nor the ends need be
    there."""
    if queue not in vhost.queues:
        return NOTHING
    vhost.queue(queue, owner)
    return changes.unsubscribe(vhost.topology, source, queue, topic_filters)


def subscriptions(
    vhost: VirtualHost, source: str, queue: str
) -> Iterator[tuple[Binding, FilterBinding]]:
    """Yield the bindings of a queue to an exchange that have topic filters, as subscriptions; it
    takes as long as there are bindings to the queue."""
    for binding in tuple(vhost.topology.bindings_to(DestinationKind.QUEUE, queue)):
        found = subscription_of(binding)
        if found is not None and binding.source == source:
            yield binding, found


def memberships(
    vhost: VirtualHost, source: str, member: str, connection: str | None = None
) -> dict[Binding, FilterBinding]:
    """Find the bindings by which a client shares queues; with `connection` those that end with it,
    or that last if it is empty."""
    exchange = vhost.topology.find(source)
    found: dict[Binding, FilterBinding] = {}
    for binding in () if exchange is None else exchange.memberships(member):
        if connection is not None and connection_of(binding) != connection:
            continue
        bound = vhost.topology.bindings_to(binding.destination_kind, binding.destination)
        subscription = subscription_of(binding)
        if subscription is not None and binding in bound:
            found[binding] = subscription
    return found


def leave_groups(vhost: VirtualHost, leaving: Collection[Binding]) -> Change:
    """Remove bindings by which clients share queues, and with the last of a queue the queue."""
    by_queue: dict[str, list[Binding]] = {}
    for binding in leaving:
        by_queue.setdefault(binding.destination, []).append(binding)
    change, ending = NOTHING, list[QueueHandle]()
    for name, bindings in by_queue.items():
        left = changes.leave_group(vhost.topology, name, bindings)
        if left is None:
            ending.append(vhost.queues[name])
        else:
            change = change.joined(left)
    return change.joined(delete_queues(vhost, tuple(ending)))


def unbind(vhost: VirtualHost, binding: Binding, owner: Owner | None) -> Change:
    """Unbind; what does not exist needs no unbinding, and its owner does not matter."""
    kind, destination = binding.destination_kind, binding.destination
    is_bound = binding in vhost.topology.bindings_to(kind, destination)
    if is_bound and kind is DestinationKind.QUEUE:
        vhost.queue(destination, owner)
    return changes.unbind(vhost.topology, binding)


EffectivePolicyFrom: TypeAlias = Callable[[str, QueueSpec], EffectivePolicy]


def no_policies(_vhost: str, _spec: QueueSpec) -> EffectivePolicy:
    """Return no policy, where there are none."""
    return NO_POLICY


class DeclareWarnings:
    """Warnings for the arguments of new queues, and the settings of all queues."""

    def __init__(
        self, settings: SettingsFrom, definition: EffectivePolicyFrom = no_policies
    ) -> None:
        """`definition`: what the policies of a queue say, which `settings` heed."""
        self._settings = settings
        self._definition = definition
        self._noticed: set[str] = set()

    def settings_of(self, vhost: str, spec: QueueSpec) -> QueueSettings:
        """Return the settings of a queue.  If they are less safe than its definition suggests, that
        is logged, once for each queue."""
        settings = self._settings(vhost, spec)
        reason = why_at_most_once(spec, self._definition(vhost, spec), settings)
        if reason and self._is_news(f"{vhost} {spec.name} {reason}"):
            event(
                logger, logging.WARNING, "dead_letters_need_not_arrive",
                reason=reason, queue=spec.name, vhost=vhost,
            )  # fmt: skip
        return settings

    def new_queue(self, spec: QueueSpec, vhost: str) -> None:
        for argument, reason in unusable_arguments(spec, self._settings(vhost, spec)).items():
            if self._is_news(f"{argument} {reason}"):
                event(
                    logger, logging.WARNING, "argument_ignored",
                    argument=argument, reason=reason, queue=spec.name, vhost=vhost,
                )  # fmt: skip

    def _is_news(self, what: str) -> bool:
        is_news = what not in self._noticed
        self._noticed.add(what)
        return is_news
