"""aio-pika: coroutines, and connections that come back by themselves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal

import aio_pika
import aiormq.exceptions
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractIncomingMessage,
    AbstractQueue,
    HeadersType,
)
from aio_pika.patterns import RPC
from yarl import URL

Name = Callable[[str], str]
Inbox = asyncio.Queue[AbstractIncomingMessage]

HEADERS: HeadersType = {
    "text": "καλημέρα",
    "bytes": bytearray(b"\x00\xff"),
    "yes": True,
    "int": -7,
    "long": 2**62,
    "double": 2.5,
    "decimal": Decimal("3.25"),
    "time": datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC),
    "nothing": None,
    "list": [1, "two", None, [True], {"deep": "est"}],
    "table": {"a": {"b": [{}]}},
}


@pytest.fixture
async def connection(url: str) -> AsyncIterator[AbstractConnection]:
    async with await aio_pika.connect(url) as connection:
        yield connection


@pytest.fixture
async def channel(connection: AbstractConnection) -> AbstractChannel:
    return await connection.channel(on_return_raises=True)


@pytest.fixture
async def queue(channel: AbstractChannel) -> AbstractQueue:
    return await channel.declare_queue(exclusive=True)


async def publish(channel: AbstractChannel, queue: AbstractQueue, *bodies: bytes) -> None:
    for body in bodies:
        await channel.default_exchange.publish(Message(body), queue.name)


async def counts(channel: AbstractChannel, queue: str) -> tuple[int | None, int | None]:
    """Ready messages and consumers."""
    result = (await channel.declare_queue(queue, passive=True)).declaration_result
    return result.message_count, result.consumer_count


async def test_exchange_binding_and_confirm(
    channel: AbstractChannel, queue: AbstractQueue, name: Name
) -> None:
    exchange = await channel.declare_exchange(
        name("x"), ExchangeType.HEADERS, auto_delete=True, durable=True
    )
    await queue.bind(exchange, arguments={"x-match": "any", "colour": "red", "size": 3})
    confirm = await exchange.publish(Message(b"red", headers={"colour": "red"}), "ignored")
    assert isinstance(confirm, aiormq.spec.Basic.Ack)
    with pytest.raises(aio_pika.exceptions.PublishError):
        await exchange.publish(Message(b"blue", headers={"colour": "blue", "size": "3"}), "ignored")
    message = await queue.get(no_ack=True)
    assert (message.exchange, message.routing_key, message.body) == (
        exchange.name,
        "ignored",
        b"red",
    )
    assert await queue.get(fail=False) is None


async def test_many_publishes_at_once_are_all_confirmed(
    channel: AbstractChannel, queue: AbstractQueue
) -> None:
    send = channel.default_exchange.publish
    await asyncio.gather(*(send(Message(b"%d" % n), queue.name) for n in range(500)))
    assert await counts(channel, queue.name) == (500, 0)
    assert [(await queue.get(no_ack=True)).body for _ in range(3)] == [b"0", b"1", b"2"]


async def test_prefetch_bounds_a_consumer(channel: AbstractChannel, queue: AbstractQueue) -> None:
    await publish(channel, queue, *(b"%d" % n for n in range(5)))
    inbox: Inbox = asyncio.Queue()
    await channel.set_qos(prefetch_count=2)
    tag = await queue.consume(inbox.put)
    first, second = await inbox.get(), await inbox.get()
    assert await counts(channel, queue.name) == (3, 1)
    await first.ack()
    third = await inbox.get()
    await third.ack(multiple=True)
    assert [m.body for m in (first, second, third)] == [b"0", b"1", b"2"]
    assert [(await inbox.get()).body for _ in range(2)] == [b"3", b"4"]
    assert (await queue.cancel(tag)).consumer_tag == tag


async def test_requeue_and_reject(channel: AbstractChannel, queue: AbstractQueue) -> None:
    await publish(channel, queue, b"1", b"2")
    first, second = await queue.get(), await queue.get()
    await first.nack(requeue=True)
    await second.reject(requeue=False)
    again = await queue.get()
    assert (again.body, first.redelivered, again.redelivered) == (b"1", False, True)
    await again.ack()
    assert await queue.get(fail=False) is None


async def test_properties_and_headers_survive(
    channel: AbstractChannel, queue: AbstractQueue
) -> None:
    sent = Message(
        b"",
        headers=HEADERS,
        content_type="text/plain",
        content_encoding="utf-8",
        delivery_mode=DeliveryMode.PERSISTENT,
        priority=5,
        correlation_id="c",
        reply_to="r",
        expiration=60,
        message_id="m",
        timestamp=datetime(2027, 1, 2, tzinfo=UTC),
        type="t",
        user_id="guest",
        app_id="a",
    )
    await channel.default_exchange.publish(sent, queue.name)
    received = await queue.get(no_ack=True)
    assert dict(received.properties) == dict(sent.properties)
    assert received.headers == HEADERS


async def test_a_large_body_in_many_frames(channel: AbstractChannel, queue: AbstractQueue) -> None:
    body = bytes(range(256)) * 4096
    await publish(channel, queue, body)
    assert (await queue.get(no_ack=True)).body == body


async def test_a_channel_error_leaves_the_connection_alone(
    connection: AbstractConnection, channel: AbstractChannel, name: Name
) -> None:
    with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity, match="NOT_FOUND - no queue"):
        await channel.declare_queue(name("missing"), passive=True)
    assert channel.is_closed
    other = await connection.channel()
    with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed, match="PRECONDITION_FAILED"):
        await other.declare_exchange("amq.direct", ExchangeType.FANOUT, durable=True)
    again = await connection.channel()
    assert (await again.declare_queue(exclusive=True)).name.startswith("amq.gen-")


async def test_wrong_password(url: str) -> None:
    with pytest.raises(aiormq.exceptions.ProbableAuthenticationError):
        await aio_pika.connect(URL(url).with_password("wrong"))


async def test_rpc_by_direct_reply_to(connection: AbstractConnection, queue: AbstractQueue) -> None:
    client, server = await connection.channel(), await connection.channel()
    reply_to = await client.get_queue("amq.rabbitmq.reply-to", ensure=False)
    answers: Inbox = asyncio.Queue()
    await reply_to.consume(answers.put, no_ack=True)
    await client.default_exchange.publish(
        Message(b"question", reply_to=reply_to.name, correlation_id="1"), queue.name
    )
    request = await queue.get(no_ack=True)
    assert request.reply_to is not None
    assert request.reply_to.startswith("amq.rabbitmq.reply-to.")
    answer = Message(b"answer", correlation_id=request.correlation_id)
    await server.default_exchange.publish(answer, request.reply_to, mandatory=False)
    message = await answers.get()
    assert (message.correlation_id, message.body) == ("1", b"answer")


async def test_rpc_pattern(connection: AbstractConnection, name: Name) -> None:
    """The library's own: an exclusive reply queue, a dead-letter exchange, expiring calls."""
    method = name("multiply")

    async def multiply(*, x: int, y: int) -> int:
        return x * y

    async with connection.channel() as channel:
        rpc = await RPC.create(channel)
        await rpc.register(method, multiply, auto_delete=True, durable=True)
        products = await asyncio.gather(*(rpc.call(method, {"x": n, "y": 7}) for n in range(20)))
        await rpc.close()
    assert products == [n * 7 for n in range(20)]


