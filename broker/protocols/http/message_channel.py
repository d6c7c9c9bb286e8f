"""Channel of one request for messages: it publishes one, or gets some.

For observers, limits and counts it is a channel of a connection, as it is with RabbitMQ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from fluffle.broker.access.users import User
from fluffle.broker.admin.local_client import in_time
from fluffle.broker.base.errors import BrokerError, NotAllowed, QueueDeleted
from fluffle.broker.base.message import Origin
from fluffle.broker.core.admission import admitted, check_channel_limit
from fluffle.broker.core.client import ClientConsumer
from fluffle.broker.core.confirms import Confirms
from fluffle.broker.core.consumer_timeout import log_timeout, requeue_timed_out, timeout_error
from fluffle.broker.core.enqueue import RoutedBatch
from fluffle.broker.core.observer import ChannelObserver, ChannelObservers
from fluffle.broker.core.publisher import Publisher, oversized
from fluffle.broker.core.queue_get import count_got, get_message, requeue
from fluffle.broker.core.services import Services
from fluffle.broker.core.settlement import Settlements
from fluffle.broker.core.topology import readable_queue
from fluffle.broker.core.unacked import Unacked
from fluffle.broker.protocols.http.request_channel import (
    HttpClient,
    RequestChannel,
    answer_to,
    discard,
    knowledge_of,
)
from fluffle.broker.protocols.http.responses import bad_request
from fluffle.broker.queues.queue_api import (
    Deferred,
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
    QueueHandle,
    SettlementStatus,
    SharedCredit,
    TimedOutDeliveries,
)
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import build_content
from fluffle.protocol.steps import Steps

CONFIRM_TIMEOUT_S = 5.0
"""RabbitMQ waits so long until a message is safe."""


class PublishOutcome:
    """Outcome of the one message that a request publishes: `PublishOutcomes`."""

    __slots__ = ("_is_routed", "known")

    def __init__(self) -> None:
        self._is_routed = True
        self.known: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether it led to a queue, once it is safe; Refusal if some queue did not take it."""

    def returned(self, routed: RoutedBatch) -> None:
        """It leads to no queue."""
        del routed
        self._is_routed = False

    def settle(self, confirms: Confirms) -> None:
        """It is safe, or refused."""
        found = confirms.take()
        if self.known.done():
            return
        if found.refused:
            reason = "rejected Unable to publish message. Check queue limits."
            self.known.set_exception(bad_request(reason))
        elif found.accepted:
            self.known.set_result(self._is_routed)

    settle_later = settle


class GotMessage(NamedTuple):
    """Message that a request has got of a queue."""

    origin: Origin
    content: bytes
    is_redelivered: bool
    left_count: int
    """How many were ready behind it."""


class Getter:
    """Holder of what a request gets: no prefetch limits it."""

    __slots__ = ("_channel", "no_ack", "queue")
    timeout_ms = None

    def __init__(self, channel: MessageChannel, queue: QueueHandle, *, no_ack: bool) -> None:
        self._channel = channel
        self.queue = queue
        self.no_ack = no_ack

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """What is got is answered to who asks."""

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """The ledger of the channel is all that counts these."""

    def settled(self, count: int) -> None:
        """Nothing waits for room."""

    def overdue(self, late: OverdueDeliveries) -> None:
        self.timed_out(requeue_timed_out(late))

    def timed_out(self, lost: TimedOutDeliveries) -> None:
        log_timeout(self._channel, self.queue, lost)
        self._channel.error = timeout_error(self._channel, lost)


