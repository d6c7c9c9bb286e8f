"""`Vhost`: a virtual host for one test, what is in it, and what is asserted of it.

Nothing is polled: a waiting task looks again after each turn of the node, when something may have
changed.  Every wait has an end, and says what it saw.  A `Vhost` belongs to the loop of its broker.
A timeline knows what was seen, queues know what is there: `AssertedVhost` asks both.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import chain, islice
from typing import Any, NamedTuple

from fluffle.broker.admin.context import NodeContext, Row
from fluffle.broker.admin.local_client import ask, rows
from fluffle.broker.base.errors import NotFound
from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.core.property_facts import sender_selected
from fluffle.broker.queues.queue_api import (
    Deferred,
    PeekedMessage,
    PeekRequest,
    PeekResult,
    QueueCounts,
    QueueHandle,
)
from fluffle.broker.routing.explain import Explanation, explain
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.testing import direct_consumers
from fluffle.broker.testing.arguments import MqttUrl, VhostUrls, first_url
from fluffle.broker.testing.clock import MovableClock
from fluffle.broker.testing.direct_consumers import DirectConsumer, look_again, take
from fluffle.broker.testing.faults.faults import Clients, Faults
from fluffle.broker.testing.faults.tapped_transport import FaultScope
from fluffle.broker.testing.loop_thread import LoopBound
from fluffle.broker.testing.messages import (
    HeldMessage,
    Message,
    MessageCounts,
    is_met,
    message_of,
    shown,
    wanted_counts,
)
from fluffle.broker.testing.recorder import short
from fluffle.broker.testing.timeline import (
    Passage,
    SeenPacket,
    StepKind,
    Timeline,
    TraceStep,
    origin_of,
    until,
)
from fluffle.broker.transfer.republish import publish_own
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import (
    DELIVERY_MODE_PERSISTENT,
    Properties,
    build_content,
    encode_properties,
)
from fluffle.protocol.wire import encode_shortstr, to_table

PEEKED_MAX = 10_000
BODY_BYTES_MAX = 1 << 18

LINES_SHOWN_MAX = 60
LEFT_SHOWN_MAX = 20
"""So much stands in a text: the latest lines, and of what is left so many of a kind."""

UNSEEN = "nobody saw it leave: refused by its queue, rolled back or purged by a command"


class PacketQuery(NamedTuple):
    """Question for packets of MQTT; None is for any."""

    packet: str | None = None
    client: str | None = None
    topic: str | None = None
    """Topic of a PUBLISH; or a filter of a SUBSCRIBE or UNSUBSCRIBE."""
    sent_by: str | None = None

    def is_met(self, seen: SeenPacket) -> bool:
        return (
            self.packet in (None, seen.packet)
            and self.client in (None, seen.client)
            and self.topic in (None, seen.topic, *seen.filters)
            and self.sent_by in (None, seen.sent_by)
        )


class AssertedVhost(LoopBound, ABC):
    """A virtual host for one test: assertions about its past and present."""

    def __init__(self, name: str, urls: VhostUrls, timeline: Timeline) -> None:
        self.name = name
        self.url = next(iter(urls.amqp.values()))
        """URL for any client, in any language and process; of a cluster, that of the first node."""
        self.urls = urls.amqp
        """The same for each user, by name."""
        self.mqtt_urls = urls.mqtt
        """URLs for MQTT clients by user."""
        self._timeline = timeline

    @property
    def mqtt_url(self) -> MqttUrl:
        """URL for MQTT clients: for who takes none it has `host`, `port`, `username` and
        `password`.  RuntimeError if the broker listens at a unix socket."""
        return first_url(self.mqtt_urls)

    @abstractmethod
    def _look(self) -> VirtualHost:
        """The virtual host itself.  NotFound."""

    @abstractmethod
    def _queue_counts(self, name: str) -> QueueCounts | None:
        """Counts of a queue by its leader; None without a queue or a leader."""

    @abstractmethod
    async def _wait_until_idle(self) -> None:
        """Return when there is nothing to do for its nodes."""

    def _counts(self, name: str) -> MessageCounts | None:
        """Return the same as tests expect it."""
        counts = self._queue_counts(name)
        return counts and MessageCounts(counts.ready + counts.unacked + counts.apart, *counts[:3])

    async def history(self, queue: str) -> list[Passage]:
        """History of each message of a queue, in the order in which they came; also of a deleted
        queue.  The last 10,000 of the virtual host.  NotFound."""
        await self._wait_until_idle()
        timeline, vhost = self._timeline, self._look()
        known = timeline.of_queue(queue)
        if queue not in vhost.queues:
            if not known:
                there = ", ".join(map(repr, vhost.queues)) or "none"
                raise NotFound(f"no queue '{queue}' in vhost '{vhost.name}', but: {there}")
            return [each.view() for each in known]
        served = vhost.queues[queue]
        seen = await lying_in(served)
        gone = self._compare(queue, seen)
        queue_counts = self._queue_counts(queue)
        if queue_counts is None or queue_counts.apart or len(seen) >= PEEKED_MAX:
            gone = set()  # they may be where no timeline looked
        step = TraceStep(StepKind.GONE, timeline.at_ms, detail=UNSEEN)
        found = timeline.of_queue(queue)
        return [each.view(step) if each.number in gone else each.view() for each in found]

    def _compare(self, queue: str, seen: Sequence[PeekedMessage]) -> set[int]:
        """Put into the timeline what is in a queue by its own account; the numbers of those that
        are not, though they should be."""
        timeline, course = self._timeline, self._timeline.course(queue)
        contents = [build_content(each.properties, each.body) for each in seen]
        there = Counter(map(hash, contents))
        missing: set[int] = set()
        for passage in course.ready:
            there[passage.key] -= 1
            if there[passage.key] < 0:
                missing.add(passage.number)
        held = [each for each in timeline.of_queue(queue) if each.last.what is StepKind.DELIVERED]
        for passage in held:
            if there[passage.key] > 0:
                there[passage.key] -= 1
                back = TraceStep(
                    StepKind.REQUEUED, timeline.at_ms, detail="taken from its consumer"
                )
                passage.add(back)
                course.wait([passage], in_front=True)
        for each, content in zip(seen, contents, strict=True):
            if there[hash(content)] > 0 and timeline.has_room:
                there[hash(content)] -= 1
                message = each.exchange, each.routing_key, content
                timeline.found(queue, message, origin_of(content))
        return missing

    async def timeline(self) -> str:
        """All of it as text, the latest at the end: what happened, and what is left."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        timeline = self._timeline
        left_out = max(len(timeline.lines) - LINES_SHOWN_MAX, 0)
        if hidden := left_out + timeline.forgotten["lines"]:
            yield f"({hidden} earlier lines are left out)"
        yield from map(str, islice(timeline.lines, left_out, None))
        if not timeline.lines:
            yield "nothing has happened"
        for queue in self._look().queues:
            queue_counts = self._queue_counts(queue)
            if queue_counts is not None and any(
                (queue_counts.ready, queue_counts.unacked, queue_counts.apart)
            ):
                apart = f", {queue_counts.apart} apart" if queue_counts.apart else ""
                text = f"{queue_counts.ready} ready, {queue_counts.unacked} unacknowledged{apart}"
                yield f"left in queue {queue!r}: {text}"
        yield from some("left unacknowledged", list(map(repr, self._unacked())))
        yield from some("unroutable", list(map(str, timeline.unroutable)))
        yield from some("open", self._open())
        for what in ("messages", "unroutable messages"):
            if forgotten := timeline.forgotten[what]:
                yield f"({forgotten} {what} are forgotten)"

    def _unacked(self) -> list[Passage]:
        """Return what is unacknowledged by the queue's account, too: it may have taken messages
        from consumers that held them for long, and have dropped what came back."""
        queues = self._look().queues
        return [
            each for each in self._timeline.unacked if each.queue in queues and self._may_have(each)
        ]

    def _may_have(self, passage: Passage) -> bool:
        """True if its queue has messages that stand as this one does."""
        queue_counts = self._queue_counts(passage.queue)
        if queue_counts is None:
            return True
        is_held = passage.last.what is StepKind.DELIVERED
        return queue_counts.unacked > 0 or (
            not is_held and queue_counts.ready + queue_counts.apart > 0
        )

    def _open(self) -> list[str]:
        return [
            f"connection {short(session.name)}"
            + (f" with channels {', '.join(map(str, sorted(numbers)))}" if numbers else "")
            for session, numbers in self._timeline.channels.items()
        ]

    # Clients of MQTT

    async def packets(
        self,
        packet: str | None = None,
        *,
        client: str | None = None,
        topic: str | None = None,
        sent_by: str | None = None,
    ) -> list[SeenPacket]:
        """Return packets that MQTT clients have sent or were sent, in order, the last 10,000: of
        one type as `PUBLISH`, of one client by its identifier, with a topic or topic filter.

        `sent_by`: `client` or `broker`.  ValueError for a packet that MQTT does not have.
        """
        check_packet(packet)
        return self._packets(PacketQuery(packet, client, topic, sent_by))

    async def expect_packets(
        self,
        packet: str,
        *,
        client: str | None = None,
        topic: str | None = None,
        sent_by: str = "client",
        count: int = 1,
        within: float = 2.0,
    ) -> list[SeenPacket]:
        """Return packets as `packets` does, once there are so many at least.

        AssertionError after `within` seconds, with those that there are of the client instead.
        """
        __tracebackhide__ = True
        check_packet(packet)
        query = PacketQuery(packet, client, topic, sent_by)
        try:
            async with asyncio.timeout(within):
                await until(self._timeline.watchers, lambda: len(self._packets(query)) >= count)
        except TimeoutError:
            others = self._packets(PacketQuery(client=client))
            lines = "\n".join(some("there are", list(map(str, others[-LEFT_SHOWN_MAX:]))))
            seen = f"{len(self._packets(query))} of {count} {packet} within {within} s"
            raise AssertionError(f"{seen}; {lines or 'there are no packets at all'}") from None
        return self._packets(query)

    def _packets(self, query: PacketQuery) -> list[SeenPacket]:
        return [each for each in self._timeline.packets if query.is_met(each)]

    # What is expected of a test that cleans up

    async def assert_no_unacked(self, *, within: float = 2.0) -> None:
        """Return once every message that was delivered has been acknowledged or given back.

        What its client still had when its channel ended counts as unacknowledged, until it is
        delivered again.  AssertionError after `within` seconds.
        """
        __tracebackhide__ = True
        await self._nothing_left(
            lambda: list(map(repr, self._unacked())), "not acknowledged", within
        )

    async def assert_no_unroutable(self) -> None:
        """AssertionError if a client has published what no queue got, returned or not."""
        __tracebackhide__ = True
        await self._wait_until_idle()
        await self._nothing_left(
            lambda: list(map(str, self._timeline.unroutable)), "unroutable", 0.0
        )

    async def assert_no_leaked_channels(self, *, within: float = 2.0) -> None:
        """Return once no connection is open, and so no channel.

        AssertionError after `within` seconds.
        """
        __tracebackhide__ = True
        await self._nothing_left(self._open, "not closed", within)

    async def _nothing_left(self, left: Callable[[], list[str]], what: str, within: float) -> None:
        __tracebackhide__ = True
        try:
            async with asyncio.timeout(within):
                await until(self._timeline.watchers, lambda: not left())
        except TimeoutError:
            found = left()
            lines = "\n".join(some(f"{len(found)} {what}", found))
            raise AssertionError(lines) from None


