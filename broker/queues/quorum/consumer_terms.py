"""Arguments of a consumer that its quorum queue records when it is attached."""

from __future__ import annotations

from typing import NamedTuple

from fluffle.broker.queues.queue_api import Consumer
from fluffle.broker.queues.quorum.facts import ConsumerAttached, Key
from fluffle.protocol.errors import ProtocolError
from fluffle.protocol.wire import encode_table, read_table

TIMEOUT = "x-consumer-timeout"


def arguments_of(consumer: Consumer) -> bytes:
    """Those of which whoever leads must know: a field table, or nothing at all."""
    timeout_ms = consumer.timeout_ms
    return b"" if timeout_ms is None else encode_table({TIMEOUT: ("l", timeout_ms)})


def timeout_of(arguments: bytes) -> int | None:
    """How long a consumer may hold a message; None if its arguments do not say, or are none."""
    if not arguments:
        return None
    try:
        table, _end = read_table(arguments, 0)
    except ProtocolError:
        return None
    _tag, value = table.get(TIMEOUT, ("V", None))
    return value if isinstance(value, int) and value >= 0 else None


class Terms(NamedTuple):
    """The properties that a consumer is attached with."""

    channel: int
    tag: str
    prefetch: int = 0
    priority: int = 0
    no_ack: bool = False
    is_exclusive: bool = False
    arguments: bytes = b""

    def attached(self, key: Key, session: Key) -> ConsumerAttached:
        """What is said of it."""
        return ConsumerAttached(
            key,
            session,
            self.channel,
            self.priority,
            self.prefetch,
            self.no_ack,
            self.is_exclusive,
            self.tag,
            self.arguments,
        )
