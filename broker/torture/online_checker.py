"""All that is asked of a history, in one report."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fluffle.broker.torture.checker import Checker
from fluffle.broker.torture.findings import Findings
from fluffle.broker.torture.history import Event
from fluffle.broker.torture.linearizability import LinearizabilityChecker
from fluffle.broker.torture.locks import ExclusiveQueueChecker
from fluffle.broker.torture.queue_model import ExistenceChecker


class OnlineChecker:
    """Reads a history, all at once or piece by piece."""

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
        """Messages that were confirmed and that nobody has received yet."""
        return sum(1 for _ in self._checker.owed())

    def finish(self) -> Findings:
        """All queues have been emptied."""
        self._checker.finish()
        return self.report
