"""Short ways to write bindings and topologies in tests of routing, and to change them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from fluffle.broker.metadata.change import Change
from fluffle.broker.routing import changes
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.changes import RemovalPlan
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.exchange_host import ExchangeHost
from fluffle.broker.routing.matcher import Matcher
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import FieldTable


def to_queue(
    source: str, queue: str, key: str = "", arguments: FieldTable | None = None
) -> Binding:
    return Binding(source, queue, DestinationKind.QUEUE, key, arguments or {})


def to_exchange(
    source: str, destination: str, key: str = "", arguments: FieldTable | None = None
) -> Binding:
    return Binding(source, destination, DestinationKind.EXCHANGE, key, arguments or {})


def with_alternate(name: str, alternate: str, type: str = "fanout") -> ExchangeSpec:
    return ExchangeSpec(name, type, arguments={"alternate-exchange": ("S", alternate.encode())})


def topology(*parts: ExchangeSpec | Binding) -> Topology:
    """Declares and binds in the order given."""
    made = Topology("/")
    for part in parts:
        if isinstance(part, Binding):
            assert bind(made, part)
        else:
            assert declare(made, part)
    return made


@dataclass
class Removed:
    """Removed objects of a change, in order."""

    bindings: list[Binding] = field(default_factory=list)
    exchanges: list[ExchangeSpec] = field(default_factory=list)


def apply(topology: Topology, change: Change) -> Removed:
    removed = Removed()
    assert len({fact.name for fact in change.removes}) == len(change.removes), "named twice"
    for fact in change.removes:
        if isinstance(fact.value, Binding):
            removed.bindings.append(fact.value)
        else:
            assert isinstance(fact.value, ExchangeSpec)
            topology.remove_exchange(fact.value.name)
            removed.exchanges.append(fact.value)
    topology.remove_bindings(removed.bindings)
    for fact in change.puts:
        if isinstance(fact.value, Binding):
            topology.put_binding(fact.value)
        else:
            assert isinstance(fact.value, ExchangeSpec)
            topology.put_exchange(fact.value)
    return removed


def declare(topology: Topology, spec: ExchangeSpec) -> bool:
    """True if it was made."""
    change = changes.declare_exchange(topology, spec)
    apply(topology, change)
    return not change.changes_nothing


def delete(topology: Topology, name: str, *, if_unused: bool = False) -> Removed:
    return apply(topology, changes.delete_exchange(topology, name, if_unused=if_unused))


def bind(topology: Topology, binding: Binding) -> bool:
    """True if it is new."""
    change = changes.bind(topology, binding)
    apply(topology, change)
    return not change.changes_nothing


def unbind(topology: Topology, binding: Binding) -> Removed:
    return apply(topology, changes.unbind(topology, binding))


def drop_queue(topology: Topology, name: str) -> Removed:
    """Objects that are removed with a deleted queue."""
    return apply(topology, removal_of(topology, queues=(name,)))


def removal_of(
    topology: Topology, *, exchanges: Iterable[str] = (), queues: Iterable[str] = ()
) -> Change:
    """The removal of exchanges that are there, and of what leads to queues."""
    going = RemovalPlan(topology)
    for name in exchanges:
        going.add_exchange(topology.require(name))
    for name in queues:
        going.add_bindings(topology.bindings_to(DestinationKind.QUEUE, name))
    return going.change()


def names(topology: Topology) -> list[str]:
    """The exchanges that were not predeclared."""
    found = (spec.name for spec in topology.exchanges())
    return [name for name in found if name and not name.startswith("amq.")]


class FakeExchangeHost(ExchangeHost):
    """An `ExchangeHost` of which a test says some of the answers."""

    def __init__(self, **answers: Callable[..., object]) -> None:
        for name, answer in answers.items():
            assert hasattr(ExchangeHost, name), name
            setattr(self, name, answer)


def matches_of(
    matcher: Matcher, keys: Sequence[str], properties: Properties | None
) -> Iterator[Binding]:
    """The bindings that match, one by one."""
    return chain.from_iterable(matcher.search(keys, properties))
