"""Settlement barriers: clients that wait until their settlements are known to be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fluffle.broker.base.clock import CallLater
from fluffle.broker.base.errors import BrokerError, PreconditionFailed
from fluffle.broker.cluster.queues.pending_replies import NO_PENDING_REPLIES, PendingReplies
from fluffle.broker.cluster.queues.ports import SessionPort
from fluffle.broker.queues.queue_api import Deferred, SettlementStatus


class SettlementMark(NamedTuple):
    """Where a stream was when somebody asked."""

    question: int
    session: int
    last: int
    """The outcome of all operations up to this one has to be known."""


NO_MARKS: list[SettlementMark] = []
"""Never changed: of most queues nobody asks."""


class Settlements:
    """Settlement barriers of one queue's session."""

    __slots__ = (
        "_call_later", "_count", "_current", "_given_up", "_is_current", "_marks", "_port",
        "_questions", "_where",
    )  # fmt: skip

    def __init__(
        self,
        port: SessionPort,
        call_later: CallLater,
        given_up: Callable[[], BrokerError],
        where: str,
    ) -> None:
        """`given_up` says what it fails with if the outcome is not known in time."""
        self._port = port
        self._where = where
        self._given_up = given_up
        self._call_later = call_later
        self._questions: PendingReplies[None] = NO_PENDING_REPLIES
        self._marks: list[SettlementMark] = NO_MARKS
        """In order."""
        self._count = 0
        self._current = SettlementStatus()
        self._is_current = False
        """Whether anything was settled in it."""

    def asked(self) -> SettlementStatus:
        """Something more is."""
        self._is_current = True
        return self._current

    def failed(self) -> None:
        """Something that was asked for comes to nothing, though its client believes it is done."""
        text = f"messages of {self._where} have come back and are not settled"
        self._current.error = PreconditionFailed(text)
        self._begin()

    def _begin(self) -> None:
        self._current, self._is_current = SettlementStatus(), False

    def ask(self) -> Deferred[None] | None:
        """None if it is known of everything that was asked for so far."""
        edge = self._port.edge
        last = edge.pending.next - 1
        if edge.pending.first > last:  # mutant: F3
            return None
        edge.put_off = 0
        self._port.touch()
        self._count += 1
        if self._questions is NO_PENDING_REPLIES:
            self._questions = PendingReplies(self._call_later, self._too_late)
        if self._marks is NO_MARKS:
            self._marks = []
        self._marks.append(SettlementMark(self._count, edge.session, last))
        return self._questions.ask(self._count)

    def _too_late(self, question: int) -> BrokerError:
        self._marks = [mark for mark in self._marks if mark.question != question]
        return self._given_up()

    def look(self) -> None:
        """Tell those for whom enough is known."""
        edge = self._port.edge
        while self._marks:
            mark = self._marks[0]
            if mark.session == edge.session and edge.pending.first <= mark.last:
                break
            self._questions.answer(self._marks.pop(0).question, None)
        if self._is_current and not len(edge.pending):
            self._begin()
