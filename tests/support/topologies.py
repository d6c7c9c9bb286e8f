"""Questions of tests to a topology that the product does not ask."""

from __future__ import annotations

from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.topology import Topology


def bindings_from(topology: Topology, source: str) -> list[Binding]:
    """Bindings of an exchange, none if it does not exist.  The default exchange has none, since
    the queues imply them."""
    exchange = topology.find(source)
    return [*exchange.matcher] if exchange is not None else []
