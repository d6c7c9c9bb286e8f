"""Channel of one request: its user changes definitions and asks queues, and is allowed and refused,
as any client is.

    async with declarations(call) as channel:
        await channel.change("Exchange.Declare", partial(declare_exchange, channel.session, spec))

What is answered is safe by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from fluffle.broker.access.users import User
from fluffle.broker.admin.local_client import in_time
from fluffle.broker.base.coroutines import answer_of, completion_of
from fluffle.broker.base.errors import BrokerError, QueueDeleted
from fluffle.broker.core import topology
from fluffle.broker.core.admission import ask_again, expulsion
from fluffle.broker.core.client import ClientChannel, Handshake
from fluffle.broker.core.services import Services
from fluffle.broker.core.session import Session
from fluffle.broker.metadata.change import NOTHING, Change
from fluffle.broker.metadata.metadata import Decide, ignore_done
from fluffle.broker.metadata.read_barrier import ABSENCE_ERRORS, ReadBarrier
from fluffle.broker.process.encryption import PeerCertificate
from fluffle.broker.process.peer_addresses import shown_address
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.publish_target import PublishTarget
from fluffle.broker.queues.queue_api import Deferred, QueueCounts
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.runtime.commits import when_safe
from fluffle.broker.vhosts.tracers import TracedClient
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.proxy import Address

T = TypeVar("T")
R = TypeVar("R")


class Addresses(NamedTuple):
    """Addresses of both ends of a request."""

    peer: Address
    here: Address


class HttpClient:
    """Client that has sent one request and waits for its answer: a `core.client.ListedClient`."""

    __slots__ = ("channels", "close_reason", "ends", "handshake", "name", "session")
    kind = "direct"
    protocol = "Direct 0-9-1"
    is_encrypted = False
    """All as RabbitMQ says of those who ask its management."""
    tls = None
    certificate: PeerCertificate = MappingProxyType({})
    state = "running"
    heartbeat_s = read_bytes = written_bytes = reads = writes = unwritten_bytes = 0

    def __init__(self, user: User, ends: Addresses) -> None:
        self.ends = ends
        self.name = f"{shown_address(*ends.peer)} -> {shown_address(*ends.here)}"
        self.handshake = Handshake()
        self.handshake.user = user
        self.close_reason = "done"
        self.session: Session | None = None
        self.channels: tuple[ClientChannel, ...] = ()

    def open(self, session: Session, channel: ClientChannel, now_ms: int) -> None:
        """It has opened a connection with a channel; `now_ms` by the time of day."""
        self.session, self.channels = session, (channel,)
        self.handshake.connected_at_ms = now_ms

    def on_behind(self, target: PublishTarget, count: int) -> None:
        """Who waits for each answer needs not be held up."""

    def on_disk_behind(self) -> None:
        """The answer waits for the disk."""


def discard(_answer: object) -> None:
    """What becomes of an answer that nobody waits for any more, where that is nothing."""


class RequestChannel:
    """Channel of one request in one virtual host: a `SessionChannel`, with answers to wait for.

    Whatever is awaited may raise BrokerError for what is refused, and TimeoutError.
    """

    __slots__ = ("_services", "is_certain", "session")
    number = 1

    def __init__(
        self, services: Services, client: HttpClient, user: User, vhost: VirtualHost
    ) -> None:
        self._services = services
        self.session = Session(user=user, vhost=vhost, services=services, client=client)
        self.is_certain = services.read_barrier.is_complete
        """Whether what is asked now may be answered by what is not here: see `read_barrier`."""

    @property
    def traced(self) -> TracedClient:
        """The client, as tracers are told of it."""
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
        queue is led; what it answers when nobody waits any more is `unwanted`.

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
        if self.is_certain:
            return await act()
        try:
            return await act()
        except BrokerError as error:
            if type(error) not in ABSENCE_ERRORS:
                raise
        await knowledge_of(self._services.read_barrier)
        self.refresh()
        self.is_certain = True
        try:
            return await act()
        finally:
            self.is_certain = False

    def refresh(self) -> None:
        """Ask again what the user may.  ConnectionForced if he is gone, or his virtual host."""
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
        self.session.forget()
        self._services.owners.end(self.session.owner)


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
