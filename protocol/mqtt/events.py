"""Events that the reader saw in the bytes of a client, a batch at a time.

Beside these the packets themselves are events: all that do not come in runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fluffle.protocol.mqtt.codes import PacketType, ReasonCode
from fluffle.protocol.mqtt.packets import ReadPacket


@dataclass(slots=True)
class Publishes:
    """PUBLISH packets that came one after another, and differ in identifier and payload alone."""

    topic: bytes
    """A topic name that is valid; never empty, as topic aliases are resolved."""
    properties: bytes
    """Raw properties, which are valid, without a topic alias; empty before 5.0."""
    qos: int
    retain: bool
    dup: bool
    packet_ids: list[int]
    """Packet id of each message; empty with QoS 0."""
    payloads: list[bytes]
    content_bytes: int
    """The summed length of `payloads`."""


@dataclass(slots=True)
class Acks:
    """PUBACK, PUBREC, PUBREL or PUBCOMP packets in a row that say that all went well."""

    kind: PacketType
    packet_ids: Sequence[int]


@dataclass(slots=True)
class Violation:
    """Bytes that MQTT does not allow; always the last event, nothing behind it was read."""

    code: ReasonCode
    text: str
    in_connect: bool
    """True if the answer is a CONNACK: it is wrong in the CONNECT, whose version is known.

    Without, and as long as the reader knows no version, there is no answer at all.
    """


Event: TypeAlias = Publishes | Acks | ReadPacket | Violation
