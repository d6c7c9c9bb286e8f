"""Values of JSON as they stand in RabbitMQ's texts, which print Erlang terms."""

from __future__ import annotations

from typing import Any

from fluffle.protocol import terms


def term(value: Any) -> str:
    """As Erlang's `~tp` prints what RabbitMQ reads from JSON (without its line breaks)."""
    match value:
        case None:
            return "null"
        case str():
            return terms.term(value.encode(errors="surrogateescape"))
        case list():
            return "[" + ",".join(map(term, value)) + "]"
        case dict():
            items = (f"{term(key)} => {term(item)}" for key, item in sorted(value.items()))
            return "#{" + ",".join(items) + "}"
        case _:
            return terms.term(value)


def proplist(fields: dict[str, Any]) -> str:
    """An object at the top, which RabbitMQ has as a list of pairs."""
    return "[" + ",".join(f"{{{term(key)},{term(value)}}}" for key, value in fields.items()) + "]"
