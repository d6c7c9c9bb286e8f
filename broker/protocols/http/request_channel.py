"""Channel of one request, whose user is allowed and refused what any client is.

    async with call.declarations() as channel:
        await channel.change("Exchange.Declare", partial(declare_exchange, channel.session, spec))

It changes definitions and asks queues.  `MessageChannel` publishes a message, or gets some: for
observers, limits and counts it is a channel of a connection, as it is with RabbitMQ.  What is
answered is safe by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from fluffle.broker.access.access import User
from fluffle.broker.admin.local_client import in_time
from fluffle.broker.base.callbacks import answer_of, completion_of
from fluffle.broker.base.errors import BrokerError, NotAllowed, QueueDeleted
from fluffle.broker.base.message import Origin
from fluffle.broker.base.traffic import AMQP_091
from fluffle.broker.core import topology
from fluffle.broker.core.client import ClientChannel, ClientConsumer, Handshake
from fluffle.broker.core.confirms import Confirms
from fluffle.broker.core.consumer import (
    count_got,
    get_message,
    log_timeout,
    requeue,
    requeue_timed_out,
    timeout_error,
)
from fluffle.broker.core.login import (
    ask_again,
    check_admission,
    check_channel_limit,
    expulsion,
    vhost_refused,
)
from fluffle.broker.core.observer import ChannelObserver
from fluffle.broker.core.publisher import Publisher, oversized
from fluffle.broker.core.route_lookup import RoutedBatch
from fluffle.broker.core.services import Services
from fluffle.broker.core.session import Session
from fluffle.broker.core.settlement import Settlements, Unacked
from fluffle.broker.core.topology import readable_queue
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import Decide, ReadBarrier, ignore_done, is_premature
from fluffle.broker.process.encryption import PeerCertificate
from fluffle.broker.process.sockets import shown_address
from fluffle.broker.protocols.http.responses import bad_request
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.publish_target import BackloggedTarget
from fluffle.broker.queues.queue_api import (
    Deferred,
    DeliveryBatch,
    Outcome,
    OverdueDeliveries,
    QueueCounts,
    QueueHandle,
    SettlementStatus,
    SharedCredit,
    TimedOutDeliveries,
)
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.runtime.commits import when_safe
from fluffle.broker.vhosts.vhost import TracedClient, VirtualHost
from fluffle.protocol.properties import build_content
from fluffle.protocol.proxy import Address
from fluffle.protocol.steps import Steps

CONFIRM_TIMEOUT_S = 5.0
"""RabbitMQ waits so long until a message is safe."""

T = TypeVar("T")
R = TypeVar("R")


class RequestAddresses(NamedTuple):
    """RequestAddresses of both ends of a request."""

    peer: Address
    here: Address


class HttpClient:
    """Client that has sent one request and waits for its answer: a `core.client.ListedClient`."""

    kind = "direct"
    protocol = "Direct 0-9-1"
    traffic_labels = AMQP_091
    is_encrypted = False
    """All as RabbitMQ says of clients of its management."""
    tls = None
    certificate: PeerCertificate = MappingProxyType({})
    protocol_row: Mapping[str, Any] = MappingProxyType({})
    state = "running"
    heartbeat_s = read_bytes = written_bytes = reads = writes = unwritten_bytes = 0

    def __init__(self, user: User, ends: RequestAddresses) -> None:
        self.ends = ends
        self.name = f"{shown_address(*ends.peer)} -> {shown_address(*ends.here)}"
        self.handshake = Handshake()
        self.handshake.user = user
        self.close_reason = "done"
        self.session: Session | None = None
        self.channels: tuple[ClientChannel, ...] = ()

    def open(self, session: Session, channel: ClientChannel, now_ms: int) -> None:
        """Record that the request has opened a session with one channel; `now_ms` by the time of
        day."""
        self.session, self.channels = session, (channel,)
        self.handshake.connected_at_ms = now_ms

    def on_behind(self, target: BackloggedTarget, count: int) -> None:
        """Ignore backpressure: a client that waits for each answer needs none."""

    def on_disk_behind(self) -> None:
        """The answer waits for the disk."""


def discard(_answer: object) -> None:
    """Ignore an answer that no caller waits for any more."""


class RequestChannel:
    """Channel of one request in one virtual host: a `SessionChannel`, with answers to wait for.

    Whatever is awaited may raise BrokerError for what is refused, and TimeoutError.
    """

    number = 1

    def __init__(
        self, services: Services, client: HttpClient, user: User, vhost: VirtualHost
    ) -> None:
        self._services = services
        self.session = Session(user=user, vhost=vhost, services=services, client=client)
        self._has_lost_user = services.access.current(user) is None
        """True if the user was deleted, though there may be another of that name by now."""
        self.session.listen(self._on_access)
        self.is_certain = services.read_barrier.is_complete
        """True if what is asked now may be answered by what is not here: see `read_barrier`."""

    @property
    def traced(self) -> TracedClient:
        """The client, as tracers see it."""
        return TracedClient(self.session.name, self.number, self.session.user.name)

    async def change(
        self, what: str, decide: Decide, then: Callable[[], object] = ignore_done
    ) -> None:
        """Have definitions changed, and call `then` at once; return when all is safe.

        `what` is named if it takes too long.
        """
        async with in_time(what):
            await self._certainly(partial(self._change, decide, then))
            await self.wait_until_safe()

    async def _change(self, decide: Decide, then: Callable[[], object]) -> None:
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def decide_if_wanted() -> Change:
            return NOTHING if changed.done() else decide()

        def done() -> None:
            if changed.done():
                return
            try:
                then()
            except Exception as error:  # noqa: BLE001 - a bug ends the request
                changed.set_exception(error)
            else:
                changed.set_result(None)

        def failed(error: BrokerError) -> None:
            if not changed.done():
                changed.set_exception(error)

        with self.turn():
            self.session.metadata.change(decide_if_wanted, done, failed)
        await changed

    async def ask(
        self,
        what: str,
        question: Callable[[], T | Deferred[T]],
        act: Callable[[T], R],
        unwanted: Callable[[T], object] = discard,
    ) -> R:
        """Return what `act` makes, at once, of the answer of a queue to a question, wherever the
        queue is led; `unwanted` gets an answer that comes too late.

        `question` is asked anew if the queue is deleted before it answers.  `what` is named if it
        takes too long.
        """

        async def answer() -> R:
            with self.turn():
                asked = question()
                if not isinstance(asked, Deferred):
                    return act(asked)
            return await answer_to(asked, act, unwanted)

        async with in_time(what):
            while True:
                try:
                    return await self._certainly(answer)
                except QueueDeleted:  # another may have its name, or none
                    continue

    async def _certainly(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do something, and again if it is refused for what may only be unknown here: then once all
        is known that was answered anywhere before."""
        self.refresh()
        try:
            return await act()
        except BrokerError as error:
            if self.is_certain or not is_premature(error, self._services.read_barrier):
                raise
        await knowledge_of(self._services.read_barrier)
        self.refresh()
        self.is_certain = True
        try:
            return await act()
        finally:
            self.is_certain = False

    def _on_access(self) -> None:
        """The user has changed, or his rights have: these are asked again where they count."""
        self._has_lost_user |= self.session.user.name not in self._services.access.users

    def refresh(self) -> None:
        """Ask again what the user may.  NotAllowed if he is gone, as RabbitMQ refuses who logs in,
        ConnectionForced if his virtual host is."""
        if self._has_lost_user:
            raise vhost_refused(self.session.user, self.session.vhost.name)
        why = expulsion(self._services, self.session)
        if why is not None:
            raise why
        ask_again(self.session)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Act within a turn of the node, which ends with the block unless one is to come."""
        turn = self._services.runtime.turn
        ends_turn = turn.begin()
        try:
            yield
        finally:
            if ends_turn:
                turn.end()

    async def wait_until_safe(self) -> None:
        """Return once all is on disk that was done or defined so far."""
        await completion_of(partial(when_safe, self._services.runtime.commits))

    # Definitions of several steps

    async def declare_queue(self, declared: Declaration) -> None:
        """Have a queue, or find that it is as is wanted."""
        what = "Queue.Declare"
        if topology.is_reply_target(declared.name):
            question = partial(topology.has_requester, self.session, declared.name)
            if not await self.ask(what, question, bool):
                raise topology.no_queue(self.session, declared.name)
            return
        request = topology.QueueDeclaration(self.session, topology.named(self.session, declared))
        await self.change(what, request.decide)
        queue = request.found
        if queue is not None:
            await self.ask(what, partial(use, request), discard)
            topology.check_here(queue)  # that its node is away may have been found out meanwhile

    async def delete_queue(self, name: str, *, if_unused: bool, if_empty: bool) -> None:
        """Delete a queue with its messages, if that is there."""
        request = topology.QueueDeletion(self.session, name, if_unused=if_unused, if_empty=if_empty)
        counts = partial(self._counts_before, request)
        await self.ask("Queue.Delete", counts, discard)
        await self.change("Queue.Delete", request.decide)

    def _counts_before(
        self, request: topology.QueueDeletion
    ) -> QueueCounts | Deferred[QueueCounts]:
        return request.counts(is_certain=self.is_certain)

    async def purge(self, name: str) -> None:
        """Drop the messages of a queue that are ready."""
        traced = ignore_done

        def purge() -> int | Deferred[int]:
            nonlocal traced
            queue = topology.readable_queue(self.session, name)
            count, tracer = queue.purge(), self.session.vhost.tracer
            traced = tracer.purging(self.traced, queue) if tracer is not None else ignore_done
            return count

        await self.ask("Queue.Purge", purge, lambda _count: traced())
        async with in_time("Queue.Purge"):
            await self.wait_until_safe()

    async def bind(self, binding: Binding) -> None:
        """Have a binding."""
        if binding.destination_kind is DestinationKind.QUEUE:
            topology.check_no_reply_target(binding.destination)
        request = topology.BindingRequest(self.session, binding)
        what = f"{binding.destination_kind.value.capitalize()}.Bind"
        await self.change(what, request.decide, request.replay_history)

    async def unbind(self, binding: Binding) -> None:
        """Have a binding no more."""
        what = f"{binding.destination_kind.value.capitalize()}.Unbind"
        await self.change(what, partial(topology.unbind, self.session, binding))

    def end(self) -> None:
        """The request is answered."""
        self.session.end()


def use(request: topology.QueueDeclaration) -> QueueCounts | Deferred[QueueCounts]:
    """Ask a queue that is declared again how it is, which is a use of it, if it is still there."""
    queue = request.found
    return queue.queue_counts_in_use if queue is not None else QueueCounts(0, 0, 0)


async def answer_to(
    asked: Deferred[T], act: Callable[[T], R], unwanted: Callable[[T], object] = discard
) -> R:
    """Wait for an answer, and return what `act` makes of it when it comes; one that comes too late
    is `unwanted`.  BrokerError."""
    found: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    def answered(value: T) -> None:
        if found.done():
            unwanted(value)
            return
        try:
            found.set_result(act(value))
        except Exception as error:  # noqa: BLE001 - a bug ends the request
            found.set_exception(error)

    def failed(error: BrokerError) -> None:
        if not found.done():
            found.set_exception(error)

    asked.then(answered, failed)
    return await found


async def knowledge_of(read_barrier: ReadBarrier) -> None:
    """Return once all is known here that was answered anywhere before.  BrokerError."""

    def ask(answer: Callable[[BrokerError | None], None]) -> None:
        read_barrier.ask(partial(answer, None), answer)

    error = await answer_of(ask)
    if error is not None:
        raise error


class PublishOutcome:
    """Outcome of the one message that a request publishes: `PublishOutcomes`."""

    def __init__(self) -> None:
        self._is_routed = True
        self.known: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Result: True if the message was routed, once it is safe; Refusal if a queue rejected
        it."""

    def returned(self, routed: RoutedBatch) -> None:
        """Record that the message is unroutable."""
        del routed
        self._is_routed = False

    def report(self, confirms: Confirms) -> None:
        """Set the result: the message is safe, or refused."""
        found = confirms.take()
        if self.known.done():
            return
        if found.refused:
            reason = "rejected Unable to publish message. Check queue limits."
            self.known.set_exception(bad_request(reason))
        elif found.accepted:
            self.known.set_result(self._is_routed)

    report_later = report


