"""Turns of the loop: waiting for what tells nobody, and counting those of others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


async def turns_until(is_so: Callable[[], bool]) -> None:
    """Let the loop turn until it is so: for counters, and sockets that close."""
    while True:
        if is_so():
            return
        await asyncio.sleep(0)


class TurnCounter:
    """How often others have had their turn while a block lasted."""

    def __init__(self) -> None:
        self.turns = 0

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        counting = asyncio.ensure_future(self._count())
        try:
            yield
        finally:
            counting.cancel()

    async def _count(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)
