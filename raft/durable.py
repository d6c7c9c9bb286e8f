"""Durable state of a group: how much of its log, term and vote is on disk.

Writes of a group finish in the order they were submitted, but between the two the log may be
truncated and written anew.  So each write under way carries the last index that it can still vouch
for, and truncation lowers that of all of them:

    append 5..9       write 1 vouches for 9
    truncate from 6   write 1 vouches for 5
    append 6..7       write 2 vouches for 7
    write 1 is done   durable index 5, not 9: what was at 6..9 is not the log any more
    write 2 is done   durable index 7
"""

from fluffle.raft.records import HardState


class DurableState:
    """Durable log index, term and vote of one group."""

    __slots__ = ("_under_way", "hard_state", "index")

    def __init__(self, index: int, hard_state: HardState) -> None:
        self.index = index
        """Everything of the log up to here is on disk.  Invariant: at most what was submitted."""
        self.hard_state = hard_state
        """Term and vote as they are on disk."""
        self._under_way: list[tuple[int, int, HardState]] = []
        """Token, last index vouched for, hard state with it; in order of submission."""

    @property
    def is_settled(self) -> bool:
        """Whether no write is under way."""
        return not self._under_way

    def submit(self, token: int, last: int, hard_state: HardState) -> None:
        """Note that a write was submitted; with it the log is on disk up to `last`."""
        self._under_way.append((token, last, hard_state))

    def truncate(self, first: int) -> None:
        """Note that the log was truncated at `first`: what was or will be on disk there is not
        it."""
        self.index = min(self.index, first - 1)  # mutant: M49
        self._under_way = [  # mutant: M11
            (token, min(last, first - 1), hard_state) for token, last, hard_state in self._under_way
        ]

    def reset(self) -> None:
        """Note that a snapshot replaces the whole log; no earlier write says anything of it."""
        self.truncate(1)

    def finish(self, token: int) -> None:
        """Note that the oldest write under way is on disk: that with this token."""
        oldest, last, self.hard_state = self._under_way.pop(0)
        assert oldest == token, f"write {token} finished before {oldest}"
        self.index = max(self.index, last)
