"""`ExternalBroker`: the methods of `ThreadedBroker`, as far as another broker serves them.

Virtual hosts come and go by the management API, whose client is `Management`.  `ExternalVhost` has
the methods of `Vhost`.  What only fluffle can do (move a clock, cut a connection, tell a history)
is `UnsupportedFeature`: whoever runs the tests says what becomes of one that uses it.

What a broker does not report is polled.  How many messages of a queue are ready is known at once;
how many of a quorum queue are not acknowledged is known anew every five seconds.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Set
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, NoReturn, Self, TypeAlias, cast
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from fluffle.broker.admin.messages import shown_properties
from fluffle.broker.amqp_client import (
    AmqpConnection,
    BrokerRefusal,
    ClientOptions,
    address_of,
)
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.definitions.file_format import plain
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.testing.arguments import (
    NOTHING_SPECIAL,
    VhostRequirements,
    amqp_url,
)
from fluffle.broker.testing.loop_thread import LoopThread
from fluffle.broker.testing.messages import (
    HeldMessage,
    Message,
    MessageCounts,
    SettleOnce,
    is_met,
    message_of,
    shown,
    wanted_counts,
)
from fluffle.broker.testing.threaded import BlockingVhost
from fluffle.broker.testing.vhost import Vhost
from fluffle.protocol.client_reader import ReceivedMethod
from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Connection,
    Method,
    Queue,
    encode_method,
    make,
)
from fluffle.protocol.properties import (
    DELIVERY_MODE_PERSISTENT,
    Properties,
    build_content,
    decode_properties,
    encode_properties,
    split_content,
)
from fluffle.protocol.spec import ReplyCode
from fluffle.protocol.wire import to_table

MANAGEMENT_PORT = 15672


class CreatedVhost(NamedTuple):
    """A virtual host that was not there before."""

    wanted: VhostRequirements
    users: list[str]
    """Users made for it, which are deleted with it."""


class ExternalBroker:
    """From when it is entered until it is left; then the virtual hosts that it made are gone."""

    def __init__(self, url: str, management_url: str, lacks: Lacks) -> None:
        """`management_url` may be empty: the usual port of the same host.  ValueError."""
        self._address = at = address_of(url, default_host="")
        self._authority = f"[{at.host}]" if ":" in at.host else at.host
        self._management = Management(
            management_url or f"http://{self._authority}:{MANAGEMENT_PORT}", at.user, at.password
        )
        self._lacks = lacks
        self._thread = LoopThread("fluffle external")
        self._looked_at: dict[str, ExternalVhost] = {}
        self._made: dict[str, CreatedVhost] = {}
        """No other is ever deleted: it may be in production."""

    def __enter__(self) -> Self:
        """ManagementError where there is no management API, or not for this user."""
        self._management.ask_now("GET", "whoami")
        self._thread.start()
        return self

    def __exit__(self, *_failure: object) -> None:
        try:
            for name in (*self._made,):
                self.delete_vhost(name)
            for vhost in self._looked_at.values():
                self._thread.call(vhost.close)
        finally:
            self._thread.end()

    def __getattr__(self, name: str) -> UnsupportedFeature:
        return unsupported(name, self._lacks)

    @property
    def url(self) -> str:
        """URL for any client: with the virtual host that was named."""
        return self.url_of(self._address.vhost)

    def url_of(self, vhost: str) -> str:
        """Return the URL for another virtual host."""
        return self._url(self._address.user, self._address.password, vhost)

    def vhost(self, name: str = "") -> BlockingVhost:
        """Return what is in a virtual host, by default the one that was named."""
        name = name or self._address.vhost
        wanted_users = self._made[name].wanted.users if name in self._made else {}
        users = {**wanted_users, self._address.user: self._address.password}
        urls = {user: self._url(user, users[user], name) for user in users}
        vhost = ExternalVhost(name, urls, self._management, self._lacks, self.url_of(name))
        self._looked_at[name] = vhost
        return BlockingVhost(
            self._thread, cast(Vhost, vhost)
        )  # it has what a Vhost has, or lacks it

    def add_vhost(self, name: str, wanted: VhostRequirements = NOTHING_SPECIAL) -> BlockingVhost:
        """Make a new virtual host, with what is wanted in it.

        PreconditionFailed if it or one of its users is there, ManagementError, ValueError.
        """
        entries = wanted.entries()
        self._check_free("vhosts", {name})
        self._check_free("users", wanted.users.keys())
        queue_type = wanted.default_queue_type
        self._make("vhosts", name, {"default_queue_type": queue_type} if queue_type else {})
        self._made[name] = made = CreatedVhost(wanted, [])
        ask = self._management.ask_now
        try:
            for user, password in wanted.users.items():
                self._make("users", user, {"password": password, "tags": ""})
                made.users.append(user)
            for user, rights in wanted.rights((self._address.user,)).items():
                ask("PUT", "permissions", name, user, content=rights._asdict())
            if entries:
                ask("POST", "definitions", name, content=entries)
        except BaseException:
            self.delete_vhost(name)
            raise
        return self.vhost(name)

    def _check_free(self, kind: str, names: Set[str]) -> None:
        there = {each["name"] for each in self._management.ask_now("GET", kind)}
        if taken := there & names:
            raise PreconditionFailed(f"the broker has {kind} of these names: {quoted(taken)}")

    def _make(self, kind: str, name: str, content: object) -> None:
        """PreconditionFailed if another client has made it in the meantime."""
        if not self._management.make_now(kind, name, content=content):
            raise PreconditionFailed(f"the broker has {kind} of these names: {quoted({name})}")

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it, and the users that were made for it.
        ManagementError."""
        users = self._made.pop(name).users
        if name in self._looked_at:
            self._thread.call(self._looked_at.pop(name).close)
        self._management.ask_now("DELETE", "vhosts", name)
        for user in users:
            self._management.ask_now("DELETE", "users", user)

    def _url(self, user: str, password: str, vhost: str) -> str:
        at = self._address
        scheme = "amqps" if at.is_encrypted else "amqp"
        return amqp_url(user, password, f"{self._authority}:{at.port}", vhost, scheme=scheme)


