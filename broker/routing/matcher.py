"""Matchers of exchange types: each keeps the bindings of one exchange and finds those that match.

A matcher is also the only list of its exchange's bindings, so none of them is held twice.
`topic` and `choice_exchanges` hold the others; `headers` and `jms_topic` hold those that ask each
binding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, auto
from itertools import chain, islice
from typing import Generic, Protocol, TypeVar

from fluffle.broker.routing.bindings import Binding, Bindings, with_binding, without_binding
from fluffle.protocol.properties import Properties

KEYS_AT_ONCE = 512
BINDINGS_AT_ONCE = 128
"""Looked at without a stop, which takes a fraction of a millisecond."""

FOUND_AT_ONCE = 4096
"""So many that match are followed without a stop, which takes as long."""

STOP: Iterable[Binding] = iter(())
"""Nothing has been found; here a search may be left, and bindings may change until it goes on."""

Given_contra = TypeVar("Given_contra", contravariant=True)
"""What is known of a message."""


class MatchCondition(Protocol[Given_contra]):
    """Condition of a binding on messages."""

    def holds(self, given: Given_contra) -> bool: ...


class MatchInput(Enum):
    """Inputs, besides the bindings, on which it depends which of them match."""

    KEYS = auto()
    """The routing keys alone."""
    PROPERTIES = auto()
    """Those, and the properties: two messages with the same of both go the same way."""
    CHANCE = auto()
    """Each message has to be asked for."""


class Matcher(Protocol):
    """The bindings of one exchange.

    A message has its own routing key and those of its CC and BCC headers; it matches a binding
    if one of them does.  A binding may come out of `match` once for each of them.
    """

    @property
    def asks(self) -> MatchInput: ...

    @property
    def clears_in_steps(self) -> bool:
        """Whether it may hold bindings for a while that are gone, if whoever asks it leaves them
        out: each binding matches by itself, whatever others there are."""

    def check(self, binding: Binding) -> None:
        """PreconditionFailed if the exchange type cannot have such a binding."""

    def add(self, binding: Binding) -> bool:
        """Whether it is new.  It has passed `check`."""

    def discard(self, binding: Binding) -> bool:
        """Whether it was there."""

    def match(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterable[Binding]:
        """The properties may be left out where routes ask for keys alone."""

    def search(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterator[Iterable[Binding]]:
        """The same by some at a time, with a `STOP` wherever much had to be looked at."""

    def __iter__(self) -> Iterator[Binding]: ...

    def __len__(self) -> int: ...


def in_parts(found: Bindings) -> Iterator[Iterable[Binding]]:
    """All of them, with a `STOP` after each part if they are very many."""
    if len(found) <= FOUND_AT_ONCE:
        yield found
        return
    left = iter(tuple(found))
    while some := tuple(islice(left, FOUND_AT_ONCE)):
        yield some
        yield STOP


class DirectMatcher:
    """AMQP 0-9-1 §3.1.3.1: the routing keys must be equal."""

    asks = MatchInput.KEYS
    clears_in_steps = True

    __slots__ = ("_by_key", "_count")

    def __init__(self) -> None:
        self._by_key: dict[str, Bindings] = {}
        self._count = 0

    def check(self, binding: Binding) -> None:
        """It may have any key."""

    def add(self, binding: Binding) -> bool:
        present = self._by_key.get(binding.routing_key, ())
        if binding in present:
            return False
        self._by_key[binding.routing_key] = with_binding(present, binding)
        self._count += 1
        return True

    def discard(self, binding: Binding) -> bool:
        present = self._by_key.get(binding.routing_key, ())
        if binding not in present:
            return False
        rest = without_binding(present, binding)
        if rest:
            self._by_key[binding.routing_key] = rest
        else:
            del self._by_key[binding.routing_key]
        self._count -= 1
        return True

    def match(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterator[Binding]:
        for key in routing_keys:
            yield from self._by_key.get(key, ())

    def search(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterator[Iterable[Binding]]:
        for number, key in enumerate(routing_keys, 1):
            if found := self._by_key.get(key):
                yield from in_parts(found)
            if not number % KEYS_AT_ONCE:
                yield STOP

    def __iter__(self) -> Iterator[Binding]:
        for bindings in self._by_key.values():
            yield from bindings

    def __len__(self) -> int:
        return self._count


class FanoutMatcher:
    """AMQP 0-9-1 §3.1.3.2: every binding matches."""

    asks = MatchInput.KEYS
    clears_in_steps = True

    __slots__ = ("_bindings",)

    def __init__(self) -> None:
        self._bindings: dict[Binding, None] = {}

    def check(self, binding: Binding) -> None:
        """It may have any key."""

    def add(self, binding: Binding) -> bool:
        is_new = binding not in self._bindings
        self._bindings[binding] = None
        return is_new

    def discard(self, binding: Binding) -> bool:
        was_there = binding in self._bindings
        self._bindings.pop(binding, None)
        return was_there

    def match(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterable[Binding]:
        return self._bindings

    def search(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterator[Iterable[Binding]]:
        yield from in_parts(self._bindings)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._bindings)

    def __len__(self) -> int:
        return len(self._bindings)


class ConditionMatcher(Generic[Given_contra]):
    """Asks every binding about the properties of a message.

    Routing keys count for the identity of a binding only.
    """

    asks = MatchInput.PROPERTIES
    clears_in_steps = True

    __slots__ = ("_condition", "_conditions", "_given")

    def __init__(
        self,
        condition: Callable[[Binding], MatchCondition[Given_contra]],
        given: Callable[[Properties | None], Given_contra],
    ) -> None:
        """`condition` says what a binding asks, or raises PreconditionFailed."""
        self._conditions: dict[Binding, MatchCondition[Given_contra]] = {}
        self._condition = condition
        self._given = given

    def check(self, binding: Binding) -> None:
        self._condition(binding)

    def add(self, binding: Binding) -> bool:
        if binding in self._conditions:
            return False
        self._conditions[binding] = self._condition(binding)
        return True

    def discard(self, binding: Binding) -> bool:
        return self._conditions.pop(binding, None) is not None

    def match(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterator[Binding]:
        return chain.from_iterable(self.search(routing_keys, properties))

    def search(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Iterator[Iterable[Binding]]:
        given = self._given(properties)
        asked = iter(tuple(self._conditions.items()))
        while some := tuple(islice(asked, BINDINGS_AT_ONCE)):
            if found := [binding for binding, asks in some if asks.holds(given)]:
                yield found
            if len(some) == BINDINGS_AT_ONCE:
                yield STOP

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._conditions)

    def __len__(self) -> int:
        return len(self._conditions)
