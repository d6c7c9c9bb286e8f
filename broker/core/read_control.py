"""Read control: the socket of a connection is read while nothing holds it.

What may hold it has a mark here, as an alarm or a slow disk; so has what holds it for a moment when
it puts messages into a queue faster than that queue hands them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fluffle.broker.alarms.alarms import Alarms
from fluffle.broker.base.clock import Timer
from fluffle.broker.core.connections import Deadlines
from fluffle.broker.queues.publish_target import BlockedPublisher
from fluffle.broker.runtime.commits import Commits

SECONDS_PER_MESSAGE = 20e-6
"""Longest wait of a publisher in debt for each message it owes, so that slow consumers slow no
publisher to less than 50,000 messages a second."""

OWED_MESSAGES_MAX = 1_000
"""A publisher reads on until it owes so many: if it were stopped after each read, reads would be
small batches, which cost a replicated queue most (benchmarks/compare --suite quorum, b1k)."""


class ReadTransport(Protocol):
    """The part of asyncio's transport that stops and goes on reading."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class BackloggedQueue(Protocol):
    """A queue, as those see it who put too much into it."""

    blocked_publishers: list[BlockedPublisher]


class FullQueues:
    """Queues that take nothing more for now, each of which has this among its blocked publishers.

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
        """Note that a full queue has room again; no debt is paid by this."""
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


UNREAD_BYTES_MAX = 32 * 1_048_576
"""Beyond this in the transport's buffer, answers pile up that the client does not read: it is
not read either.  Deliveries alone, which wait, never make so much."""

UNREAD_WAIT_S_MAX = 120
"""Time in seconds for which a client may leave output unread.  Heartbeats do not tell: it may want
none, and while it is not read its silence does not count."""


def no_notification(_reason: str) -> None:
    """Where the connection is gone."""


class ReadHolds:
    """Reasons not to read a connection, from the time each begins until it is over."""

    __slots__ = (
        "_alarms",
        "_commits",
        "_deadlines",
        "_debt",
        "_full",
        "_is_ending",
        "_on_blocked",
        "_read_control",
    )  # fmt: skip

    def __init__(
        self,
        read_control: ReadControl,
        deadlines: Deadlines,
        *,
        alarms: Alarms,
        commits: Commits,
        call_later: Callable[[float, Callable[[], None]], Timer],
        on_blocked: Callable[[str], None],
    ) -> None:
        """Set the callback for alarms: `on_blocked` gets the reason while one holds the connection,
        and None when that ends."""
        self._read_control = read_control
        self._deadlines = deadlines
        self._alarms = alarms
        self._commits = commits
        self._debt = FlowCredit(read_control, call_later)
        self._full = FullQueues(read_control)
        self._is_ending = False
        """True if the connection is being closed, or gone: what it has begun may still go on."""
        self._on_blocked = on_blocked

    def listen(self) -> None:
        """Alarms concern it from now on."""
        self._alarms.listen(self._on_alarm)

    def block(self) -> None:
        """A resource alarm is raised and this connection publishes."""
        self._read_control.hold("alarm")
        self._on_blocked(self._alarms.reason)

    def _on_alarm(self) -> None:
        """An alarm was raised or cleared; only the last one cleared ends a block."""
        if not self._alarms.reason and self._read_control.holds("alarm"):
            self._read_control.release("alarm")
            self._on_blocked("")

    def owe(self, queue: BackloggedQueue, count: int) -> None:
        """Note `count` messages of this client in `queue`, which is behind."""
        self._debt.owe(queue, count)

    def wait_for_room(self, queue: BackloggedQueue) -> None:
        """Wait for `queue`, which takes no more messages for now."""
        self._full.wait(queue)

    def wait_for_disk(self) -> None:
        """Messages come faster than the disk takes them: pause until it has caught up."""
        if self._is_ending:
            return
        self._read_control.hold("disk")
        self._commits.when_caught_up(self._disk_caught_up)

    def _disk_caught_up(self) -> None:
        self._read_control.release("disk")

    @property
    def is_unread(self) -> bool:
        """True if its client leaves more answers unread than it may for long."""
        return self._read_control.holds("unread")

    def wait_until_read(self) -> None:
        """Answers pile up: do not read the client while it does not read them."""
        if not self.is_unread:
            self._read_control.hold("unread")
            self._deadlines.give("unread", UNREAD_WAIT_S_MAX, "client does not read its answers")

    def has_read(self) -> None:
        """All that was written has gone out."""
        if self.is_unread:
            self._deadlines.met("unread")
            self._read_control.release("unread")

    def hear(self) -> None:
        """The connection is being closed, and the answer to that has to be read."""
        self._is_ending = True
        self._debt.forgive()
        self._full.forgive()
        self._read_control.release("alarm")

    def end(self) -> None:
        """The connection is gone: nothing is sent to it, and nothing keeps it alive."""
        self._is_ending = True
        self._on_blocked = no_notification
        self._debt.forgive()
        self._full.forgive()
        self._commits.forget(self._disk_caught_up)
        self._alarms.unlisten(self._on_alarm)
