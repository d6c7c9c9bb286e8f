"""What a consumer asks for when it comes to a queue."""

from __future__ import annotations

from typing import NamedTuple

from fluffle.broker.queues.replicated.facts import ConsumerAttached, Key


class Terms(NamedTuple):
    """What a consumer is attached with."""

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
