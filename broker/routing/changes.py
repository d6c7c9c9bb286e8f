"""Changes of exchanges and bindings that clients ask for: decided, not done.

What goes with what is said here, and nowhere else.  Whether a queue exists, is exclusive or may be
bound is the caller's business.  Errors have RabbitMQ's texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, groupby

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.metadata.change import (
    NOTHING,
    Change,
    Fact,
    FactGroup,
    Kind,
    Name,
    RemovedFacts,
)
from fluffle.broker.routing.bindings import (
    Binding,
    DestinationKind,
    binding_key,
)
from fluffle.broker.routing.exchange import (
    EXCHANGE_TYPES,
    PREDECLARED,
    Exchange,
    ExchangeSpec,
    check_bindable,
    check_creatable,
    check_deletable,
    check_equivalent,
    check_not_default,
    check_type,
    resource,
)
from fluffle.broker.routing.topic_filter import filter_of, member_of
from fluffle.broker.routing.topology import REMOVED_AT_ONCE, Topology, ends_of

EXCHANGE = DestinationKind.EXCHANGE
OWN = frozenset(spec.name for spec in PREDECLARED)
"""The broker's own exchanges."""


def exchange_name(vhost: str, name: str) -> Name:
    return Kind.EXCHANGE, (vhost, name)


def declare_exchange(topology: Topology, spec: ExchangeSpec) -> Change:
    """Make an exchange, unless the same is there.

    Raises PreconditionFailed for an unknown type, an inequivalent exchange or bad arguments,
    AccessRefused for the default exchange and reserved names.
    """
    check_type(spec.type)
    check_not_default(spec.name)
    current = topology.find(spec.name)
    if current is not None:
        check_equivalent(current.spec, spec, topology.vhost)
        return NOTHING
    check_creatable(spec, topology.vhost)
    EXCHANGE_TYPES[spec.type].check(spec.arguments)
    kind, key = name = exchange_name(topology.vhost, spec.name)
    return Change(puts=(Fact(kind, key, spec, spec.durable),), rests_on=(name,))


def have_own(topology: Topology, spec: ExchangeSpec) -> Change:
    """Make an exchange of the broker itself that not every virtual host has, unless it is there."""
    if topology.find(spec.name) is not None:
        return NOTHING
    kind, key = name = exchange_name(topology.vhost, spec.name)
    return Change(puts=(Fact(kind, key, spec, spec.durable),), rests_on=(name,))


def delete_exchange(topology: Topology, name: str, *, if_unused: bool = False) -> Change:
    """Remove an exchange with all its bindings; one that is not there is no error.

    `if_unused`: raises PreconditionFailed if the exchange is the source of a binding.
    """
    check_deletable(name, topology.vhost)
    exchange = topology.find(name)
    if if_unused and exchange is not None and len(exchange.matcher):
        raise PreconditionFailed(f"{resource(name, topology.vhost)} in use")
    return drop_exchange(topology, name)


def drop_exchange(topology: Topology, name: str) -> Change:
    """Remove an exchange with all its bindings, if it is there.

    Of one of the broker's own only the bindings.
    """
    exchange = topology.find(name)
    if exchange is None:
        return NOTHING
    if not (len(exchange.matcher) or topology.bindings_to(EXCHANGE, name)):
        return removal(exchange_facts(topology, exchange))
    going = RemovalPlan(topology)
    going.add_exchange(exchange)
    return going.change()


def bind(topology: Topology, binding: Binding) -> Change:
    """Add a binding, unless it is there.

    Raises NotFound for the source before the destination exchange.  The caller of a queue binding
    looks for the queue: after `check_not_default` and `require` of the source, before this, which
    raises PreconditionFailed for a key or arguments that the type cannot have.
    """
    check_bindable(binding)
    vhost, kind, destination = topology.vhost, binding.destination_kind, binding.destination
    source = topology.require(binding.source)
    if kind is EXCHANGE:
        topology.require(destination)
    if binding in topology.bindings_to(kind, destination):
        return NOTHING
    source.matcher.check(binding)
    end = Kind.EXCHANGE if kind is EXCHANGE else Kind.QUEUE
    return Change(
        (),
        (binding_fact(topology, binding),),
        (exchange_name(vhost, binding.source), (end, (vhost, destination))),
    )


