"""Queues, exchanges and bindings as the API shows them: of rows of the control socket.

RabbitMQ leaves out of a list what is not so, and says null where one object is asked for.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import blake2b
from json import dumps
from typing import Any
from urllib.parse import quote_plus

from fluffle.broker.admin.context import Row

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
    """What a queue is, whatever is in it."""
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
    """One of a list."""
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
    """Its counts alone, beside what it is."""
    return queue_basics(row) | {name: row[name] for name in QUEUE_COUNTS}


def owner_of(name: str) -> Row:
    """A connection by the name that it is shown with, as `10.0.0.1:4711 -> 10.0.0.2:5672`."""
    host, _, port = name.partition(" -> ")[0].rpartition(":")
    return {"name": name, "peer_host": host.strip("[]"), "peer_port": int(port or 0)}


def exchange_object(row: Row) -> Row:
    """One of a list."""
    shown = dict(row)
    if shown["policy"] is None:
        del shown["policy"]
    return shown


def binding_object(row: Row) -> Row:
    """Of which the last part of a path is made, too."""
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
    """What tells a binding from others of the same two ends: the key, and a hash of arguments."""
    if not (routing_key or arguments):
        return NO_KEY
    quoted = quote_plus(routing_key, errors="surrogateescape").replace("~", "%7E")
    if not arguments:
        return quoted
    said = dumps(arguments, sort_keys=True).encode()
    digest = blake2b(said, digest_size=4).digest()
    return f"{quoted}~{urlsafe_b64encode(digest).decode().rstrip('=')}"


def exchange_name(segment: str) -> str:
    """What a path calls an exchange."""
    return "" if segment == DEFAULT_EXCHANGE_IN_PATHS else segment
