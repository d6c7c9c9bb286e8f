"""Checks of a history as it is written, in one report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, TextIO

from fluffle.broker.torture.checker import Breach, Checker, Findings
from fluffle.broker.torture.history import (
    Clearing,
    ClearingAsked,
    ClearingDone,
    DeclareAsked,
    Declared,
    Ended,
    Event,
    GraceOver,
    Locked,
    Looked,
    Owned,
    RunEnded,
    to_line,
)
from fluffle.broker.torture.linearizability import LinearizabilityChecker
from fluffle.broker.torture.stalls import StallChecker


class ExistenceChecker:
    """Checker of what was declared: all of it must be there, and nothing else."""

    def __init__(self, report: Findings, *, transient: Collection[str] = ()) -> None:
        """`transient` things end with the process."""
        self._report = report
        self._transient = transient
        self._there: dict[str, bool | None] = {}
        """None: it may be there or not."""

    def read(self, events: Iterable[Event]) -> None:
        for event in events:
            reader = READERS.get(type(event))
            if reader is not None:
                reader(self, event)

    def _declare_asked(self, event: DeclareAsked) -> None:
        if not self._there.get(event.queue):
            self._there[event.queue] = None

    def _declared(self, event: Declared) -> None:
        self._there[event.queue] = True

    def _clearing_asked(self, event: ClearingAsked) -> None:
        if event.how is Clearing.DELETE:
            self._there[event.queue] = None

    def _clearing_done(self, event: ClearingDone) -> None:
        if event.how is Clearing.DELETE:
            self._there[event.queue] = False

    def _looked(self, event: Looked) -> None:
        known = self._there.get(event.queue, False)
        if known is not None and known is not event.found:
            what = f"{event.queue} is {'there' if event.found else 'not there'}"
            self._report.add(Breach.UNEXPECTED, what)
        self._there[event.queue] = event.found

    def _run_ended(self, _event: RunEnded) -> None:
        for thing in self._transient:
            self._there[thing] = False


READERS: dict[type[Event], Callable[[ExistenceChecker, Any], None]] = {
    DeclareAsked: ExistenceChecker._declare_asked,
    Declared: ExistenceChecker._declared,
    ClearingAsked: ExistenceChecker._clearing_asked,
    ClearingDone: ExistenceChecker._clearing_done,
    Looked: ExistenceChecker._looked,
    RunEnded: ExistenceChecker._run_ended,
}


class ExclusiveQueueChecker:
    """Reads a history event by event.  It knows when an end was long ago by `GraceOver` alone."""

    def __init__(self, report: Findings) -> None:
        self._report = report
        self._owned: dict[str, set[str]] = {}
        """Queues, by clients that are there."""
        self._left: set[str] = set()
        """Queues of clients that have ended; they may take a while to go."""
        self._must_be_gone: set[str] = set()

    def read(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Owned):
                self._owned.setdefault(event.client, set()).add(event.queue)
            elif isinstance(event, Ended):
                client, _hash, _number = event.channel.rpartition("#")
                self._left |= self._owned.pop(client, set())
            elif isinstance(event, GraceOver):
                self._must_be_gone |= self._left
                self._left.clear()
            elif isinstance(event, Locked) and event.queue in self._must_be_gone:
                self._must_be_gone.remove(event.queue)
                what = f"{event.queue} is locked, and its connection ended long ago"
                self._report.add(Breach.LOCKED, what)


class OnlineChecker:
    """Checker of all that is asked of a history, read at once or piece by piece."""

    def __init__(
        self,
        *,
        transient: Collection[str] = (),
        steady: Collection[str] = (),
        leaky: Collection[str] = (),
    ) -> None:
        """`transient` queues end with the process; `steady` ones never get anything back; what
        is in `leaky` ones is handed out without acknowledgement, and may be lost with a process.
        """
        self.report = Findings()
        self._checker = Checker(self.report, transient=transient, steady=steady, leaky=leaky)
        self._others = (
            ExistenceChecker(self.report, transient=transient),
            LinearizabilityChecker(self.report),
            ExclusiveQueueChecker(self.report),
        )

    def read(self, events: Iterable[Event]) -> None:
        events = [*events]
        self._checker.read(events)
        for checker in self._others:
            checker.read(events)

    @property
    def owed_count(self) -> int:
        """Messages that were confirmed and not received yet."""
        return sum(1 for _ in self._checker.owed())

    def finish(self) -> Findings:
        """Finish, and report if all queues were emptied."""
        self._checker.finish()
        return self.report


class HistoryWriter:
    """Writer that checks events at once: an hour of them has no room in memory."""

    def __init__(self, now_ns: Callable[[], int], file: TextIO | None = None) -> None:
        """`now_ns` never goes back."""
        self.checker = OnlineChecker()
        self.stalls = StallChecker()
        self._now_ns = now_ns
        self._file = file
        self._began_ns = now_ns()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return (self._now_ns() - self._began_ns) / 1e9

    def note(self, event: Event) -> None:
        at_ns = self._now_ns() - self._began_ns
        if self._file is not None:
            self._file.write(to_line(at_ns, event) + "\n")
        self.checker.read((event,))
        self.stalls.read(at_ns, event)

    def tester_was_late(self, for_s: float) -> None:
        """Note that the tester itself has done nothing for so long."""
        self.stalls.tester_was_late(self._now_ns() - self._began_ns, int(for_s * 1e9))

    def stop_the_clock(self) -> None:
        """End the measurement of stalls: no client publishes from now on, and how long the last
        confirms take means nothing."""
        self.stalls.finish(self._now_ns() - self._began_ns)
