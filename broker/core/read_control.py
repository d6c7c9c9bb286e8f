"""Read control: the socket of a connection is read while nothing holds it.

What may is in `read_holds`; here is what holds it for a moment when it puts messages into a queue
faster than that queue hands them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fluffle.broker.base.clock import Timer
from fluffle.broker.queues.publish_target import BlockedPublisher

SECONDS_PER_MESSAGE = 20e-6
"""A publisher in debt waits no longer than this for each message it owes, so that consumers
which are slow by nature slow nobody to less than 50,000 messages a second."""

OWED_MESSAGES_MAX = 1_000
"""A publisher reads on until it owes so many: if it were stopped after each read, reads would be
small batches, which cost a replicated queue most (benchmarks/compare --suite quorum, b1k)."""


class ReadTransport(Protocol):
    """The part of asyncio's transport that an intake needs."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class BackloggedQueue(Protocol):
    """A queue, as those see it who put too much into it."""

    blocked_publishers: list[BlockedPublisher]


class FullQueues:
    """Queues that take nothing more for now, each of which has this among its debtors.

    The connection is not read until all of them take something again.
    """

    __slots__ = ("_queues", "_read_control")

    def __init__(self, read_control: ReadControl) -> None:
        self._read_control = read_control
        self._queues: dict[BackloggedQueue, None] = {}

    def wait(self, queue: BackloggedQueue) -> None:
        if queue not in self._queues:
            self._queues[queue] = None
            queue.blocked_publishers.append(self)
            self._read_control.hold("full")

    def paid(self, queue: BackloggedQueue, count: int) -> int:
        """It takes something again: whatever was handed out, nothing of it was owed here."""
        queue.blocked_publishers.remove(self)
        del self._queues[queue]
        if not self._queues:
            self._read_control.release("full")
        return count

    def forgive(self) -> None:
        """Read the publisher again."""
        for queue in self._queues:
            queue.blocked_publishers.remove(self)
        self._queues.clear()
        self._read_control.release("full")


class ReadControl:
    """The input side of one connection's socket."""

    __slots__ = ("_holds", "_transport")

    def __init__(self, transport: ReadTransport) -> None:
        self._transport = transport
        self._holds: set[str] = set()

    def holds(self, reason: str) -> bool:
        return reason in self._holds

    def hold(self, reason: str) -> None:
        """Do not read while `reason` lasts."""
        if not self._holds:
            self._transport.pause_reading()
        self._holds.add(reason)

    def release(self, reason: str) -> None:
        """`reason` is over; read again if it was the last."""
        if reason in self._holds:
            self._holds.remove(reason)
            if not self._holds:
                self._transport.resume_reading()


class FlowCredit:
    """Messages a publisher put into queues that are behind: a queue's `BlockedPublisher`.

    Once they are many the connection is not read until the queues have handed out as many, or its
    time is up.
    """

    __slots__ = ("_call_later", "_owed", "_read_control", "_timer", "_untimed_count")

    def __init__(
        self, read_control: ReadControl, call_later: Callable[[float, Callable[[], None]], Timer]
    ) -> None:
        self._read_control = read_control
        self._call_later = call_later
        self._owed: dict[BackloggedQueue, int] = {}
        """How many messages each queue has to hand out.  Invariant: none that is paid."""
        self._timer: Timer | None = None
        """Invariant: set while the connection is held for this."""
        self._untimed_count = 0
        """Messages owed since the timer was set, which will need another term; all that are owed
        if it is not set."""

    def owe(self, queue: BackloggedQueue, count: int) -> None:
        """`count` messages were put into `queue`, which is behind."""
        if queue not in self._owed:
            self._owed[queue] = 0
            queue.blocked_publishers.append(self)
        self._owed[queue] += count
        self._untimed_count += count
        if self._timer is None and self._untimed_count >= OWED_MESSAGES_MAX:
            self._read_control.hold("flow")
            self._set_timer()

    def _set_timer(self) -> None:
        count, self._untimed_count = self._untimed_count, 0
        self._timer = self._call_later(count * SECONDS_PER_MESSAGE, self._end_term)

    def _end_term(self) -> None:
        if self._untimed_count:
            self._set_timer()
        else:
            self.forgive()

    def paid(self, queue: BackloggedQueue, count: int) -> int:
        """Take what is owed of `count` messages that left `queue`; how many are left of them."""
        owed = self._owed[queue]
        if self._timer is None:
            self._untimed_count -= min(count, owed)
        if count < owed:
            self._owed[queue] = owed - count
            return 0
        del self._owed[queue]
        queue.blocked_publishers.remove(self)
        if not self._owed:
            self.forgive()
        return count - owed

    def forgive(self) -> None:
        """Read the publisher again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._untimed_count = 0
        for queue in self._owed:
            queue.blocked_publishers.remove(self)
        self._owed.clear()
        self._read_control.release("flow")
