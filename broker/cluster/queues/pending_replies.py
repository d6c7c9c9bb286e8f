"""Replies of a leader that channels wait for, each within a bounded time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from fluffle.broker.base.clock import CallLater, Timer
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.queues.queue_api import Deferred

ANSWER_S_MAX = 30
"""For so long a leader is waited for.  RabbitMQ: 65 s, which is longer than most clients wait."""

T = TypeVar("T")

NOTHING_ASKED: dict[int, Any] = {}
"""Never changed: of most queues nothing is asked."""


class PendingReplies(Generic[T]):
    """Pending replies of one kind, by the numbers of their operations."""

    __slots__ = ("_asked", "_call_later", "_given_up")

    def __init__(self, call_later: CallLater, given_up: Callable[[int], BrokerError]) -> None:
        """`given_up` is told of one that has taken too long, and says what it fails with."""
        self._call_later = call_later
        self._given_up = given_up
        self._asked: dict[int, tuple[Deferred[T], Timer]] = NOTHING_ASKED

    def __contains__(self, number: int) -> bool:
        """Whether somebody waits for it."""
        return number in self._asked

    def ask(self, number: int) -> Deferred[T]:
        later: Deferred[T] = Deferred()
        timer = self._call_later(ANSWER_S_MAX, lambda: self.fail(number, self._given_up(number)))
        if self._asked is NOTHING_ASKED:
            self._asked = {}
        self._asked[number] = later, timer
        return later

    def answer(self, number: int, answer: T) -> bool:
        """Whether somebody has waited for that."""
        if number not in self._asked:
            return False
        self._take(number).answer(answer)
        return True

    def fail(self, number: int, error: BrokerError) -> None:
        """Somebody waits for it."""
        self._take(number).fail(error)

    def _take(self, number: int) -> Deferred[T]:
        later, timer = self._asked.pop(number)
        timer.cancel()
        return later


def nobody(_number: int) -> BrokerError:
    raise AssertionError("nothing is asked here")


def never(_seconds: float, _act: Callable[[], None]) -> Timer:
    raise AssertionError("these are everybody's: make questions of your own")


NO_PENDING_REPLIES: PendingReplies[Any] = PendingReplies(never, nobody)
"""Of a queue of which nothing was asked yet."""


def answered(later: Deferred[T], unanswered: BrokerError, answer: T | None) -> None:
    """Whoever waits has an answer, or is told so if there is none."""
    if answer is not None:
        later.answer(answer)
    else:
        later.fail(unanswered)
