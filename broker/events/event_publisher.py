"""Event publisher: publishes events of the node as the plugin rabbitmq_event_exchange does.

An announcement is a message without a body: its routing key says what has happened
(`queue.created`) and its headers to what, and who did it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TypeAlias

from fluffle.broker.base.clock import Clock
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.transfer.republish import publish_own
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import DELIVERY_MODE_PERSISTENT, Properties
from fluffle.protocol.spec import ProtocolError
from fluffle.protocol.terms import term
from fluffle.protocol.types import Field, FieldTable
from fluffle.protocol.wire import encode_table, read_table

EVENT_EXCHANGE = ExchangeSpec("amq.rabbitmq.event", "topic", durable=True, internal=True)
LOG_EXCHANGE = ExchangeSpec("amq.rabbitmq.log", "topic", durable=True, internal=True)
HOME = "/"
"""The virtual host that they are in."""

INTERNAL = "rmq-internal"
"""RabbitMQ's name for the actor of what is done without a request."""
COMMANDS = "rmq-cli"
"""RabbitMQ's name for the actor of what is asked for on the machine of the node."""

ACTOR = "user_who_performed_action"

SHORT_CHARACTERS = 255
"""Nearly all texts that are told are names, and fit whatever is in them."""

HEADER_BYTES_MAX = 1 << 16
"""Properties are one frame, of 128 KiB unless a client wants smaller ones."""

EventHeaders: TypeAlias = "Mapping[str, object]"
"""Headers as plain values: text, numbers, and lists and mappings of these."""


class EventPublisher:
    """Publisher of the events of one node."""

    __slots__ = ("_clock", "_vhosts", "node")

    def __init__(self, node: str, vhosts: Mapping[str, VirtualHost], clock: Clock) -> None:
        self.node = node
        self._vhosts = vhosts
        self._clock = clock

    @property
    def is_heard(self) -> bool:
        """Whether anything is bound, so that there is a sense in telling."""
        home = self._vhosts.get(HOME)
        exchange = home.topology.find(EVENT_EXCHANGE.name) if home is not None else None
        return exchange is not None and len(exchange.matcher) > 0

    def now_ms(self) -> int:
        return self._clock.wall_ms()

    def tell(self, what: str, headers: EventHeaders) -> None:
        """Publish that this has happened now, if anybody hears it."""
        if not self.is_heard:
            return
        time_ms = self.now_ms()
        properties = Properties(
            headers={
                **{name: header(value) for name, value in headers.items()},
                "timestamp_in_ms": ("l", time_ms),
            },
            delivery_mode=DELIVERY_MODE_PERSISTENT,
            timestamp=time_ms // 1000,
        )
        publish_own(self._vhosts[HOME], EVENT_EXCHANGE.name, [(what, properties, b"")])


def header(value: object) -> Field:
    """Encode a value for a table; as text, and cut, where no table can have it."""
    said = field(value)
    if isinstance(value, str) and len(value) <= SHORT_CHARACTERS:
        return said
    try:
        encoded = encode_table({"": said})
        read_table(encoded, 0)
        if len(encoded) <= HEADER_BYTES_MAX:
            return said
    except (struct.error, ValueError, ProtocolError):
        pass  # a number beyond 64 bits, a long key, or too deep
    text = value if isinstance(value, str) else json.dumps(value)
    return "S", text.encode(errors="surrogateescape")[:HEADER_BYTES_MAX]


def table(values: EventHeaders) -> FieldTable:
    """Plain values as the plugin tags them: all integers are long."""
    return {name: field(value) for name, value in values.items()}


def field(value: object) -> Field:
    match value:
        case bool():
            return "t", value
        case int():
            return "l", value
        case float():
            return "f", value
        case dict():
            return "F", table(value)
        case list() | tuple():
            return "A", [field(each) for each in value]
        case _:
            return "S", str(value).encode(errors="surrogateescape")


def listed(arguments: FieldTable) -> list[str]:
    """Arguments as announcements have them: Erlang terms, one a text."""
    return [term({name: value})[1:-1] for name, value in arguments.items()]
