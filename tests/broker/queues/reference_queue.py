"""A queue as a child would keep it: a list of messages, of which one after the other is looked at.

It knows limits, lifetimes, priorities and what comes back.  Whoever has room takes what is next;
then what has expired goes, and what is too much.  What is too much when it comes back to a classic
queue goes before that.  Who takes it is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.settings import Overflow, QueueSettings


@dataclass(eq=False)
class Message:
    name: str
    content: bytes
    size_bytes: int
    """Size as limits count it."""
    level: int
    number: int
    """In the order in which they were taken."""
    expires_at_ms: int
    is_new: bool
    """True if it has no time to live, but may be delivered in this turn."""
    was_handed_out: bool = False
    requeued: int = 0
    """The how manieth it was that came back to a quorum queue; 0: it did not."""


class ReferenceQueue:
    def __init__(self, queue_type: QueueType, settings: QueueSettings) -> None:
        self.is_quorum = queue_type is QueueType.QUORUM
        self.settings = settings
        self.now_ms = 0
        self.room = 0
        """Number of messages for which consumers have room."""
        self.ready: list[Message] = []
        self.taken: list[Message] = []
        """In the order in which they are, since somebody has looked."""
        self.died: list[Message] = []
        """The same of those that have expired or were too many."""
        self._is_shut = False
        self._taken = self._requeued = 0

    # What waits, and in which order

    def in_order(self) -> list[Message]:
        """Ready messages in order: those requeued to a quorum queue, then by priority, oldest
        first."""
        back = sorted((one for one in self.ready if one.requeued), key=lambda one: one.requeued)
        others = [one for one in self.ready if not one.requeued]
        return back + sorted(others, key=lambda one: (-one.level, one.number))

    def _first_ones(self) -> list[Message]:
        """The first of what came back, and of each priority."""
        first: dict[object, Message] = {}
        for message in self.in_order():
            first.setdefault("back" if message.requeued else message.level, message)
        return list(first.values())

    # What happens

    def publish(self, messages: list[Message]) -> list[bool]:
        """Publish messages; returns which are accepted.  Consumers are served when one does not
        fit, and at the end."""
        are_taken = []
        for message in messages:
            if not self._takes(message):
                self.serve()
            are_taken.append(self._takes(message))
            if are_taken[-1]:
                self._put(message)
            elif self.settings.overflow is Overflow.REJECT_PUBLISH_DLX:
                self.died.append(message)
        self.serve()
        return are_taken

    def _takes(self, message: Message) -> bool:
        if self.settings.overflow is Overflow.DROP_HEAD:
            return True
        if self.is_quorum:
            return not self._is_shut and not self._is_passed(0, 0)
        return not self._is_passed(1, message.size_bytes)

    def _put(self, message: Message) -> None:
        self._taken += 1
        message.number = self._taken
        self.ready.append(message)

    def give_back(self, message: Message) -> None:
        self.ready.append(message)
        if self.is_quorum:
            self._requeued += 1
            message.requeued = self._requeued
        elif self.settings.overflow is Overflow.DROP_HEAD:
            self._drop()

    def get(self) -> Message | None:
        self.end_turn()
        found = self.in_order()[:1]
        for message in found:
            self.ready.remove(message)
        return found[0] if found else None

    def purge(self) -> int:
        count = len(self.ready)
        self.ready.clear()
        return count

    def go_by(self, settings: QueueSettings) -> None:
        if settings.limits != self.settings.limits:
            self._is_shut = False
        self.settings = settings

    # What follows from that

    def serve(self) -> None:
        """Deliver to consumers with room, then apply the limit."""
        self._expire()
        while self.ready and self.room > 0:
            message = self.in_order()[0]
            self.ready.remove(message)
            self.taken.append(message)
            self.room -= 1
            self._expire()
        if self.settings.overflow is Overflow.DROP_HEAD:
            self._drop()
        self.end_turn()
        if self.is_quorum and self.settings.overflow is Overflow.REJECT_PUBLISH:
            self._is_shut = not self._is_freed() if self._is_shut else self._is_passed(0, 0)

    def _drop(self) -> None:
        while self.ready and self._is_passed(0, 0):
            self._die(self.in_order()[0])
            self._expire()

    def end_turn(self) -> None:
        for message in self.ready:
            message.is_new = False
        self._expire()

    def _expire(self) -> None:
        """Whatever has expired is gone once it is the first of what came back, or of a priority."""
        while due := [one for one in self._first_ones() if self._is_due(one)]:
            for message in due:
                self._die(message)

    def _is_due(self, message: Message) -> bool:
        return message.expires_at_ms <= self.now_ms and not message.is_new

    def _die(self, message: Message) -> None:
        self.ready.remove(message)
        self.died.append(message)

    def expires_at_ms(self, expiration_ms: int | None) -> int:
        lifetimes_ms = NEVER_MS, expiration_ms, self.settings.message_ttl_ms
        return self.now_ms + min(each for each in lifetimes_ms if each is not None)

    # Limits

    @property
    def has_limit(self) -> bool:
        return self.settings.limits[:2] != (None, None)

    @property
    def size_bytes(self) -> int:
        return sum(message.size_bytes for message in self.ready)

    def _is_passed(self, count: int, size_bytes: int) -> bool:
        """If so much came."""
        most, most_bytes = self.settings.max_length, self.settings.max_length_bytes
        return (most is not None and len(self.ready) + count > most) or (
            most_bytes is not None and self.size_bytes + size_bytes > most_bytes
        )

    def _is_freed(self) -> bool:
        most, most_bytes = self.settings.max_length, self.settings.max_length_bytes
        return (most is None or 10 * len(self.ready) <= 8 * most) and (
            most_bytes is None or 10 * self.size_bytes <= 8 * most_bytes
        )