class GotMessage(NamedTuple):
    """Message that a request has got of a queue."""

    origin: Origin
    content: bytes
    is_redelivered: bool
    left_count: int
    """How many were ready behind it."""


class RequestGetter:
    """Holder of what a request gets: no prefetch limits it."""

    timeout_ms = None

    def __init__(self, channel: MessageChannel, queue: QueueHandle, *, no_ack: bool) -> None:
        self._channel = channel
        self.queue = queue
        self.no_ack = no_ack

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Answer the request with the message."""

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

    transaction = None
    subscriptions: Mapping[str, ClientConsumer] = MappingProxyType({})
    prefetch = 0

    def __init__(
        self, services: Services, client: HttpClient, user: User, vhost: VirtualHost
    ) -> None:
        super().__init__(services, client, user, vhost)
        self._client = client
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
        session = self.session
        self._client.open(session, self, self._services.runtime.clock.wall_ms())
        self._services.connections.requests.add(self._client)
        try:
            for observer in session.observers:
                observer.logged_in(session.client, "", session.user.name)
            session.open()
            found = session.open_channel(self)
        except BaseException:
            self._end_session()
            raise
        self._observer = self._publisher.observer = self.settlements.observer = found

    def _end_session(self) -> None:
        self._services.connections.requests.discard(self._client)
        super().end()

    def refused(self, error: BrokerError) -> None:
        """Fail the request with an error that closes the channel of another client."""
        for observer in self.session.observers:
            observer.channel_refused(self, error)

    def end(self) -> None:
        """Give back what is not settled, and close what `begin` has opened, even if that fails."""
        with self.turn():
            try:
                steps = self.settlements.settle_all(Outcome.LOST)
                for _ in steps:
                    self.session.background_tasks.finish(steps)
                    break
                self._publisher.end()
            finally:
                self.session.end_channel(self, 0)
                self._end_session()

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
            return get_message(RequestGetter(self, found, no_ack=no_ack), self.session.vhost.name)

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


async def check_may_open(services: Services, user: User, vhost_name: str) -> None:
    """Check that a user may open a virtual host, and a channel, as a client now.  NotAllowed."""
    read_barrier = services.read_barrier
    try:
        check_admission(services, user, vhost_name)
    except NotAllowed:
        if read_barrier.is_complete:
            raise
        await knowledge_of(read_barrier)
        check_admission(services, user, vhost_name)
    check_channel_limit(services.access, services.access.current(user) or user)