TIMEOUT_S = 10.0
"""A broker that has not answered by then never will."""


class ManagementError(Exception):
    """Management API that does not answer, or answers with an error."""


class Management:
    """Where it is, and who asks."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._authorization = f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"

    async def ask(self, method: str, *path: str, content: object = None, **query: str) -> Any:
        """Return what it answers; None for nothing.  ManagementError."""
        asking = partial(self.ask_now, method, *path, content=content, **query)
        return await asyncio.to_thread(asking)

    def ask_now(self, method: str, *path: str, content: object = None, **query: str) -> Any:
        """Send a request and block until it is answered."""
        return self._send(method, path, content, query)[1]

    def make_now(self, *path: str, content: object) -> bool:
        """True if it was not there before; else it is as asked for now.  ManagementError."""
        return self._send("PUT", path, content, {})[0] == HTTPStatus.CREATED

    def _send(
        self, method: str, path: tuple[str, ...], content: object, query: dict[str, str]
    ) -> tuple[int, Any]:
        url = "/".join((self.url, "api", *(quote(each, safe="") for each in path)))
        if query:
            url = f"{url}?{urlencode(query)}"
        data = None if content is None else json.dumps(content).encode()
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        request = Request(url, data, headers, method=method)
        try:
            with urlopen(request, timeout=TIMEOUT_S) as response:
                status, answer = response.status, response.read()
        except HTTPError as error:
            with error:
                why = error.read().decode(errors="replace")
                raise ManagementError(f"{method} {url}: {error.code} {why}") from error
        except (URLError, OSError) as error:
            raise ManagementError(f"{method} {url}: {error}") from error
        return status, json.loads(answer) if answer else None


Lacks: TypeAlias = Callable[[str], NoReturn]
"""Called with the name of what a test needs; it ends the test."""

TEXTS = ("mqtt_url", "mqtt_urls")
"""Features that are texts."""


def unsupported(name: str, lacks: Lacks) -> UnsupportedFeature:
    """Placeholder for a feature of brokers and virtual hosts, which ends the test at once when it
    is used.  AttributeError."""
    if name.startswith("_"):
        raise AttributeError(name)
    if name in TEXTS:
        lacks(name)
    return UnsupportedFeature(name, lacks)


class UnsupportedFeature:
    """Placeholder for a feature that an external broker lacks; any use of it ends the test."""

    def __init__(self, name: str, lacks: Lacks) -> None:
        self.__name__ = name
        self._lacks = lacks

    def __call__(self, *_positional: object, **_named: object) -> NoReturn:
        self._lacks(self.__name__)

    def __getattr__(self, name: str) -> UnsupportedFeature:
        if name.startswith("_"):
            raise AttributeError(name)
        return UnsupportedFeature(f"{self.__name__}.{name}", self._lacks)


PAUSE_S = 0.02
"""Between two questions."""

STATISTICS_S = 6.0
"""So old may be what RabbitMQ knows of a quorum queue: a wait for that has the time beside."""

PEEKED_MAX = 10_000


class ObservedCounts(NamedTuple):
    """Counts of a queue as last observed, with None where unknown."""

    counts: MessageCounts
    is_late: bool = False
    """True if that may be because it is reported late."""


class ExternalVhost:
    """Virtual host of an external broker with the methods of `Vhost`, in the loop of its broker."""

    def __init__(
        self, name: str, urls: Mapping[str, str], management: Management, lacks: Lacks, own: str
    ) -> None:
        """`own` is the URL that it uses itself."""
        self.name = name
        self.url = next(iter(urls.values()))
        self.urls = urls
        self._management = management
        self._lacks = lacks
        self._client = VhostClient(own)

    def __getattr__(self, name: str) -> UnsupportedFeature:
        return unsupported(name, self._lacks)

    async def queues(self) -> dict[str, dict[str, Any]]:
        """Return all queues by their names, as the management API shows them."""
        listed = await self._management.ask("GET", "queues", self.name)
        return {row["name"]: row for row in listed}

    async def expect(
        self,
        queue: str,
        *,
        count: int | None = None,
        ready: int | None = None,
        unacked: int | None = None,
        consumers: int | None = None,
        within: float = 2.0,
    ) -> None:
        """Return once a queue has so many messages (in all, ready, unacknowledged) and consumers.

        AssertionError after `within` seconds, with what is there instead.
        """
        __tracebackhide__ = True
        wanted = wanted_counts(count, ready, unacked, consumers)
        seen: ObservedCounts | None = None

        async def is_so() -> bool:
            nonlocal seen
            seen = await self._seen(queue, wanted)
            return seen is not None and is_met(wanted, seen.counts)

        def limit_s() -> float:
            return within + STATISTICS_S * (seen is not None and seen.is_late)

        if not await until(is_so, limit_s):
            if seen is None:
                there = ", ".join(map(repr, await self.queues())) or "none"
                raise AssertionError(f"there is no queue '{queue}' after {within} s, but: {there}")
            raise AssertionError(
                f"queue '{queue}' has not had {shown(wanted)} within {within} s; "
                f"it has {shown(seen.counts)}"
            )

    async def _seen(self, queue: str, wanted: MessageCounts) -> ObservedCounts | None:
        """Return what matters of a queue; None for one that is not there."""
        found = await self._client.counts(queue)
        if found is None:
            return None
        ready, consumers = found
        if wanted.messages is None and wanted.unacked is None:
            return ObservedCounts(MessageCounts(None, ready, None, consumers))
        row = await self._management.ask(
            "GET", "queues", self.name, queue, disable_stats="true", enable_queue_totals="true"
        )
        is_late = row["type"] != "classic"
        if row.get("messages_ready") != ready:
            return ObservedCounts(
                MessageCounts(None, ready, None, consumers), is_late
            )  # of another moment
        unacked = row["messages_unacknowledged"]
        return ObservedCounts(MessageCounts(ready + unacked, ready, unacked, consumers), is_late)

    async def messages(self, queue: str, *, count: int = PEEKED_MAX) -> list[Message]:
        """Return those that are ready, in order, the first `count`; they count as redelivered
        afterwards.

        ManagementError without such a queue.
        """
        seen = await self._management.ask(
            "POST", "queues", self.name, queue, "get",
            content={"count": count, "ackmode": "ack_requeue_true", "encoding": "auto"},
        )  # fmt: skip
        return [message_of(peek_row(each)) for each in seen]

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> None:
        """Publish, and wait for the confirm; `properties` by their AMQP names, persistent if not
        said.

        BrokerRefusal, AssertionError for a message that leads nowhere.
        """
        __tracebackhide__ = True
        properties.setdefault("delivery_mode", DELIVERY_MODE_PERSISTENT)
        message_properties = Properties(
            headers=to_table(dict(headers)) if headers else None, **properties
        )
        if not await self._client.publish(exchange, routing_key, message_properties, body):
            raise AssertionError(
                f"no queue takes what is published to exchange '{exchange}' with routing key "
                f"'{routing_key}' in vhost '{self.name}'"
            )

    async def get(self, queue: str, *, within: float = 2.0) -> HeldMessage:
        """Take the next message, and hold it until `ack()` or `reject()`, which are not awaited.

        AssertionError if there is none within so many seconds.
        """
        __tracebackhide__ = True
        (message,) = await self._take(queue, 1, within)
        return message

    async def consume(self, queue: str, *, count: int = 1, within: float = 2.0) -> list[Message]:
        """Take so many messages, and acknowledge them.

        AssertionError if there are not as many within so many seconds; those that came go back.
        """
        __tracebackhide__ = True
        found = await self._take(queue, count, within)
        for message in found:
            message.ack()
        return [*found]

    async def _take(self, queue: str, count: int, within: float) -> list[HeldMessage]:
        __tracebackhide__ = True
        found: list[HeldMessage] = []

        async def is_so() -> bool:
            while len(found) < count and await self._client.counts(queue) is not None:
                arrival = await self._client.get(queue)
                if arrival is None:
                    break
                found.append(self._taken(arrival))
            return len(found) == count

        if not await until(is_so, lambda: within):
            for message in found:
                message.reject(requeue=True)
            raise AssertionError(
                f"queue '{queue}' gave {len(found)} of {count} messages within {within} s"
            )
        return found

    def _taken(self, arrival: ReceivedMethod) -> HeldMessage:
        method, properties = arrival.method, decode_properties(arrival.properties)
        assert isinstance(method, Basic.GetOk)
        shown_ = dict(shown_properties(properties))
        if properties.priority is not None:
            shown_["priority"] = properties.priority
        return HeldMessage(
            arrival.body,
            method.exchange or "",
            method.routing_key or "",
            plain(properties.headers or {}),
            shown_,
            bool(method.redelivered),
            SettleOnce(partial(self._settle, method.delivery_tag or 0)),
        )

    def _settle(self, tag: int, outcome: Outcome) -> None:
        if outcome is Outcome.ACKED:
            self._client.settle(make(Basic.Ack, delivery_tag=tag))
        else:
            requeue = outcome is Outcome.NACK_REQUEUED
            self._client.settle(make(Basic.Reject, delivery_tag=tag, requeue=requeue))

    async def purge(self, queue: str) -> int:
        """Drop ready messages; return how many there were.  BrokerRefusal."""
        return await self._client.purge(queue)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


async def until(is_so: Callable[[], Awaitable[bool]], limit_s: Callable[[], float]) -> bool:
    """Ask again and again; whether it was so in time.  Who comes late asks once more."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    while True:
        is_late = loop.time() - begun_s >= limit_s()
        if await is_so():
            return True
        if is_late and loop.time() - begun_s >= limit_s():
            return False
        await asyncio.sleep(PAUSE_S)


