"""What a body asks for, in the types of AMQP; refusals are RabbitMQ's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.definitions.parser import DefinitionsError
from fluffle.broker.definitions.values import table_of
from fluffle.broker.protocols.http.responses import bad_request
from fluffle.protocol.spec import SHORTSTR_BYTES_MAX
from fluffle.protocol.types import FieldTable

BOOLEANS: Mapping[object, bool] = {"true": True, "false": False}


def boolean(body: Row, name: str) -> bool:
    """Whether it is so; no, if nothing is said.  Refusal."""
    value = body.get(name, False)
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value not in BOOLEANS:
        raise bad_request(["not_boolean", value])
    return BOOLEANS[value]


def integer(value: object) -> int:
    """A number, or one that is written in a text.  Refusal."""
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise bad_request(["not_integer", value])


def short(value: object, name: str) -> str:
    """What AMQP has for names and routing keys.  Refusal."""
    text = str(value) if isinstance(value, int | float) else value
    if not isinstance(text, str):
        raise bad_request(["not_string", name])
    size = len(text.encode(errors="surrogateescape"))
    if size > SHORTSTR_BYTES_MAX:
        raise bad_request(
            f"{name} should be less than {SHORTSTR_BYTES_MAX} bytes, actually was {size}\n"
        )
    return text


def table(value: object, name: str) -> FieldTable:
    """An object, as a table; an empty list is one, since PHP has no other way to say that.
    Refusal."""
    if value == []:
        value = {}
    if not isinstance(value, dict):
        raise bad_request(["not_a_table", name])
    if has_null(value):
        raise bad_request("null_not_allowed")
    try:
        return table_of(value)
    except DefinitionsError as error:
        raise bad_request(str(error)) from None


def arguments(body: Row) -> FieldTable:
    """Of a declaration or a binding.  Refusal."""
    return table(body.get("arguments", {}), "arguments")


def has_null(value: Any) -> bool:
    """Whether there is one anywhere: RabbitMQ knows none in tables."""
    if isinstance(value, dict):
        return any(map(has_null, value.values()))
    if isinstance(value, list):
        return any(map(has_null, value))
    return value is None
