"""From an exchange and routing keys to queues: the walk over exchanges, alternates and bindings.

A walk is a pure question, so a caller may remember its answer under the exchange and the keys, for
as long as `Topology.epoch` stands (the default exchange depends on the queues instead) and if
`Router.needs` says that it takes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from fluffle.broker.base.errors import AccessRefused
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import (
    DEFAULT_EXCHANGE,
    Exchange,
    ExchangeSpec,
    resource,
    routes_as,
)
from fluffle.broker.routing.matcher import STOP, MatchInput
from fluffle.broker.routing.recent_history import MessageHistory
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.headers import delay_of
from fluffle.protocol.properties import Properties
from fluffle.protocol.steps import Steps, whole

QUEUE = DestinationKind.QUEUE


class RouteInputs(NamedTuple):
    """Inputs of a message, besides routing keys, that routing needs."""

    property_bindings: int = 0
    """How many bindings may look at their properties, and exchanges for how long they wait."""
    is_drawn: bool = False
    """True if chance may have a say, for each of them anew."""
    is_kept: bool = False
    """True if they may have to be kept as recent ones."""


KEYS_SUFFICE = RouteInputs()


class Route(NamedTuple):
    """Where a message goes."""

    queues: tuple[str, ...]
    """Names of the queues, each once."""
    histories: tuple[MessageHistory, ...]
    """Histories that keep the message."""
    misses: bool = False
    """True if something was missing: no queue was found, or not all that were named, or an
    alternate exchange was taken."""


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
        self, exchange: str, routing_keys: Sequence[str], properties: Properties | None
    ) -> tuple[str, ...]:
        """The names of all queues that get the message, each once.

        `routing_keys` are the message's own and those of its CC and BCC headers.  An exchange that
        is not there leads nowhere, as an alternate or a dead-letter exchange may not be there.
        """
        if exchange == DEFAULT_EXCHANGE:
            return tuple(dict.fromkeys(filter(self._queue_exists, routing_keys)))
        return whole(self._follow(exchange, routing_keys, properties)).queues

    def route_in_steps(
        self,
        exchange: str,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
    ) -> Steps[Route]:
        """Find a way as `way` does.  What is bound all the while is found; queues may have gone
        meanwhile.

        With a `topic` bindings that have a topic filter are asked for that, and the others for the
        routing keys.  If there are none either, since no AMQP client could be given that key, only
        those that have a filter are asked.
        """
        if exchange == DEFAULT_EXCHANGE:
            queues = self.route(exchange, routing_keys, properties)
            return Route(queues, (), misses=len(queues) < len(set(routing_keys)))
        return (yield from self._follow(exchange, routing_keys, properties, topic))

    def _follow(
        self,
        exchange: str,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
    ) -> Steps[Route]:
        queues: dict[str, None] = {}
        histories: list[MessageHistory] = []
        misses = False
        walk = Walk(self._topology, exchange)
        waits = properties is not None and delay_of(properties.headers) > 0
        is_keyless = topic is not None and not routing_keys
        for visited in walk:
            if is_keyless and routes_as(visited.spec) != "topic":
                continue
            if waits and visited.delayed_queue is not None:
                queues[visited.delayed_queue] = None  # and when its time comes it begins here
                continue
            if visited.history is not None:
                histories.append(visited.history)
            matched = False
            for found in visited.matcher.search(routing_keys, properties, topic):
                if found is STOP:
                    yield
                matched = follow(found, queues, walk) or matched
            # An exchange that matched counts as served, even if what it leads to leads nowhere.
            if not matched and visited.alternate is not None and not is_keyless:
                walk.add(visited.alternate)
                misses = True
        return Route(tuple(queues), tuple(histories), misses=misses or not queues)

    def needs(self, exchange: str) -> RouteInputs:
        """Inputs needed to route messages published to `exchange`."""
        property_bindings, is_drawn, is_kept = 0, False, False
        walk = Walk(self._topology, exchange)
        for visited in walk:
            is_kept = is_kept or visited.history is not None
            asks = visited.matcher.asks
            property_bindings += visited.delayed_queue is not None
            if asks is MatchInput.PROPERTIES:
                property_bindings += len(visited.matcher)
            is_drawn = is_drawn or asks is MatchInput.CHANCE
            for name in visited.onward:
                walk.add(name)
            if visited.alternate is not None:
                walk.add(visited.alternate)
        return RouteInputs(property_bindings, is_drawn, is_kept)


def follow(found: Iterable[Binding], queues: dict[str, None], walk: Walk) -> bool:
    """Add where some bindings lead to; whether there are any."""
    matched = False
    for binding in found:
        matched = True
        if binding.destination_kind is QUEUE:
            queues[binding.destination] = None
        else:
            walk.add(binding.destination)
    return matched


class Walk:
    """Visits exchanges in the order they were added, each once: bindings may form loops."""

    __slots__ = ("_names", "_seen", "_topology")

    def __init__(self, topology: Topology, start: str) -> None:
        self._topology = topology
        self._names = [start]
        self._seen = {start}

    def add(self, name: str) -> bool:
        """True if it has not been added before."""
        if name in self._seen:
            return False
        self._seen.add(name)
        self._names.append(name)
        return True

    def __iter__(self) -> Iterator[Exchange]:
        for name in self._names:  # which grows meanwhile
            exchange = self._topology.find(name)
            if exchange is not None:
                yield exchange
