"""`ClusterVhost`: a virtual host of a cluster, seen wherever each of its queues is led."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.queues.queue_api import QueueCounts, QueueHandle
from fluffle.broker.routing.explain import Explanation
from fluffle.broker.testing.assertions import VhostAssertions
from fluffle.broker.testing.cluster.leaders import Leaders
from fluffle.broker.testing.cluster.node import ClusterNode
from fluffle.broker.testing.counts import Counts, is_met, shown, wanted_counts
from fluffle.broker.testing.direct_consumers import HeldMessage
from fluffle.broker.testing.message import Message
from fluffle.broker.testing.timeline import Timeline
from fluffle.broker.testing.vhost import PEEKED_MAX, Vhost, tally_here
from fluffle.broker.vhosts.vhost import VirtualHost


class VhostInCluster:
    """A virtual host of all nodes, as assertions look at it: see `AssertedVhost`."""

    __slots__ = ("_leaders", "_name")

    def __init__(self, name: str, leaders: Leaders) -> None:
        self._name = name
        self._leaders = leaders

    def look(self) -> VirtualHost:
        return self._leaders.nodes.well().parts.vhost(self._name)

    def queue_counts(self, queue: QueueHandle) -> QueueCounts | None:
        """As its leader has it."""
        led = self._leaders.led(self._name, queue.name)
        return tally_here(led.node.parts, led.queue) if led is not None else None

    async def settle(self) -> None:
        await self._leaders.nodes.clock.advance()


class ClusterVhost:
    """Made by its cluster.  What goes on where no majority is, is not seen."""

    __slots__ = (
        "_leaders", "_timeline", "advance", "assert_no_leaked_channels", "assert_no_unacked",
        "assert_no_unroutable", "history", "name", "timeline", "url", "urls",
    )  # fmt: skip

    def __init__(
        self, name: str, urls: Mapping[str, str], leaders: Leaders, timeline: Timeline
    ) -> None:
        self.name = name
        self.url = next(iter(urls.values()))
        """Of the first node."""
        self.urls = urls
        """The same for each user, by name."""
        self._leaders = leaders
        self.advance = leaders.nodes.clock.advance
        """Moves the clock of messages, on all nodes."""
        self._timeline = timeline
        assertions = VhostAssertions(timeline, VhostInCluster(name, leaders))
        self.history = assertions.history
        self.timeline = assertions.timeline
        self.assert_no_unacked = assertions.assert_no_unacked
        self.assert_no_unroutable = assertions.assert_no_unroutable
        self.assert_no_leaked_channels = assertions.assert_no_leaked_channels

    async def queues(self) -> dict[str, Row]:
        """Return all queues by their names, as `fluffle queues list` shows them."""
        return await self._anywhere().queues()

    async def expect(
        self,
        queue: str,
        *,
        count: int | None = None,
        ready: int | None = None,
        unacked: int | None = None,
        consumers: int | None = None,
        within: float = 5.0,
    ) -> None:
        """Return once a queue has so many messages (in all, ready, unacknowledged) and consumers,
        for who leads it.

        AssertionError after `within` seconds, with what is there instead.
        """
        wanted = wanted_counts(count, ready, unacked, consumers)

        def is_so() -> bool:
            counts = self._counts(queue)
            return counts is not None and is_met(wanted, counts)

        def what() -> str:
            found = self._counts(queue)
            seen = "nobody leads it" if found is None else f"it has {shown(found)}"
            return f"queue '{queue}' has not had {shown(wanted)}; {seen}"

        try:
            await self._leaders.nodes.until(is_so, within, what)
        except TimeoutError as error:
            raise AssertionError(str(error)) from None

    async def messages(self, queue: str, *, count: int = PEEKED_MAX) -> list[Message]:
        """Return messages as `Vhost.messages` does, from the queue's leader."""
        return await (await self._where_led(queue)).messages(queue, count=count)

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> None:
        """Publish as `Vhost.publish` does, at a node that sees a majority."""
        await self._anywhere().publish(exchange, routing_key, body, headers=headers, **properties)

    async def explain(
        self,
        exchange: str,
        routing_key: str,
        headers: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> Explanation:
        """Explain routing as `Vhost.explain` does."""
        return await self._anywhere().explain(exchange, routing_key, headers, **properties)

    async def get(self, queue: str, *, within: float = 5.0) -> HeldMessage:
        """Get a message as `Vhost.get` does, at the queue's leader."""
        return await (await self._where_led(queue)).get(queue, within=within)

    async def consume(self, queue: str, *, count: int = 1, within: float = 5.0) -> list[Message]:
        """Consume as `Vhost.consume` does, at the queue's leader."""
        return await (await self._where_led(queue)).consume(queue, count=count, within=within)

    async def purge(self, queue: str) -> int:
        """Drop ready messages; return how many there were.  NotFound."""
        return await self._anywhere().purge(queue)

    def _counts(self, queue: str) -> Counts | None:
        """Return the counts of a queue; None while it has no leader."""
        led = self._leaders.led(self.name, queue)
        if led is None:
            return None
        queue_counts = tally_here(led.node.parts, led.queue)
        return queue_counts and Counts(
            queue_counts.ready + queue_counts.unacked + queue_counts.apart, *queue_counts[:3]
        )

    def _anywhere(self) -> Vhost:
        return self._at(self._leaders.nodes.well())

    async def _where_led(self, queue: str) -> Vhost:
        number = await self._leaders.leader(queue, vhost=self.name)
        return self._at(self._leaders.nodes[number])

    def _at(self, node: ClusterNode) -> Vhost:
        scope = node.scope(self.name)
        clock = self._leaders.nodes.clock
        return Vhost(
            self.name, self.urls, node.parts, node.node.turn, clock,
            scope=scope, timeline=self._timeline,
        )  # fmt: skip
