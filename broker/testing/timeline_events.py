"""Texts for timelines: changes of definitions, and messages that were not seen to come."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.events.event_publisher import EventHeaders
from fluffle.protocol.delays import X_DELAY
from fluffle.protocol.properties import decode_properties, raw_properties
from fluffle.protocol.types import FieldTable

ARGUMENT = re.compile(r'\{<<"(.+?)">>,\w+,(?:<<"(.*)">>|<<>>|(.*))\}', re.DOTALL)
BY_ITSELF = "amq."
"""So begin names of what comes with a virtual host."""


def changed(what: str, headers: EventHeaders) -> str:
    """Return in words what headers of an event describe; empty for what goes without saying."""
    if "vhost" not in headers or what.startswith(("vhost.", "permission.")):
        return ""
    describe = TELL.get(what)
    if describe is not None:
        return describe(dict(headers))
    return f"{what} {headers.get('name', '')}".rstrip()


def queue_declared(headers: Mapping[str, Any]) -> str:
    words = [headers["type"].removeprefix("rabbit_").removesuffix("_queue")]
    words += [name for name in ("durable", "exclusive", "auto_delete") if headers[name]]
    return f"declares queue {headers['name']!r} ({', '.join([*words, *arguments_in(headers)])})"


def exchange_declared(headers: Mapping[str, Any]) -> str:
    if not headers["name"] or headers["name"].startswith(BY_ITSELF):
        return ""
    words = [headers["type"]]
    words += [name for name in ("durable", "internal", "auto_delete") if headers[name]]
    return f"declares exchange {headers['name']!r} ({', '.join([*words, *arguments_in(headers)])})"


def exchange_deleted(headers: Mapping[str, Any]) -> str:
    if not headers["name"] or headers["name"].startswith(BY_ITSELF):
        return ""
    return f"exchange {headers['name']!r} is deleted"


def bound(headers: Mapping[str, Any]) -> str:
    return f"binds {ends(headers, 'to')}"


def unbound(headers: Mapping[str, Any]) -> str:
    return f"unbinds {ends(headers, 'from')}"


def ends(headers: Mapping[str, Any], way: str) -> str:
    text = f"{headers['destination_kind']} {headers['destination_name']!r}"
    text += f" {way} exchange {headers['source_name']!r} by {headers['routing_key']!r}"
    return f"{text} ({', '.join(arguments_in(headers))})" if headers["arguments"] else text


def arguments_in(headers: Mapping[str, Any]) -> list[str]:
    """Return arguments without their types, as people write them; the event exchange has Erlang
    terms."""
    pairs = (ARGUMENT.fullmatch(each) for each in headers["arguments"])
    return [f"{pair[1]}={pair[2] or pair[3] or ''}" for pair in pairs if pair is not None]


TELL: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "queue.created": queue_declared,
    "queue.deleted": lambda headers: f"queue {headers['name']!r} is deleted",
    "exchange.created": exchange_declared,
    "exchange.deleted": exchange_deleted,
    "binding.created": bound,
    "binding.deleted": unbound,
}


def origin_of(content: bytes) -> str:
    """Return where a message comes from, by what the broker has written into its headers."""
    raw = raw_properties(content)
    headers: FieldTable = decode_properties(raw).headers or {}
    _tag, delay = headers.get(X_DELAY, ("V", None))
    if isinstance(delay, int) and delay < 0:
        return f"after a delay of {-delay} ms"
    _tag, deaths = headers.get("x-death", ("A", []))
    if not (isinstance(deaths, list) and deaths and isinstance(deaths[0][1], dict)):
        return ""
    latest = deaths[0][1]
    queue, reason = (text(latest.get(name)) for name in ("queue", "reason"))
    return f"dead-lettered from queue {queue!r}, {reason}"


def text(field: tuple[str, object] | None) -> str:
    value = field[1] if field is not None else b""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
