"""Client of the verbs within the process of the node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from fluffle.broker.admin.context import DeferredRow, NodeContext, Row, Rows
from fluffle.broker.base import callbacks
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.queues.queue_api import Deferred

ANSWER_TIMEOUT_S = 35.0
"""The limit of an answer: more than the cluster takes to say why it does not agree, and less than a
caller from another thread has."""


async def ask(context: NodeContext, verb: str, **arguments: Any) -> Row:
    """Do one thing, and return once it is done.  BrokerError, TimeoutError."""
    from fluffle.broker.admin.dispatch import VERBS  # noqa: PLC0415  slow, and many ask nothing

    result = VERBS[verb].act(context, **arguments)
    if isinstance(result, DeferredRow):
        async with in_time(verb):
            result = await answer_of(result)
    return cast(Row, result)


async def rows(context: NodeContext, verb: str, **arguments: Any) -> list[Row]:
    """All that a list has.  BrokerError, TimeoutError."""
    from fluffle.broker.admin.dispatch import VERBS  # noqa: PLC0415  as above

    found: list[Row] = []
    listed: Rows = VERBS[verb].act(context, **arguments)
    async with in_time(verb):
        for row in listed:
            if isinstance(row, Deferred):
                await wait_for(row)
            else:
                found.append(row)
    return found


@asynccontextmanager
async def in_time(what: str) -> AsyncIterator[asyncio.Timeout]:
    """Limit the time for what is done within.  TimeoutError."""
    limit = asyncio.timeout(ANSWER_TIMEOUT_S)
    try:
        async with limit:
            yield limit
    except TimeoutError:
        if not limit.expired():
            raise
        raise TimeoutError(f"the broker has not done '{what}' in {ANSWER_TIMEOUT_S} s") from None


def give_more_time(limit: asyncio.Timeout) -> None:
    """Begin the time of `in_time` anew: something was done."""
    limit.reschedule(asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S)


async def answer_of(later: DeferredRow) -> Row:
    """BrokerError."""
    outcome: Row | BrokerError = await callbacks.answer_of(later.begin)
    if isinstance(outcome, BrokerError):
        raise outcome
    return outcome


async def wait_for(asked: Deferred[None]) -> None:
    """Return when it is answered; why it is not is for the row behind it to say."""
    come = asyncio.Event()

    def done(_outcome: object) -> None:
        come.set()

    then: Callable[[object], None] = done
    asked.then(then, then)
    await come.wait()
