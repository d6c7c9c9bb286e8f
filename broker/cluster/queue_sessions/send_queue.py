"""Frames from the leader of a queue to one session, kept until they have arrived."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, TypeGuard

from fluffle.broker.cluster.queue_sessions.messages import Deliver, DoneReply, FromLeader, GetAnswer
from fluffle.broker.queues.quorum.facts import Key

SIZE_MAX = 8 << 20
"""In bytes of contents; any message counts as `MESSAGE_SIZE` more."""

FRAME_SIZE_MAX = 4 << 20
"""Size of a frame with more than one message."""

MESSAGE_SIZE = 100


class SentFrame(NamedTuple):
    """Messages that are sent as one frame."""

    number: int
    messages: list[FromLeader]
    size: int
    """Size when it was put in: a receiver on this node may have emptied it since."""


class SessionSendQueue:
    """Unacknowledged frames of one session in one leadership.  Numbered frames never change."""

    __slots__ = ("_frames", "_messages", "_next", "_sent", "_under_way", "_unframed", "size")

    def __init__(self) -> None:
        self._messages: list[FromLeader] = []
        """Messages of the next frame."""
        self._unframed = 0
        """Size of the messages of the next frame."""
        self._frames: deque[SentFrame] = deque()
        """Not known to have arrived."""
        self._next = 1
        self._sent = 0
        """The number of the last frame that was sent in this opening."""
        self._under_way: dict[Key, int] = {}
        """Messages in `_frames` and `_messages`, by consumer."""
        self.size = 0
        """Size of everything queued here."""

    @property
    def is_full(self) -> bool:
        """True if consumers get nothing more until something has arrived."""
        return self.size >= SIZE_MAX

    @property
    def is_overfull(self) -> bool:
        """True if a client node that does not receive must not be listened to either."""
        return self.size >= 4 * SIZE_MAX

    def put(self, message: FromLeader) -> None:
        """Behind everything else."""
        if type(message) is DoneReply and self._messages:
            last = self._messages[-1]
            if type(last) is DoneReply and last.first + last.count == message.first:
                last.count += message.count
                return
        size = _size_of(message)
        if self._unframed + size > FRAME_SIZE_MAX:
            self._close_frame()
        self._messages.append(message)
        self._unframed += size
        self.size += size
        if type(message) is Deliver:
            self._count(message, len(message.contents))

    def under_way(self, holder: Key) -> int:
        """How many messages for a consumer are not known to have arrived."""
        return self._under_way.get(holder, 0)

    def withdraw(self, holder: Key) -> None:
        """Withdraw what a consumer or getter was sent and another soon gets: it is not sent again.

        The only change to frames that have a number.  Their size counts until they have arrived.
        """
        for messages in (*(frame.messages for frame in self._frames), self._messages):
            kept = [message for message in messages if not _is_for(message, holder)]
            for message in kept:
                if isinstance(message, GetAnswer) and message.holder == holder:
                    message.delivers = []
            messages[:] = kept
        self._under_way.pop(holder, None)

    def revoke(self, holder: Key, tokens: list[tuple[int, range]]) -> None:
        """The same of these messages alone, each with its ordinal, if that has not arrived."""
        for messages in (*(frame.messages for frame in self._frames), self._messages):
            for message in messages[:]:
                if _is_for(message, holder) and _is_of(message, tokens):
                    messages.remove(message)
                    self._count(message, -len(message.contents))
                elif isinstance(message, GetAnswer) and message.holder == holder:
                    left = [each for each in message.delivers if not _is_of(each, tokens)]
                    message.delivers = left

    def received(self, number: int) -> set[Key]:
        """All frames up to this one have arrived: consumers for which there were messages."""
        holders = set()
        while self._frames and self._frames[0].number <= number:
            frame = self._frames.popleft()
            self.size -= frame.size
            for message in frame.messages:
                if type(message) is Deliver:
                    self._count(message, -len(message.contents))
                    holders.add(message.holder)
        return holders

    def repeat(self) -> None:
        """Another opening: whatever has not arrived is sent again, as it was."""
        self._sent = self._frames[0].number - 1 if self._frames else self._next - 1  # mutant: R9a

    def take(self) -> Iterator[SentFrame]:
        """Remove and return the frames to send; those not consumed stay."""
        self._close_frame()
        while unsent := min(self._next - 1 - self._sent, len(self._frames)):
            frame = self._frames[-unsent]
            self._sent = frame.number
            yield frame

    def _close_frame(self) -> None:
        """Close the frame: later messages go into another."""
        if self._messages:
            self._frames.append(SentFrame(self._next, self._messages, self._unframed))
            self._messages, self._unframed = [], 0
            self._next += 1

    def _count(self, message: Deliver, change: int) -> None:
        count = self.under_way(message.holder) + change
        if count:
            self._under_way[message.holder] = count
        else:
            del self._under_way[message.holder]


def _size_of(message: FromLeader) -> int:
    if type(message) is Deliver:
        return MESSAGE_SIZE + sum(map(len, message.contents))
    if type(message) is GetAnswer:
        return MESSAGE_SIZE + sum(map(_size_of, message.delivers))
    return MESSAGE_SIZE


def _is_for(message: FromLeader, holder: Key) -> TypeGuard[Deliver]:
    return isinstance(message, Deliver) and message.holder == holder


def _is_of(deliver: Deliver, tokens: list[tuple[int, range]]) -> bool:
    """True if it is of that hand-out.  If it has not arrived, nothing of it has been settled."""
    first = deliver.runs[0].start
    return any(deliver.ordinal == ordinal and first in run for ordinal, run in tokens)
