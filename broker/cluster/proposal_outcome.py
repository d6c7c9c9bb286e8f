"""Outcome of a proposal: its caller is notified exactly once.

proposed --> refused                              it never was in any log
         --> appended --> applied                 at this position, on a majority of disks
                      --> leadership has ended    applied later, or never: nobody here knows
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluffle.raft.group import Position, ProposalRefused
from fluffle.raft.records import Entry


@dataclass(frozen=True, slots=True)
class ProposalLost:
    """Not applied by the leader that was asked."""

    refused: ProposalRefused | None
    """Why it was not taken.  None: it was, and leadership or the group here has ended since; a
    later leader may have it still, or not."""


Fate = Position | ProposalLost
"""Where it was applied, or `ProposalLost`."""

OnFate = Callable[[Fate], None]

UNKNOWN_OUTCOME = ProposalLost(None)


class PendingProposals:
    """Proposals of one group that have no fate yet, in the order of their positions."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[Position, OnFate]] = []
        """No deque: an empty one takes 600 bytes, and most groups are idle."""

    def add(self, position: Position, on_fate: OnFate) -> None:
        self._waiting.append((position, on_fate))

    def applied(self, entries: Sequence[Entry]) -> None:
        """These entries are applied; those of them that were proposed here have their fate."""
        waiting = self._waiting
        if not waiting:
            return
        last = entries[-1].index
        for position, on_fate in self._take(lambda position: position.index <= last):
            entry = entries[position.index - entries[0].index]
            # A leader's own entries are never replaced, and what it led before was let go of.
            assert entry.term == position.term, f"{position} was taken by one of {entry.term}"
            on_fate(position)

    def ended(self, term_now: int) -> None:
        """Whatever was proposed in an earlier term may be applied by others, or never."""
        for _, on_fate in self._take(lambda position: position.term < term_now):
            on_fate(UNKNOWN_OUTCOME)

    def _take(self, is_over: Callable[[Position], bool]) -> list[tuple[Position, OnFate]]:
        """The first ones, as far as that holds."""
        waiting = self._waiting
        stop = next(
            (at for at, (position, _) in enumerate(waiting) if not is_over(position)), len(waiting)
        )
        taken = waiting[:stop]
        del waiting[:stop]
        return taken

    def end(self) -> None:
        """Nothing is led here any more."""
        waiting, self._waiting = self._waiting, []
        for _, on_fate in waiting:
            on_fate(UNKNOWN_OUTCOME)
