"""Long work in pieces, so that it holds up nothing else: one piece in a turn of the loop.

A chore is an iterator: each `next` does a piece, a few milliseconds of work at most, and gives the
ticket of the commit that must have been done before the next one, or None.  However many chores
there are, a turn sees one piece; they take turns.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypeAlias, TypeVar

from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn

T = TypeVar("T")

Task: TypeAlias = Iterator[int | None]

logger = logging.getLogger(__name__)


def ignore_end(_error: Exception) -> None:
    """Ignore an error that has been logged."""


class ReadyTask(NamedTuple):
    """A chore that may go on."""

    task: Task
    failed: Callable[[Exception], None]


@dataclass(slots=True, eq=False)
class BackgroundTasks:
    """The chores of one node.  `on_fatal` is called with a broken assertion."""

    _turn: Turn
    _commits: Commits
    _on_fatal: Callable[[Exception], None]
    _due: deque[ReadyTask] = field(default_factory=deque, init=False)
    """Ready tasks; the one that has waited longest is first."""
    _is_scheduled: bool = field(default=False, init=False)

    @property
    def is_scheduled(self) -> bool:
        """True if there is a piece to be done that waits for no commit."""
        return self._is_scheduled

    def add(self, task: Task, failed: Callable[[Exception], None]) -> None:
        """Do it, from the next turn on; `failed` is called with what it raises."""
        self._add(ReadyTask(task, failed))

    def finish(self, pieces: Iterator[None]) -> None:
        """Do what is left of work whose end no caller awaits."""
        self.add(pieces, ignore_end)

    def _add(self, due: ReadyTask) -> None:
        self._due.append(due)
        self._schedule()

    def _schedule(self) -> None:
        if self._due and not self._is_scheduled:
            self._is_scheduled = True
            self._turn.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_scheduled = False
        ends_turn = self._turn.begin()
        try:
            self._do_piece(self._due.popleft())
        finally:
            if ends_turn:
                self._turn.end()
        self._schedule()

    def _do_piece(self, due: ReadyTask) -> None:
        try:
            ticket = next(due.task)
        except StopIteration:
            return
        except Exception as error:  # a bug ends one chore, not the node
            if isinstance(error, AssertionError):  # unless what it believes is wrong
                self._on_fatal(error)
            logger.exception("long work failed")
            due.failed(error)
            return
        if ticket is None or ticket <= self._commits.durable:
            self._add(due)
        else:
            self._commits.wait(CommitPause(lambda: self._add(due)), ticket)


class CommitPause:
    """Waiter for a commit that resumes a background task."""

    __slots__ = ("_go_on",)

    def __init__(self, go_on: Callable[[], None]) -> None:
        self._go_on = go_on

    def on_durable(self, ticket: int) -> None:
        del ticket
        self._go_on()


def in_pieces(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`size` items at a time, taken when they are asked for."""
    remaining = iter(items)
    while piece := list(islice(remaining, size)):
        yield piece
