"""The exchanges and bindings of one virtual host, and the rules of changing them.

Every binding is held by its source's matcher and, once more, under its destination, so that a queue
or an exchange takes along what leads to it without a search.

Names come as the client meant them: CR and LF are stripped where methods are read.  Whether a
queue exists, is exclusive or may be bound is the caller's business.

Durable exchanges are told to `Facts`, and bindings of which both ends are durable.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from fluffle.broker.errors import NotFound, PreconditionFailed
from fluffle.broker.facts import FORGOTTEN, Facts, Kind
from fluffle.broker.routing.bindings import (
    Binding,
    Bindings,
    DestinationKind,
    binding_key,
    with_binding,
    without_binding,
)
from fluffle.broker.routing.declaring import (
    check_bindable,
    check_creatable,
    check_deletable,
    check_equivalent,
    check_type,
    resource,
)
from fluffle.broker.routing.exchange import PREDECLARED, Exchange, ExchangeSpec, check_not_default


@dataclass(slots=True)
class Removed:
    """What went with a change, in the order it went: bindings, and exchanges that they kept."""

    bindings: list[Binding] = field(default_factory=list)
    exchanges: list[ExchangeSpec] = field(default_factory=list)


class Topology:
    """The exchanges and bindings of the virtual host `vhost`.

    Names and keys are text; errors are those of `broker/errors.py` with RabbitMQ's texts.
    """

    __slots__ = ("_exchanges", "_facts", "_inbound", "_is_durable_queue", "epoch", "vhost")

    def __init__(
        self,
        vhost: str,
        *,
        facts: Facts = FORGOTTEN,
        is_durable_queue: Callable[[str], bool] = lambda _name: False,
        exchanges: Iterable[ExchangeSpec] = (),
        bindings: Iterable[Binding] = (),
    ) -> None:
        """With `exchanges` and `bindings`, of which both ends are there, it goes on from before."""
        self.vhost = vhost
        self.epoch = 0
        """Rises with each change that can alter a route; what was remembered before it is void.
        The default exchange is not asked: where it leads is a matter of which queues there are."""
        self._facts = facts
        self._is_durable_queue = is_durable_queue
        self._exchanges = {spec.name: Exchange(spec) for spec in (*PREDECLARED, *exchanges)}
        self._inbound: dict[tuple[DestinationKind, str], Bindings] = {}
        """Bindings by destination; no key without a binding."""
        for binding in bindings:
            self._add_binding(binding)

    def declare(self, spec: ExchangeSpec) -> bool:
        """Make an exchange, or check that the one there is the same; whether it was made.

        Raises PreconditionFailed for an unknown type, an inequivalent exchange or a bad
        `alternate-exchange`, AccessRefused for the default exchange and reserved names.
        """
        check_type(spec.type)
        check_not_default(spec.name)
        current = self._exchanges.get(spec.name)
        if current is not None:
            check_equivalent(current.spec, spec, self.vhost)
            return False
        check_creatable(spec, self.vhost)
        self._exchanges[spec.name] = Exchange(spec)
        self.epoch += 1
        if spec.durable:
            self._facts.put(Kind.EXCHANGE, (self.vhost, spec.name), spec)
        return True

    def declare_passive(self, name: str) -> ExchangeSpec:
        """RabbitMQ compares nothing but the name.  Raises AccessRefused, NotFound."""
        check_not_default(name)
        return self.require(name)

    def delete(self, name: str, *, if_unused: bool = False) -> Removed:
        """Remove an exchange with all its bindings; one that is not there is no error.

        `if_unused`: raises PreconditionFailed if the exchange is the source of a binding.
        """
        check_deletable(name, self.vhost)
        exchange = self._exchanges.get(name)
        removed = Removed()
        if exchange is None:
            return removed
        if if_unused and len(exchange.matcher):
            raise PreconditionFailed(f"{resource(name, self.vhost)} in use")
        self._remove_bindings(self._remove_exchange(exchange, removed), removed)
        self.epoch += 1
        return removed

    def bind(self, binding: Binding) -> bool:
        """Whether the binding is new.

        Raises NotFound for the source before the destination exchange.  The caller of a queue
        binding looks for the queue: after `check_not_default` and `require` of the source, before
        this, which raises PreconditionFailed for a key or arguments that the type cannot have.
        """
        check_bindable(binding)
        self.require(binding.source)
        if binding.destination_kind is DestinationKind.EXCHANGE:
            self.require(binding.destination)
        if not self._add_binding(binding):
            return False
        self.epoch += 1
        if self._is_durable(binding):
            self._facts.put(Kind.BINDING, binding_key(self.vhost, binding), binding)
        return True

    def unbind(self, binding: Binding) -> Removed:
        """Remove a binding; neither it nor its ends need be there."""
        check_bindable(binding)
        removed = Removed()
        if binding in self.bindings_to(binding.destination_kind, binding.destination):
            self._forget_bindings([binding])
            self._remove_bindings([binding], removed)
            self.epoch += 1
        return removed

    def drop_queue(self, name: str) -> Removed:
        """Remove all bindings to a queue that is about to be deleted."""
        removed = Removed()
        bindings = self._inbound.get((DestinationKind.QUEUE, name), ())
        self._forget_bindings(bindings)
        self._remove_bindings(bindings, removed)
        if removed.bindings:
            self.epoch += 1
        return removed

    def clear(self) -> Iterator[None]:
        """The virtual host is deleted: remove everything, an exchange at a time."""
        for name in tuple(self._exchanges):
            exchange = self._exchanges.get(name)
            if exchange is not None:  # it has not gone with another one
                removed = Removed()
                self._remove_bindings(self._remove_exchange(exchange, removed), removed)
                self.epoch += 1
            yield

    def require(self, name: str) -> ExchangeSpec:
        """Raises NotFound."""
        return self._find(name).spec

    def find(self, name: str) -> Exchange | None:
        return self._exchanges.get(name)

    def exchanges(self) -> Iterator[ExchangeSpec]:
        """All of them, the default exchange and other predeclared ones first."""
        return (exchange.spec for exchange in self._exchanges.values())

    def bindings_from(self, source: str) -> Iterator[Binding]:
        """Not those of the default exchange, which are implied by the queues."""
        exchange = self._exchanges.get(source)
        return iter(()) if exchange is None else iter(exchange.matcher)

    @property
    def bindings(self) -> Iterator[Binding]:
        """All of them but those of the default exchange; they may change in between."""
        for end in tuple(self._inbound):
            yield from tuple(self._inbound.get(end, ()))

    def bindings_to(self, kind: DestinationKind, destination: str) -> Collection[Binding]:
        """Not to be changed; asking whether a binding is among them takes no search."""
        return self._inbound.get((kind, destination), ())

    def _find(self, name: str) -> Exchange:
        exchange = self._exchanges.get(name)
        if exchange is None:
            raise NotFound(f"no {resource(name, self.vhost)}")
        return exchange

    def _remove_bindings(self, bindings: Iterable[Binding], removed: Removed) -> None:
        """Also removes each auto-delete exchange that was left without a binding as a source."""
        pending = list(bindings)
        while pending:
            binding = pending.pop()
            source = self._exchanges[binding.source]
            source.discard(binding)
            self._forget_inbound(binding)
            removed.bindings.append(binding)
            if source.spec.auto_delete and not len(source.matcher):
                pending.extend(self._remove_exchange(source, removed))

    def _remove_exchange(self, exchange: Exchange, removed: Removed) -> Bindings:
        """Remove it and the bindings it is the source of; the bindings to it are still to do."""
        name = exchange.spec.name
        self._forget_bindings(exchange.matcher)
        for binding in exchange.matcher:
            self._forget_inbound(binding)
            removed.bindings.append(binding)
        inbound = self._inbound.get((DestinationKind.EXCHANGE, name), ())
        self._forget_bindings(inbound)
        self._forget_exchange(exchange.spec)
        del self._exchanges[name]
        removed.exchanges.append(exchange.spec)
        return inbound

    def _forget_inbound(self, binding: Binding) -> None:
        end = binding.destination_kind, binding.destination
        rest = without_binding(self._inbound[end], binding)
        if rest:
            self._inbound[end] = rest
        else:
            del self._inbound[end]

    def _add_binding(self, binding: Binding) -> bool:
        """Whether it is new; its ends are there."""
        if not self._exchanges[binding.source].add(binding):
            return False
        end = binding.destination_kind, binding.destination
        self._inbound[end] = with_binding(self._inbound.get(end, ()), binding)
        return True

    def _is_durable(self, binding: Binding) -> bool:
        """Whether it outlives the process; to be asked while both ends are there."""
        if not self._exchanges[binding.source].spec.durable:
            return False
        if binding.destination_kind is DestinationKind.QUEUE:
            return self._is_durable_queue(binding.destination)
        return self._exchanges[binding.destination].spec.durable

    def _forget_bindings(self, bindings: Iterable[Binding]) -> None:
        """Tell that they are gone, while both ends are there."""
        for binding in bindings:
            if self._is_durable(binding):
                self._facts.remove(Kind.BINDING, binding_key(self.vhost, binding))

    def _forget_exchange(self, spec: ExchangeSpec) -> None:
        if spec.durable and spec not in PREDECLARED:
            self._facts.remove(Kind.EXCHANGE, (self.vhost, spec.name))
