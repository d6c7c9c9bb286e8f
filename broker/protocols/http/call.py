"""A request as an endpoint sees it: its user, path, query and body, and the verbs it may ask.

Of verbs one step is done in a turn of the loop, which others need: a long list is taken in pieces.
So it is with JSON: what is read of a body in one turn has an end to what it may hold.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from fluffle.broker.access.access import ADMINISTRATOR, User
from fluffle.broker.admin.context import DeferredRow, NodeContext, Row, Rows, in_own_thread
from fluffle.broker.admin.dispatch import PAGE_ROWS, Dispatcher, RequestOutcome
from fluffle.broker.admin.local_client import answer_of, give_more_time, in_time, wait_for
from fluffle.broker.base.callbacks import completion_of
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.core.observer import ChangedBy
from fluffle.broker.core.services import Services
from fluffle.broker.protocols.http.request_channel import (
    HttpClient,
    MessageChannel,
    RequestAddresses,
    RequestChannel,
    check_may_open,
)
from fluffle.broker.protocols.http.responses import (
    Refusal,
    bad_request,
    declaration_refusal,
    not_found,
    not_there,
    too_large,
)
from fluffle.broker.protocols.http.rights import is_monitor, may_see
from fluffle.broker.queues.queue_api import Deferred
from fluffle.broker.runtime.commits import WaitingCall as Waiting
from fluffle.broker.vhosts.vhost import VirtualHost

VALUES_MAX = 25_000
"""Most values in a body: they take some ten milliseconds to parse; texts may be long besides."""
SHORT_BYTES = VALUES_MAX * 2
"""In so many there are not more values."""
STRETCH_BYTES_MAX = 1 << 20
"""Without an object that ends, of what is read in a thread: it holds up the loop for so long, which
may be fifty milliseconds."""
NESTED_MAX = 200
"""Arrays and objects within each other: tables may be half as deep, recursion goes far deeper."""
HALF = re.compile(
    rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F])"
)
"""Escaped surrogate without its partner: a first without a second behind it, or a second without a
first before it."""
ESCAPED_ESCAPE = rb"\\"


class InvalidJson(ValueError):
    """Error for a body that is no JSON, or holds what cannot be written again."""


class TooManyValues(ValueError):
    """Error for JSON with more values than may be."""


def parsed(body: bytes) -> Any:
    """InvalidJson."""
    try:
        found = json.loads(
            body.decode(), object_hook=release_gil, parse_float=finite, parse_constant=finite
        )
    except (ValueError, RecursionError):
        raise InvalidJson from None
    if HALF.search(body.replace(ESCAPED_ESCAPE, b"..")):
        raise InvalidJson
    opened = body.count(b"[") + body.count(b"{")
    if opened > NESTED_MAX and is_deeper(found, NESTED_MAX):
        raise InvalidJson
    return found


def release_gil(found: dict[str, Any]) -> dict[str, Any]:
    """An object as it is.  Between two of them other threads may run, as they may whenever Python
    is called; the scanner itself, which is C, holds them up."""
    return found


def finite(said: str) -> float:
    """ValueError for what is no number, or too large for one."""
    value = float(said)
    if not math.isfinite(value):
        raise ValueError
    return value


def check_values(body: bytes) -> None:
    """TooManyValues."""
    if len(body) <= SHORT_BYTES:
        return
    plain = body.replace(ESCAPED_ESCAPE, b"").replace(rb"\"", b"")
    if plain.count(b'"') > 4 * VALUES_MAX:  # of keys, too
        raise TooManyValues
    outside = b"".join(plain.split(b'"')[::2])
    if sum(map(outside.count, (b",", b"[", b"{"))) >= VALUES_MAX:
        raise TooManyValues  # each is behind a comma, or the first of an array or an object


def check_stretches(body: bytes) -> None:
    """TooManyValues where no other thread would run for long while it is read: see `release_gil`.

    A brace in a text is taken for the end of an object.
    """
    at = 0
    while len(body) - at > STRETCH_BYTES_MAX:
        at = body.rfind(b"}", at, at + STRETCH_BYTES_MAX) + 1
        if not at:
            raise TooManyValues


def is_deeper(value: object, most: int) -> bool:
    """True if there are more than so many arrays and objects within each other."""
    level: list[Any] = [[value]]
    for _ in range(most + 2):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


class VerbClient:
    """Client that runs verbs for requests by HTTP."""

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
        """Answer of a verb: its result, or all its rows.  BrokerError, TimeoutError."""
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
        """Result of a verb that has one.  BrokerError, TimeoutError."""
        return cast(Row, await self.answer(verb, arguments))

    async def rows(self, verb: str, /, **arguments: Any) -> list[Row]:
        """Rows of a verb that has many.  BrokerError, TimeoutError."""
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


ENCODED_TWICE = (
    "invalid payload: the request body JSON-decoded to a string. Is the input doubly-JSON-encoded?"
)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that may be answered."""

    verbs: VerbClient
    user: User
    path: Mapping[str, str]
    """The names in the path."""
    query: Mapping[str, str]
    body: bytes
    headers: Mapping[str, str]
    """Headers by name, in any case."""
    ends: RequestAddresses

    @property
    def context(self) -> NodeContext:
        return self.verbs.context

    def json(self, *required: str) -> Row:
        """The object in the body, which has these keys; an empty body is one without anything.

        Refusal, as with RabbitMQ.
        """
        try:
            check_values(self.body)
        except TooManyValues:
            raise too_large(f"a body may have {VALUES_MAX} values") from None
        found = self._object()
        missing = [f"{{key_missing,{key}}}" for key in required if key not in found]
        if missing:
            raise bad_request(f"[{','.join(missing)}]")
        return found

    async def long_json(self) -> Row:
        """The object in the body, however much there is in it, unless it is hardly made of objects.
        Refusal."""
        try:
            check_stretches(self.body)
        except TooManyValues:
            raise too_large(f"an object has to end in any {STRETCH_BYTES_MAX} bytes") from None
        return await in_own_thread(self._object)

    def _object(self) -> Row:
        try:
            found = parsed(self.body) if self.body else None
        except InvalidJson:
            raise bad_request("not_json") from None
        if found is None:
            return {}
        if isinstance(found, str):
            raise bad_request(ENCODED_TWICE)
        if not isinstance(found, dict):
            raise bad_request("not_json")
        return found

    def vhost(self) -> VirtualHost:
        """Virtual host in the path.  Refusal."""
        found = self.context.catalogue.vhosts.get(self.path["vhost"])
        if found is None:
            raise not_found()
        return found

    def vhost_to_change(self, missing: str = "vhost_not_found") -> VirtualHost:
        """The same where something is to be set or done there: then RabbitMQ says what is missing,
        with or without it.  Refusal."""
        found = self.context.catalogue.vhosts.get(self.path["vhost"])
        if found is None:
            raise not_there(missing)
        return found

    @contextmanager
    def declarations(self) -> Iterator[RequestChannel]:
        """A channel for definitions and purges in the virtual host in the path, which is there as
        long as the block lasts.  Refusal."""
        client = HttpClient(self.user, self.ends)
        channel = RequestChannel(self.verbs.services, client, self.user, self.vhost())
        try:
            yield channel
        except BrokerError as error:
            raise declaration_refusal(error) from None
        finally:
            channel.end()

    @asynccontextmanager
    async def messages(
        self, refusal: Callable[[BrokerError], Refusal]
    ) -> AsyncIterator[MessageChannel]:
        """A channel for messages in the virtual host in the path, which is there as long as the
        block lasts.  Refusal: what is made of an error."""
        services, vhost = self.verbs.services, self.vhost()
        try:
            await check_may_open(services, self.user, vhost.name)
        except BrokerError as error:
            raise declaration_refusal(error) from None
        client = HttpClient(self.user, self.ends)
        channel = MessageChannel(services, client, self.user, vhost)
        channel.begin()
        try:
            yield channel
        except BrokerError as error:
            channel.refused(error)
            raise refusal(error) from None
        finally:
            channel.end()

    def visible_vhosts(self) -> tuple[str, ...]:
        """Names of those that he may look at."""
        access, every = self.context.access, self.context.catalogue.vhosts
        return tuple(name for name in every if may_see(self.user, name, access))

    def visible(self, rows: Iterable[Row]) -> list[Row]:
        """Rows of virtual hosts that he may look at."""
        names = set(self.visible_vhosts())
        return [row for row in rows if row.get("vhost") in names]

    @property
    def is_monitor(self) -> bool:
        """True if he may look at what is others'."""
        return is_monitor(self.user)

    @property
    def is_administrator(self) -> bool:
        """True if he may change what is others'."""
        return ADMINISTRATOR in self.user.tags

    async def result(self, verb: str, /, **arguments: Any) -> Row:
        """Result of a verb of the control socket, once that is safe.  BrokerError."""
        return await self.verbs.result(verb, **arguments)

    async def rows(self, verb: str, /, **arguments: Any) -> list[Row]:
        """All rows of a verb that has many.  BrokerError."""
        return await self.verbs.rows(verb, **arguments)

    async def rows_of_many(self, verb: str, /, **arguments: Any) -> list[Row]:
        """All rows of a verb that changes many things, as long as it goes on.  BrokerError."""
        return await self.verbs.rows_of_many(verb, **arguments)

    async def rows_everywhere(self, verb: str, **arguments: Any) -> list[Row]:
        """The rows that every node has, each with its `node`; nodes that are silent have none."""
        found = await self.rows("everywhere.rows", what=verb, arguments=arguments)
        return [{**each["row"], "node": each["node"]} for each in found if "row" in each]