class MessageChannel(RequestChannel):
    """Channel of one request that publishes a message, or gets some."""

    __slots__ = (
        "_client",
        "_closing",
        "_observer",
        "_outcome",
        "_publisher",
        "error",
        "settlements",
        "shared_credit",
    )
    transaction = None
    subscriptions: Mapping[str, ClientConsumer] = MappingProxyType({})
    prefetch = 0

    def __init__(
        self, services: Services, client: HttpClient, user: User, vhost: VirtualHost
    ) -> None:
        super().__init__(services, client, user, vhost)
        self._client = client
        self._closing = ExitStack()
        """What ends with the channel."""
        self.shared_credit = SharedCredit()
        self.settlements = Settlements(self.session)
        self._outcome = PublishOutcome()
        self._publisher = Publisher(self.session, self._outcome, number=self.number)
        self._observer: ChannelObserver | None = None
        self.error: BrokerError | None = None
        """Why nothing more is done on it, if that is so."""

    @property
    def unacked(self) -> Unacked:
        return self.settlements.unacked

    @property
    def confirms(self) -> Confirms | None:
        return self._publisher.mode.confirms

    def begin(self) -> None:
        """Open a connection and a channel, for all that counts or observes them.

        If an observer fails, what has been opened is closed again.
        """
        session, access, traffic = self.session, self.session.access, self.session.traffic
        user, vhost = session.user.name, session.vhost.name
        requests = self._services.connections.requests
        self._client.open(session, self, self._services.runtime.clock.wall_ms())
        with ExitStack() as closing:
            requests.add(self._client)
            closing.callback(requests.discard, self._client)
            for observer in session.observers:
                observer.logged_in(session.client, "", user)
                observer.opened(session.client, session)
                closing.callback(observer.closed, session)
            closing.callback(super().end)
            access.usage.opened(user, vhost)
            closing.callback(access.usage.closed, user, vhost)
            access.usage.channel_opened(user)
            closing.callback(access.usage.channel_closed, user)
            traffic.connections_opened += 1
            traffic.channels_opened += 1
            closing.callback(self._count_closed)
            found = []
            for observer in session.observers:
                found.append(observer.channel_opened(self))
                closing.callback(observer.channel_closed, self, 0)
            channel_observers = [each for each in found if each is not None]
            if channel_observers:
                self._observer = ChannelObservers(channel_observers)
            self._publisher.observer = self.settlements.observer = self._observer
            self._closing = closing.pop_all()

    def _count_closed(self) -> None:
        self.session.traffic.connections_closed += 1
        self.session.traffic.channels_closed += 1

    def refused(self, error: BrokerError) -> None:
        """Something was wrong, as that which closes the channel of another client."""
        for observer in self.session.observers:
            observer.channel_refused(self, error)

    def end(self) -> None:
        """Give back what is not settled, and close what `begin` has opened, even if an observer
        fails."""
        with self.turn(), self._closing:
            steps = self.settlements.settle_all(Outcome.LOST)
            for _ in steps:
                self.session.background_tasks.finish(steps)
                break
            self._publisher.end()

    def refresh(self) -> None:
        if self.error is not None:
            raise self.error
        super().refresh()

    async def publish(
        self, exchange: str, routing_key: str, raw_properties: bytes, body: bytes
    ) -> bool:
        """Publish the one message of this channel and wait until it is safe; whether it led to a
        queue.

        Refusal for one that some queue did not take, or that is not safe in time.
        """
        assert self.confirms is None, "a channel of a request publishes one message"
        limit_bytes = self._services.limits.message_bytes_max
        if len(body) > limit_bytes:
            raise oversized(len(body), limit_bytes)
        content = build_content(raw_properties, body)
        interceptors = self.session.interceptors
        if interceptors is not None and interceptors.incoming is not None:
            (content,), _outline = interceptors.incoming.intercepted([content], raw_properties)
        self._publisher.confirm()
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                await self._certainly(partial(self._publish, exchange, routing_key, content))
                return await self._outcome.known
        except TimeoutError:
            raise bad_request(f"confirm_timeout no confirm in {CONFIRM_TIMEOUT_S:g} s") from None

    async def _publish(self, exchange: str, routing_key: str, content: bytes) -> None:
        steps = self._publisher.publish_message(
            exchange, routing_key, content, mandatory=True, is_certain=self.is_certain
        )
        await self._do(steps)
        with self.turn():
            self.session.confirm()

    async def _do(self, steps: Steps[None]) -> None:
        """Do what may take long, and let others have their turns in between."""
        while True:
            with self.turn():
                if next(steps, self) is self:
                    return
            await asyncio.sleep(0)

    async def get(self, name: str, *, no_ack: bool = False) -> GotMessage | None:
        """Get a message of a queue; None if there is none."""
        found: QueueHandle | None = None

        def question() -> DeliveryBatch | Deferred[DeliveryBatch | None] | None:
            nonlocal found
            found = readable_queue(self.session, name)
            return get_message(Getter(self, found, no_ack=no_ack), self.session.vhost.name)

        def got(delivery_batch: DeliveryBatch | None) -> GotMessage | None:
            assert found is not None
            count_got(self.session, found, delivery_batch)
            message = self._received(delivery_batch) if delivery_batch is not None else None
            if self._observer is not None:
                self._observer.got(found, delivery_batch)
            return message

        return await self.ask("Basic.Get", question, got, requeue)

    def _received(self, delivery_batch: DeliveryBatch) -> GotMessage:
        """Put a message that was just got into the ledger, and return it as its client sees it."""
        session, contents = self.session, delivery_batch.contents
        first_tag = self.unacked.number(delivery_batch)
        if session.vhost.tracer is not None:
            session.vhost.tracer.delivered(self.traced, delivery_batch, first_tag)
        interceptors = session.interceptors
        if interceptors is not None and interceptors.outgoing is not None:
            contents = interceptors.outgoing.intercepted(contents)
        return GotMessage(
            delivery_batch.origins[0],
            contents[0],
            is_redelivered=delivery_batch.redelivered,
            left_count=delivery_batch.holder.queue.ready_count,
        )

    async def settle_all(self, outcome: Outcome) -> None:
        """Settle all that was got, and return once that is so and safe.  PreconditionFailed for
        messages that were held too long, which are back in their queues."""
        self.refresh()
        async with in_time("Basic.Ack"):
            await self._do(self.settlements.settle_all(outcome))
            pending = self.settlements.pending
            while pending:
                await settled(*pending.popitem())
            await self.wait_until_safe()


async def settled(queue: QueueHandle, status: SettlementStatus) -> None:
    """Return once all is so that was settled at a queue that is led elsewhere.  BrokerError."""
    settling = queue.settling
    if settling is not None:
        with suppress(QueueDeleted):
            await answer_to(settling, discard)
    if status.error is not None:
        raise status.error


async def admit(services: Services, user: User, vhost_name: str) -> None:
    """Find that a user may open a virtual host, and a channel, as a client now.  NotAllowed."""
    read_barrier = services.read_barrier
    try:
        admitted(services, user, vhost_name)
    except NotAllowed:
        if read_barrier.is_complete:
            raise
        await knowledge_of(read_barrier)
        admitted(services, user, vhost_name)
    check_channel_limit(services.access, user)
