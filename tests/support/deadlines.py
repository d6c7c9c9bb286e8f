"""Limits of waits for an event: they only say when a test that hangs has failed.

There is one for all, so that a machine with twenty processes for each processor reaches none.  It
ends a wait of the test itself; pytest ends the run where a test takes a quarter of an hour.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

DEADLINE_S = 120.0
AGAIN_S = 1.0
"""Time after which a wait is interrupted again: one that begins right behind a signal, before
Python has seen that, would not end."""


@asynccontextmanager
async def soon() -> AsyncIterator[None]:
    """TimeoutError if what is inside waits longer than `DEADLINE_S`."""
    async with asyncio.timeout(DEADLINE_S):
        yield


@contextmanager
def interrupted(deadline_s: float = DEADLINE_S) -> Iterator[None]:
    """TimeoutError in the main thread, wherever it waits, if what is inside takes longer."""

    def expire(_signal: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise TimeoutError(f"it has waited for {deadline_s} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, deadline_s, min(deadline_s, AGAIN_S))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
