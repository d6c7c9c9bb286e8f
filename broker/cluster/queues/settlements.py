"""Who waits until what clients have settled is so: an answer to them vouches for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fluffle.broker.cluster.queues.questions import CallLater, Questions
from fluffle.broker.cluster.streams.edge import Edge
from fluffle.broker.errors import BrokerError
from fluffle.broker.queues.served import Later


class Mark(NamedTuple):
    """Where a stream was when somebody asked."""

    question: int
    session: int
    last: int
    """The outcome of all operations up to this one has to be known."""


class Settlements:
    """Of the stream of one queue."""

    __slots__ = ("_count", "_edge", "_given_up", "_marks", "_questions")

    def __init__(
        self, edge: Edge, call_later: CallLater, given_up: Callable[[], BrokerError]
    ) -> None:
        """`given_up` says what it fails with if the outcome is not known in time, or never."""
        self._edge = edge
        self._given_up = given_up
        self._questions: Questions[None] = Questions(call_later, self._too_late)
        self._marks: list[Mark] = []
        """In order."""
        self._count = 0

    def ask(self) -> Later[None] | None:
        """None if everything that was asked for so far has come true."""
        edge = self._edge
        last = edge.pending.next - 1
        if edge.pending.first > last:
            return None
        self._count += 1
        self._marks.append(Mark(self._count, edge.session, last))
        return self._questions.ask(self._count)

    def _too_late(self, question: int) -> BrokerError:
        self._marks = [mark for mark in self._marks if mark.question != question]
        return self._given_up()

    def look(self, *, is_over: bool) -> None:
        """Tell those for whom enough is known.  If the queue `is_over`, there is no more to know;
        what was asked in a session that was lost has perhaps not come true."""
        edge = self._edge
        while self._marks:
            mark = self._marks[0]
            is_of_session = mark.session == edge.session
            if is_of_session and edge.pending.first <= mark.last:
                break
            del self._marks[0]
            if is_of_session or is_over:
                self._questions.answer(mark.question, None)
            else:
                self._questions.fail(mark.question, self._given_up())
