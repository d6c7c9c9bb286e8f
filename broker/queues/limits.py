"""How much may wait in a queue, and how many of what comes fit: x-max-length, x-max-length-bytes.

Whichever is reached first counts, and only what waits: messages in consumers' hands are in nobody's
way.  A classic queue counts bodies, a quorum queue properties and bodies, as RabbitMQ 4.3 does.

A *hard* limit is never passed: what does not fit is refused.  A quorum queue has a *soft* one, as
RabbitMQ shows it to a publisher that waits for each confirm: the message that passes it is taken,
those behind it are refused until no more than four fifths of the limit wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.settings import Overflow, QueueSettings
from fluffle.protocol.properties import body_sizes, content_sizes

NO_LIMIT = 1 << 63
"""More than ever waits."""

Sizes: TypeAlias = Callable[[list[bytes]], Sequence[int]]
"""What each of some messages counts, in bytes."""


class Limit:
    """Maximum length of one queue, in messages and in bytes."""

    __slots__ = (
        "bytes_max", "count_max", "is_dead_lettered", "is_soft", "refuses", "sizes",
        "spares_returned",
    )  # fmt: skip

    def __init__(self, settings: QueueSettings, queue_type: QueueType) -> None:
        self.count_max = NO_LIMIT if settings.max_length is None else settings.max_length
        self.bytes_max = NO_LIMIT
        self.sizes: Sizes | None = None
        """None if only messages are counted."""
        is_quorum = queue_type is QueueType.QUORUM
        if settings.max_length_bytes is not None:
            self.bytes_max = settings.max_length_bytes
            self.sizes = content_sizes if is_quorum else body_sizes
        self.refuses = settings.overflow is not Overflow.DROP_HEAD
        """Whether what does not fit is refused; else it pushes out what is in front."""
        self.is_dead_lettered = settings.overflow is Overflow.REJECT_PUBLISH_DLX
        """Whether what is refused is dead-lettered."""
        self.is_soft = self.refuses and is_quorum
        self.spares_returned = self.refuses or is_quorum
        """Whether consumers come first when messages come back; else too many go first."""

    def is_passed(self, count: int, size_bytes: int) -> bool:
        """Whether more waits than may."""
        return count > self.count_max or size_bytes > self.bytes_max

    def is_freed(self, count: int, size_bytes: int) -> bool:
        """Whether so little waits that a soft limit that was passed counts anew."""
        return count <= self.count_max * 4 // 5 and size_bytes <= self.bytes_max * 4 // 5

    def fitting(self, sizes: Sequence[int], wanted: int, count: int, size_bytes: int) -> int:
        """How many of `wanted` messages, from the first one on, may be put to what waits.

        `sizes` are theirs, empty if only messages are counted.
        """
        if self.is_soft and self.is_passed(count, size_bytes):
            return 0
        fit = max(0, min(wanted, self.count_max + self.is_soft - count))
        if not sizes or size_bytes + sum(sizes) <= self.bytes_max:
            return fit
        for place in range(fit):
            size_bytes += sizes[place]
            if size_bytes > self.bytes_max:
                return place + self.is_soft
        return fit

    def misfits(self, sizes: Sequence[int], wanted: int, count: int, size_bytes: int) -> int:
        """The first one does not fit: how many more do not, one behind the other, with it."""
        if self.is_soft or count >= self.count_max:
            return wanted
        room_bytes = self.bytes_max - size_bytes
        return next((place for place in range(wanted) if sizes[place] <= room_bytes), wanted)


def limit_of(settings: QueueSettings, queue_type: QueueType) -> Limit | None:
    """None if as much may wait as likes."""
    if settings.max_length is None and settings.max_length_bytes is None:
        return None
    return Limit(settings, queue_type)


def reaching(sizes: Sequence[int], wanted_bytes: int) -> int:
    """How many of some messages have together at least so many bytes; all, if they have not."""
    for place, size in enumerate(sizes):
        wanted_bytes -= size
        if wanted_bytes <= 0:
            return place + 1
    return len(sizes)
