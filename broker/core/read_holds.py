"""Why one connection is not read, its own work apart: alarm, disk, queues, answers unread."""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.alarms.alarms import Alarms
from fluffle.broker.base.clock import Timer
from fluffle.broker.core.deadlines import Deadlines
from fluffle.broker.core.read_control import (
    BackloggedQueue,
    FlowCredit,
    FullQueues,
    ReadControl,
)
from fluffle.broker.runtime.commits import Commits

UNREAD_BYTES_MAX = 32 * 1_048_576
"""Beyond this in the transport's buffer, answers pile up that the client does not read: it is
not read either.  Deliveries alone, which wait, never make so much."""

UNREAD_WAIT_S_MAX = 120
"""For so long a client may leave them unread.  Heartbeats do not tell: it may want none, and while
it is not read its silence does not count."""


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
        """`on_blocked` is told why an alarm holds the connection; nothing when it does no more."""
        self._read_control = read_control
        self._deadlines = deadlines
        self._alarms = alarms
        self._commits = commits
        self._debt = FlowCredit(read_control, call_later)
        self._full = FullQueues(read_control)
        self._is_ending = False
        """Whether the connection is being closed, or gone: what it has begun may still go on."""
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
        """It put `count` messages into `queue`, which is behind."""
        self._debt.owe(queue, count)

    def wait_for_room(self, queue: BackloggedQueue) -> None:
        """It put messages into `queue`, which takes no more for now."""
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
        """Whether its client leaves more answers unread than it may for long."""
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
