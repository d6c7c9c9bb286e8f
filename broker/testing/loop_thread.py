"""`LoopThread`: an event loop in a thread of its own, and calls into it for code that blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 30.0
"""A call into the thread that takes longer will never end."""


class LoopThread:
    """Runs from `start` to `end`, once.  Used from other threads than its own."""

    __slots__ = ("_loop", "_thread")

    def __init__(self, name: str) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, patience_s: float = PATIENCE_S
    ) -> T:
        """What `work` gives, done in the thread.

        TimeoutError when it is not done in time; it is given up then.
        """
        __tracebackhide__ = True  # the line of the test is the one that tells
        running = self.begin(work)
        try:
            return running.result(patience_s)
        except TooLate:
            if running.done():
                raise  # the work's own
            running.cancel()
            raise not_done(work, patience_s) from None

    def begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Have `work` done in the thread."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop)

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


def not_done(work: object, patience_s: float) -> TimeoutError:
    what = getattr(work, "__qualname__", work)
    return TimeoutError(f"the broker's thread has not done {what} in {patience_s} s")
