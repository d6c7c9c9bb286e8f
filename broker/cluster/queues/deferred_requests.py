"""Requests of clients, deferred because too much is pending; they cost little here.

A client that waits for an answer asks for nothing more on its channel, so that this holds it back
as publishers are held back.  What is given up here was never asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fluffle.broker.base.clock import CallLater, Timer
from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cluster.queues.pending_replies import ANSWER_S_MAX
from fluffle.broker.queues.queue_api import Deferred

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class DeferredRequest:
    """A deferred request of one client."""

    ask: Callable[[], Deferred[Any]]
    later: Deferred[Any]
    """What it waits for."""
    timer: Timer


class DeferredRequests:
    """Deferred requests of one queue, in the order in which they came."""

    __slots__ = ("_call_later", "_requests")

    def __init__(self, call_later: CallLater) -> None:
        self._call_later = call_later
        self._requests: dict[object, DeferredRequest] = EMPTY_DICT
        """By who asks."""

    def __bool__(self) -> bool:
        return bool(self._requests)

    def add(
        self, who: object, ask: Callable[[], Deferred[T]], too_late: BrokerError
    ) -> Deferred[T]:
        """Have something asked later; `too_late` is what it fails with, if that takes too long."""
        later: Deferred[T] = Deferred()
        timer = self._call_later(ANSWER_S_MAX, lambda: self._fail(who, too_late))
        if self._requests is EMPTY_DICT:
            self._requests = {}
        self._requests[who] = DeferredRequest(ask, later, timer)
        return later

    def ask(self) -> None:
        """The next is asked for now."""
        request = self._take(next(iter(self._requests)))
        request.ask().then(request.later.answer, request.later.fail)

    def give_up(self, who: object, answer: object) -> bool:
        """Somebody does not want it any more, if he has asked: he is told this."""
        if who not in self._requests:
            return False
        self._take(who).later.answer(answer)
        return True

    def end(self, error: BrokerError) -> None:
        """Nothing can be asked any more."""
        for who in tuple(self._requests):
            self._fail(who, error)

    def _fail(self, who: object, error: BrokerError) -> None:
        self._take(who).later.fail(error)

    def _take(self, who: object) -> DeferredRequest:
        request = self._requests.pop(who)
        request.timer.cancel()
        return request
