"""From an exchange and routing keys to queues: the walk over exchanges, alternates and bindings.

A walk is a pure question, so a caller may remember its answer under the exchange and the keys, for
as long as `Topology.epoch` stands (the default exchange depends on the queues instead) and if
`Router.headers_bindings` counts none.
"""

from collections.abc import Callable, Iterator, Sequence

from fluffle.broker.errors import AccessRefused
from fluffle.broker.routing.bindings import DestinationKind
from fluffle.broker.routing.declaring import resource
from fluffle.broker.routing.exchange import DEFAULT_EXCHANGE, Exchange, ExchangeSpec
from fluffle.broker.routing.headers import HeadersMatcher
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.types import FieldTable

QUEUE = DestinationKind.QUEUE


class Router:
    """Routes within one virtual host.  `queue_exists` answers for the default exchange."""

    __slots__ = ("_queue_exists", "_topology")

    def __init__(self, topology: Topology, queue_exists: Callable[[str], bool]) -> None:
        self._topology = topology
        self._queue_exists = queue_exists

    def publishable(self, name: str) -> ExchangeSpec:
        """The exchange of a client's publish: NotFound, or AccessRefused if it is internal."""
        spec = self._topology.require(name).spec
        if spec.internal:
            raise AccessRefused(
                f"cannot publish to internal {resource(name, self._topology.vhost)}"
            )
        return spec

    def route(
        self, exchange: str, routing_keys: Sequence[str], headers: FieldTable | None
    ) -> tuple[str, ...]:
        """The names of all queues that get the message, each once.

        `routing_keys` are the message's own and those of its CC and BCC headers.  An exchange that
        is not there leads nowhere, as an alternate or a dead-letter exchange may not be there.
        """
        if exchange == DEFAULT_EXCHANGE:
            return tuple(dict.fromkeys(filter(self._queue_exists, routing_keys)))
        queues: dict[str, None] = {}
        walk = Walk(self._topology, exchange)
        for visited in walk:
            matched = False
            for binding in visited.matcher.match(routing_keys, headers):
                matched = True
                if binding.destination_kind is QUEUE:
                    queues[binding.destination] = None
                else:
                    walk.add(binding.destination)
            # An exchange that matched counts as served, even if what it leads to leads nowhere.
            if not matched and visited.alternate is not None:
                walk.add(visited.alternate)
        return tuple(queues)

    def headers_bindings(self, exchange: str) -> int:
        """How many bindings may look at the headers of what is published to `exchange`."""
        count = 0
        walk = Walk(self._topology, exchange)
        for visited in walk:
            if isinstance(visited.matcher, HeadersMatcher):
                count += len(visited.matcher)
            for name in visited.onward:
                walk.add(name)
            if visited.alternate is not None:
                walk.add(visited.alternate)
        return count


class Walk:
    """Visits exchanges in the order they were added, each once: bindings may form loops."""

    __slots__ = ("_names", "_seen", "_topology")

    def __init__(self, topology: Topology, start: str) -> None:
        self._topology = topology
        self._names = [start]
        self._seen = {start}

    def add(self, name: str) -> None:
        if name not in self._seen:
            self._seen.add(name)
            self._names.append(name)

    def __iter__(self) -> Iterator[Exchange]:
        for name in self._names:  # which grows meanwhile
            exchange = self._topology.find(name)
            if exchange is not None:
                yield exchange
