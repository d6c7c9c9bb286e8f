"""Changes of exchanges and bindings that clients ask for: decided, not done.

What goes with what is said here, and nowhere else.  Whether a queue exists, is exclusive or may be
bound is the caller's business.  Errors have RabbitMQ's texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Name
from fluffle.broker.metadata.facts import Kind
from fluffle.broker.routing.bindings import (
    Binding,
    DestinationKind,
    binding_key,
    named,
)
from fluffle.broker.routing.exchange import (
    EXCHANGE_TYPES,
    PREDECLARED,
    Exchange,
    ExchangeSpec,
    check_not_default,
    check_type,
)
from fluffle.broker.routing.exchange_rules import (
    check_bindable,
    check_creatable,
    check_deletable,
    check_equivalent,
    resource,
)
from fluffle.broker.routing.topology import Topology, ends_of

EXCHANGE = DestinationKind.EXCHANGE
OWN = frozenset(spec.name for spec in PREDECLARED)
"""The broker's own exchanges."""

source_of = attrgetter("source")


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
    """The facts that there is an exchange, and its calendar if it has one; one of the broker's own
    is none."""
    spec = exchange.spec
    if spec.name in OWN:
        return ()
    fact = Fact(Kind.EXCHANGE, (topology.vhost, spec.name), spec, spec.durable)
    calendar = topology.calendar_fact(exchange)
    return (fact,) if calendar is None else (fact, calendar)


def binding_fact(topology: Topology, binding: Binding) -> Fact:
    """The fact that there is a binding, both ends of which are there."""
    key = binding_key(topology.vhost, binding)
    return Fact(Kind.BINDING, key, binding, topology.outlives(binding))


def binding_facts(topology: Topology, bindings: Iterable[Binding]) -> list[Fact]:
    """The same of many, of which most have the same ends as the one before."""
    vhost, fact, facts = topology.vhost, Fact._make, list[Fact]()
    for (source, kind, destination), group in groupby(bindings, ends_of):
        alike, to = tuple(group), kind.value
        outlives = topology.outlives(alike[0])
        facts += [
            fact(
                (
                    Kind.BINDING,
                    (vhost, source, to, destination, each.routing_key, named(each.arguments)),
                    each,
                    outlives,
                )
            )
            for each in alike
        ]
    return facts


class RemovalPlan:
    """Removals that follow on each other: bindings, exchanges with theirs, and auto-delete
    exchanges without any.

    Everything is still there while this is filled.
    """

    __slots__ = ("_bindings", "_exchanges", "_left", "_topology")

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._bindings: dict[Binding, None] = {}
        self._exchanges: dict[str, Exchange] = {}
        self._left: dict[str, int] = {}
        """How many bindings each exchange is left with as a source, of those that lose any."""

    def add_exchange(self, exchange: Exchange) -> None:
        """An exchange, with the bindings that it is the source of and those that lead to it."""
        self.add_bindings(self._take(exchange))

    def add_bindings(self, bindings: Iterable[Binding]) -> None:
        """Bindings that are there, and each auto-delete exchange that keeps none as a source."""
        pending = [bindings]
        while pending:
            new = dict.fromkeys(pending.pop())
            if self._bindings:
                new = {each: None for each in new if each not in self._bindings}
            self._bindings.update(new)
            for name, count in Counter(map(source_of, new)).items():
                source = self._topology.require(name)
                left = self._left[name] = self._left.get(name, len(source.matcher)) - count
                if not left and source.spec.auto_delete and name not in self._exchanges:
                    pending.append(self._take(source))

    def _take(self, exchange: Exchange) -> Collection[Binding]:
        """Take an exchange and the bindings it is the source of; those to it are still to do."""
        name = exchange.spec.name
        self._exchanges[name] = exchange
        self._bindings.update(dict.fromkeys(exchange.matcher))
        return self._topology.bindings_to(EXCHANGE, name)

    def change(self) -> Change:
        """All of it.

        It rests on the exchanges that were looked at, and of one that stays although it could go
        with its last binding, on a binding that it is left with.
        """
        topology, vhost = self._topology, self._topology.vhost
        removes = binding_facts(topology, self._bindings)
        rests_on = [exchange_name(vhost, name) for name in {**self._exchanges, **self._left}]
        for exchange in self._exchanges.values():
            facts = exchange_facts(topology, exchange)
            removes += facts
            rests_on += [fact.name for fact in facts if fact.kind is Kind.QUEUE]
        for name in self._left:
            source = topology.require(name)
            if source.spec.auto_delete and name not in self._exchanges:
                staying = next(each for each in source.matcher if each not in self._bindings)
                rests_on.append((Kind.BINDING, binding_key(vhost, staying)))
        return Change(tuple(removes), rests_on=tuple(rests_on))
