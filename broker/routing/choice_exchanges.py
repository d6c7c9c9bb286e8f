"""Exchanges that give each message to one of all that is bound to them, whatever the binding keys.

`x-random` throws dice, `x-local-random` too, among the classic queues of this node, and
`x-modulus-hash` takes the routing keys.  `x-consistent-hash` has a file of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.erlang_hash import hash_of_binaries
from fluffle.broker.routing.exchange_host import ExchangeHost
from fluffle.broker.routing.matcher import MatchInput
from fluffle.protocol.properties import Properties

CLASSIC = "rabbit_classic_queue"


class Choice(Protocol):
    """Chooses one of several bindings."""

    asks: MatchInput

    def check(self, binding: Binding) -> None:
        """PreconditionFailed if there can be no such binding."""

    def arrange(self, bindings: Iterable[Binding]) -> None:
        """Between these it has to choose from now on; there is at least one."""

    def choose(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Binding | None: ...


class ChoiceMatcher:
    """A matcher that has a choice made, between all bindings that there are."""

    clears_in_steps = False
    """To take one out is cheap."""

    __slots__ = ("_bindings", "_choice", "_is_arranged")

    def __init__(self, choice: Choice) -> None:
        self._bindings: dict[Binding, None] = {}
        self._choice = choice
        self._is_arranged = False
        """Whether the choice knows the bindings: it is told when the next message comes."""

    @property
    def asks(self) -> MatchInput:
        return self._choice.asks

    def check(self, binding: Binding) -> None:
        self._choice.check(binding)

    def add(self, binding: Binding) -> bool:
        is_new = binding not in self._bindings
        self._bindings[binding] = None
        self._is_arranged = False
        return is_new

    def discard(self, binding: Binding) -> bool:
        was_there = binding in self._bindings
        self._bindings.pop(binding, None)
        self._is_arranged = False
        return was_there

    def match(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterable[Binding]:
        if not self._bindings:
            return ()
        if not self._is_arranged:
            self._choice.arrange(self._bindings)
            self._is_arranged = True
        chosen = self._choice.choose(routing_keys, properties)
        return () if chosen is None else (chosen,)

    def search(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterator[Iterable[Binding]]:
        yield self.match(routing_keys, properties)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._bindings)

    def __len__(self) -> int:
        return len(self._bindings)


class Random:
    """`x-random`: a queue that is bound twice is chosen twice as often."""

    asks = MatchInput.CHANCE

    __slots__ = ("_bindings", "_pick")

    def __init__(self, pick: Callable[[int], int]) -> None:
        self._bindings: tuple[Binding, ...] = ()
        self._pick = pick

    def check(self, binding: Binding) -> None:
        """It may have any key."""

    def arrange(self, bindings: Iterable[Binding]) -> None:
        self._bindings = tuple(bindings)

    def choose(self, routing_keys: Sequence[str], properties: Properties | None) -> Binding:
        return self._bindings[self._pick(len(self._bindings))]


class LocalRandom:
    """`x-local-random`: nothing of a message leaves the node that it was published on.

    If no queue that is bound is here, the message matches nothing.
    """

    asks = MatchInput.CHANCE

    __slots__ = ("_around", "_bindings")

    def __init__(self, around: ExchangeHost) -> None:
        self._around = around
        self._bindings: tuple[Binding, ...] = ()

    def check(self, binding: Binding) -> None:
        """RabbitMQ's rules and texts: no key, and a classic queue at the end."""
        if binding.routing_key:
            raise PreconditionFailed(f"Non empty binding '{binding.routing_key}' key not permitted")
        is_to_queue = binding.destination_kind is DestinationKind.QUEUE
        found = self._around.queue_type(binding.destination) if is_to_queue else None
        if found is None:
            raise PreconditionFailed("Destination not found")
        if found != CLASSIC:
            raise PreconditionFailed(f"Queue type {found} not valid for this exchange type")

    def arrange(self, bindings: Iterable[Binding]) -> None:
        self._bindings = tuple(bindings)

    def choose(self, routing_keys: Sequence[str], properties: Properties | None) -> Binding | None:
        is_here = self._around.is_here
        here = [binding for binding in self._bindings if is_here(binding.destination)]
        return here[self._around.pick(len(here))] if here else None


class ModulusHash:
    """`x-modulus-hash`: messages with the same routing keys go the same way, which is RabbitMQ's.

    As by RabbitMQ 4.3, destinations are in the order of their names: it does not matter in which
    they were bound.
    """

    asks = MatchInput.KEYS

    __slots__ = ("_bindings",)

    def __init__(self) -> None:
        self._bindings: tuple[Binding, ...] = ()

    def check(self, binding: Binding) -> None:
        """It may have any key."""

    def arrange(self, bindings: Iterable[Binding]) -> None:
        self._bindings = tuple(sorted(bindings, key=_place))

    def choose(self, routing_keys: Sequence[str], properties: Properties | None) -> Binding:
        keys = [key.encode(errors="surrogateescape") for key in routing_keys]
        return self._bindings[hash_of_binaries(keys) % len(self._bindings)]


def _place(binding: Binding) -> tuple[str, bytes]:
    return (
        binding.destination_kind.value,
        binding.destination.encode(errors="surrogateescape"),
    )
