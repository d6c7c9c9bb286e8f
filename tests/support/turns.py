"""Waiting for what tells nobody."""

import asyncio
from collections.abc import Callable


async def turns_until(is_so: Callable[[], bool]) -> None:
    """Let the loop turn until it is so: for counters, and sockets that close."""
    while True:
        if is_so():
            return
        await asyncio.sleep(0)
