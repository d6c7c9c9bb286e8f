"""Says of a history whether everything was there that was declared, and nothing that was not.

A thing has a name and is declared, deleted and looked for, as a queue is; what it is matters not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from fluffle.broker.torture.findings import Breach, Findings
from fluffle.broker.torture.history import (
    Clearing,
    ClearingAsked,
    ClearingDone,
    DeclareAsked,
    Declared,
    Event,
    Looked,
    RunEnded,
)


class ExistenceChecker:
    """Reads a history event by event."""

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