def peek_row(got: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the management API gives, as `queues.peek` has it."""
    properties = {**(got["properties"] or {})}  # a list if there are none
    return {
        **got,
        "headers": properties.pop("headers", {}),
        "priority": properties.pop("priority", None),
        "properties": properties,
    }


def quoted(names: Set[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


LOOKING, HOLDING = 1, 2
"""Channels of a `VhostClient`."""

CONFIRMS = (Basic.Ack, Basic.Nack)


class VhostClient:
    """AMQP client for what tests ask of a virtual host that is somewhere else.

    One connection and two channels: on one it looks and publishes, which may close that, on the
    other it holds messages, which a close would give back.  It is opened when it is needed, and
    again after an error.  One thing at a time; each has its time.
    """

    def __init__(self, url: str) -> None:
        self._address = address_of(url)
        self._connection: AmqpConnection | None = None
        self._open: set[int] = set()
        self.blocked_reason: str | None = None
        """Reason with which the broker blocked the connection: it may not read it."""
        self._lock = asyncio.Lock()

    async def counts(self, queue: str) -> tuple[int, int] | None:
        """Return how many messages are ready, and how many consumers there are; None without a
        queue."""
        declare = make(Queue.Declare, queue=queue, passive=True)
        try:
            async with self._turn(LOOKING) as connection:
                answer = (await connection.call(declare, LOOKING)).method
        except BrokerRefusal as refusal:
            if refusal.code == ReplyCode.NOT_FOUND:
                return None
            raise
        assert isinstance(answer, Queue.DeclareOk)
        return answer.message_count or 0, answer.consumer_count or 0

    async def publish(
        self, exchange: str, routing_key: str, properties: Properties, body: bytes
    ) -> bool:
        """True if it has led somewhere.  BrokerRefusal, also by a queue."""
        method = make(Basic.Publish, exchange=exchange, routing_key=routing_key, mandatory=True)
        content = build_content(encode_properties(properties), body)
        has_led = True
        async with self._turn(LOOKING) as connection:
            frames = split_content(content, LOOKING, connection.frame_bytes_max)
            connection.write(encode_method(LOOKING, method) + frames)
            # no other publish is under way; connection.blocked, say, may come before its confirm
            while not isinstance(answer := (await connection.receive()).method, CONFIRMS):
                has_led = has_led and not isinstance(answer, Basic.Return)
        if isinstance(answer, Basic.Nack):
            raise BrokerRefusal("a queue has refused the message")
        return has_led

    async def purge(self, queue: str) -> int:
        """Return how many messages there were.  BrokerRefusal."""
        async with self._turn(LOOKING) as connection:
            answer = (await connection.call(make(Queue.Purge, queue=queue), LOOKING)).method
        assert isinstance(answer, Queue.PurgeOk)
        return answer.message_count or 0

    async def get(self, queue: str) -> ReceivedMethod | None:
        """Return the next message.  BrokerRefusal."""
        async with self._turn(HOLDING) as connection:
            arrival = await connection.call(make(Basic.Get, queue=queue), HOLDING)
        return arrival if isinstance(arrival.method, Basic.GetOk) else None

    def settle(self, method: Method) -> None:
        """Ack or reject what was got; it is in vain if the connection has gone since."""
        if self._connection is not None and HOLDING in self._open:
            self._connection.send(method, channel=HOLDING)

    async def close(self) -> None:
        """Close; unacknowledged messages are requeued."""
        connection, self._connection = self._connection, None
        self._open.clear()
        if connection is not None:
            await connection.close()

    @asynccontextmanager
    async def _turn(self, channel: int) -> AsyncIterator[AmqpConnection]:
        """Be alone on an open channel; a task that is cut short on it leaves no half of a
        conversation."""
        async with self._lock:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    yield await self._opened(channel)
            except BrokerRefusal as refusal:
                # a close of the other channel leaves an answer to come on this one
                self._end(channel if refusal.channel == channel else 0)
                raise
            except TimeoutError as error:
                self._end(0)
                if self.blocked_reason is None:
                    raise
                raise TimeoutError(f"the connection is blocked: {self.blocked_reason}") from error
            except BaseException:
                self._end(0)
                raise

    def _on_blocked(self, reply: ReceivedMethod) -> None:
        assert isinstance(reply.method, Connection.Blocked)
        self.blocked_reason = reply.method.reason or ""

    def _on_unblocked(self, _reply: ReceivedMethod) -> None:
        self.blocked_reason = None

    def _end(self, channel: int) -> None:
        """Note that the channel is closed, or with 0 the connection, which is aborted."""
        if self._connection is not None and channel:
            self._connection.send(make(Channel.CloseOk), channel=channel)
            self._open.discard(channel)
        elif self._connection is not None:
            self._connection.abort()
            self._connection = None
            self._open.clear()

    async def _opened(self, channel: int) -> AmqpConnection:
        """Return the connection, with this channel.  ConnectionEnded."""
        if self._connection is None:
            self.blocked_reason, at = None, self._address
            # nothing is sent while no test asks for anything, so there are no heartbeats
            options = ClientOptions(at.user, at.password, at.vhost, beat_s=0, timeout_s=TIMEOUT_S)
            self._connection = await AmqpConnection.connect(
                (at.host, at.port), options, is_encrypted=at.is_encrypted
            )
            self._connection.on(Connection.Blocked, self._on_blocked)
            self._connection.on(Connection.Unblocked, self._on_unblocked)
        if channel not in self._open:
            await self._connection.call(make(Channel.Open), channel)
            self._open.add(channel)
            if channel == LOOKING:
                await self._connection.call(make(Confirm.Select), channel)
        return self._connection
