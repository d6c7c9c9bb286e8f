"""Calls into the loop of a broker from elsewhere: from code that blocks, and from coroutines.

What fails there is raised here as if it had failed here: the line of the test is what tells.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.testing.loop_thread import PATIENCE_S

P = ParamSpec("P")
T = TypeVar("T")

PLAIN_ERRORS = (AssertionError, BrokerError)
"""They say all there is to say; where in the broker they come from does not matter."""


class Callee(Protocol):
    """A loop in another thread."""

    def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, patience_s: float = PATIENCE_S
    ) -> T: ...

    def begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]: ...

    def patience_s(self, wanted_s: float) -> float:
        """Return how long to wait for what is begun."""

    def gave_up(self, work: object, patience_s: float) -> TimeoutError:
        """Return what to raise when it was not done in that time."""


def blocking(callee: Callee, work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Turn `work` into a function that blocks."""

    def done(*positional: P.args, **named: P.kwargs) -> T:
        __tracebackhide__ = True
        begun = wraps(work)(lambda: work(*positional, **named))
        try:
            return callee.call(begun, patience_s=patience_s(named))
        except PLAIN_ERRORS as error:
            raise error.with_traceback(None) from None

    return done


def patience_s(named: dict[str, Any]) -> float:
    """Return how long to wait for a call; one with a limit of its own has time for it.

    ValueError for what is no limit.
    """
    __tracebackhide__ = True
    within = named.get("within", 0.0)
    if not isinstance(within, int | float) or within < 0:
        raise ValueError(f"within is a number of seconds, and not {within!r}")
    return PATIENCE_S + within


class Calls:
    """Calls from coroutines of another loop; each is made when it is awaited, or as a task."""

    __slots__ = ("_callee", "_unawaited")

    def __init__(self, callee: Callee, unawaited: dict[object, str]) -> None:
        self._callee = callee
        self._unawaited = unawaited

    def of(self, work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """`work` for the loop that awaits it."""

        def called(*positional: P.args, **named: P.kwargs) -> Coroutine[Any, Any, T]:
            begun = wraps(work)(lambda: work(*positional, **named))
            ticket = object()
            self._unawaited[ticket] = work.__name__
            return self._make(ticket, begun, patience_s(named))

        return called

    async def _make(
        self, ticket: object, work: Callable[[], Coroutine[Any, Any, T]], patience_s: float
    ) -> T:
        """`ticket` is that of a call that was not awaited until now."""
        __tracebackhide__ = True
        del self._unawaited[ticket]
        patience_s = self._callee.patience_s(patience_s)
        running = self._callee.begin(work)
        try:
            return await result_of(running, patience_s)
        except PLAIN_ERRORS as error:
            raise error.with_traceback(None) from None
        except TimeoutError:
            if running.done() and not running.cancelled():
                raise  # the work's own
            raise self._callee.gave_up(work, patience_s) from None


async def result_of(running: Future[T], patience_s: float) -> T:
    """Await a result in a loop of asyncio or of trio.  TimeoutError; it is given up then, and when
    its caller is cancelled."""
    __tracebackhide__ = True
    if not in_trio():
        return await asyncio.wait_for(asyncio.wrap_future(running), patience_s)
    import trio  # noqa: PLC0415  it runs

    try:
        return await trio.to_thread.run_sync(running.result, patience_s, abandon_on_cancel=True)
    finally:
        running.cancel()


def in_coroutine() -> bool:
    """Whether who asks is in a loop, and must not block it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return in_trio()
    return True


def in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()