def bound_by_filter(
    topology: Topology, source: str, queue: str, topic_filter: str
) -> list[Binding]:
    """The bindings of a queue that have this topic filter, found without a search: one a client
    where several share it.  NotFound for the source."""
    found = topology.require(source).subscriptions(queue, topic_filter)
    bound = topology.bindings_to(DestinationKind.QUEUE, queue) if found else ()
    return [binding for binding in found if binding in bound]


def subscribe(topology: Topology, bindings: Iterable[Binding], new: Collection[str] = ()) -> Change:
    """Add bindings of a queue that have topic filters, each in the place of those of the queue with
    the same filter, of a shared queue those of the same client: no message finds neither.

    The caller looks for the queue; `new` are durable ones that are there once this is.  NotFound
    for the source, PreconditionFailed as `bind`.
    """
    vhost, removes, puts = topology.vhost, list[Fact](), list[Fact]()
    ends: dict[Name, None] = {}
    by_filter = {
        (each.source, each.destination, filter_of(each) or "", member_of(each)): each
        for each in bindings
    }
    for (source, queue, topic_filter, member), binding in by_filter.items():
        check_bindable(binding)
        topology.require(source).matcher.check(binding)
        bound = bound_by_filter(topology, source, queue, topic_filter)
        there = [each for each in bound if member_of(each) == member]
        others = [each for each in there if each != binding]
        if others or not there:
            ends |= dict.fromkeys((exchange_name(vhost, source), (Kind.QUEUE, (vhost, queue))))
        removes += [binding_fact(topology, each) for each in others]
        if queue in new:
            key = binding_key(vhost, binding)
            outlives = topology.require(source).spec.durable
            puts.append(Fact(Kind.BINDING, key, binding, outlives))
        elif binding not in there:
            puts.append(binding_fact(topology, binding))
    rests_on = *ends, *(fact.name for fact in removes)
    return Change(tuple(removes), tuple(puts), rests_on)


def unsubscribe(
    topology: Topology, source: str, queue: str, topic_filters: Iterable[str]
) -> Change:
    """Remove the bindings of a queue that have these topic filters; they need not be there."""
    if topology.find(source) is None:
        return NOTHING
    found = {
        binding: None
        for topic_filter in topic_filters
        for binding in bound_by_filter(topology, source, queue, topic_filter)
    }
    if not found:
        return NOTHING
    going = RemovalPlan(topology)
    going.add_bindings(found)
    return going.change()


def leave_group(topology: Topology, queue: str, leaving: Collection[Binding]) -> Change | None:
    """Remove bindings of a shared queue, if a client is left that shares it; None if none is, so
    that the queue has to go."""
    bound = topology.bindings_to(DestinationKind.QUEUE, queue)
    staying = next((each for each in bound if member_of(each) and each not in leaving), None)
    if staying is None:
        return None
    going = RemovalPlan(topology)
    going.add_bindings(leaving)
    change = going.change()
    name = Kind.BINDING, binding_key(topology.vhost, staying)
    return change._replace(rests_on=(*change.rests_on, name))


def unbind(topology: Topology, binding: Binding) -> Change:
    """Remove a binding; neither it nor its ends need be there."""
    check_bindable(binding)
    if binding not in topology.bindings_to(binding.destination_kind, binding.destination):
        return NOTHING
    if not topology.require(binding.source).spec.auto_delete:
        source = exchange_name(topology.vhost, binding.source)
        return Change((binding_fact(topology, binding),), rests_on=(source,))
    going = RemovalPlan(topology)
    going.add_bindings([binding])
    return going.change()


def removal(facts: Sequence[Fact]) -> Change:
    """Facts that end as they were looked at."""
    return Change(tuple(facts), (), tuple([fact[:2] for fact in facts]))