async def test_transaction(connection: AbstractConnection, queue: AbstractQueue) -> None:
    channel, other = (
        await connection.channel(publisher_confirms=False),
        await connection.channel(),
    )
    async with channel.transaction():
        await publish(channel, queue, b"kept")
        assert await counts(other, queue.name) == (0, 0)
    assert await counts(other, queue.name) == (1, 0)
    transaction = channel.transaction()
    await transaction.select()
    await publish(channel, queue, b"dropped")
    await transaction.rollback()
    await transaction.commit()
    assert await counts(other, queue.name) == (1, 0)


async def test_consumer_cancel_notification(
    connection: AbstractConnection, channel: AbstractChannel, queue: AbstractQueue
) -> None:
    cancelled: asyncio.Queue[aiormq.spec.Basic.Cancel] = asyncio.Queue()
    (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(cancelled.put)
    tag = await queue.consume(Inbox().put)
    await (await connection.channel()).queue_delete(queue.name)
    assert (await cancelled.get()).consumer_tag == tag


async def test_a_robust_connection_comes_back(url: str, name: Name) -> None:
    async with await aio_pika.connect_robust(url, reconnect_interval=0.05) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            name("robust"), durable=True, arguments={"x-expires": 60_000}
        )
        inbox: Inbox = asyncio.Queue()
        await queue.consume(inbox.put)
        await publish(channel, queue, b"before")
        assert (await inbox.get()).body == b"before"
        back = asyncio.Event()
        connection.reconnect_callbacks.add(lambda *_: back.set())
        underlay = await channel.get_underlay_channel()
        with pytest.raises(aiormq.exceptions.ConnectionNotImplemented):
            await underlay.basic_qos(prefetch_size=1)  # closes the connection: 540
        await back.wait()
        again = await inbox.get()
        assert (again.body, again.redelivered) == (b"before", True)
        await again.ack()
        await queue.delete(if_unused=False)


async def test_update_secret(connection: AbstractConnection) -> None:
    ok = await connection.update_secret("renewed", reason="it was about to expire")
    assert isinstance(ok, aiormq.spec.Connection.UpdateSecretOk)
