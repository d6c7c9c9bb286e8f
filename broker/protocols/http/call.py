"""A request as an endpoint sees it: its user, its path, query and body, and the verbs it may
ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from fluffle.broker.access.users import ADMINISTRATOR, User
from fluffle.broker.admin.context import NodeContext, Row
from fluffle.broker.admin.threads import in_own_thread
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.protocols.http.json_bodies import (
    STRETCH_BYTES_MAX,
    VALUES_MAX,
    InvalidJson,
    TooManyValues,
    check_stretches,
    check_values,
    parsed,
)
from fluffle.broker.protocols.http.message_channel import MessageChannel, admit
from fluffle.broker.protocols.http.request_channel import Addresses, HttpClient, RequestChannel
from fluffle.broker.protocols.http.responses import (
    Refusal,
    bad_request,
    declaration_refusal,
    not_found,
    not_there,
    too_large,
)
from fluffle.broker.protocols.http.rights import is_monitor, may_see
from fluffle.broker.protocols.http.verb_client import VerbClient
from fluffle.broker.vhosts.vhost import VirtualHost

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
    """By name, in any case."""
    ends: Addresses

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
        """That in the path.  Refusal."""
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
            await admit(services, self.user, vhost.name)
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
        """Whether he may look at what is others'."""
        return is_monitor(self.user)

    @property
    def is_administrator(self) -> bool:
        """Whether he may change what is others'."""
        return ADMINISTRATOR in self.user.tags

    async def result(self, verb: str, /, **arguments: Any) -> Row:
        """What a verb of the control socket has as its result, once that is safe.  BrokerError."""
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
