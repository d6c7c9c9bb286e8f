"""Events that the reader saw in the bytes, a batch at a time; nothing else is called an event."""

from dataclasses import dataclass
from typing import TypeAlias

from fluffle.protocol.spec import ProtocolError


@dataclass(slots=True)
class Publishes:
    """Messages that came one after another on a channel, and of whose properties a broker reads
    the same."""

    channel: int
    methods: list[bytes]
    """The basic.publish frame of each as received: the key under which routes are remembered."""
    contents: list[bytes]
    """Each message's content in canonical form (see `properties`)."""
    content_bytes: int
    """The summed length of `contents`."""
    outline: bytes
    """Properties that a broker reads, packed (see `properties`)."""


@dataclass(slots=True)
class MessageStarted:
    """Start of a message that is not whole yet: what is wrong with it shows now."""

    channel: int


@dataclass(slots=True)
class Acks:
    """basic.ack: every tag from `first` to `last`, or (`multiple`) all up to `last`."""

    channel: int
    first: int
    last: int
    multiple: bool


@dataclass(slots=True)
class MethodReceived:
    """Any other method: its payload from the class id on, not decoded yet."""

    channel: int
    payload: bytes


@dataclass(slots=True)
class Oversized:
    """A message beyond the size limit; its body was discarded as it came."""

    channel: int
    body_bytes: int


@dataclass(slots=True)
class HeaderReceived:
    """The eight bytes that open a connection, right or wrong."""

    header: bytes
    channel: int = 0


@dataclass(slots=True)
class Violation:
    """Bytes that AMQP does not allow; always the last event, nothing behind it was read."""

    channel: int
    error: ProtocolError


Event: TypeAlias = (
    Publishes | MessageStarted | Acks | MethodReceived | Oversized | HeaderReceived | Violation
)


def method_ids(occurrence: Event) -> tuple[int, int]:
    """Return the class and method id that an error about this event names; 0 and 0 without a
    method."""
    if isinstance(occurrence, MethodReceived):
        payload = occurrence.payload
        return int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
    return METHOD_IDS.get(type(occurrence), (0, 0))


METHOD_IDS: dict[type[Event], tuple[int, int]] = {
    Publishes: (60, 40),
    MessageStarted: (60, 40),
    Oversized: (60, 40),
    Acks: (60, 80),
}
