"""JSON of the API: values and messages of AMQP, in and out; queues, exchanges and bindings, out.

Refusals are RabbitMQ's.  Objects are made of rows of the control socket.
"""

from __future__ import annotations

import base64
import binascii
import struct
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import fields
from hashlib import blake2b
from json import dumps
from typing import Any
from urllib.parse import quote_plus

from fluffle.broker.admin.context import Row
from fluffle.broker.definitions.file_format import DefinitionsError, plain, table_of
from fluffle.broker.protocols.http.request_channel import GotMessage
from fluffle.broker.protocols.http.responses import bad_request
from fluffle.protocol.properties import (
    Properties,
    body_of,
    decode_properties,
    encode_properties,
)
from fluffle.protocol.properties import raw_properties as raw_properties_of
from fluffle.protocol.spec import SHORTSTR_BYTES_MAX
from fluffle.protocol.wire import FieldTable

BOOLEANS: Mapping[object, bool] = {"true": True, "false": False}


def boolean(body: Row, name: str) -> bool:
    """True if it is so; no, if nothing is said.  Refusal."""
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
    """Text that fits AMQP's names and routing keys.  Refusal."""
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
    """Arguments of a declaration or a binding.  Refusal."""
    return table(body.get("arguments", {}), "arguments")


def has_null(value: Any) -> bool:
    """True if there is one anywhere: RabbitMQ knows none in tables."""
    if isinstance(value, dict):
        return any(map(has_null, value.values()))
    if isinstance(value, list):
        return any(map(has_null, value))
    return value is None


NUMBERS = frozenset({"delivery_mode", "priority", "timestamp"})
HEADERS = "headers"
NAMES = frozenset(field.name for field in fields(Properties))


def raw_properties(said: object) -> bytes:
    """Properties as they stand on the wire; keys may be written with hyphens, unknown ones are
    ignored."""
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
    """Value of a property.  Refusal."""
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
    """Body as text if it is UTF-8, else as base64."""
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
    """Properties that are set, as a JSON object."""
    properties = decode_properties(raw)
    shown = {name: getattr(properties, name) for name in sorted(NAMES)}
    if properties.headers is not None:
        shown[HEADERS] = plain(properties.headers)
    return {name: value for name, value in shown.items() if value is not None}


DEFAULT_EXCHANGE_IN_PATHS = "amq.default"
"""A path has no segment without a letter."""

NO_KEY = "~"
"""The properties of a binding without a key and arguments."""

QUEUE_ALWAYS = (
    "arguments", "auto_delete", "durable", "exclusive", "name", "node", "state", "type", "vhost",
)  # fmt: skip
QUEUE_COUNTS = ("messages", "messages_ready", "messages_unacknowledged")
QUORUM = ("leader", "members", "online")
EXCLUSIVE_TAG = "exclusive_consumer_tag"
"""Null likewise, but absent from quorum queues."""
QUEUE_OR_NULL = ("operator_policy", "policy", "single_active_consumer_tag")


def queue_basics(row: Row) -> Row:
    """Columns of a queue that do not depend on its messages."""
    shown = {name: row[name] for name in QUEUE_ALWAYS}
    if row["type"] == "quorum":
        shown |= {name: row[name] for name in QUORUM}
    if row["owner"] is not None:
        shown["owner_pid_details"] = owner_of(row["owner"])
    for name in (*QUEUE_OR_NULL, EXCLUSIVE_TAG):
        if row[name] is not None:
            shown[name] = row[name]
    return shown


def queue_object(row: Row) -> Row:
    """Queue as an object of a listing."""
    shown = queue_basics(row) | {name: row[name] for name in QUEUE_COUNTS}
    shown["consumers"] = row["consumers"]
    shown["effective_policy_definition"] = row["effective_policy_definition"]
    if row["delivery_limit"] is not None:
        shown["delivery_limit"] = row["delivery_limit"]
    return shown


def with_publishers(row: Row) -> Row:
    """Add how many channels have published to the queue, if it is a quorum queue."""
    return {"publishers": 0, **row} if row["type"] == "quorum" else row


def with_capacity(row: Row) -> Row:
    """With which part of the time consumers take what comes: of this moment, so all or nothing."""
    capacity = 1.0 if row.pop("consumers_with_room", 0) else 0.0
    return {**row, "consumer_capacity": capacity, "consumer_utilisation": capacity}


def with_idleness(row: Row, idle_before: str) -> Row:
    """With the time since when nothing has happened to it, if that is as long."""
    used_at = row.pop("used_at", None)
    return {**row, "idle_since": used_at} if used_at and used_at < idle_before else row


def queue_totals(row: Row) -> Row:
    """Queue with its counts alone."""
    return queue_basics(row) | {name: row[name] for name in QUEUE_COUNTS}


def owner_of(name: str) -> Row:
    """A connection by the name that it is shown with, as `10.0.0.1:4711 -> 10.0.0.2:5672`."""
    host, _, port = name.partition(" -> ")[0].rpartition(":")
    return {"name": name, "peer_host": host.strip("[]"), "peer_port": int(port or 0)}


def exchange_object(row: Row) -> Row:
    """Exchange as an object of a listing."""
    shown = dict(row)
    if shown["policy"] is None:
        del shown["policy"]
    return shown


def binding_object(row: Row) -> Row:
    """Binding as an object of a listing."""
    return {
        "source": row["source_name"],
        "vhost": row["vhost"],
        "destination": row["destination_name"],
        "destination_type": row["destination_kind"],
        "routing_key": row["routing_key"],
        "arguments": row["arguments"],
        "properties_key": properties_key(row["routing_key"], row["arguments"]),
    }


def properties_key(routing_key: str, arguments: dict[str, Any]) -> str:
    """Key of a binding that no other binding of the same two ends has: the routing key, and a hash
    of arguments."""
    if not (routing_key or arguments):
        return NO_KEY
    quoted = quote_plus(routing_key, errors="surrogateescape").replace("~", "%7E")
    if not arguments:
        return quoted
    said = dumps(arguments, sort_keys=True).encode()
    digest = blake2b(said, digest_size=4).digest()
    return f"{quoted}~{urlsafe_b64encode(digest).decode().rstrip('=')}"


def exchange_name(segment: str) -> str:
    """Name of an exchange in a path."""
    return "" if segment == DEFAULT_EXCHANGE_IN_PATHS else segment