class Vhost(AssertedVhost):
    """Made by its broker."""

    def __init__(
        self,
        name: str,
        urls: VhostUrls,
        parts: NodeContext,
        turn: Turn,
        clock: MovableClock,
        *,
        scope: FaultScope,
        timeline: Timeline,
    ) -> None:
        super().__init__(name, urls, timeline)
        self.advance = clock.advance
        """Moves the clock of the broker, for all its virtual hosts."""
        self.clients = Clients(scope)
        self.faults = Faults(scope)
        self._parts = parts
        self._turn = turn

    def _look(self) -> VirtualHost:
        return self._parts.vhost(self.name)

    def _queue_counts(self, name: str) -> QueueCounts | None:
        queue = self._look().queues.get(name)
        return tally_here(self._parts, queue) if queue is not None else None

    async def _wait_until_idle(self) -> None:
        await self.advance()

    async def queues(self) -> dict[str, Row]:
        """Return all queues by their names, as `fluffle queues list` shows them."""
        listed = await rows(self._parts, "queues.list", vhost=self.name)
        return {row["name"]: row for row in listed}

    async def sessions(self) -> dict[str, Row]:
        """Return sessions of MQTT by their client identifiers, as `/api/mqtt/sessions` shows
        them."""
        listed = await rows(self._parts, "sessions.list", vhost=self.name)
        return {row["client_id"]: row for row in listed}

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

        def is_so() -> bool:
            counts = self._counts(queue)
            return counts is not None and is_met(wanted, counts)

        try:
            await asyncio.wait_for(until(self._turn.watchers, is_so), within)
        except TimeoutError:
            raise AssertionError(self._mismatch(queue, wanted, within)) from None

    async def messages(self, queue: str, *, count: int = PEEKED_MAX) -> list[Message]:
        """Return those that are ready, in the order in which they would be handed out; they stay as
        they are.  The first `count`, 10,000 at most.  NotFound."""
        self._check_there(queue)
        seen = await rows(
            self._parts, "queues.peek", name=queue, vhost=self.name, count=count,
            body_bytes=BODY_BYTES_MAX,
        )  # fmt: skip
        return [message_of(row) for row in seen]

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> None:
        """Publish without a client; `properties` by their AMQP names, persistent if not said.

        NotFound for an exchange that is not there, AssertionError for a message that leads nowhere,
        with why; ValueError and TypeError for what cannot be in a message.
        """
        __tracebackhide__ = True
        check_message(body, properties)
        vhost = self._parts.vhost(self.name)
        encode_shortstr(routing_key)  # a delivery carries it in one
        properties.setdefault("delivery_mode", DELIVERY_MODE_PERSISTENT)
        message_properties = Properties(
            headers=to_table(dict(headers)) if headers else None, **properties
        )
        if exchange:
            vhost.topology.require(exchange)
        way = vhost.route(exchange, (routing_key,), message_properties)
        if not (way[0] or way[1]):
            why = await self.explain(exchange, routing_key, headers, **properties)
            raise AssertionError(
                f"no queue takes what is published to exchange '{exchange}' with routing key "
                f"'{routing_key}' in vhost '{self.name}':\n{why}"
            )
        message = exchange, routing_key, build_content(encode_properties(message_properties), body)
        direct_consumers.published(self._timeline, message, [queue.name for queue in way[0]])
        publish_own(vhost, exchange, [(routing_key, message_properties, body)])
        look_again(self._turn)

    async def explain(
        self,
        exchange: str,
        routing_key: str,
        headers: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> Explanation:
        """Return which bindings would match a message, which not, and why; `properties` as for
        `publish`.

        NotFound, ValueError for what cannot be in a message.
        """
        vhost, table = self._parts.vhost(self.name), to_table(dict(headers or {}))
        more = (sender_selected(table, "CC"), sender_selected(table, "BCC"))
        keys = (routing_key, *chain.from_iterable(more))

        def is_there(queue: str) -> bool:
            return queue in vhost.queues and not is_delayed_queue(queue)

        message_properties = Properties(headers=table, **properties)
        encode_properties(message_properties)  # what cannot be
        return explain(vhost.topology, is_there, exchange, keys, message_properties)

    async def get(self, queue: str, *, within: float = 2.0) -> HeldMessage:
        """Take the next message, and hold it until `ack()` or `reject()`, which are not awaited.

        AssertionError if there is none within so many seconds.
        """
        __tracebackhide__ = True
        (message,) = await take(self._consumer(), queue, 1, within)
        return message

    async def consume(self, queue: str, *, count: int = 1, within: float = 2.0) -> list[Message]:
        """Take so many messages, and acknowledge them.

        AssertionError if there are not as many within so many seconds; those that came go back.
        """
        __tracebackhide__ = True
        found = await take(self._consumer(), queue, count, within)
        for message in found:
            message.ack()
        return [*found]

    async def purge(self, queue: str) -> int:
        """Drop ready messages; return how many there were.  NotFound."""
        self._check_there(queue)
        row = await ask(self._parts, "queues.purge", name=queue, vhost=self.name)
        self._timeline.purging(direct_consumers.TEST, queue)()
        look_again(self._turn)
        return int(row["messages"])

    def _consumer(self) -> DirectConsumer:
        return DirectConsumer(self._parts.vhost(self.name), self._turn, self._timeline)

    def _check_there(self, queue: str) -> None:
        """NotFound, with the queues that are."""
        __tracebackhide__ = True
        queues = self._parts.vhost(self.name).queues
        if queue not in queues:
            raise NotFound(f"no queue '{queue}' in vhost '{self.name}', but: {names_of(queues)}")

    def _mismatch(self, queue: str, wanted: MessageCounts, within: float) -> str:
        queues = self._parts.vhost(self.name).queues
        if queue not in queues:
            return f"there is no queue '{queue}' after {within} s, but: {names_of(queues)}"
        found = self._counts(queue)
        return (
            f"queue '{queue}' has not had {shown(wanted)} within {within} s; "
            f"it has {shown(found) if found is not None else 'no leader'}"
        )


def names_of(queues: Iterable[str]) -> str:
    return ", ".join(map(repr, queues)) or "none"


def check_packet(name: str | None) -> None:
    """ValueError for a packet that MQTT does not have."""
    __tracebackhide__ = True
    from fluffle.protocol.mqtt.codes import PacketType  # noqa: PLC0415  if it is used

    if name is not None and name not in PacketType.__members__:
        raise ValueError(f"MQTT has no packet {name!r}, but: {', '.join(PacketType.__members__)}")


def check_message(body: object, properties: Iterable[str]) -> None:
    """TypeError for a body that is no bytes, and for a property that AMQP does not have."""
    __tracebackhide__ = True
    if not isinstance(body, bytes):
        kind = type(body).__name__
        raise TypeError(f"the body of a message is bytes, and no {kind}: encode it first")
    known = [field.name for field in fields(Properties)]
    for name in properties:
        if name not in known:
            raise TypeError(f"a message has no property '{name}', but: {', '.join(known)}")


def tally_here(parts: NodeContext, queue: QueueHandle) -> QueueCounts | None:
    """Return what is in a queue of this node; None for one that is led elsewhere."""
    hosted = parts.cluster_view.groups.get(queue.definition.id)
    if hosted is None:
        return QueueCounts(queue.ready_count, queue.in_flight, queue.consumer_count)
    from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember  # noqa: PLC0415  slow to import

    assert isinstance(hosted.machine, QuorumQueueMember)
    return QueueCounts(*hosted.machine.counts) if hosted.machine.replica.leadership else None


def some(what: str, items: Sequence[str]) -> Iterator[str]:
    """The first of several, one a line, and how many more there are."""
    if not items:
        return
    yield f"{what}:"
    yield from (f"  {each}" for each in items[:LEFT_SHOWN_MAX])
    if len(items) > LEFT_SHOWN_MAX:
        yield f"  and {len(items) - LEFT_SHOWN_MAX} more"


async def lying_in(queue: QueueHandle) -> list[PeekedMessage]:
    """The messages of a queue that are ready, whole; up to `PEEKED_MAX`, or to what is damaged."""
    found: list[PeekedMessage] = []
    while len(found) < PEEKED_MAX:
        peeked = queue.peek(PeekRequest(len(found), PEEKED_MAX - len(found), body_bytes=1 << 40))
        if isinstance(peeked, Deferred):
            peeked = await answered(peeked)
        found += peeked.seen
        if not peeked.seen or peeked.damage:
            break
    return found


async def answered(later: Deferred[PeekResult]) -> PeekResult:
    come: asyncio.Future[PeekResult] = asyncio.get_running_loop().create_future()
    later.then(come.set_result, come.set_exception)
    return await come
