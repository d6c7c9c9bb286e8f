"""Length limit of a queue, x-max-length and x-max-length-bytes: what is refused or dropped for it.

Whichever is reached first counts, and only what waits: messages in consumers' hands do not
count.  A classic queue counts bodies, a quorum queue properties and bodies, as RabbitMQ 4.3 does.

A *hard* limit is never passed: what does not fit is refused.  A quorum queue has a *soft* one, as
RabbitMQ shows it to a publisher that waits for each confirm: the message that passes it is taken,
those behind it are refused until no more than four fifths of the limit wait.

Consumers come first: what they have room for is handed out before anything is refused or dropped
for those that wait.  But what comes back to a classic queue is not handed out if it is too much, as
with RabbitMQ: it is dropped before anything else happens, and once all of it is back, so that the
oldest goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.byte_count import Sizes
from fluffle.broker.queues.expiry_times import Lifetimes, lifetimes_in
from fluffle.broker.queues.priority_ready_list import AnyReadyList
from fluffle.broker.queues.publish_target import EnqueueResult, PartialResult
from fluffle.broker.queues.segment import TakenMessages
from fluffle.broker.queues.settings import Overflow, QueueSettings
from fluffle.protocol.properties import body_sizes, content_sizes

NO_LIMIT = 1 << 63
"""More than ever waits."""

LOOK_BYTES = 1_048_576
"""Bytes of messages that are dropped together."""

DROPPED_BYTES_MAX = 8 * LOOK_BYTES
"""Bytes of a backlog dropped in one turn, each message with its fixed cost."""

NOTHING = 0, 0
"""No message, no bytes."""

MESSAGE_COST_BYTES = 1024
"""Fixed cost of dropping a message: copying so many bytes takes about as long."""


class Limit:
    """Maximum length of one queue, in messages and in bytes."""

    __slots__ = (
        "bytes_max", "count_max", "is_dead_lettered", "is_soft", "refuses", "sizes",
        "spares_requeued",
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
        """True if messages beyond the limit are refused; False if they push out the oldest."""
        self.is_dead_lettered = settings.overflow is Overflow.REJECT_PUBLISH_DLX
        """True if refused messages are dead-lettered."""
        self.is_soft = self.refuses and is_quorum
        self.spares_requeued = self.refuses or is_quorum
        """True if consumers are served before the limit is applied to requeued messages."""

    def is_passed(self, count: int, size_bytes: int) -> bool:
        """True if more is ready than the limit allows."""
        return count > self.count_max or size_bytes > self.bytes_max

    def is_freed(self, count: int, size_bytes: int) -> bool:
        """True if so little is ready that a soft limit that was passed applies again."""
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


class LimitedQueue(Protocol):
    """Queue with a length limit, as the limit uses it."""

    def other_counted_messages(self) -> int:
        """How many messages count that are not in the ready list."""

    def enqueue(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes,
    ) -> EnqueueResult | PartialResult:
        """Add messages, all of which fit."""

    def pump_early(self) -> None:
        """Hand out what consumers have room for, `keep` to the limit, and pass that on."""

    def drop_surplus(self, taken: TakenMessages) -> None:
        """These have been taken off the ready list, and die."""

    def expire(self) -> bool:
        """Take off what has expired; whether the next one has not."""

    def rejected(self, origins: list[Origin], contents: list[bytes]) -> None:
        """These die before they are in."""

    def touch(self) -> None:
        """Have `pump` called in the next turn."""


class LengthLimit:
    """The limit of one queue."""

    __slots__ = (
        "_added", "_are_requeued_due", "_fitting_bytes", "_fitting_part", "_is_shut", "_limit",
        "_queue", "_ready_list", "drops_requeued", "refuses",
    )  # fmt: skip

    def __init__(self, limit: Limit, ready_list: AnyReadyList, queue: LimitedQueue) -> None:
        self._limit = limit
        self._ready_list = ready_list
        self._queue = queue
        self._added = NOTHING
        """How many messages have come in since it was kept to, and how many bytes at most."""
        self._are_requeued_due = False
        """True if messages that came back may be too many, and none was dropped yet."""
        self.refuses = limit.refuses
        self.drops_requeued = not limit.spares_requeued
        self._fitting_part: list[bytes] | None = None
        """Contents known to fit, which are being added."""
        self._fitting_bytes = 0
        """Bytes of `_fitting_part`."""
        self._is_shut = False
        """True while a soft limit has been passed and is not yet freed."""

    @property
    def _waiting(self) -> tuple[int, int]:
        """How many messages count, and how many bytes."""
        byte_count = self._ready_list.byte_count
        count = self._ready_list.count + self._queue.other_counted_messages()
        return count, 0 if byte_count is None else byte_count.sum.size_bytes

    def _is_passed(self, count: int = 0, content_bytes: int = 0) -> bool:
        """True if more is ready than allowed, or would be with so much more; an estimate that does
        not weigh each message."""
        ready_list, limit = self._ready_list, self._limit
        if ready_list.count + self._queue.other_counted_messages() > limit.count_max - count:
            return True
        return ready_list.byte_count is not None and ready_list.byte_count.sum.exceeds(
            limit.bytes_max - content_bytes
        )

    @property
    def may_be_passed(self) -> bool:
        """True if more is ready than allowed, or that is not known yet."""
        byte_count = self._ready_list.byte_count
        return self._is_passed() or (byte_count is not None and byte_count.sum.is_unsure)

    def admit(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        persistent: bool,  # noqa: FBT001 - in order, as `enqueue` has them
        expiration_ms: Lifetimes,
    ) -> EnqueueResult | PartialResult | int | None:
        """Add those messages that fit, each as if it came alone; or how many bytes all of them
        count, if all fit, and none is added yet; None if they do, whatever that is."""
        if contents is self._fitting_part:
            return self._fitting_bytes
        self._weigh()
        self.judge()
        limit, count = self._limit, len(contents)
        if not self._is_shut and not self._is_passed(count, content_bytes):
            return None
        sizes = limit.sizes(contents) if limit.sizes is not None else ()
        if self._fitting(sizes, count) == count:
            return sum(sizes)
        at, rejected, taken = 0, list[tuple[int, int]](), EnqueueResult.REJECTED
        while left := count - at:
            fitting = self._fitting(sizes[at:], left)
            if not fitting:  # what has expired goes by this, too
                self.deliver_ready()
                self.judge()
                fitting = self._fitting(sizes[at:], left)
            if fitting:
                part = slice(at, at + fitting)
                self._fitting_part = fit = contents[part]
                self._fitting_bytes = sum(sizes[part])
                admission = self._queue.enqueue(
                    origins[part],
                    fit,
                    sum(map(len, fit)),
                    persistent=persistent,
                    expiration_ms=lifetimes_in(expiration_ms, part),
                )
                self._fitting_part = None
                assert isinstance(admission, EnqueueResult), "all of them fit"
                taken, at = admission, part.stop
            else:
                stop = at + limit.misfits(sizes[at:], left, *self._waiting)
                rejected.append((at, stop))
                if limit.is_dead_lettered:
                    self._queue.rejected(origins[at:stop], contents[at:stop])
                at = stop
        if not rejected or taken is EnqueueResult.REJECTED:
            return taken
        return PartialResult(count, taken, rejected)

    def added(self, count: int, content_bytes: int) -> None:
        """Messages have come in: for so many at least others go if there are too many."""
        if self.may_be_passed:
            self._note(count, content_bytes)
            self.deliver_ready()

    def came_back(self, contents: list[bytes]) -> None:
        """Messages are in front again; more may follow before `keep_requeued`."""
        if self.drops_requeued and self.may_be_passed:
            self._note(len(contents), sum(map(len, contents)))
            self._are_requeued_due = True

    def keep_requeued(self) -> None:
        """Drop what exceeds the limit since messages came back."""
        if self._are_requeued_due:
            self._are_requeued_due = False
            self.keep()

    def make_way(
        self,
        _origins: list[Origin],
        _contents: list[bytes],
        _content_bytes: int,
        _persistent: bool,  # noqa: FBT001 - as of `admit`
        _expiration_ms: Lifetimes,
    ) -> None:
        """Drop what came back and is too much before these come in; all of them may."""
        self.keep_requeued()

    def _note(self, count: int, content_bytes: int) -> None:
        before, before_bytes = self._added
        self._added = before + count, before_bytes + content_bytes

    def deliver_ready(self) -> None:
        """Deliver what consumers have room for, then apply the limit to the rest."""
        self._queue.pump_early()

    def _fitting(self, sizes: Sequence[int], wanted: int) -> int:
        # mutant: B2
        return 0 if self._is_shut else self._limit.fitting(sizes, wanted, *self._waiting)

    def keep(self) -> None:
        """Drop what exceeds the limit, after consumers have taken what they may.

        Of a backlog that is as much as has just come in, or a turn's worth if nothing has.
        """
        added, self._added = self._added, NOTHING
        if added == NOTHING:
            self._weigh()
        ready_list, left_bytes = self._ready_list, DROPPED_BYTES_MAX
        if self._limit.refuses or not self.may_be_passed:
            return
        count_max, bytes_max = self._limit.count_max, self._limit.bytes_max
        if added != NOTHING:
            (count, size_bytes), (added_count, added_bytes) = self._waiting, added
            count_max = max(count_max, count - added_count)
            bytes_max = max(bytes_max, size_bytes - added_bytes)
            left_bytes = NO_LIMIT
        while ready_list.count and left_bytes > 0:
            count, size_bytes = self._waiting
            excess, excess_bytes = count - count_max, size_bytes - bytes_max
            if excess <= 0 and excess_bytes <= 0:  # mutant: B1
                break
            available = ready_list.available(LOOK_BYTES)
            if available:
                taken = ready_list.take(self._surplus(available, excess, excess_bytes))
                left_bytes -= sum(map(len, taken.contents)) + MESSAGE_COST_BYTES * taken.count
                self._queue.drop_surplus(taken)
            elif ready_list.damage is None and self._queue.expire():
                left_bytes -= LOOK_BYTES
            else:
                return
        if ready_list.count and self.may_be_passed:
            self._queue.touch()

    def _surplus(self, available: int, excess: int, excess_bytes: int) -> int:
        """How many of the messages in front are too many."""
        surplus = min(available, max(0, excess))  # some may not be in the ready list
        sizes, (count, size_bytes) = self._limit.sizes, self._waiting
        if sizes is None or excess_bytes <= 0:
            return surplus
        # No more are looked at than are dropped, if all are of one size.
        looked_at = min(available, 1 + excess_bytes * count // size_bytes)
        return max(surplus, reaching(sizes(self._ready_list.ahead(looked_at)), excess_bytes))

    def move(self, ready_list: AnyReadyList) -> None:
        """Count `ready_list` from now on, which replaces the present one."""
        self._ready_list = ready_list
        ready_list.count_bytes_by(self._limit.sizes)

    def _weigh(self) -> None:
        """Come to know more of how much waits."""
        byte_count = self._ready_list.byte_count
        if byte_count is not None and byte_count.sum.is_unsure:
            byte_count.go_on()
            self._queue.touch()

    def judge(self) -> None:
        """A soft limit shuts the queue, or opens it: once what lives no longer than its turn is
        gone."""
        if self._is_shut:
            self._is_shut = not self._limit.is_freed(*self._waiting)
        elif self._limit.is_soft:
            self._is_shut = self._is_passed()


def length_limit_of(
    limit: Limit | None, ready_list: AnyReadyList, queue: LimitedQueue
) -> LengthLimit | None:
    """None where there is no limit; bytes are counted where there is one of them."""
    ready_list.count_bytes_by(limit.sizes if limit is not None else None)
    return LengthLimit(limit, ready_list, queue) if limit is not None else None