def exchange_facts(topology: Topology, exchange: Exchange) -> tuple[Fact, ...]:
    """The facts that there is an exchange, and its delayed queue if it has one; one of the broker's
    own is none."""
    spec = exchange.spec
    if spec.name in OWN:
        return ()
    fact = Fact(Kind.EXCHANGE, (topology.vhost, spec.name), spec, spec.durable)
    delayed_queue = topology.delayed_queue_fact(exchange)
    return (fact,) if delayed_queue is None else (fact, delayed_queue)


def binding_fact(topology: Topology, binding: Binding) -> Fact:
    """The fact that there is a binding, both ends of which are there."""
    key = binding_key(topology.vhost, binding)
    return Fact(Kind.BINDING, key, binding, topology.outlives(binding))


def binding_groups(topology: Topology, bindings: Iterable[Binding]) -> tuple[FactGroup, ...]:
    """The same of very many, of which most have the same ends as the one before."""
    alike: dict[bool, list[Binding]] = {}
    for _, group in groupby(bindings, ends_of):
        some = list(group)
        alike.setdefault(topology.outlives(some[0]), []).extend(some)
    return tuple(
        FactGroup(Kind.BINDING, topology.vhost, some, binding_key, outlives)
        for outlives, some in alike.items()
    )


class RemovalPlan:
    """Removals that follow on each other: bindings, exchanges with theirs, and auto-delete
    exchanges without any.

    Everything is still there while this is filled.  Ten thousand bindings are asked for their hash
    only where nothing else tells which of an exchange's are among them.
    """

    __slots__ = ("_bindings", "_exchanges", "_topology")

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._bindings: dict[str, list[Binding]] = {}
        """Bindings to remove, by source: for an exchange in `_exchanges` all that it has."""
        self._exchanges: dict[str, Exchange] = {}

    def add_exchange(self, exchange: Exchange) -> None:
        """An exchange, with the bindings that it is the source of and those that lead to it."""
        name = exchange.spec.name
        if name not in self._exchanges:
            self._exchanges[name] = exchange
            self._bindings[name] = list(exchange.matcher)
            self.add_bindings(self._topology.bindings_to(EXCHANGE, name))

    def add_bindings(self, bindings: Iterable[Binding]) -> None:
        """Bindings that are there and were not added before, unless with their source; and each
        auto-delete exchange that keeps none as a source."""
        pending = [bindings]
        while pending:
            for name, some in self._new(pending.pop()).items():
                going = self._bindings.setdefault(name, [])
                going += some
                source = self._topology.require(name)
                if len(going) == len(source.matcher) and source.spec.auto_delete:
                    self._exchanges[name] = source
                    pending.append(self._topology.bindings_to(EXCHANGE, name))

    def _new(self, bindings: Iterable[Binding]) -> dict[str, list[Binding]]:
        """Bindings whose source is not being removed, by source."""
        by_source: defaultdict[str, list[Binding]] = defaultdict(list)
        for binding in bindings:
            by_source[binding.source].append(binding)
        return {name: some for name, some in by_source.items() if name not in self._exchanges}

    def change(self) -> Change:
        """All of it.

        It rests on the exchanges that were looked at, and of one that stays although it could go
        with its last binding, on a binding that it is left with.
        """
        topology, vhost = self._topology, self._topology.vhost
        others: list[Fact] = []
        rests_on = [exchange_name(vhost, name) for name in {**self._exchanges, **self._bindings}]
        for exchange in self._exchanges.values():
            facts = exchange_facts(topology, exchange)
            others += facts
            rests_on += [fact.name for fact in facts if fact.kind is Kind.QUEUE]
        for name, going in self._bindings.items():
            source = topology.require(name)
            if source.spec.auto_delete and name not in self._exchanges:
                gone = frozenset(going)
                staying = next(each for each in source.matcher if each not in gone)
                rests_on.append((Kind.BINDING, binding_key(vhost, staying)))
        bindings = list(chain.from_iterable(self._bindings.values()))
        removes: tuple[Fact, ...] | RemovedFacts
        if len(bindings) > REMOVED_AT_ONCE:
            removes = RemovedFacts(binding_groups(topology, bindings), tuple(others))
        else:
            removes = (*[binding_fact(topology, binding) for binding in bindings], *others)
        return Change(removes, rests_on=tuple(rests_on))
