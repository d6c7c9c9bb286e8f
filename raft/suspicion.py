"""Suspicion timeout of a node, adapted to its longest silences and to mistakes.

    gaps between its pings --> the longest of late, twice -+
    suspected, and there after all --> the floor, doubled -+--> between a floor and a cap

A machine that gets too little time sends its pings late, again and again: a node that suspects it
after a fixed time does so every few seconds, and each time all groups that it leads hold elections.
What was usual is forgotten bit by bit, and so are mistakes, for a node that is on time again should
be missed soon.  A gap that is longer than the cap was no gap: the node was away, which says nothing
of how punctual it is.
"""

from __future__ import annotations

from fluffle.raft.tuning import Tuning

GAPS = 2
"""A silence of so many times the longest gap of late is no suspicion."""

FORGOTTEN = 32
"""In so many milliseconds one of the longest gap is forgotten: two seconds in a minute."""

MISTAKE_MS = 30_000
"""After so long without another a mistake is forgotten."""

MISTAKES_MAX = 3
"""More are not remembered, for the cap is reached."""


class SuspicionTimeout:
    """Longest silence of one node that is no suspicion."""

    __slots__ = ("_longest_at_ms", "_longest_ms", "_mistaken_ms", "_mistakes", "_tuning")

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self._longest_ms = 0
        """The longest gap, as it was when it ended."""
        self._longest_at_ms = 0
        self._mistakes = 0
        """How many were remembered at the last one."""
        self._mistaken_ms = 0
        """When that was."""

    def heard(self, gap_ms: int, now_ms: int) -> None:
        """Note that the node has been heard, for the first time after so long."""
        if self._usual_ms(now_ms) <= gap_ms <= self._tuning.suspect_after_ms_max:
            self._longest_ms, self._longest_at_ms = gap_ms, now_ms

    def mistaken(self, now_ms: int) -> None:
        """Note that the node was suspected, and had been there all the time."""
        self._mistakes = min(self._remembered(now_ms) + 1, MISTAKES_MAX)
        self._mistaken_ms = now_ms

    def limit_ms(self, now_ms: int) -> int:
        """Return the silence after which the node is suspected."""
        tuning = self._tuning
        floor_ms = tuning.suspect_after_ms << self._remembered(now_ms)
        limit_ms = max(floor_ms, GAPS * self._usual_ms(now_ms))  # mutant: M51
        return min(limit_ms, max(tuning.suspect_after_ms, tuning.suspect_after_ms_max))

    def _usual_ms(self, now_ms: int) -> int:
        """Return the part that is left of the longest gap."""
        return max(0, self._longest_ms - (now_ms - self._longest_at_ms) // FORGOTTEN)

    def _remembered(self, now_ms: int) -> int:
        """Return how many of its mistakes are remembered."""
        return max(0, self._mistakes - (now_ms - self._mistaken_ms) // MISTAKE_MS)
