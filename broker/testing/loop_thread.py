"""`LoopThread`: an event loop in a thread of its own, and calls into it for code that blocks."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 45.0
"""A call into the thread that takes longer will never end."""

HUNG_PATIENCE_S = 1.0
"""Once one has not, no call waits for long any more."""


class LoopThread:
    """Runs from `start` to `end`, once.  Used from other threads than its own."""

    __slots__ = ("_hung", "_loop", "_thread")

    def __init__(self, name: str) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._hung: Future[Any] | None = None
        """Nothing that was asked for since is done before this is, for a call was in vain."""
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread.start()

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
