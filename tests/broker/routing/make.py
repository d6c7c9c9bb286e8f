"""Short ways to write bindings and topologies in tests of routing."""

from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.types import FieldTable


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
            assert made.bind(part)
        else:
            assert made.declare(part)
    return made


def names(topology: Topology) -> list[str]:
    """The exchanges that were not predeclared."""
    found = (spec.name for spec in topology.exchanges())
    return [name for name in found if name and not name.startswith("amq.")]
