"""Stalls of queues: how long one did nothing for its clients.  Pure: events with their times in,
stretches out.

A queue is *unavailable to publishers* as long as nothing that was published to it is confirmed;
they always want to publish.  It is *unavailable to consumers* as long as nothing comes from it
that was confirmed and was not received.  Queues that are short-lived are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fluffle.broker.torture.history import (
    Confirmed,
    Event,
    Fault,
    MessageId,
    Published,
    Received,
    Refused,
    ShortLived,
)

NOTABLE_NS = 250_000_000
TESTER_LATE = "tester late"


class Stall(NamedTuple):
    """Longer comes later in order."""

    length_ns: int = 0
    began_ns: int = 0


@dataclass(slots=True)
class StallTimer:
    """The longest time that something was due and did not happen."""

    longest: Stall = field(default_factory=Stall)
    notable: list[Stall] = field(default_factory=list)
    """All that are long enough to be looked at one by one."""
    _since_ns: int | None = None

    def due(self, at_ns: int) -> None:
        """Start the timer, if it was not started before."""
        if self._since_ns is None:
            self._since_ns = at_ns

    def happened(self, at_ns: int, *, is_due_again: bool) -> None:
        if self._since_ns is not None:
            stall = Stall(at_ns - self._since_ns, self._since_ns)
            self.longest = max(self.longest, stall)
            if stall.length_ns >= NOTABLE_NS:
                self.notable.append(stall)
        self._since_ns = at_ns if is_due_again else None


@dataclass(slots=True)
class QueueStalls:
    """Stall times of one queue, and messages that are waiting in it."""

    to_publishers: StallTimer = field(default_factory=StallTimer)
    to_consumers: StallTimer = field(default_factory=StallTimer)
    waiting: set[MessageId] = field(default_factory=set)
    """Confirmed, and not received."""


class FaultPeriod(NamedTuple):
    """A fault from its beginning to its end."""

    what: str
    began_ns: int
    ended_ns: int


class StallChecker:
    """Reads a history event by event."""

    def __init__(self) -> None:
        self.queues: dict[str, QueueStalls] = {}
        self.overall = StallTimer()
        """No publish was confirmed by any queue."""
        self._open: dict[MessageId, tuple[str, ...]] = {}
        """Neither confirmed nor refused: where they go."""
        self._early: set[tuple[MessageId, str]] = set()
        """Messages that were received before their confirm, with the queue."""
        self._short_lived: set[str] = set()
        """Queues that are not looked at."""
        self._periods: list[FaultPeriod] = []
        self._began_ns: dict[str, int] = {}

    def read(self, at_ns: int, event: Event) -> None:
        reader = READERS.get(type(event))
        if reader is not None:
            reader(self, at_ns, event)

    def tester_was_late(self, at_ns: int, for_ns: int) -> None:
        """Note that until now neither clients nor nodes behind a proxy got what nodes sent."""
        began_ns = at_ns - for_ns
        what = f"{TESTER_LATE} for {for_ns / 1e9:.1f} s at {began_ns / 1e9:.1f} s"
        self._periods.append(FaultPeriod(what, began_ns, at_ns))

    def finish(self, at_ns: int) -> None:
        """End all stalls: no client publishes any more, and whatever was due should have come by
        now."""
        self.overall.happened(at_ns, is_due_again=False)
        for queue in self.queues.values():
            queue.to_publishers.happened(at_ns, is_due_again=False)
            queue.to_consumers.happened(at_ns, is_due_again=False)
        for what in [*self._began_ns]:
            self._fault(at_ns, Fault(what, is_over=True))

    def faults_during(self, stall: Stall) -> Iterator[str]:
        """Yield what was wrong at any time of it."""
        stop_ns = stall.began_ns + stall.length_ns
        for period in self._periods:
            if period.began_ns < stop_ns and period.ended_ns > stall.began_ns:
                yield period.what

    def _got_short_lived(self, _at_ns: int, event: ShortLived) -> None:
        self._short_lived.add(event.queue)

    def _published(self, at_ns: int, event: Published) -> None:
        queues = tuple(name for name in event.queues if name not in self._short_lived)
        self._open[event.message] = queues
        for name in queues:
            self.overall.due(at_ns)
            self.queues.setdefault(name, QueueStalls()).to_publishers.due(at_ns)

    def _confirmed(self, at_ns: int, event: Confirmed) -> None:
        message = event.message
        for name in self._open.pop(message, ()):
            queue = self.queues[name]
            self.overall.happened(at_ns, is_due_again=True)
            queue.to_publishers.happened(at_ns, is_due_again=True)
            if (message, name) in self._early:
                self._early.remove((message, name))
            else:
                queue.waiting.add(message)
                queue.to_consumers.due(at_ns)

    def _refused(self, _at_ns: int, event: Refused) -> None:
        for name in self._open.pop(event.message, ()):
            self._early.discard((event.message, name))

    def _received(self, at_ns: int, event: Received) -> None:
        queue = self.queues.get(event.queue)
        if queue is None:
            return
        if event.message in queue.waiting:
            queue.waiting.remove(event.message)
            queue.to_consumers.happened(at_ns, is_due_again=bool(queue.waiting))
        elif event.message in self._open:
            self._early.add((event.message, event.queue))

    def _fault(self, at_ns: int, event: Fault) -> None:
        if event.is_over:
            self._periods.append(FaultPeriod(event.what, self._began_ns.pop(event.what), at_ns))
        else:
            self._began_ns[event.what] = at_ns


READERS: dict[type[Event], Callable[[StallChecker, int, Any], None]] = {
    ShortLived: StallChecker._got_short_lived,
    Published: StallChecker._published,
    Confirmed: StallChecker._confirmed,
    Refused: StallChecker._refused,
    Received: StallChecker._received,
    Fault: StallChecker._fault,
}
