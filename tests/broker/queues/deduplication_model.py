"""Messages that name a key, and a queue that takes each once as a child would write it."""

from __future__ import annotations

from typing import NamedTuple

from fluffle.broker.queues.deduplication import KEY_HEADER, TTL_HEADER
from fluffle.protocol.properties import Properties, build_content, encode_properties
from fluffle.protocol.wire import FieldTable, PlainValue, to_field


def keyed(body: bytes, key: PlainValue = None, ttl_ms: PlainValue = None) -> bytes:
    """The canonical content of a message; None: it does not say that."""
    headers: FieldTable = {"other": ("l", 1)}
    if key is not None:
        headers[KEY_HEADER] = to_field(key)
    if ttl_ms is not None:
        headers[TTL_HEADER] = to_field(ttl_ms)
    properties = Properties(content_type="text/plain", headers=headers, delivery_mode=2)
    return build_content(encode_properties(properties), body)


class DeduplicationCase(NamedTuple):
    """Message that was taken: its key, and until when that counts."""

    key: PlainValue
    until_ms: int | None


class ReferenceDeduplication:
    """Messages that were taken, in order."""

    def __init__(self, size: int, ttl_ms: int | None) -> None:
        self.size = size
        self.ttl_ms = ttl_ms
        self.taken: list[DeduplicationCase] = []

    def is_known(self, key: PlainValue, now_ms: int) -> bool:
        return any(
            each.key == key and (each.until_ms is None or now_ms < each.until_ms)
            for each in self.taken
        )

    def comes(self, key: PlainValue, ttl_ms: int | None, now_ms: int) -> bool:
        """True if a message is taken, which names a key or does not."""
        if key is None:
            return True
        if self.is_known(key, now_ms):
            return False
        ttl_ms = ttl_ms if ttl_ms is not None else self.ttl_ms
        until_ms = None if ttl_ms is None else now_ms + ttl_ms
        self.taken = [each for each in self.taken if each.key != key]
        self.taken.append(DeduplicationCase(key, until_ms))
        return True

    def turn_page(self) -> None:
        """Forget all but the newest keys."""
        self.taken = self.taken[-self.size :]
