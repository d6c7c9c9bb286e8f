"""Client of the verbs for requests by HTTP: one step a turn, answered once it is durable.

Whoever is in the loop must not be held up, so a long list is taken in pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from fluffle.broker.access.users import User
from fluffle.broker.admin.context import DeferredRow, NodeContext, Row, Rows
from fluffle.broker.admin.dispatch import PAGE_ROWS, Dispatcher, RequestOutcome
from fluffle.broker.admin.local_client import answer_of, give_more_time, in_time, wait_for
from fluffle.broker.base.coroutines import completion_of
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.core.services import Services
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.runtime.commits import WaitingCall as Waiting


class VerbClient:
    """Client that runs verbs for requests by HTTP."""

    __slots__ = ("_dispatcher", "context", "services")

    def __init__(self, context: NodeContext, services: Services, dispatcher: Dispatcher) -> None:
        self.context = context
        self.services = services
        self._dispatcher = dispatcher

    def of(self, user: User) -> VerbClient:
        """Where what changes is done by that user."""
        metadata = self.services.metadata_of(ChangedBy(user.name, user.name))
        context = self.context._replace(metadata=metadata)
        return VerbClient(context, self.services, self._dispatcher.of(context, user.name))

    async def answer(self, verb: str, arguments: Row) -> Row | list[Row]:
        """What a verb says: its result, or all its rows.  BrokerError, TimeoutError."""
        outcome = self._act(verb, arguments)
        async with in_time(verb):
            found = await self._whole(outcome)
            await self._wait_durable(outcome)
        return found

    async def rows_of_many(self, verb: str, /, **arguments: Any) -> list[Row]:
        """The rows of a verb that changes many things and itself gives up when nothing goes on:
        its time begins anew with each step.  BrokerError, TimeoutError."""
        outcome = self._act(verb, arguments)
        async with in_time(verb) as limit:
            found = await self._whole(outcome, partial(give_more_time, limit))
            await self._wait_durable(outcome)
        return cast("list[Row]", found)

    async def result(self, verb: str, /, **arguments: Any) -> Row:
        """Of a verb that has one.  BrokerError, TimeoutError."""
        return cast(Row, await self.answer(verb, arguments))

    async def rows(self, verb: str, /, **arguments: Any) -> list[Row]:
        """Of a verb that has many.  BrokerError, TimeoutError."""
        return cast("list[Row]", await self.answer(verb, arguments))

    async def _whole(
        self, outcome: RequestOutcome, went_on: Callable[[], None] = lambda: None
    ) -> Row | list[Row]:
        """The result, or all the rows; `went_on` is called after each piece of them."""
        result = outcome.result
        if isinstance(result, DeferredRow):
            return await answer_of(result)
        if isinstance(result, BrokerError):
            raise result
        return result if isinstance(result, dict) else await self._all_rows(result, went_on)

    async def _all_rows(self, rows: Rows, went_on: Callable[[], None]) -> list[Row]:
        found: list[Row] = []
        while (piece := self._dispatcher.guarded(partial(take_piece, rows, found))) is not None:
            if isinstance(piece, BrokerError):
                raise piece
            if isinstance(piece, Deferred):
                await wait_for(piece)
            else:
                await asyncio.sleep(0)
            went_on()
        return found

    def _act(self, verb: str, arguments: Row) -> RequestOutcome:
        turn = self.services.runtime.turn
        ends_turn = turn.begin()
        try:
            return self._dispatcher.ask(verb, arguments)
        finally:
            if ends_turn:
                turn.end()

    async def _wait_durable(self, outcome: RequestOutcome) -> None:
        """Return once what is said cannot be lost."""
        commits = self.services.runtime.commits
        ticket = commits.ticket if outcome.is_change else commits.defined
        if ticket > commits.durable:
            await completion_of(lambda act: commits.wait(Waiting(act), ticket))


def take_piece(rows: Rows, found: list[Row]) -> Deferred[None] | bool | None:
    """Take some more rows; what has to be waited for before there are more, None at the end."""
    for _ in range(PAGE_ROWS):
        row = next(rows, None)
        if row is None:
            return None
        if isinstance(row, Deferred):
            return row
        found.append(row)
    return True
