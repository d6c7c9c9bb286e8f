"""Publisher of a client, and the outcomes of its publishes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from fluffle.broker.torture.connection import FRAME_BYTES_MAX, ClientConnection
from fluffle.broker.torture.history import (
    Confirmed,
    Message,
    Published,
    Refused,
    Returned,
    Strange,
)
from fluffle.protocol.client_reader import ReceivedMethod
from fluffle.protocol.methods import Basic, Confirm, encode_method, make
from fluffle.protocol.properties import (
    Properties,
    build_content,
    encode_properties,
    split_content,
)

PROPERTIES = {
    persistent: encode_properties(Properties(delivery_mode=2 if persistent else 1))
    for persistent in (True, False)
}


class Target(NamedTuple):
    """Where messages are published to, and where they go."""

    exchange: str
    key: str
    queues: tuple[str, ...]
    mandatory: bool = True


def to(queue: str) -> Target:
    """Through the default exchange."""
    return Target("", queue, (queue,))


class Publisher:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.unconfirmed: dict[int, Message] = {}
        """By publish sequence number, rising."""
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

    def publish(self, targets: Iterable[Target], size: int = 0, *, persistent: bool = True) -> None:
        """Publish one message of at least so many bytes to each target, in one write."""
        events, frames = self.compose(targets, size, persistent=persistent)
        for event in events:
            self._connection.note(event)
            if self._sequences is not None:
                self.unconfirmed[next(self._sequences)] = event.message
        self._connection.write(frames)

    def compose(
        self, targets: Iterable[Target], size: int, *, persistent: bool
    ) -> tuple[list[Published], bytes]:
        """Return what there is to write down when the messages are sent, and their frames."""
        events, frames = [], []
        for target in targets:
            message = Message(self._connection.name, next(self._numbers))
            events.append(Published(message, target.queues, persistent))
            method = make(Basic.Publish, 0, target.exchange, target.key, target.mandatory)
            content = build_content(PROPERTIES[persistent], body_of(message, size))
            frames.append(encode_method(1, method))
            frames.append(split_content(content, 1, FRAME_BYTES_MAX))
        return events, b"".join(frames)

    async def await_confirms(self, open_max: int = 0) -> None:
        """Return when no more than so many publishes are unconfirmed."""
        async with self._connection.patience("no confirms"):
            while len(self.unconfirmed) > open_max:
                await self._connection.receive()

    def _on_ack(self, reply: ReceivedMethod) -> None:
        for message in self._answered(reply):
            self._connection.note(Confirmed(message))

    def _on_nack(self, reply: ReceivedMethod) -> None:
        for message in self._answered(reply):
            self._connection.note(Refused(message))

    def _answered(self, reply: ReceivedMethod) -> list[Message]:
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


def body_of(message: Message, size: int) -> bytes:
    """Return a body that says which message it is, again and again."""
    word = b"%s %d " % (message.publisher.encode(), message.number)
    return (word * (size // len(word) + 1))[: max(size, len(word))]


def message_of(body: bytes) -> Message | None:
    """Return the message that a body says it is; None for one that is damaged, or of somebody
    else."""
    publisher, _, rest = body.partition(b" ")
    number, _, _ = rest.partition(b" ")
    if not number.isdigit():
        return None
    message = Message(publisher.decode(errors="replace"), int(number))
    return message if body == body_of(message, len(body)) else None
