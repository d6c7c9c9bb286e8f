"""A client of the broker that writes down what it says and hears.

One connection with one channel at a time, blocking.  Whatever ends the connection raises `Ended`:
the process was killed, or is stopping in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import NamedTuple

from fluffle.protocol.methods import (
    Basic,
    Channel,
    Confirm,
    Connection,
    Method,
    Queue,
    Tx,
    encode_method,
    make,
)
from fluffle.protocol.properties import (
    Properties,
    build_content,
    encode_properties,
    split_content,
)
from tests.crash.history import (
    Acked,
    Closing,
    Confirmed,
    Event,
    Looked,
    Message,
    Published,
    Received,
    Requeued,
    Returned,
    Strange,
    Vouched,
)
from tests.support.client import FRAME_BYTES_MAX, Client, Closed, Heard

PROPERTIES = {
    persistent: encode_properties(Properties(delivery_mode=2 if persistent else 1))
    for persistent in (True, False)
}


class Ended(Exception):
    """The connection is gone, as it is when the process is."""


class Target(NamedTuple):
    """Where messages are published to, and where they go."""

    exchange: str
    key: str
    queues: tuple[str, ...]


class Witness:
    """A client with a name that no other in the history has."""

    def __init__(self, port: int, name: str, note: Callable[[Event], None]) -> None:
        """`note` writes an event down."""
        self.name = name
        self.note = note
        self.held: dict[int, tuple[str, Message]] = {}
        """What is in hands: queue and message, by delivery tag, rising."""
        self.unconfirmed: dict[int, Message] = {}
        """By publish sequence number, rising."""
        self.heard_count = 0
        """Methods that this connection has been sent so far."""
        self._numbers = count(1)
        self._sequences = count(1)
        self._channel = 0
        self._is_closing = False
        self._in_confirm_mode = False
        self._in_transaction: list[Published] = []
        self._is_transactional = False
        self._client = Client("127.0.0.1", port)
        try:
            self._client.open()
            self.heard_count = len(self._client.heard)
            self.open_channel()
        except Closed as error:
            self.close()
            raise Ended from error
        except BaseException:
            self.close()
            raise

    @property
    def channel(self) -> str:
        """The name of the channel."""
        return f"{self.name}#{self._channel}"

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    # Hearing

    def hear(self) -> Heard:
        """The next method, acted on and written down."""
        try:
            heard = self._client.next()
        except Closed as error:
            raise Ended from error
        self.heard_count += 1
        self._client.heard.clear()
        act = getattr(self, f"_on_{heard.name.lower().replace('.', '_')}", None)
        if act is not None:
            act(heard)
        return heard

    def call(self, method: Method) -> Heard:
        """Send a method and hear its answer, which vouches for everything before."""
        self.send(method)
        while True:
            heard = self.hear()
            if heard.name in method.valid_responses:
                self.note(Vouched(self.channel))
                return heard
            if heard.name == "Channel.Close":
                self.note(Strange(f"{self.name} heard {heard}"))
                raise Ended

    def send(self, *methods: Method) -> None:
        self._client.send(self._channel, *methods)

    def _on_connection_close(self, heard: Heard) -> None:
        assert isinstance(heard.method, Connection.Close)
        if heard.method.reply_code != 320:
            self.note(Strange(f"{self.name} heard {heard}"))
        raise Ended

    def _on_basic_ack(self, heard: Heard) -> None:
        assert isinstance(heard.method, Basic.Ack)
        last = heard.method.delivery_tag or 0
        multiple = heard.method.multiple
        tags = [tag for tag in self.unconfirmed if tag <= last] if multiple else [last]
        for tag in tags:
            self.note(Confirmed(self.unconfirmed.pop(tag)))

    def _on_basic_nack(self, heard: Heard) -> None:
        self.note(Strange(f"{self.name} heard {heard}"))

    def _on_basic_return(self, heard: Heard) -> None:
        self.note(Returned(self._read(heard.body)))

    def _on_basic_deliver(self, heard: Heard) -> None:
        assert isinstance(heard.method, Basic.Deliver)
        self._take(heard, queue=heard.method.consumer_tag or "")

    def _take(self, heard: Heard, queue: str) -> None:
        """Note a message, unless it comes to a channel that is being closed."""
        assert isinstance(heard.method, Basic.Deliver | Basic.GetOk)
        if self._is_closing:
            return
        message = self._read(heard.body)
        self.note(Received(self.channel, queue, message, heard.method.redelivered is True))
        self.held[heard.method.delivery_tag or 0] = queue, message

    def _read(self, body: bytes) -> Message:
        message = message_of(body)
        if body != body_of(message, len(body)):
            self.note(Strange(f"{message} came damaged"))
        return message

    # Channels

    def open_channel(self) -> None:
        self._channel += 1
        self._is_closing = False
        self.held.clear()
        self.unconfirmed.clear()
        self._in_confirm_mode = self._is_transactional = False
        self.call(make(Channel.Open))

    def reopen_channel(self) -> None:
        """Close the channel with all it holds, and open another, without any mode."""
        closing = make(Channel.Close, reply_code=200, reply_text="", class_id=0, method_id=0)
        self.note(Closing(self.channel))
        self._is_closing = True
        self.call(closing)
        self.open_channel()

    def is_there(self, queue: str) -> bool:
        """Whether a queue is; if not, that costs the channel, and another is opened."""
        self.send(make(Queue.Declare, queue=queue, passive=True))
        while (heard := self.hear()).name not in ("Queue.DeclareOk", "Channel.Close"):
            pass
        found = heard.name == "Queue.DeclareOk"
        self.note(Looked(queue, found))
        if not found:
            self.send(make(Channel.CloseOk))
            self.open_channel()
        return found

    def ready_count(self, queue: str) -> int:
        """How many messages of a queue are in nobody's hands."""
        heard = self.call(make(Queue.Declare, queue=queue, passive=True))
        assert isinstance(heard.method, Queue.DeclareOk)
        return heard.method.message_count or 0

    # Publishing

    def confirm_select(self) -> None:
        self.call(Confirm.Select())
        self._in_confirm_mode = True
        self._sequences = count(1)

    def publish(self, targets: Iterable[Target], size: int = 0, *, persistent: bool = True) -> None:
        """Publish one message to each target, all mandatory, in one write."""
        frames = []
        for target in targets:
            message = Message(self.name, next(self._numbers))
            published = Published(message, target.queues, persistent)
            if self._is_transactional:
                self._in_transaction.append(published)
            else:
                self.note(published)
            if self._in_confirm_mode:
                self.unconfirmed[next(self._sequences)] = message
            method = make(
                Basic.Publish, exchange=target.exchange, routing_key=target.key, mandatory=True
            )
            content = build_content(PROPERTIES[persistent], body_of(message, size))
            frames.append(encode_method(self._channel, method))
            frames.append(split_content(content, self._channel, FRAME_BYTES_MAX))
        self._client.send_bytes(b"".join(frames))

    def await_confirms(self, open_max: int = 0) -> None:
        """Return when no more than so many publishes are unconfirmed."""
        while len(self.unconfirmed) > open_max:
            self.hear()

    # Transactions

    def tx_select(self) -> None:
        self.call(Tx.Select())
        self._is_transactional = True

    def commit(self, acked: Iterable[int] = ()) -> None:
        """Acknowledge, and commit that with what was published."""
        published, self._in_transaction = self._in_transaction, []
        for event in published:
            self.note(event)
        self.ack(*acked)
        self.call(Tx.Commit())
        for event in published:
            self.note(Confirmed(event.message))

    def roll_back(self, acked: Iterable[int] = ()) -> None:
        """Acknowledge, and undo that; what was published never was, and is not written down."""
        self._in_transaction.clear()
        self.send(*(make(Basic.Ack, delivery_tag=tag) for tag in acked))
        self.call(Tx.Rollback())

    # Consuming

    def consume(self, queue: str, prefetch: int, *, no_ack: bool = False) -> None:
        self.call(make(Basic.Qos, prefetch_count=prefetch))
        self.call(make(Basic.Consume, queue=queue, consumer_tag=queue, no_ack=no_ack))

    def await_held(self, count: int) -> list[int]:
        """Return when at least so many messages are in hands: their tags."""
        while len(self.held) < count:
            self.hear()
        return list(self.held)

    def get(self, queue: str) -> int | None:
        """Take one message, if there is one: its tag."""
        heard = self.call(make(Basic.Get, queue=queue))
        if not isinstance(heard.method, Basic.GetOk):
            return None
        self._take(heard, queue)
        return heard.method.delivery_tag

    def ack(self, *tags: int) -> None:
        """One by one."""
        self._note_acked(tags)
        self.send(*(make(Basic.Ack, delivery_tag=tag) for tag in tags))

    def let_go(self) -> None:
        """What is in hands was acknowledged by being sent."""
        self._note_acked(list(self.held))

    def ack_up_to(self, tag: int) -> None:
        self._note_acked([each for each in self.held if each <= tag])
        self.send(make(Basic.Ack, delivery_tag=tag, multiple=True))

    def reject(self, *tags: int) -> None:
        """For good."""
        self._note_acked(tags)
        self.send(*(make(Basic.Reject, delivery_tag=tag, requeue=False) for tag in tags))

    def requeue(self, *tags: int) -> None:
        for tag in tags:
            self.note(Requeued(self.channel, *self.held.pop(tag)))
        self.send(*(make(Basic.Nack, delivery_tag=tag, requeue=True) for tag in tags))

    def make_sure(self) -> None:
        """Have what was acknowledged vouched for."""
        self.call(make(Basic.Qos, prefetch_count=0))

    def _note_acked(self, tags: Iterable[int]) -> None:
        for tag in tags:
            self.note(Acked(self.channel, *self.held.pop(tag)))


def body_of(message: Message, size: int) -> bytes:
    """A body that says which message it is, again and again."""
    word = b"%s %d " % (message.publisher.encode(), message.number)
    return (word * (size // len(word) + 1))[: max(size, len(word))]


def message_of(body: bytes) -> Message:
    """The message that a body says it is; damage further back is not seen."""
    publisher, number, _ = body.split(b" ", 2)
    return Message(publisher.decode(), int(number))
