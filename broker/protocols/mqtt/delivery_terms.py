"""Terms on which an MQTT client is given messages, and the size of PUBLISH packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

PACKET_OVERHEAD_BYTES = 13
"""Octets of a PUBLISH beside topic, properties and payload: at most so many."""


class DeliveryTerms(NamedTuple):
    """Terms on which a client is given messages."""

    version: int
    client: bytes
    """Its mark in annotations."""
    packet_bytes_max: int
    """Largest packet that the client takes; 0 is no limit."""
    now_ms: Callable[[], int]
    """The time of queues: that of day, in UTC."""
    aliases_max: int = 0
    """How many topic aliases it takes."""


def publish_bytes(topic: bytes, properties: bytes, payload_bytes: int, qos: int) -> int:
    """Return the size of a PUBLISH packet of version 5; of QoS 1 and 2 it has an identifier."""
    remaining_bytes = 2 + len(topic) + varint_bytes(len(properties)) + len(properties)
    remaining_bytes += payload_bytes + (2 if qos else 0)
    return 1 + varint_bytes(remaining_bytes) + remaining_bytes


def varint_bytes(value: int) -> int:
    """Return how many octets a variable byte integer takes.  S5 1.5.5."""
    return 1 + (value > 0x7F) + (value > 0x3FFF) + (value > 0x1F_FFFF)
