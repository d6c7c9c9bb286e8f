"""Blocking work in a thread beside the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fluffle.broker.admin.context import DeferredRow, Row
from fluffle.broker.base.errors import BrokerError, BrokerFailed

T = TypeVar("T")

logger = logging.getLogger(__name__)


def in_own_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run `work` in a thread that ends with it; the future has its result."""
    thread = ThreadPoolExecutor(1)  # not the loop's: nodes in a test share one loop
    working = asyncio.get_running_loop().run_in_executor(thread, work)
    thread.shutdown(wait=False)
    return working


def in_thread(look: Callable[[], T], row: Callable[[T], Row]) -> DeferredRow:
    """Run `look` in a thread; `row` makes the answer of its result, in the loop."""

    def begin(answer: Callable[[Row | BrokerError], None]) -> None:
        def done(looking: asyncio.Future[T]) -> None:
            try:
                found: Row | BrokerError = row(looking.result())
            except (Exception, asyncio.CancelledError):
                logger.exception("what was asked for in a thread has failed")
                found = BrokerFailed()
            answer(found)

        in_own_thread(look).add_done_callback(done)

    return DeferredRow(begin)
