"""Operations of one session whose outcome its client does not know yet, in order.

An operation stays until every number that it takes has an outcome, and is asked for again of each
leader until then.  Outcomes may come more than once and in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from fluffle.broker.cluster.queue_sessions.messages import (
    Operation,
    content_bytes_of,
    count_of,
    first_of,
)
from fluffle.raft.ranges import Ranges


class KnownOutcome(NamedTuple):
    """Numbers of an operation whose outcome has just become known."""

    operation: Operation
    first: int
    how_many: int


NONE: deque[Operation] = deque()
"""Never changed: a deque of one's own takes 600 bytes, and most queues are idle."""


class PendingOperations:
    """Operations of one session without an outcome."""

    __slots__ = ("_known", "_operations", "content_bytes", "next")

    def __init__(self) -> None:
        self._operations = NONE
        self._known = Ranges()
        """Numbers above the first unknown one."""
        self.next = 1
        """The number of the next operation."""
        self.content_bytes = 0

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations)

    def __len__(self) -> int:
        return len(self._operations)

    @property
    def first(self) -> int:
        """The lowest number whose outcome is not known: that of the next operation, if all are."""
        if not self._operations:
            return self.next
        first = first_of(self._operations[0])
        known = self._known.next_from(first) if self._known else None
        return known[1] if known is not None and known[0] == first else first

    def add(self, operation: Operation) -> None:
        """Its number is `next`."""
        assert first_of(operation) == self.next
        if self._operations is NONE:
            self._operations = deque()
        self._operations.append(operation)
        self.next += count_of(operation)
        self.content_bytes += content_bytes_of(operation)

    def find(self, number: int) -> Operation | None:
        """The operation of a number whose outcome is not known."""
        if number in self._known:
            return None
        for operation in self._operations:
            if first_of(operation) <= number < first_of(operation) + count_of(operation):
                return operation
        return None

    def replace(self, operation: Operation) -> bool:
        """Another is asked in the place of that of the same number, if its outcome is not known.

        Each takes one number.
        """
        before = self.find(first_of(operation))
        if before is None:
            return False
        self._operations[self._operations.index(before)] = operation
        return True

    def from_number(self, number: int) -> list[Operation]:
        """All from the one on that takes a number."""
        return [each for each in self._operations if first_of(each) + count_of(each) > number]

    def of_kinds(self, first: int, count: int, kinds: tuple[type, ...]) -> list[KnownOutcome]:
        """Numbers have an outcome, if they are of operations of these kinds: which had none."""
        found: list[KnownOutcome] = []
        operations = self._operations
        while operations and count and not self._known:
            # Mostly they are the first ones, and all that one takes have the same.
            operation = operations[0]
            length = count_of(operation)
            if first_of(operation) != first or count < length or not isinstance(operation, kinds):
                break
            found.append(KnownOutcome(operation, first, length))
            self._drop_first()
            first, count = first + length, count - length
        return found + self._of_kinds(first, count, kinds) if count and operations else found

    def _of_kinds(self, first: int, count: int, kinds: tuple[type, ...]) -> list[KnownOutcome]:
        """Wherever they are."""
        found: list[KnownOutcome] = []
        for operation in self._operations:
            start = first_of(operation)
            if start >= first + count:
                break
            if isinstance(operation, kinds):
                low, high = max(start, first), min(start + count_of(operation), first + count)
                new = self._known.gaps(low, high)
                found += [KnownOutcome(operation, one, stop - one) for one, stop in new]
        for _operation, start, length in found:
            self._known = self._known.plus(Ranges.of((start, start + length)))
        self._forget()
        return found

    def clear(self) -> list[KnownOutcome]:
        """None of them will be asked for again: what had no outcome of any."""
        kinds = tuple({type(operation) for operation in self._operations})
        return self.of_kinds(0, self.next, kinds) if kinds else []

    def _forget(self) -> None:
        """Operations in front of which everything is known."""
        operations = self._operations
        while operations:
            start = first_of(operations[0])
            stop = start + count_of(operations[0])
            if self._known.gaps(start, stop):
                break
            self._drop_first()
            self._known = self._known.within(stop, self.next)

    def _drop_first(self) -> None:
        self.content_bytes -= content_bytes_of(self._operations.popleft())
        if not self._operations:
            self._operations = NONE
