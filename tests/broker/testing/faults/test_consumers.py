"""Consumers that are cancelled, frozen and handed again what they hold."""

from __future__ import annotations

import asyncio

import aio_pika
import pika
import pytest

from fluffle.broker.base.errors import NotFound, PreconditionFailed
from fluffle.broker.testing.threaded import AwaitedVhost, BlockingVhost
from tests.support.deadlines import DEADLINE_S, soon

Incoming = aio_pika.abc.AbstractIncomingMessage


async def declared(
    channel: aio_pika.abc.AbstractChannel, queue_type: str
) -> aio_pika.abc.AbstractQueue:
    return await channel.declare_queue(
        "orders", durable=True, arguments={"x-queue-type": queue_type}
    )


async def test_one_that_comes_again_with_its_tag_is_thawed_as_well(amqp: AwaitedVhost) -> None:
    taken: asyncio.Queue[Incoming] = asyncio.Queue()

    async def consume_frozen(connection: aio_pika.abc.AbstractConnection) -> None:
        queue = await (await connection.channel()).declare_queue("orders")
        await queue.consume(taken.put, consumer_tag="worker", no_ack=True)
        await (await amqp.clients.consumer("worker")).freeze()

    async with await aio_pika.connect(amqp.url) as connection:
        await consume_frozen(connection)
    await amqp.expect("orders", consumers=0)
    async with await aio_pika.connect(amqp.url) as connection:
        await consume_frozen(connection)
        await amqp.publish("", "orders", b"first")
        await (await amqp.clients.consumer("worker")).thaw()
        async with soon():
            assert (await taken.get()).body == b"first"


def test_a_consumer_is_cancelled_and_keeps_what_it_has(amqp: BlockingVhost) -> None:
    with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders")
        cancelled: list[object] = []
        channel.add_on_cancel_callback(cancelled.append)
        got: list[int] = []
        channel.basic_consume("orders", lambda _c, method, _p, _b: got.append(method.delivery_tag))
        amqp.publish("", "orders", b"first")
        while not got:
            connection.process_data_events(time_limit=DEADLINE_S)
        amqp.clients.consumer("orders").cancel()
        while not cancelled:
            connection.process_data_events(time_limit=DEADLINE_S)
        amqp.expect("orders", unacked=1, consumers=0)
        channel.basic_ack(got[0])
        amqp.expect("orders", count=0)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_frozen_consumer_gets_nothing_and_others_do(
    amqp: AwaitedVhost, queue_type: str
) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        queue = await declared(channel, queue_type)
        first: asyncio.Queue[Incoming] = asyncio.Queue()
        second: asyncio.Queue[Incoming] = asyncio.Queue()
        await queue.consume(first.put, consumer_tag="first", no_ack=True)
        consumer = await amqp.clients.consumer("first")
        await consumer.freeze()
        await amqp.publish("", "orders", b"1")
        await amqp.expect("orders", ready=1)
        await queue.consume(second.put, consumer_tag="second", no_ack=True)
        await amqp.publish("", "orders", b"2")
        assert [(await second.get()).body, (await second.get()).body] == [b"1", b"2"]
        await queue.cancel("second")
        await amqp.publish("", "orders", b"3")
        await amqp.expect("orders", ready=1)
        assert amqp.faults.in_effect == ["consumer 'first' of queue 'orders' is frozen"]
        await amqp.faults.mend()
        assert (await first.get()).body == b"3"
        await amqp.expect("orders", count=0)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_what_a_consumer_holds_is_delivered_again(
    amqp: AwaitedVhost, queue_type: str
) -> None:
    """Its acknowledgement comes too late, and is no error; only the second one counts."""
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        queue = await declared(channel, queue_type)
        taken: asyncio.Queue[Incoming] = asyncio.Queue()
        await queue.consume(taken.put)
        await amqp.publish("", "orders", b"first")
        once = await taken.get()
        assert await (await amqp.clients.consumer("orders")).redeliver() == 1
        twice = await taken.get()
        assert (once.body, once.redelivered) == (b"first", False)
        assert (twice.body, twice.redelivered) == (b"first", True)
        await once.ack()
        await declared(channel, queue_type)  # the ack has been acted on
        await amqp.expect("orders", unacked=1)
        await twice.ack()
        await amqp.expect("orders", count=0)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_what_is_held_twice_comes_back_once(amqp: AwaitedVhost, queue_type: str) -> None:
    connection = await aio_pika.connect(amqp.url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=2)
    queue = await declared(channel, queue_type)
    taken: asyncio.Queue[Incoming] = asyncio.Queue()
    await queue.consume(taken.put)
    for body in (b"1", b"2", b"3"):
        await amqp.publish("", "orders", body)
    assert [(await taken.get()).body for _ in range(2)] == [b"1", b"2"]
    assert await (await amqp.clients.consumer("orders")).redeliver() == 2
    assert [(await taken.get()).body for _ in range(2)] == [b"1", b"2"]
    await amqp.expect("orders", unacked=2, ready=1)
    await connection.close()
    await amqp.expect("orders", unacked=0, ready=3)


async def test_a_name_must_mean_one_consumer(amqp: AwaitedVhost) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        queue = await declared(channel, "classic")
        for tag in ("one", "two"):
            await queue.consume(asyncio.Queue[Incoming]().put, consumer_tag=tag)
        with pytest.raises(PreconditionFailed, match="means several consumers: 'one', 'two'"):
            await amqp.clients.consumer("orders")
        with pytest.raises(NotFound, match="no consumer 'three', but: 'one', 'two'"):
            await amqp.clients.consumer("three")
        consumer = await amqp.clients.consumer("two")
        assert repr(consumer) == "<consumer 'two' of queue 'orders', which held 0>"
