"""The exchanges and bindings of one virtual host: what is so, wherever it was decided.

Every binding is held by its source's matcher and, once more, under its destination, so that a queue
or an exchange takes along what leads to it without a search.  The rules of changing all this are in
`changes`; here a fact is done by itself.

Names come as the client meant them: CR and LF are stripped where methods are read.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from fluffle.broker.base.errors import NotFound
from fluffle.broker.metadata.change import Fact
from fluffle.broker.routing.bindings import (
    Binding,
    Bindings,
    DestinationKind,
    with_binding,
    without_binding,
)
from fluffle.broker.routing.exchange import (
    PREDECLARED,
    Exchange,
    ExchangeSpec,
    alternate_of,
    resource,
)
from fluffle.broker.routing.exchange_host import ExchangeHost
from fluffle.broker.routing.matcher import emptied

REMOVED_AT_ONCE = 256
"""Bindings that are taken out of matchers without a pause: a millisecond of work, if their keys are
not long."""

ends_of = attrgetter("source", "destination_kind", "destination")


class Topology:
    """The exchanges and bindings of the virtual host `vhost`.

    Names and keys are text; errors are those of `broker/base/errors.py` with RabbitMQ's texts.
    """

    __slots__ = ("_exchanges", "_host", "_inbound", "_unfinished", "epoch", "vhost")

    def __init__(
        self,
        vhost: str,
        *,
        host: ExchangeHost | None = None,
        exchanges: Iterable[ExchangeSpec] = (),
        bindings: Iterable[Binding] = (),
    ) -> None:
        """With `exchanges` and `bindings`, of which both ends are there, it goes on from before."""
        self.vhost = vhost
        self.epoch = 0
        """Rises with each change that can alter a route; what was remembered before it is void.
        The default exchange is not asked: where it leads is a matter of which queues there are."""
        self._host = host or ExchangeHost()
        self._exchanges = {
            spec.name: Exchange(spec, self._host) for spec in (*PREDECLARED, *exchanges)
        }
        self._inbound: dict[tuple[DestinationKind, str], Bindings] = {}
        """Bindings by destination; no key without a binding."""
        self._unfinished: deque[Iterator[None]] = deque()
        """Remaining work of removals whose effect is complete."""
        for binding in bindings:
            self.put_binding(binding)

    # Facts

    def put_exchange(self, spec: ExchangeSpec) -> None:
        """Add an exchange whose name is free."""
        self._exchanges[spec.name] = Exchange(spec, self._host)
        self.epoch += 1

    def remove_exchange(self, name: str) -> None:
        """Remove an exchange; its bindings on both sides are removed before or after."""
        exchange = self._exchanges.pop(name)
        if len(exchange.matcher) > REMOVED_AT_ONCE:
            self._finish_later(emptied(exchange.matcher))
        self.epoch += 1

    def renew_alternates(self, exchanges: Iterable[str]) -> None:
        """Some may fall under other policies than they did."""
        for exchange in filter(None, map(self._exchanges.get, exchanges)):
            alternate = alternate_of(exchange.spec, self._host)
            if alternate != exchange.alternate:
                exchange.alternate = alternate
                self.epoch += 1

    def put_binding(self, binding: Binding) -> None:
        """There is a binding; its ends are there.  Two nodes that make the same at once put it
        twice: the second time nothing changes."""
        if self._exchanges[binding.source].add(binding):
            end = binding.destination_kind, binding.destination
            self._inbound[end] = with_binding(self._inbound.get(end, ()), binding)
            self.epoch += 1

    def remove_binding(self, binding: Binding) -> None:
        """Remove a binding."""
        source = self._exchanges.get(binding.source)
        if source is not None:
            source.discard(binding)
        self._remove_inbound((binding,))
        self.epoch += 1

    def remove_bindings(self, bindings: Sequence[Binding]) -> None:
        """Remove bindings: matchers may hold some of many for a while, but do not find them."""
        if len(bindings) <= REMOVED_AT_ONCE:
            for binding in bindings:
                self.remove_binding(binding)
            return
        by_ends: dict[tuple[str, DestinationKind, str], list[Binding]] = {}
        for ends, group in groupby(bindings, ends_of):
            by_ends.setdefault(ends, []).extend(group)
        for (name, kind, destination), alike in by_ends.items():
            source, inbound = self._exchanges.get(name), self._inbound[kind, destination]
            # of a dict the hashes are known: to find those of thousands takes longer than the rest
            gone = inbound if len(inbound) == len(alike) else alike
            if source is not None and (pieces := source.forget(gone)) is not None:
                self._finish_later(pieces)
            self._remove_inbound(alike)
        self.epoch += 1

    def _remove_inbound(self, alike: Sequence[Binding]) -> None:
        """No longer have bindings of one destination lead there."""
        end = alike[0].destination_kind, alike[0].destination
        rest = self._inbound[end]
        if len(alike) == len(rest):
            rest = ()
        for binding in alike if rest else ():
            rest = without_binding(rest, binding)
        if rest:
            self._inbound[end] = rest
        else:
            del self._inbound[end]

    def _finish_later(self, pieces: Iterator[None]) -> None:
        self._unfinished.append(pieces)
        if len(self._unfinished) == 1:
            self._host.later(self._finish())

    def _finish(self) -> Iterator[None]:
        while self._unfinished:
            yield from self._unfinished[0]
            self._unfinished.popleft()

    # Questions

    def require(self, name: str) -> Exchange:
        """The exchange of that name.  NotFound."""
        exchange = self._exchanges.get(name)
        if exchange is None:
            raise NotFound(f"no {resource(name, self.vhost)}")
        return exchange

    def __len__(self) -> int:
        """How many exchanges there are."""
        return len(self._exchanges)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self._exchanges.values())

    def find(self, name: str) -> Exchange | None:
        return self._exchanges.get(name)

    def exchanges(self) -> Iterator[ExchangeSpec]:
        """All of them, the default exchange and other predeclared ones first."""
        return (exchange.spec for exchange in self._exchanges.values())

    @property
    def bindings(self) -> Iterator[Binding]:
        """All of them but those of the default exchange; they may change in between."""
        for end in tuple(self._inbound):
            yield from tuple(self._inbound.get(end, ()))

    def bindings_to(self, kind: DestinationKind, destination: str) -> Collection[Binding]:
        """Not to be changed; asking whether a binding is among them takes no search."""
        return self._inbound.get((kind, destination), ())

    def delayed_queue_fact(self, exchange: Exchange) -> Fact | None:
        """Fact stored with the delayed queue of an exchange, if it has one."""
        return self._host.queue_fact(exchange.delayed_queue) if exchange.delayed_queue else None

    def outlives(self, binding: Binding) -> bool:
        """True if a binding whose ends are there is to be there after a restart: if both are."""
        if not self._exchanges[binding.source].spec.durable:
            return False
        if binding.destination_kind is DestinationKind.QUEUE:
            return self._host.is_durable_queue(binding.destination)
        return self._exchanges[binding.destination].spec.durable
