"""Frames of a leader to one edge, from their decision until they have arrived."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from fluffle.broker.cluster.streams.messages import Deliver, FromLeader, GetAnswer
from fluffle.broker.queues.replicated.facts import Key


class Outbox:
    """Of one session in one leadership.  What was given a number is never changed again."""

    __slots__ = ("_frames", "_messages", "_next", "_sent", "_under_way")

    def __init__(self) -> None:
        self._messages: list[FromLeader] = []
        """Of the next frame."""
        self._frames: deque[tuple[int, list[FromLeader]]] = deque()
        """Not known to have arrived."""
        self._next = 1
        self._sent = 0
        """The number of the last frame that was sent in this opening."""
        self._under_way: dict[Key, int] = {}
        """By consumer: messages in `_frames` and `_messages`."""

    def put(self, message: FromLeader) -> None:
        """Behind everything else."""
        self._messages.append(message)
        if isinstance(message, Deliver):
            self._count(message, len(message.contents))

    def under_way(self, holder: Key) -> int:
        """How many messages for a consumer are not known to have arrived."""
        return self._under_way.get(holder, 0)

    def withdraw(self, holder: Key) -> None:
        """What a consumer or getter had is somebody else's soon: it is not sent again.

        The only change to frames that have a number.
        """
        for messages in (*(frame[1] for frame in self._frames), self._messages):
            kept = [message for message in messages if not _is_for(message, holder)]
            for message in kept:
                if isinstance(message, GetAnswer) and message.holder == holder:
                    message.delivers = []
            messages[:] = kept
        self._under_way.pop(holder, None)

    def received(self, number: int) -> set[Key]:
        """All frames up to this one have arrived: consumers for which there were messages."""
        holders = set()
        while self._frames and self._frames[0][0] <= number:
            for message in self._frames.popleft()[1]:
                if isinstance(message, Deliver):
                    self._count(message, -len(message.contents))
                    holders.add(message.holder)
        return holders

    def repeat(self) -> None:
        """Another opening: whatever has not arrived is sent again, as it was."""
        self._sent = self._frames[0][0] - 1 if self._frames else self._next - 1

    def take(self) -> Iterable[tuple[int, list[FromLeader]]]:
        """Frames that are to be sent, with their numbers."""
        if self._messages:
            self._frames.append((self._next, self._messages))
            self._messages = []
            self._next += 1
        first = self._frames[0][0] if self._frames else self._next
        unsent = list(self._frames)[max(0, self._sent + 1 - first) :]
        self._sent = self._next - 1
        return unsent

    def _count(self, message: Deliver, change: int) -> None:
        count = self.under_way(message.holder) + change
        if count:
            self._under_way[message.holder] = count
        else:
            del self._under_way[message.holder]


def _is_for(message: FromLeader, holder: Key) -> bool:
    return isinstance(message, Deliver) and message.holder == holder
