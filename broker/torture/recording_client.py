"""`RecordingClient`: writes down all it says and hears while it publishes, consumes and looks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from random import Random
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from fluffle.broker.amqp_client import (
    AmqpConnection,
    BrokerRefusal,
    ClientOptions,
    InvalidBytes,
    open_streams,
)
from fluffle.broker.torture.history import (
    Acked,
    Asked,
    Closing,
    Complained,
    Confirmed,
    Connected,
    Ended,
    Looked,
    MessageId,
    Note,
    Published,
    Received,
    Refused,
    Requeued,
    Returned,
    Strange,
    Vouched,
)
from fluffle.broker.torture.system import NodeAddress
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
    Properties,
    build_content,
    decode_properties,
    encode_properties,
    split_content,
)
from fluffle.protocol.spec import ReplyCode


class RecordedConnection(AmqpConnection):
    """Connection to a node with one channel at a time; what both sides say goes into a history."""

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        client_options: ClientOptions,
        name: str,
        note: Note,
    ) -> None:
        super().__init__(streams, client_options)
        self.name = name
        self.note = note
        self.is_closing = False
        """True once everything that still comes on the channel is ignored."""
        self._channel = 0
        self.on(Connection.Blocked, self._on_blocked)

    @classmethod
    async def connect_to(
        cls, to: NodeAddress, name: str, note: Note, client_options: ClientOptions
    ) -> Self:
        """Log in and open a channel.  `ConnectionEnded` if that is refused or takes too long."""
        streams = await open_streams((to.host, to.port), client_options)
        note(Connected(name, to.node))
        connection = cls(streams, client_options, name, note)
        try:
            await connection.log_in()
            await connection.open_channel()
        except BaseException as error:
            connection.end(error)
            raise
        return connection

    @property
    def channel(self) -> str:
        """Name of the channel."""
        return f"{self.name}#{self._channel}"

    def end(self, error: BaseException | None) -> None:
        """Hang up, without a word to the broker.  `error` is why; a complaint is written down."""
        if isinstance(error, BrokerRefusal) and error.code != ReplyCode.CONNECTION_FORCED:
            self.note(Complained(self.name, " ".join(str(error).split())))
        self.note(Ended(self.channel, str(error or "it is done")))
        self.abort()

    async def receive(self) -> ReceivedMethod:
        """Return the next method.  Invalid bytes are noted at once: the error may reach no end."""
        try:
            return await super().receive()
        except InvalidBytes as error:
            self.note(Strange(f"{self.name} heard {error}"))
            raise

    async def call(self, method: Method, channel: int = 1) -> ReceivedMethod:
        """Send a method and return its answer, which vouches for everything before."""
        self.note(Asked(self.channel))
        reply = await super().call(method, channel)
        self.note(Vouched(self.channel))
        return reply

    def _on_blocked(self, reply: ReceivedMethod) -> None:
        assert isinstance(reply.method, Connection.Blocked)
        self.note(Complained(self.name, f"{reply.method.name}: {reply.method.reason}"))

    async def open_channel(self) -> None:
        self._channel += 1
        self.is_closing = False
        await self.call(make(Channel.Open))

    async def close_channel(self) -> None:
        """Close the channel with all unsettled deliveries."""
        self.note(Closing(self.channel))
        self.is_closing = True
        await self.call(make(Channel.Close, 200, "", 0, 0))
        self.note(Ended(self.channel, "it was closed"))

    async def replace_channel(self, why: str) -> None:
        """Open another channel for one that the broker has closed."""
        self.note(Ended(self.channel, why))
        self.send(make(Channel.CloseOk))
        await self.open_channel()


PROPERTIES = {
    persistent: encode_properties(Properties(delivery_mode=2 if persistent else 1))
    for persistent in (True, False)
}


class RecordedTarget(NamedTuple):
    """Where messages are published to, and where they go."""

    exchange: str
    key: str
    queues: tuple[str, ...]
    mandatory: bool = True


def to(queue: str) -> RecordedTarget:
    """Through the default exchange."""
    return RecordedTarget("", queue, (queue,))


class RecordedPublisher:
    def __init__(self, connection: RecordedConnection) -> None:
        self._connection = connection
        self.unconfirmed: dict[int, MessageId] = {}
        """Unconfirmed messages by publish sequence number, rising."""
        self._numbers = count(1)
        self._sequences: count[int] | None = None
        """None: the channel is not in confirm mode."""
        connection.on(Basic.Ack, self._on_ack)
        connection.on(Basic.Nack, self._on_nack)
        connection.on(Basic.Return, self._on_return)

    def forget(self) -> None:
        """Forget what is unconfirmed: the channel is another one."""
        self.unconfirmed.clear()
        self._sequences = None

    async def confirm_select(self) -> None:
        await self._connection.call(Confirm.Select())
        self._sequences = count(1)

    def publish(
        self, targets: Iterable[RecordedTarget], size: int = 0, *, persistent: bool = True
    ) -> None:
        """Publish one message of at least so many bytes to each target, in one write."""
        events, frames = self.compose(targets, size, persistent=persistent)
        for event in events:
            self._connection.note(event)
            if self._sequences is not None:
                self.unconfirmed[next(self._sequences)] = event.message
        self._connection.write(frames)

    def compose(
        self, targets: Iterable[RecordedTarget], size: int, *, persistent: bool
    ) -> tuple[list[Published], bytes]:
        """Return what there is to write down when the messages are sent, and their frames."""
        events, frames = [], []
        for target in targets:
            message = MessageId(self._connection.name, next(self._numbers))
            events.append(Published(message, target.queues, persistent))
            method = make(Basic.Publish, 0, target.exchange, target.key, target.mandatory)
            content = build_content(PROPERTIES[persistent], body_of(message, size))
            frames.append(encode_method(1, method))
            frames.append(split_content(content, 1, self._connection.frame_bytes_max))
        return events, b"".join(frames)

    async def await_confirms(self, open_max: int = 0) -> None:
        """Return when no more than so many publishes are unconfirmed."""
        async with self._connection.deadline("no confirms"):
            while len(self.unconfirmed) > open_max:
                await self._connection.receive()

    def _on_ack(self, reply: ReceivedMethod) -> None:
        for message in self._answered(reply):
            self._connection.note(Confirmed(message))

    def _on_nack(self, reply: ReceivedMethod) -> None:
        for message in self._answered(reply):
            self._connection.note(Refused(message))

    def _answered(self, reply: ReceivedMethod) -> list[MessageId]:
        assert isinstance(reply.method, Basic.Ack | Basic.Nack)
        last = reply.method.delivery_tag or 0
        if reply.method.multiple:
            tags = [tag for tag in self.unconfirmed if tag <= last]
        else:
            tags = [last] if last in self.unconfirmed else []
        if not tags:
            self._connection.note(Strange(f"{self._connection.name} heard {reply}"))
        return [self.unconfirmed.pop(tag) for tag in tags]

    def _on_return(self, reply: ReceivedMethod) -> None:
        message = message_of(reply.body)
        if message is None or message.publisher != self._connection.name:
            self._connection.note(
                Strange(f"{self._connection.name} was returned {reply.body[:50]!r}")
            )
        else:
            self._connection.note(Returned(message))


def body_of(message: MessageId, size: int) -> bytes:
    """Return a body that says which message it is, again and again."""
    word = b"%s %d " % (message.publisher.encode(), message.number)
    return (word * (size // len(word) + 1))[: max(size, len(word))]


def message_of(body: bytes) -> MessageId | None:
    """Id of a message by its body; None for a damaged or a foreign one."""
    publisher, _, rest = body.partition(b" ")
    number, _, _ = rest.partition(b" ")
    if not number.isdigit():
        return None
    message = MessageId(publisher.decode(errors="replace"), int(number))
    return message if body == body_of(message, len(body)) else None


COUNT_HEADER = "x-delivery-count"
EMPTY_PAUSE_S = 0.02
"""Between two looks into a queue that is empty."""


class RecordedUnacked:
    """The consumer tag of a consumer is the name of its queue."""

    def __init__(self, connection: RecordedConnection) -> None:
        self._connection = connection
        self.held: dict[int, tuple[str, MessageId]] = {}
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
    """Client that records its history; its name is used once.  Leaving it as a context
    closes the connection."""

    def __init__(self, connection: RecordedConnection) -> None:
        self.connection = connection
        self.publisher = RecordedPublisher(connection)
        self.unacked = RecordedUnacked(connection)

    @classmethod
    async def connect(
        cls, to: NodeAddress, name: str, note: Note, client_options: ClientOptions | None = None
    ) -> Self:
        """`ConnectionEnded` where that fails."""
        return cls(
            await RecordedConnection.connect_to(to, name, note, client_options or ClientOptions())
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
        """True if a queue is; if not, that costs the channel, and another is opened."""
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


Role: TypeAlias = Callable[[RecordingClient, Random], Awaitable[None]]
"""Work of a client, played until its connection ends or it is called off."""
