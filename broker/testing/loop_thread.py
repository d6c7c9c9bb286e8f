"""`LoopThread`: an event loop in a thread of its own, and calls into it from other threads.

`blocking` makes such calls for code that blocks, `Calls` for coroutines of another loop.  A
`CrossThreadProxy` has the attributes of an object in the loop, each turned into one of the two.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from contextlib import AbstractAsyncContextManager
from functools import partial, wraps
from inspect import iscoroutinefunction, ismethod
from threading import Thread
from typing import Any, ParamSpec, TypeAlias, TypeVar

from fluffle.broker.base.errors import BrokerError

T = TypeVar("T")
P = ParamSpec("P")

PLAIN_ERRORS = (AssertionError, BrokerError)
"""Errors that say all there is to say; the traceback within the broker does not matter."""

PATIENCE_S = 45.0
"""A call into the thread that takes longer will never end."""

HUNG_PATIENCE_S = 1.0
"""Once one has not, no call waits for long any more."""


def nothing_to_check() -> None:
    """Check nothing: the loop takes every call."""


class LoopThread:
    """Runs from `start` to `end`, once.  Used from other threads than its own."""

    def __init__(self, name: str, check: Callable[[], None] = nothing_to_check) -> None:
        """`check` raises where no call would be answered."""
        self.check = check
        self._loop: asyncio.AbstractEventLoop
        self._hung: Future[Any] | None = None
        """Nothing that was asked for since is done before this is, for a call was in vain."""
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def enter(self, entered: AbstractAsyncContextManager[object]) -> None:
        """Start, and enter a context in the thread.  What the context raises."""
        self.start()
        try:
            self.call(entered.__aenter__)
        except BaseException:
            self.end()
            raise

    def leave(self, entered: AbstractAsyncContextManager[object], *failure: Any) -> None:
        """Leave the context, and end.  What the context raises."""
        try:
            self.call(partial(entered.__aexit__, *failure))
            self.call(closed)
        finally:
            self.end()

    def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, patience_s: float = PATIENCE_S
    ) -> T:
        """Return what `work` gives, done in the thread.

        TimeoutError when it is not done in time; it is given up then.
        """
        __tracebackhide__ = True  # the line of the test is the one that tells
        patience_s = self.patience_s(patience_s)
        running = self.begin(work)
        try:
            return running.result(patience_s)
        except TooLate:
            if running.done():
                raise  # the work's own
            running.cancel()
            raise self.gave_up(work, patience_s) from None

    def begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Have `work` done in the thread."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop)

    def patience_s(self, wanted_s: float) -> float:
        """Return how long to wait for what is begun: not for long once a call has been in vain."""
        is_hung = self._hung is not None and not self._hung.done()
        return min(wanted_s, HUNG_PATIENCE_S) if is_hung else wanted_s

    def gave_up(self, work: object, patience_s: float) -> TimeoutError:
        """Note that a call was in vain, for later ones; return what to raise."""
        self._hung = self.begin(nothing)
        what = getattr(work, "__qualname__", work)
        text = f"the broker's thread has not done {what} in {patience_s} s"
        return TimeoutError(f"{text}; it stands here:\n{self.where}")

    @property
    def where(self) -> str:
        """Stack of the thread, for people."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else "it has ended"

    def end(self) -> None:
        """TimeoutError if it does not."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            raise TimeoutError(f"the broker's thread has not ended in {PATIENCE_S} s")
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


async def nothing() -> None:
    """Do nothing: it is done once the thread does anything."""


async def closed() -> None:
    """Wait until what has been closed is gone, with the round after the next."""
    for _ in range(2):
        await asyncio.sleep(0)


def blocking(thread: LoopThread, work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Turn `work` into a function that blocks."""

    def done(*positional: P.args, **named: P.kwargs) -> T:
        __tracebackhide__ = True
        thread.check()
        begun = wraps(work)(lambda: work(*positional, **named))
        try:
            return thread.call(begun, patience_s=patience_s(named))
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

    def __init__(self, thread: LoopThread, unawaited: dict[object, str]) -> None:
        self._thread = thread
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
        self._thread.check()
        patience_s = self._thread.patience_s(patience_s)
        running = self._thread.begin(work)
        try:
            return await result_of(running, patience_s)
        except PLAIN_ERRORS as error:
            raise error.with_traceback(None) from None
        except TimeoutError:
            if running.done() and not running.cancelled():
                raise  # the work's own
            raise self._thread.gave_up(work, patience_s) from None


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
    """True if the caller is in a loop, and must not block it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return in_trio()
    return True


def in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


class LoopBound:
    """Object in the loop of a broker: other threads are given a `CrossThreadProxy` of it."""


Work: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]
Turn: TypeAlias = Callable[[Work], Callable[..., Any]]


class CrossThreadProxy:
    """Proxy, for another thread, of a `LoopBound` object.

    It has the same attributes.  What is a coroutine there blocks here, or is awaited in another
    loop, as `turn` makes it; what is none only looks, and does so at once.  What either returns is
    turned as well.
    """

    def __init__(self, near: Any, turn: Turn) -> None:
        self._near = near
        self._turn = turn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return proxy_of(getattr(self._near, name), self._turn)

    def __getitem__(self, number: int) -> Any:
        """Return one of the nodes of a cluster."""
        return proxy_of(self._near[number], self._turn)

    def __dir__(self) -> list[str]:
        return dir(self._near)

    def __repr__(self) -> str:
        return repr(self._near)


def proxy_of(value: Any, turn: Turn) -> Any:
    """Return a proxy of a value; plain values stay what they are."""
    if isinstance(value, LoopBound | CrossThreadProxy):
        return CrossThreadProxy(value, turn)
    if isinstance(value, list):
        return [proxy_of(each, turn) for each in value]
    if iscoroutinefunction(value):

        @wraps(value)
        async def work(*positional: Any, **named: Any) -> Any:
            return proxy_of(await value(*positional, **named), turn)

        return turn(work)
    if ismethod(value):
        return lambda *positional, **named: proxy_of(value(*positional, **named), turn)
    return value
