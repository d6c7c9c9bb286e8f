"""Matchers of exchange types: each keeps the bindings of one exchange and finds those that match.

`exchange.EXCHANGE_TYPES` lists the types, and what makes the matcher of each.

A matcher is also the only list of its exchange's bindings, so none of them is held twice.
Those of direct, fanout and headers exchanges are here; `topic`, `topic_filter`, `choice_exchanges`
and `jms_topic` hold the others.  `StaleMatcher` has bindings that are gone and still in another:
thousands are not taken out at once, since to take one out of a trie takes a walk along the words of
its key, 128 at most.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from typing import Generic, Protocol, TypeAlias, TypeVar

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding, Bindings, with_binding, without_binding
from fluffle.protocol.properties import Properties
from fluffle.protocol.terms import term
from fluffle.protocol.wire import TYPE_NAMES, Field, FieldTable, FieldValue

KEYS_AT_ONCE = 512
BINDINGS_AT_ONCE = 128
"""Looked at without a stop, which takes a fraction of a millisecond."""

FOUND_AT_ONCE = 4096
"""Most matches followed without a pause, for the time that they take."""

WORDS_AT_ONCE = 3_000
"""A piece of work of about a millisecond; what a binding costs besides counts for `WORDS_EACH`."""
WORDS_EACH = 6

STOP: Iterable[Binding] = iter(())
"""Nothing has been found; here a search may be left, and bindings may change until it goes on."""

Given_contra = TypeVar("Given_contra", contravariant=True)
"""Facts of a message that a matcher reads."""


class MatchCondition(Protocol[Given_contra]):
    """Condition of a binding on messages."""

    def holds(self, given: Given_contra) -> bool: ...


class MatchInput(Enum):
    """Inputs, besides the bindings, on which it depends which of them match."""

    KEYS = auto()
    """The routing keys alone."""
    PROPERTIES = auto()
    """Keys, and the properties: two messages with the same of both go the same way."""
    CHANCE = auto()
    """Each message has to be asked for."""


class Matcher(Protocol):
    """The bindings of one exchange.

    A message has its own routing key and those of its CC and BCC headers; it matches a binding
    if one of them does.  A binding may come out of `search` once for each of them.
    """

    @property
    def asks(self) -> MatchInput: ...

    @property
    def clears_in_steps(self) -> bool:
        """True if it may hold removed bindings for a while, which its caller leaves out: each
        binding matches by itself, whatever others there are."""

    def check(self, binding: Binding) -> None:
        """PreconditionFailed if the exchange type cannot have such a binding."""

    def add(self, binding: Binding) -> bool:
        """True if it is new.  It has passed `check`."""

    def discard(self, binding: Binding) -> bool:
        """True if it was there."""

    def search(
        self,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
    ) -> Iterator[Iterable[Binding]]:
        """Yield what matches by some at a time, with a `STOP` wherever much had to be looked at.

        The properties may be left out where routes ask for keys alone.  A message with a `topic`
        matches bindings that have a topic filter by that alone.
        """

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
        """Accept any binding key."""

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

    def search(
        self,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
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
        """Accept any binding key."""

    def add(self, binding: Binding) -> bool:
        is_new = binding not in self._bindings
        self._bindings[binding] = None
        return is_new

    def discard(self, binding: Binding) -> bool:
        was_there = binding in self._bindings
        self._bindings.pop(binding, None)
        return was_there

    def search(
        self,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
    ) -> Iterator[Iterable[Binding]]:
        yield from in_parts(self._bindings)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._bindings)

    def __len__(self) -> int:
        return len(self._bindings)


@dataclass(slots=True, eq=False)
class ConditionMatcher(Generic[Given_contra]):
    """Asks every binding about the properties of a message.

    Routing keys count for the identity of a binding only.
    """

    asks = MatchInput.PROPERTIES
    clears_in_steps = True

    _condition: Callable[[Binding], MatchCondition[Given_contra]]
    """Returns what a binding asks, or raises PreconditionFailed."""
    _given: Callable[[Properties | None], Given_contra]
    _conditions: dict[Binding, MatchCondition[Given_contra]] = field(
        default_factory=dict, init=False
    )

    def check(self, binding: Binding) -> None:
        self._condition(binding)

    def add(self, binding: Binding) -> bool:
        if binding in self._conditions:
            return False
        self._conditions[binding] = self._condition(binding)
        return True

    def discard(self, binding: Binding) -> bool:
        return self._conditions.pop(binding, None) is not None

    def search(
        self,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
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


class StaleMatcher:
    """A `Matcher` that finds what is still bound in one that holds more: `clears_in_steps`."""

    clears_in_steps = True

    __slots__ = ("_gone", "_left", "inner")

    def __init__(self, inner: Matcher) -> None:
        self.inner = inner
        self._gone: dict[Binding, None] = {}
        """Bindings of `inner` that are removed and no longer match.  They stay here after they were
        cleared away: a search under way may still read what `inner` held when it began."""
        self._left: dict[Binding, None] = {}
        """Bindings of `_gone` that are still in `inner`."""

    @property
    def asks(self) -> MatchInput:
        return self.inner.asks

    def check(self, binding: Binding) -> None:
        self.inner.check(binding)

    def add(self, binding: Binding) -> bool:
        if binding in self._gone:  # it begins anew, behind the others
            del self._gone[binding]
            if binding in self._left:
                del self._left[binding]
                self.inner.discard(binding)
        return self.inner.add(binding)

    def discard(self, binding: Binding) -> bool:
        return binding not in self._gone and self.inner.discard(binding)

    def forget(self, bindings: Iterable[Binding]) -> None:
        """These are there, and gone from now on."""
        gone = dict.fromkeys(bindings)
        self._gone.update(gone)
        self._left.update(gone)

    def search(
        self,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
    ) -> Iterator[Iterable[Binding]]:
        for found in self.inner.search(routing_keys, properties, topic):
            if found is STOP:
                yield STOP
            elif bound := tuple(self._bound(found)):
                yield bound

    def __iter__(self) -> Iterator[Binding]:
        return self._bound(self.inner)

    def __len__(self) -> int:
        return len(self.inner) - len(self._left)

    def _bound(self, found: Iterable[Binding]) -> Iterator[Binding]:
        return (binding for binding in found if binding not in self._gone)

    def clear(self) -> Iterator[None]:
        """Take what is gone out of `inner`, a piece at a time."""
        return cleared(self.inner, lambda: self._left.popitem()[0])


def emptied(matcher: Matcher) -> Iterator[None]:
    """Empty a matcher that is not used any more, a piece at a time: to free it at once would free a
    great many nodes of a trie in one go."""
    held = matcher.inner if isinstance(matcher, StaleMatcher) else matcher
    yield from cleared(held, list(held).pop)


def cleared(matcher: Matcher, take: Callable[[], Binding]) -> Iterator[None]:
    """Discard what `take` gives, until it raises."""
    words = 0
    while True:
        try:
            binding = take()
        except LookupError:
            return
        matcher.discard(binding)
        words += WORDS_EACH + binding.routing_key.count(".")
        if words >= WORDS_AT_ONCE:
            words = 0
            yield


X_MATCH = "x-match"

MODES: dict[bytes, tuple[bool, bool]] = {
    b"all": (False, False),
    b"any": (True, False),
    b"all-with-x": (False, True),
    b"any-with-x": (True, True),
}
"""x-match -> (whether one argument is enough, whether `x-` arguments count)."""

Comparable: TypeAlias = "tuple[type, Hashable]"
"""A value such that two of them are equal if RabbitMQ finds the values identical."""


class HeadersCondition:
    """Condition of a binding of a headers exchange on message headers.  AMQP 0-9-1 §3.1.3.4.

    What RabbitMQ makes of the specification:

    - `x-match` is `all` (the default), `any`, `all-with-x` or `any-with-x`.  Without `-with-x`,
      binding arguments whose names begin with `x-` are left out.  `all` of nothing matches, `any`
      does not.
    - A void argument asks only that the header be there.
    - Values are compared without their type tags at the top level and with them inside tables and
      arrays.  A boolean, an integer and a float never equal one another, tables know an order, and
      an empty table is an empty array.
    - A timestamp header counts in milliseconds, a timestamp argument in seconds.
    """

    __slots__ = ("_any_is_enough", "_wanted")

    def __init__(self, arguments: FieldTable) -> None:
        self._any_is_enough, with_x = MODES[_x_match(arguments)]
        self._wanted = tuple(
            (name, None if field[0] == "V" else comparable(field[1]))
            for name, field in arguments.items()
            if name != X_MATCH and (with_x or not name.startswith("x-"))
        )
        """(name, value); None asks only for presence."""

    def holds(self, headers: dict[str, Comparable]) -> bool:
        hits = (
            name in headers if value is None else headers.get(name) == value
            for name, value in self._wanted
        )
        return any(hits) if self._any_is_enough else all(hits)

    def lacking(self, headers: dict[str, Comparable]) -> list[str]:
        """The names of those that are not there, or have another value."""
        return [
            name
            for name, value in self._wanted
            if name not in headers or value not in (None, headers[name])
        ]


def headers_matcher() -> ConditionMatcher[dict[str, Comparable]]:
    return ConditionMatcher(lambda binding: HeadersCondition(binding.arguments), given_by)


def given_by(properties: Properties | None) -> dict[str, Comparable]:
    """The headers of a message, as conditions compare them."""
    headers = (properties and properties.headers) or {}
    return {name: _comparable_header(field) for name, field in headers.items()}


def comparable(value: FieldValue) -> Comparable:
    if isinstance(value, dict):
        fields = value.items()
        return list, tuple(
            (name, TYPE_NAMES[tag], comparable(item)) for name, (tag, item) in fields
        )
    if isinstance(value, list):
        return list, tuple((TYPE_NAMES[tag], comparable(item)) for tag, item in value)
    return type(value), value


def _comparable_header(field: Field) -> Comparable:
    tag, value = field
    if tag == "T" and isinstance(value, int):
        return int, value * 1000
    return comparable(value)


def _x_match(arguments: FieldTable) -> bytes:
    field = arguments.get(X_MATCH, ("S", b"all"))
    tag, value = field
    if tag != "S" or not isinstance(value, bytes):
        raise PreconditionFailed(
            f"Invalid x-match field type {TYPE_NAMES[tag]} (value {term(value)}); expected longstr"
        )
    if value not in MODES:
        raise PreconditionFailed(
            f"Invalid x-match field value {term(value)};"
            " expected all, any, all-with-x, or any-with-x"
        )
    return value
