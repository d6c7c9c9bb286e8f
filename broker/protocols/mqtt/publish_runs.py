"""Runs of messages as they are encoded for clients of MQTT: once for all that get them alike.

group = last_run.alike(origins, contents, content_bytes)
group.packets(last_run.variant(form, MQTT_5))    # made for the first client, and kept
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

from fluffle.broker.base.message import (
    REMEMBERED_BYTES_MAX,
    MessageAnnotations,
    Origin,
    without_key,
)
from fluffle.broker.core.output_buffer import burst_of
from fluffle.broker.queues.deduplication import KEY_OF
from fluffle.protocol.mqtt.hot import build_publishes
from fluffle.protocol.mqtt.packets import publish_flags
from fluffle.protocol.properties import body_of, raw_properties

FORMS_MAX = 1024
"""Origins for which a writer remembers how their messages are sent; then it starts afresh."""

LAST_RUN_BYTES_MAX = 1 << 17
"""Largest run whose packets are kept for the next client.  A longer one would take up memory after
that, and to make its packets costs little beside sending them."""

VARIANTS_MAX = 8
"""Ways in which a run is kept encoded: clients with subscription identifiers of their own have one
each."""


class Form(NamedTuple):
    """How messages of one origin are sent to one client."""

    qos: int
    """-1 if they are not sent at all, or not from this queue."""
    retain: bool
    topic: bytes
    properties: bytes
    """Raw, but for how long a message has left to live; none before version 5."""
    expiry_ms: int
    """Time to live in ms when they were published; -1 if unlimited."""


NOT_SENT = Form(-1, retain=False, topic=b"", properties=b"", expiry_ms=-1)


class Variant:
    """Form of messages in packets of one version.  Two are the same only if they are one object, so
    that it takes no time to find out."""

    __slots__ = ("form", "version")

    def __init__(self, form: Form, version: int) -> None:
        self.form = form
        self.version = version


class MessageGroup:
    """Messages of a run that were published alike, and how they were encoded for clients of
    QoS 0."""

    __slots__ = ("burst_bytes", "encoded", "indices", "origin", "payload_bytes", "payloads", "raw")

    def __init__(self, origin: Origin, raw: bytes, indices: range, payloads: list[bytes]) -> None:
        self.origin = origin
        self.raw = raw
        """The properties that they have as messages of AMQP."""
        self.indices = indices
        """Where they are in the run."""
        self.payloads = payloads
        self.payload_bytes = sum(map(len, payloads))
        self.burst_bytes = 0
        """Octets of a burst that they use up, where they go past a queue."""
        self.encoded: dict[Variant, bytes] = {}
        """Packets that were made of them, of QoS 0."""

    def packets(self, variant: Variant) -> bytes:
        """Return their packets, of QoS 0."""
        found = self.encoded.get(variant)
        if found is None:
            if len(self.encoded) >= VARIANTS_MAX:
                self.encoded.clear()
            form, built = variant.form, list[bytes]()
            build_publishes(
                built,
                form.topic,
                form.properties,
                self.payloads,
                flags=publish_flags(0, retain=form.retain),
                version=variant.version,
            )
            found = self.encoded[variant] = b"".join(built)
        return found


class LastRun:
    """The run of messages that a client was sent last: in a fan-out it is the next client's, too,
    and what is sent to both is made once."""

    __slots__ = (
        "_contents",
        "_groups",
        "_origins",
        "_unkeyed",
        "_variants",
        "passing",
        "passing_group",
    )

    def __init__(self) -> None:
        self._contents: list[bytes] = []
        self._origins: list[Origin] = []
        self._groups: list[MessageGroup] = []
        self.passing: list[bytes] | None = None
        """The contents of messages that go past queues now, as their publisher has them."""
        self.passing_group: MessageGroup | None = None
        """These messages, if they were published alike."""
        self._variants: dict[tuple[Form, int], Variant] = {}
        self._unkeyed: dict[tuple[str, str, MessageAnnotations, bytes], Origin] = {}
        """Origins of messages that have keys, without these."""

    def variant(self, form: Form, version: int) -> Variant:
        """Return the variant of a form and a version: the same for all clients that have both."""
        found = self._variants.get((form, version))
        if found is None:
            if len(self._variants) >= FORMS_MAX:
                self._variants.clear()
            found = self._variants[form, version] = Variant(form, version)
        return found

    def alike(
        self, origins: list[Origin], contents: list[bytes], content_bytes: int
    ) -> MessageGroup | None:
        """Return the messages of a run if they were published alike, and are not long."""
        if contents is self.passing:
            return self.passing_group
        groups = self.split(origins, contents)
        if len(groups) != 1 or groups is not self._groups:
            return None
        self.passing, self.passing_group = contents, groups[0]
        self.passing_group.burst_bytes = burst_of(content_bytes, len(contents))
        return self.passing_group

    def split(self, origins: list[Origin], contents: list[bytes]) -> list[MessageGroup]:
        """Split a run into messages that were published alike."""
        if contents == self._contents and origins == self._origins:
            return self._groups
        groups: list[MessageGroup] = []
        start, alike = 0, origins
        if any(map(KEY_OF, origins)):
            alike = [self._without_key(origin) for origin in origins]
        kinds = zip(alike, map(raw_properties, contents), strict=True)
        for (origin, raw), same in groupby(kinds):
            stop = start + sum(1 for _ in same)
            payloads = list(map(body_of, contents[start:stop]))
            groups.append(MessageGroup(origin, raw, range(start, stop), payloads))
            start = stop
        if sum(map(len, contents)) <= LAST_RUN_BYTES_MAX:
            self._contents, self._origins, self._groups = contents[:], origins[:], groups
        return groups

    def _without_key(self, origin: Origin) -> Origin:
        """Return an origin without the key of its one message: the same object for all that are
        alike but for that."""
        if not origin.key or len(origin.annotations) > REMEMBERED_BYTES_MAX:
            return origin
        name = (
            origin.exchange,
            origin.routing_key,
            origin.past,
            without_key(origin.annotations),
        )
        found = self._unkeyed.get(name)
        if found is None:
            if len(self._unkeyed) >= FORMS_MAX:
                self._unkeyed.clear()
            exchange, routing_key, past, annotations = name
            found = Origin(exchange, routing_key, past, annotations=annotations)
            self._unkeyed[name] = found
        return found
