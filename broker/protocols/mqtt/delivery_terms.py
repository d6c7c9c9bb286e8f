"""Terms on which an MQTT client is given messages: the size of packets, and topic aliases."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fluffle.protocol.mqtt.properties import Properties, PropertyId, encode_properties

if TYPE_CHECKING:
    from fluffle.broker.protocols.mqtt.publish_runs import Form


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


ALIAS_BYTES = 3
ALIASED_TOPIC_BYTES_MIN = 2 * ALIAS_BYTES + 1
"""An alias for a shorter topic saves nothing with its second message."""
ALIASED_TOPIC_BYTES_MAX = 1024
"""Longer ones would take much memory."""


class TopicAliases:
    """Aliases that stand for topics towards one client: the first topics that are long enough have
    them, up to its maximum, and keep them.  S5 3.3.2.3.4."""

    __slots__ = ("_count_max", "_packet_bytes_max", "_properties")

    def __init__(self, count_max: int, packet_bytes_max: int) -> None:
        """`packet_bytes_max`: largest packet that the client takes; 0 is no limit."""
        self._count_max = count_max
        self._packet_bytes_max = packet_bytes_max
        self._properties: dict[bytes, bytes] = {}
        """Property of an alias, by its topic."""

    def is_settled(self, topic: bytes) -> bool:
        """Return whether a topic is not going to be given an alias now: it has one, or never
        will."""
        return topic in self._properties or not self._may_have(topic)

    def _may_have(self, topic: bytes) -> bool:
        is_worth_it = ALIASED_TOPIC_BYTES_MIN <= len(topic) <= ALIASED_TOPIC_BYTES_MAX
        return is_worth_it and len(self._properties) < self._count_max

    def shorten(self, form: Form) -> Form:
        """Return a form with the alias of its topic, if that has one."""
        alias = self._properties.get(form.topic)
        if alias is None:
            return form
        return form._replace(topic=b"", properties=alias + form.properties)

    def known(self, topic: bytes, properties: bytes) -> tuple[bytes, bytes]:
        """Return the topic and the properties of a message, with the alias that the topic has."""
        alias = self._properties.get(topic)
        return (topic, properties) if alias is None else (b"", alias + properties)

    def apply(
        self, topic: bytes, properties: bytes, payload_bytes: int, qos: int
    ) -> tuple[bytes, bytes]:
        """Return the topic and the properties with which a message is sent, which gives its topic
        an alias, if it may have one and there is room for both."""
        if self.is_settled(topic):
            return self.known(topic, properties)
        number = len(self._properties) + 1
        alias = encode_properties(Properties({PropertyId.TOPIC_ALIAS: number}))
        both = alias + properties
        size_bytes = publish_bytes(topic, both, payload_bytes, qos)
        if 0 < self._packet_bytes_max < size_bytes:
            return topic, properties
        self._properties[topic] = alias
        return topic, both
