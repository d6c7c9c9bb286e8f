"""Limits of waits for an event: they only say when a test that hangs has failed.

They are far above what a machine with many times more to do than it can needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

DEADLINE_S = 60.0


@asynccontextmanager
async def soon() -> AsyncIterator[None]:
    """TimeoutError if what is inside waits longer than `DEADLINE_S`."""
    async with asyncio.timeout(DEADLINE_S):
        yield
