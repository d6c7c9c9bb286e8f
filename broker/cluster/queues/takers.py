"""Consumers of this node at a queue that is led elsewhere, and how much they may be sent.

What is on its way to a client takes room here, so the leader is told a limit: of messages in the
client's hands and on their way together.  Without a prefetch it is what the client has and a
window more; while its socket does not drain it is what the client has.
"""

from __future__ import annotations

from dataclasses import dataclass

from fluffle.broker.queues.consumers import Consumer
from fluffle.broker.queues.handout import Handout
from fluffle.broker.queues.replicated.facts import Key

WINDOW_BYTES = 2 << 20
"""So much may be on its way to a consumer: what a leader sends in the time of a round trip and a
commit.  Of more than one message, if the last were smaller."""

PREFETCH_BYTES = 8 << 20
"""The same of a consumer that has said how many it can take."""

WINDOW_MAX = 2_000
WINDOW_FIRST = 100
"""Messages, before anything is known of how large they are."""


@dataclass(slots=True)
class Seat:
    """Whoever holds messages of a queue: a consumer of it, or who got one of them."""

    key: Key | None = None
    """By which the leader knows it; None as long as it is not attached."""
    held: int = 0
    """Messages in its client's hands, those included that are in nobody's by now."""
    is_left: bool = False
    """Whether it wants nothing more."""


@dataclass(slots=True)
class Taker:
    """A consumer."""

    consumer: Consumer
    seat: Seat
    number: int = 0
    """By which the edge knows it."""
    window: int = WINDOW_FIRST
    limit: int = 0
    """What the leader was told."""

    @property
    def is_served(self) -> bool:
        """Whether it is attached, and wants to be."""
        return self.seat.key is not None and not self.seat.is_left

    @property
    def prefetch(self) -> int:
        """How many may be in hands; 0 means no limit.

        One that consumers of a channel share is each one's own: it is known here alone how much of
        it the others have, and who keeps some of it for a queue that is empty starves them.
        """
        consumer = self.consumer
        limits = (consumer.prefetch, consumer.shared.limit)
        return 0 if consumer.no_ack else min(filter(None, limits), default=0)

    def measure(self, handout: Handout) -> None:
        """See from what has come how large messages are."""
        size_bytes = max(1, handout.content_bytes // len(handout.contents))
        way_bytes = PREFETCH_BYTES if self.prefetch else WINDOW_BYTES
        self.window = max(1, min(WINDOW_MAX, way_bytes // size_bytes))

    def wanted(self) -> int | None:
        """The limit to tell the leader; None if what it knows is good enough.

        The consumer is woken when there is room, if there is none now.
        """
        consumer = self.consumer
        in_hands = consumer.in_flight
        on_way = self.limit - in_hands
        consumer.parked = consumer.sink.room(consumer) <= 0
        if consumer.parked:
            limit = in_hands if on_way > 0 else self.limit
        elif 0 < self.prefetch <= in_hands + self.window:
            limit = self.prefetch
        elif self.window <= 2 * on_way and on_way <= 2 * self.window:
            return None
        else:
            limit = in_hands + self.window
        return limit if limit != self.limit else None
