"""AMQP values and messages in JSON, in and out; refusals are RabbitMQ's."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.definitions.parser import DefinitionsError
from fluffle.broker.definitions.values import plain, table_of
from fluffle.broker.protocols.http.message_channel import GotMessage
from fluffle.broker.protocols.http.responses import bad_request
from fluffle.protocol.properties import (
    Properties,
    body_of,
    decode_properties,
    encode_properties,
)
from fluffle.protocol.properties import raw_properties as raw_properties_of
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


def text_in(value: object, name: str) -> str:
    """A text, or a number as one.  Refusal."""
    text = str(value) if isinstance(value, int | float) else value
    if not isinstance(text, str):
        raise bad_request(["not_string", name])
    return text


def short(value: object, name: str) -> str:
    """What AMQP has for names and routing keys.  Refusal."""
    text = text_in(value, name)
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


NUMBERS = frozenset({"delivery_mode", "priority", "timestamp"})
HEADERS = "headers"
NAMES = frozenset(field.name for field in fields(Properties))


def raw_properties(said: object) -> bytes:
    """As they stand on the wire; keys may be written with hyphens, unknown ones are passed over.
    Refusal."""
    if said == []:  # of PHP, and what RabbitMQ itself says of a message without any
        said = {}
    if not isinstance(said, dict):
        raise bad_request(["not_a_table", "properties"])
    named = {key.replace("-", "_"): value for key, value in said.items()}
    known = {name: value_of(name, named[name]) for name in NAMES & named.keys()}
    try:
        return encode_properties(Properties(**known))
    except (ValueError, struct.error) as error:
        raise bad_request(f"these cannot be properties: {error}") from None


def value_of(name: str, value: object) -> Any:
    """Of a property.  Refusal."""
    if name == HEADERS:
        return table(value, name)
    if value is None:
        raise bad_request("null_not_allowed")
    if name not in NUMBERS:
        if not isinstance(value, str):
            raise bad_request(["not_string", name])
        return short(value, name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_request(["not_int", name])
    return value


def payload_of(payload: object, encoding: object) -> bytes:
    """Refusal."""
    if not isinstance(payload, str):
        raise bad_request("payload_not_string")
    if encoding == "string":
        return payload.encode()
    if encoding != "base64":
        raise bad_request(["unsupported_encoding", encoding])
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error:
        raise bad_request(["not_base64", payload]) from None


def automatic(body: bytes) -> tuple[str, str]:
    """As text, if it is some."""
    try:
        return body.decode(), "string"
    except UnicodeDecodeError:
        return in_base64(body)


def in_base64(body: bytes) -> tuple[str, str]:
    return base64.b64encode(body).decode(), "base64"


ENCODINGS: Mapping[object, Callable[[bytes], tuple[str, str]]] = {
    "auto": automatic,
    "base64": in_base64,
}


def message_object(got: GotMessage, encoding: str, bytes_max: int | None) -> Row:
    """A message that was got, of its body no more than so much."""
    body = body_of(got.content)
    payload, payload_encoding = ENCODINGS[encoding](body[:bytes_max])
    return {
        "payload_bytes": len(body),
        "redelivered": got.is_redelivered,
        "exchange": got.origin.exchange,
        "routing_key": got.origin.routing_key,
        "message_count": got.left_count,
        "properties": properties_object(raw_properties_of(got.content)),
        "payload": payload,
        "payload_encoding": payload_encoding,
    }


def properties_object(raw: bytes) -> Row:
    """Those that are there."""
    properties = decode_properties(raw)
    shown = {name: getattr(properties, name) for name in sorted(NAMES)}
    if properties.headers is not None:
        shown[HEADERS] = plain(properties.headers)
    return {name: value for name, value in shown.items() if value is not None}
