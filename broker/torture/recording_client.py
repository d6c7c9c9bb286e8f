"""Recording client: it writes down all it sends and receives while it publishes, consumes and
looks."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from fluffle.broker.torture.connection import (
    BrokerRefusal,
    ClientConnection,
    ClientOptions,
    NodeAddress,
)
from fluffle.broker.torture.history import Acked, Looked, Message, Note, Received, Requeued, Strange
from fluffle.broker.torture.publisher import Publisher, message_of
from fluffle.protocol.client_reader import ReceivedMethod
from fluffle.protocol.methods import Basic, Queue, make
from fluffle.protocol.properties import decode_properties
from fluffle.protocol.spec import ReplyCode

COUNT_HEADER = "x-delivery-count"


class Unacked:
    """The consumer tag of a consumer is the name of its queue."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.held: dict[int, tuple[str, Message]] = {}
        """Queue and message, by delivery tag, rising."""
        connection.on(Basic.Deliver, self._on_deliver)

    def forget(self) -> None:
        """Forget all deliveries: the channel is another one."""
        self.held.clear()

    async def consume(self, queue: str, prefetch: int, *, no_ack: bool = False) -> None:
        await self._connection.call(make(Basic.Qos, prefetch_count=prefetch))
        consume = make(Basic.Consume, queue=queue, consumer_tag=queue, no_ack=no_ack)
        await self._connection.call(consume)

    async def await_held(self, count: int) -> list[int]:
        """Return when at least so many messages are in hands: their tags."""
        while len(self.held) < count:
            await self._connection.receive()
        return list(self.held)

    async def get(self, queue: str) -> int | None:
        """Take one message, if there is one: its tag."""
        reply = await self._connection.call(make(Basic.Get, queue=queue))
        if not isinstance(reply.method, Basic.GetOk):
            return None
        self._take(reply, queue)
        return reply.method.delivery_tag

    def ack(self, *tags: int) -> None:
        """Acknowledge deliveries one by one."""
        self._note_acked(tags)
        self._connection.send(*(make(Basic.Ack, delivery_tag=tag) for tag in tags))

    def ack_up_to(self, tag: int) -> None:
        self._note_acked([each for each in self.held if each <= tag])
        self._connection.send(make(Basic.Ack, delivery_tag=tag, multiple=True))

    def reject(self, *tags: int) -> None:
        """Reject deliveries for good."""
        self._note_acked(tags)
        self._connection.send(
            *(make(Basic.Reject, delivery_tag=tag, requeue=False) for tag in tags)
        )

    def requeue(self, *tags: int) -> None:
        for tag in tags:
            self._connection.note(Requeued(self._connection.channel, *self.held.pop(tag)))
        self._connection.send(*(make(Basic.Nack, delivery_tag=tag, requeue=True) for tag in tags))

    def let_go(self) -> None:
        """Note that deliveries were acknowledged by being sent."""
        self._note_acked(list(self.held))

    async def make_sure(self) -> None:
        """Have what was acknowledged vouched for."""
        await self._connection.call(make(Basic.Qos, prefetch_count=0))

    def _note_acked(self, tags: Iterable[int]) -> None:
        for tag in tags:
            self._connection.note(Acked(self._connection.channel, *self.held.pop(tag)))

    def _on_deliver(self, reply: ReceivedMethod) -> None:
        assert isinstance(reply.method, Basic.Deliver)
        self._take(reply, queue=reply.method.consumer_tag or "")

    def _take(self, reply: ReceivedMethod, queue: str) -> None:
        """Write a message down, unless it comes to a channel that is being closed."""
        assert isinstance(reply.method, Basic.Deliver | Basic.GetOk)
        connection, tag = self._connection, reply.method.delivery_tag or 0
        if connection.is_closing:
            return
        message = message_of(reply.body)
        if message is None:
            connection.note(Strange(f"{connection.name} was sent {reply.body[:50]!r} from {queue}"))
            connection.send(make(Basic.Ack, delivery_tag=tag))
            return
        is_again = reply.method.redelivered is True
        count = delivery_count(reply.properties) if is_again else None
        connection.note(Received(connection.channel, queue, message, is_again, count))
        self.held[tag] = queue, message


def delivery_count(properties: bytes) -> int | None:
    """Return how often a message was delivered in vain; None where that is not reported."""
    _type, count = (decode_properties(properties).headers or {}).get(COUNT_HEADER, ("", None))
    return count if isinstance(count, int) else None


class RecordingClient:
    """Its name is used once in a history.  Leaving it as a context hangs up."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.publisher = Publisher(connection)
        self.unacked = Unacked(connection)

    @classmethod
    async def connect(
        cls, to: NodeAddress, name: str, note: Note, client_options: ClientOptions | None = None
    ) -> Self:
        """`ConnectionEnded` where that fails."""
        return cls(
            await ClientConnection.connect(to, name, note, client_options or ClientOptions())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.connection.end(error)

    async def reopen_channel(self) -> None:
        """Close the channel with all it holds, and open another, without any mode."""
        await self.connection.close_channel()
        self._forget()
        await self.connection.open_channel()

    async def is_there(self, queue: str) -> bool:
        """Whether a queue is; if not, that costs the channel, and another is opened."""
        try:
            await self.ready_count(queue)
        except BrokerRefusal as refusal:
            if refusal.code != ReplyCode.NOT_FOUND:
                raise
            self.connection.note(Looked(queue, found=False))
            self._forget()
            await self.connection.replace_channel(str(refusal))
            return False
        self.connection.note(Looked(queue, found=True))
        return True

    async def ready_count(self, queue: str) -> int:
        """Return how many messages of a queue no client holds."""
        reply = await self.connection.call(make(Queue.Declare, queue=queue, passive=True))
        assert isinstance(reply.method, Queue.DeclareOk)
        return reply.method.message_count or 0

    def _forget(self) -> None:
        self.publisher.forget()
        self.unacked.forget()
