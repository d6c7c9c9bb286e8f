"""What a purge drops, said in pieces: nobody waits longer because millions do.

    purge --> all is gone for the engine --> a piece an entry, an entry a turn --> the answer

The answer, and all that is decided after the purge, is behind the last piece in the log.  So a
leader that ends before has answered nobody: its successor finds the rest ready, and is asked again.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from fluffle.broker.queues.replicated.contents import Contents

PIECE_RUNS = 512
"""So many runs are said together, each of one entry of the log at most: some milliseconds."""


class Sweep:
    """Of one purge; a `Gone` while that is done."""

    __slots__ = ("_contents", "_parts")

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._parts: deque[list[range] | tuple[int, int]] = deque()
        """Runs, or from which number up to which all goes that is ready by the image when it is
        their turn.  That is nothing else then: the engine has let go of it."""

    def add(self, runs: list[range]) -> None:
        self._parts.extend(runs[at : at + PIECE_RUNS] for at in range(0, len(runs), PIECE_RUNS))

    def add_ready(self, first: int, stop: int) -> None:
        self._parts.append((first, stop))

    def __bool__(self) -> bool:
        """Whether there may be more."""
        return bool(self._parts)

    def next(self) -> list[range]:
        """The next of the messages, each once; none, if there is nothing more."""
        piece: list[range] = []
        left = PIECE_RUNS
        while self._parts and left > 0:
            part = self._parts.popleft()
            runs = part if isinstance(part, list) else self._ready(*part, left)
            left -= len(runs)
            piece += runs if isinstance(part, list) else _joined(runs)
        return piece

    def _ready(self, first: int, stop: int, most: int) -> list[range]:
        """The first runs of a stretch, the rest of which is next."""
        runs = list(islice(self._contents.ready_within(first, stop), most))
        if len(runs) == most:
            self._parts.appendleft((runs[-1].stop, stop))
        elif unapplied := range(max(first, self._contents.state.next_sequence), stop):
            runs.append(unapplied)
        return runs


def _joined(runs: list[range]) -> list[range]:
    """Runs of one stretch, those that follow on each other as one.  What is of several may not lie
    in one place: some of it has come back."""
    joined: list[range] = []
    for run in runs:
        if joined and joined[-1].stop == run.start:
            joined[-1] = range(joined[-1].start, run.stop)
        else:
            joined.append(run)
    return joined
