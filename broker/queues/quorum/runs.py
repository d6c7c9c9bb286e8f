"""Messages by their sequence numbers, in runs: what costs per run does not cost per message.

A run is a `range`, never empty, that rises: (first, step, how many).  The step is more than 1
where messages were dealt out among several consumers.  Whatever happens to messages happens to
runs, and a run that lies in pieces here is given in these pieces.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import gcd
from operator import attrgetter, sub
from typing import Any, Generic, NamedTuple, TypeVar

from fluffle.broker.queues.quorum.facts import InvalidEntry

Mark = TypeVar("Mark")


def runs_of(sequences: Sequence[int]) -> list[range]:
    """Any numbers as runs, in their order."""
    if isinstance(sequences, range):
        return [sequences] if sequences else []
    runs: list[range] = []
    steps = [*map(sub, islice(sequences, 1, None), sequences)]
    if steps and steps[0] > 0 and steps.count(steps[0]) == len(steps):
        return [range(sequences[0], sequences[-1] + steps[0], steps[0])]
    start, count = 0, len(sequences)
    while start < count:
        step, stop = steps[start] if start + 1 < count else 1, start + 1
        while step > 0 and stop < count and steps[stop - 1] == step:
            stop += 1
        step, first = max(step, 1), sequences[start]
        runs.append(range(first, first + (stop - start) * step, step))
        start = stop
    return runs


def dealt(run: range, place: int, count: int, dealt_before: int) -> range:
    """Part of a run that the consumer at `place` of `count` gets when it is dealt out in turn.

    `dealt_before` messages were dealt out before it, beginning with the first of them.
    """
    return run[(place - dealt_before) % count :: count]  # mutant: IM27


def common(run: range, other: range) -> range:
    """Numbers that are in both runs."""
    shared = gcd(run.step, other.step)
    apart = other.start - run.start
    if apart % shared:
        return run[:0]
    step, turns = run.step * other.step // shared, other.step // shared
    first = run.start + run.step * (apart // shared * pow(run.step // shared, -1, turns) % turns)
    low, stop = max(run.start, other.start), min(run.stop, other.stop)
    first += max(0, -((first - low) // step)) * step
    return range(first, max(first, stop), step)


def without(run: range, parts: Iterable[range]) -> list[range]:
    """Parts of a run that are in none of `parts`, which do not overlap."""
    stretches: list[tuple[int, int]] = []
    for part in parts:
        if part.step == run.step:
            at = run.index(part.start)
            stretches.append((at, at + len(part)))
        else:
            stretches += ((run.index(number), run.index(number) + 1) for number in part)
    left, at = [], 0
    for start, stop in sorted(stretches):
        left.append(run[at:start])
        at = stop
    return [piece for piece in (*left, run[at:]) if piece]


class RunPiece(NamedTuple, Generic[Mark]):
    """A run, or what is left of one."""

    run: range
    mark: Mark
    order: int
    """Pieces of what was put in earlier have lower ones; those of one run have the same."""


_order = attrgetter("order")

NOTHING: list[Any] = []
"""Never changed: nothing is at most places of most queues."""


class MarkedRuns(Generic[Mark]):
    """Messages that are somewhere, each with a mark, in the order in which they came there.

    What was put in as a run and is taken out in order costs nothing per message.
    """

    __slots__ = ("_next_order", "_pieces", "_starts", "count")

    def __init__(self) -> None:
        self._pieces: list[RunPiece[Mark]] = NOTHING
        """Sorted by the first number."""
        self._starts: list[int] = NOTHING
        """First number of each piece, for the search."""
        self._next_order = 0
        self.count = 0
        """How many messages there are."""

    def put(self, run: range, mark: Mark) -> None:
        """Messages that are not here, behind all others."""
        self._insert(RunPiece(run, mark, self._next_order))
        self._next_order += 1
        self.count += len(run)

    def take(self, run: range) -> list[tuple[range, Mark]]:
        """Take messages out, in whatever pieces they lie here.  Raises `InvalidEntry`."""
        taken: list[tuple[range, Mark]] = []
        while run:
            at = self._find(run.start)
            if at is None:
                raise InvalidEntry(f"message {run.start} is not where it is taken from")
            piece = self._pieces[at]
            count = _shared(run, piece.run)
            self._cut(at, piece.run.index(run.start), count)
            taken.append((run[:count], piece.mark))
            self.count -= count
            run = run[count:]
        return taken

    def found(self, run: range) -> Iterator[tuple[range, Mark]]:
        """Find a run here, in as many pieces as it lies, without taking it."""
        while run:
            at = self._find(run.start)
            if at is None:
                run = self._behind(run)
                continue
            piece = self._pieces[at]
            count = _shared(run, piece.run)
            yield run[:count], piece.mark
            run = run[count:]

    def _behind(self, run: range) -> range:
        """The rest of a run, from the first message on that is here; the run may be very long."""
        pieces = self._pieces[: bisect_left(self._starts, run.stop)]
        there = [both.start for piece in pieces if (both := common(run, piece.run))]
        return run[run.index(min(there)) :] if there else run[:0]

    def _cut(self, at: int, place: int, count: int) -> None:
        """Take `count` messages from `place` on out of the piece at `at`."""
        run, mark, order = self._pieces[at]
        before, behind = run[:place], run[place + count :]
        if before:
            self._pieces[at] = RunPiece(before, mark, order)  # it begins where it began
        elif behind and (at + 1 == len(self._starts) or behind.start < self._starts[at + 1]):
            self._pieces[at] = RunPiece(behind, mark, order)  # it is where it was among the others
            self._starts[at] = behind.start
            return
        else:
            del self._pieces[at], self._starts[at]
        if behind:
            self._insert(RunPiece(behind, mark, order))  # mutant: IM29

    def _insert(self, piece: RunPiece[Mark]) -> None:
        if self._pieces is NOTHING:
            self._pieces, self._starts = [], []
        first = piece.run.start
        at = bisect_left(self._starts, first)
        self._starts.insert(at, first)
        self._pieces.insert(at, piece)

    def _find(self, sequence: int) -> int | None:
        """Where the piece is that has a message.

        Mostly the last that begins at or before it; others may lie between if runs are interleaved.
        """
        at = bisect_right(self._starts, sequence)
        while at:
            at -= 1
            if sequence in self._pieces[at].run:
                return at
        return None

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __contains__(self, sequence: int) -> bool:
        return self._find(sequence) is not None

    def __iter__(self) -> Iterator[tuple[range, Mark]]:
        """Every piece with its mark, in the order in which they were put in."""
        # mutant: IM28
        return ((piece.run, piece.mark) for piece in sorted(self._pieces, key=_order))

    @property
    def first(self) -> int | None:
        """The lowest number of all; None where there is none."""
        return self._starts[0] if self._starts else None

    def within(self, first: int, stop: int) -> Iterable[range]:
        """Parts of the runs from `first` up to, not including, `stop`; in no order."""
        for run in (piece.run for piece in self._pieces[: bisect_left(self._starts, stop)]):
            start = -(-max(0, first - run.start) // run.step)
            end = -(-max(0, stop - run.start) // run.step)
            if inside := run[start:end]:  # mutant: IM30
                yield inside


def _shared(run: range, held: range) -> int:
    """How many messages of a run, from its first one on, follow on each other in another."""
    if run.step != held.step:  # mutant: IM31
        return 1
    return min(len(run), len(held) - held.index(run.start))
