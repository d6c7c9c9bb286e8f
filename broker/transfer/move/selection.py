"""Which messages are moved: those with all of these headers, and a routing key that is matched."""

from __future__ import annotations

from collections.abc import Iterable

from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.topic import TopicMatcher
from fluffle.protocol.properties import FLAG_HEADERS, decode_properties, property_flags
from fluffle.protocol.types import FieldValue


class Selection:
    """Condition on messages to be moved; every message meets an empty one."""

    __slots__ = ("_headers", "_keys")

    def __init__(self, headers: Iterable[str] = (), routing_key: str | None = None) -> None:
        """`headers`: `name=value`; `routing_key`: as a binding of a topic exchange has it.

        SyntaxFailure; PreconditionFailed.
        """
        self._headers = dict(map(read_header, headers))
        self._keys = TopicMatcher()
        if routing_key is not None:
            binding = Binding("", "", DestinationKind.QUEUE, routing_key)
            self._keys.check(binding)
            self._keys.add(binding)

    @property
    def is_of_all(self) -> bool:
        return not (self._headers or len(self._keys))

    def takes(self, routing_key: str, raw_properties: bytes) -> bool:
        """Whether a message is meant."""
        if len(self._keys) and not any(self._keys.match((routing_key,), None)):
            return False
        if not self._headers:
            return True
        if not property_flags(raw_properties) & FLAG_HEADERS:
            return False
        found = decode_properties(raw_properties).headers or {}
        return all(
            name in found and text_of(found[name][1]) == value
            for name, value in self._headers.items()
        )


def read_header(text: str) -> tuple[str, str]:
    """`name=value`.  SyntaxFailure."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise SyntaxFailure(f"'{text}' is no header; write name=value")
    return name, value


def text_of(value: FieldValue) -> str | None:
    """As somebody would type it; None for what is more than a word."""
    match value:
        case bytes():
            return value.decode(errors="surrogateescape")
        case bool():
            return "true" if value else "false"
        case int() | float() | str():
            return str(value)
    return None
