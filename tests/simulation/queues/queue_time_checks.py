"""Queue time: whether it passes as time does, whatever the clocks on walls are set to: G12.

what machines count --> how late it can be >= common time of nodes, stamps in logs
                              ^
who begins to know a common time may have heard of no earlier one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fluffle.broker.cluster.common_time import SLEW
from fluffle.raft.config import NodeId
from tests.simulation.facts import Violation

SLACK_MS = 2_000
"""Nodes believe counts that differ by a second, and half of a round trip."""


class QueueTimeChecks:
    """Checks of the queue time of all queues of a run."""

    def __init__(self) -> None:
        self._counts: Sequence[int] = ()
        self._known: frozenset[tuple[NodeId, int]] = frozenset()
        self._latest_ms: float | None = None
        """Latest possible time by every node's common time."""

    def look(self, counts: Sequence[int], days: Mapping[tuple[NodeId, int], int]) -> None:
        """Record what all machines count, and common time on the nodes that know it.

        A node is named with its life.  Raises `Violation` if it is later than it can be.
        """
        if self._latest_ms is not None:
            passed_ms = max(now - then for now, then in zip(counts, self._counts, strict=True))
            self._latest_ms += passed_ms * (1 + 1 / SLEW)
        begun = days.keys() - self._known
        self._counts, self._known = counts, frozenset(days)
        if not days:
            return
        latest_ms = max(days.values())
        if self._latest_ms is None or begun:
            self._latest_ms = max(latest_ms, self._latest_ms or 0)
        self.check(latest_ms)

    def check(self, time_ms: int) -> None:
        """Check a stamp in a log.  Raises `Violation`."""
        if time_ms and (self._latest_ms is None or time_ms > self._latest_ms + SLACK_MS):
            raise Violation(f"G12: it is {time_ms} ms, and cannot be later than {self._latest_ms}")
