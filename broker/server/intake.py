"""Whether a connection is read: it is while nothing holds it.

A connection is held while a resource alarm is raised and it publishes, and for a moment when it
puts messages into a queue faster than that queue hands them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fluffle.broker.queues.engine import Debtor

SECONDS_PER_MESSAGE = 20e-6
"""A publisher in debt waits no longer than this for each message it owes, so that consumers
which are slow by nature slow nobody to less than 50,000 messages a second."""


class Reading(Protocol):
    """The part of asyncio's transport that an intake needs."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Timer(Protocol):
    def cancel(self) -> None: ...


class Creditor(Protocol):
    """A queue, as those see it who put too much into it."""

    debtors: list[Debtor]


class Intake:
    """The input side of one connection's socket."""

    __slots__ = ("_holds", "_transport")

    def __init__(self, transport: Reading) -> None:
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


class Debt:
    """Messages a publisher put into queues that are behind: a queue's `Debtor`.

    The connection is not read until the queues have handed out as many, or its time is up.
    """

    __slots__ = ("_call_later", "_count", "_intake", "_queues", "_timer")

    def __init__(
        self, intake: Intake, call_later: Callable[[float, Callable[[], None]], Timer]
    ) -> None:
        self._intake = intake
        self._call_later = call_later
        self._count = 0
        self._queues: dict[Creditor, None] = {}
        self._timer: Timer | None = None

    def owe(self, queue: Creditor, count: int) -> None:
        """`count` messages were put into `queue`, which is behind."""
        self._count += count
        if queue not in self._queues:
            self._queues[queue] = None
            queue.debtors.append(self)
        if self._timer is None:
            self._intake.hold("flow")
        else:
            self._timer.cancel()
        self._timer = self._call_later(self._count * SECONDS_PER_MESSAGE, self.forgive)

    def paid(self, count: int) -> None:
        """A queue has handed out `count` messages."""
        self._count -= count
        if self._count <= 0:
            self.forgive()

    def forgive(self) -> None:
        """Read the publisher again."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        self._count = 0
        for queue in self._queues:
            queue.debtors.remove(self)
        self._queues.clear()
        self._intake.release("flow")
