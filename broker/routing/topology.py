"""The exchanges and bindings of one virtual host: what is so, whoever decided it.

Every binding is held by its source's matcher and, once more, under its destination, so that a queue
or an exchange takes along what leads to it without a search.  The rules of changing all this are in
`deciding`; here a fact is done by itself.

Names come as the client meant them: CR and LF are stripped where methods are read.
"""

from collections.abc import Collection, Iterable, Iterator

from fluffle.broker.errors import NotFound
from fluffle.broker.metadata.change import Fact
from fluffle.broker.routing.bindings import (
    Binding,
    Bindings,
    DestinationKind,
    with_binding,
    without_binding,
)
from fluffle.broker.routing.declaring import resource
from fluffle.broker.routing.exchange import PREDECLARED, Exchange, ExchangeSpec, alternate_of
from fluffle.broker.routing.surroundings import Surroundings


class Topology:
    """The exchanges and bindings of the virtual host `vhost`.

    Names and keys are text; errors are those of `broker/errors.py` with RabbitMQ's texts.
    """

    __slots__ = ("_around", "_exchanges", "_inbound", "epoch", "vhost")

    def __init__(
        self,
        vhost: str,
        *,
        around: Surroundings | None = None,
        exchanges: Iterable[ExchangeSpec] = (),
        bindings: Iterable[Binding] = (),
    ) -> None:
        """With `exchanges` and `bindings`, of which both ends are there, it goes on from before."""
        self.vhost = vhost
        self.epoch = 0
        """Rises with each change that can alter a route; what was remembered before it is void.
        The default exchange is not asked: where it leads is a matter of which queues there are."""
        self._around = around or Surroundings()
        self._exchanges = {
            spec.name: Exchange(spec, self._around) for spec in (*PREDECLARED, *exchanges)
        }
        self._inbound: dict[tuple[DestinationKind, str], Bindings] = {}
        """Bindings by destination; no key without a binding."""
        for binding in bindings:
            self.put_binding(binding)

    # Facts

    def put_exchange(self, spec: ExchangeSpec) -> None:
        """There is an exchange, where there was none."""
        self._exchanges[spec.name] = Exchange(spec, self._around)
        self.epoch += 1

    def remove_exchange(self, name: str) -> None:
        """It is gone; its bindings on both sides are removed before or after."""
        del self._exchanges[name]
        self.epoch += 1

    def renew(self, exchanges: Iterable[str]) -> None:
        """Some may fall under other policies than they did."""
        for exchange in filter(None, map(self._exchanges.get, exchanges)):
            alternate = alternate_of(exchange.spec, self._around)
            if alternate != exchange.alternate:
                exchange.alternate = alternate
                self.epoch += 1

    def put_binding(self, binding: Binding) -> None:
        """There is a binding, where there was none; its ends are there."""
        self._exchanges[binding.source].add(binding)
        end = binding.destination_kind, binding.destination
        self._inbound[end] = with_binding(self._inbound.get(end, ()), binding)
        self.epoch += 1

    def remove_binding(self, binding: Binding) -> None:
        """It is gone."""
        source = self._exchanges.get(binding.source)
        if source is not None:
            source.discard(binding)
        end = binding.destination_kind, binding.destination
        rest = without_binding(self._inbound[end], binding)
        if rest:
            self._inbound[end] = rest
        else:
            del self._inbound[end]
        self.epoch += 1

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

    def calendar_fact(self, exchange: Exchange) -> Fact | None:
        """What is so of the calendar of an exchange, if it has one."""
        return self._around.queue_fact(exchange.calendar) if exchange.calendar else None

    def outlives(self, binding: Binding) -> bool:
        """Whether a binding whose ends are there is to be there after a restart: if both are."""
        if not self._exchanges[binding.source].spec.durable:
            return False
        if binding.destination_kind is DestinationKind.QUEUE:
            return self._around.is_durable_queue(binding.destination)
        return self._exchanges[binding.destination].spec.durable
