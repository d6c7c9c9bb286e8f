"""Bindings, and small ordered sets of them.

A virtual host may hold a million bindings, so what one of them costs is counted in bytes: most
groups have one member, and a tuple of one is a fifth of a dict of one.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from fluffle.broker.metadata.change import Key
from fluffle.protocol.wire import FieldTable, FieldValue, encode_table


class DestinationKind(Enum):
    """Kinds of destinations of bindings, by RabbitMQ's names."""

    QUEUE = "queue"
    EXCHANGE = "exchange"


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages that `source` matches go on to `destination`.

    Two bindings are one if all five parts are equal; the order of arguments does not count.
    """

    source: str
    destination: str
    destination_kind: DestinationKind
    routing_key: str
    arguments: FieldTable = field(default_factory=dict)

    def __hash__(self) -> int:
        arguments = _hashable(self.arguments) if self.arguments else None
        return hash((self.source, self.destination, self.routing_key, arguments))


def binding_key(vhost: str, binding: Binding) -> Key:
    """The name of a binding, the same for equal ones."""
    return (
        vhost,
        binding.source,
        binding.destination_kind.value,
        binding.destination,
        binding.routing_key,
        named(binding.arguments),
    )


def named(arguments: FieldTable) -> bytes:
    """Arguments as part of a name, the same for equal ones."""
    return encode_table(_canonical_table(arguments)) if arguments else b""


Bindings: TypeAlias = "tuple[Binding, ...] | dict[Binding, None]"
"""Bindings without duplicates, in the order they came: a tuple while they are few, then a dict."""

TUPLE_MEMBERS_MAX = 8
"""A tuple is searched and copied at every change, which must not become quadratic."""


def with_binding(bindings: Bindings, binding: Binding) -> Bindings:
    """`bindings` and one more, which is not among them.  A dict is changed in place."""
    if isinstance(bindings, dict):
        bindings[binding] = None
        return bindings
    longer = (*bindings, binding)
    return longer if len(longer) <= TUPLE_MEMBERS_MAX else dict.fromkeys(longer)


def without_binding(bindings: Bindings, binding: Binding) -> Bindings:
    """`bindings` less one that is among them.  A dict is changed in place."""
    if isinstance(bindings, tuple):
        return tuple(other for other in bindings if other != binding)
    del bindings[binding]
    return bindings if len(bindings) > TUPLE_MEMBERS_MAX // 2 else tuple(bindings)


def _canonical_table(table: FieldTable) -> FieldTable:
    """A table of the same bytes for all that are equal: of any order, with zeros of any sign."""
    return {key: (table[key][0], _canonical(table[key][1])) for key in sorted(table)}


def _canonical(value: FieldValue) -> FieldValue:
    match value:
        case dict():
            return _canonical_table(value)
        case list():
            return [(tag, _canonical(item)) for tag, item in value]
        case float():
            return value + 0.0
        case _:
            return value


def _hashable(value: FieldValue) -> Hashable:
    """Equal for equal values, as dicts of any order are equal."""
    match value:
        case dict():
            return tuple((key, value[key][0], _hashable(value[key][1])) for key in sorted(value))
        case list():
            return tuple((tag, _hashable(item)) for tag, item in value)
        case _:
            return value
