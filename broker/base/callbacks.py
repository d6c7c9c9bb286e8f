"""Callbacks: calls of listeners, where one that fails must keep nothing from the others, and
coroutines that wait for the answer of a function with a callback.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


def call_listener(act: Callable[[], None]) -> None:
    """Call a listener; what it raises is a bug of its own, and is logged.

    AssertionError: then what the node believes is wrong, and the caller must let it end.
    """
    try:
        act()
    except AssertionError:
        raise
    except Exception:
        logger.exception("a listener failed")


async def answer_of(ask: Callable[[Callable[[T], None]], None]) -> T:
    """Wait for the value that `ask` passes to the function that it is given, once, now or later.

    An answer that no caller waits for any more is dropped.
    """
    answered: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def answer(value: T) -> None:
        if not answered.done():
            answered.set_result(value)

    ask(answer)
    return await answered


async def completion_of(begin: Callable[[Callable[[], None]], None]) -> None:
    """Wait until the function that `begin` is given is called."""

    def ask(answer: Callable[[None], None]) -> None:
        begin(lambda: answer(None))

    await answer_of(ask)
