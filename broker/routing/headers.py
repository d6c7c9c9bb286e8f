"""Headers exchanges: bindings that look at message headers.  AMQP 0-9-1 §3.1.3.4.

What RabbitMQ makes of the specification:

- `x-match` is `all` (the default), `any`, `all-with-x` or `any-with-x`.  Without `-with-x`, binding
  arguments whose names begin with `x-` are left out.  `all` of nothing matches, `any` does not.
- A void argument asks only that the header be there.
- Values are compared without their type tags at the top level and with them inside tables and
  arrays.  A boolean, an integer and a float never equal one another, tables know an order, and an
  empty table is an empty array.
- A timestamp header counts in milliseconds, a timestamp argument in seconds.
"""

from collections.abc import Hashable
from typing import TypeAlias

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.matcher import ConditionMatcher
from fluffle.protocol.properties import Properties
from fluffle.protocol.terms import term
from fluffle.protocol.wire import TYPE_NAMES, Field, FieldTable, FieldValue

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
    """Condition of a binding on message headers."""

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
