"""`ExternalVhost`: a virtual host of an external broker, as far as AMQP and its management API go.

What a broker does not report is polled.  It tells at once how many messages of a
queue are ready; of a quorum queue it tells every five seconds how many are not acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn, TypeAlias

from fluffle.broker.admin.messages import shown_properties
from fluffle.broker.definitions.values import plain
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.testing.counts import Counts, is_met, shown, wanted_counts
from fluffle.broker.testing.direct_consumers import HeldMessage, SettleOnce
from fluffle.broker.testing.external.client import Client, ReceivedMethod
from fluffle.broker.testing.external.management import Management
from fluffle.broker.testing.message import Message, message_of
from fluffle.protocol.methods import Basic, make
from fluffle.protocol.properties import DELIVERY_MODE_PERSISTENT, Properties
from fluffle.protocol.wire import to_table

Lacks: TypeAlias = Callable[[str], NoReturn]
"""Called with the name of what a test needs; it ends the test."""


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
"""So old may be what RabbitMQ knows of a quorum queue: who waits for that has the time beside."""

PEEKED_MAX = 10_000


class ObservedCounts(NamedTuple):
    """Counts of a queue as last observed, with None where unknown."""

    counts: Counts
    is_late: bool = False
    """Whether that may be because it is reported late."""


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
        self._client = Client(own)

    def __getattr__(self, name: str) -> UnsupportedFeature:
        if name.startswith("_"):
            raise AttributeError(name)
        return UnsupportedFeature(name, self._lacks)

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

    async def _seen(self, queue: str, wanted: Counts) -> ObservedCounts | None:
        """Return what matters of a queue; None for one that is not there."""
        found = await self._client.counts(queue)
        if found is None:
            return None
        ready, consumers = found
        if wanted.messages is None and wanted.unacked is None:
            return ObservedCounts(Counts(None, ready, None, consumers))
        row = await self._management.ask(
            "GET", "queues", self.name, queue, disable_stats="true", enable_queue_totals="true"
        )
        is_late = row["type"] != "classic"
        if row.get("messages_ready") != ready:
            return ObservedCounts(
                Counts(None, ready, None, consumers), is_late
            )  # of another moment
        unacked = row["messages_unacknowledged"]
        return ObservedCounts(Counts(ready + unacked, ready, unacked, consumers), is_late)

    async def messages(self, queue: str, *, count: int = PEEKED_MAX) -> list[Message]:
        """Return those that are ready, in order, the first `count`; they count as redelivered
        afterwards.

        ManagementError without such a queue.
        """
        seen = await self._management.ask(
            "POST", "queues", self.name, queue, "get",
            content={"count": count, "ackmode": "ack_requeue_true", "encoding": "auto"},
        )  # fmt: skip
        return [message_of(row_of(each)) for each in seen]

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

        Refused, AssertionError for a message that leads nowhere.
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
        method, properties = arrival.method, arrival.properties or Properties()
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
        """Drop ready messages; return how many there were.  Refused."""
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


def row_of(got: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the management API gives, as `queues.peek` has it."""
    properties = {**(got["properties"] or {})}  # a list if there are none
    return {
        **got,
        "headers": properties.pop("headers", {}),
        "priority": properties.pop("priority", None),
        "properties": properties,
    }
