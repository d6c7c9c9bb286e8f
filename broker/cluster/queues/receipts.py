"""Publishes of this node to one queue without an outcome, and the receipts given for them."""

from __future__ import annotations

from dataclasses import dataclass

from fluffle.broker.queues.served import Receipt


@dataclass(slots=True)
class Run:
    """Operations with consecutive numbers, a message each."""

    first: int
    count: int
    receipt: Receipt
    offset: int
    """Of the first message, among those of the receipt."""
    left: int
    """How many have no outcome."""


class Receipts:
    """By the numbers of their operations."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        """By the number of the first operation."""

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, first: int, count: int, receipt: Receipt, offset: int) -> None:
        self._runs[first] = Run(first, count, receipt, offset, count)

    def known(self, first: int, count: int, *, is_taken: bool) -> None:
        """Numbers of one run have this outcome: all of it, mostly."""
        run = self._runs.get(first) or self._find(first)
        run.left -= count
        if not run.left:
            del self._runs[run.first]
        start = run.offset + first - run.first
        run.receipt.known(start, start + count, is_taken=is_taken)

    def _find(self, number: int) -> Run:
        return next(
            run for run in self._runs.values() if run.first <= number < run.first + run.count
        )
