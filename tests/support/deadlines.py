"""Limits of waits for an event: they only say when a test that hangs has failed.

Twenty processes for each processor need some seconds.  Half a minute is what a node gives up after
by itself, and would hide that it never did what it should.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

DEADLINE_S = 25.0


@asynccontextmanager
async def soon() -> AsyncIterator[None]:
    """TimeoutError if what is inside waits longer than `DEADLINE_S`."""
    async with asyncio.timeout(DEADLINE_S):
        yield
