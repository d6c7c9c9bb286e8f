"""Says of a history whether exclusive queues have gone with their connections."""

from __future__ import annotations

from collections.abc import Iterable

from fluffle.broker.torture.findings import Breach, Findings
from fluffle.broker.torture.history import Ended, Event, GraceOver, Locked, Owned


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
