"""Confirms that are late, held back, or are nacks."""

from __future__ import annotations

import asyncio

import aio_pika
import pika
import pytest

from fluffle.broker.base.errors import NotFound, PreconditionFailed, SyntaxFailure
from fluffle.broker.testing.loop_thread import CrossThreadProxy
from fluffle.broker.testing.threaded import BlockingVhost, ThreadedBroker

MESSAGE = aio_pika.Message(b"first")


async def publish(channel: aio_pika.abc.AbstractChannel, key: str = "orders") -> object:
    return await channel.default_exchange.publish(MESSAGE, key)


async def test_nothing_is_confirmed_while_that_is_held_back(amqp: CrossThreadProxy) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("orders")
        await amqp.faults.hold_confirms()
        publishing = [asyncio.create_task(publish(channel)) for _ in range(3)]
        await amqp.expect("orders", count=3)
        await channel.declare_queue("orders")  # what comes behind a confirm comes
        async with await aio_pika.connect(amqp.url) as later:
            of_later = asyncio.create_task(publish(await later.channel()))
            await amqp.expect("orders", count=4)
            assert not any(each.done() for each in (*publishing, of_later))
            await amqp.faults.release_confirms()
            await asyncio.gather(*publishing, of_later)
        await publish(channel)


async def test_confirms_come_late_by_the_clock(amqp: CrossThreadProxy) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("orders")
        await amqp.faults.hold_confirms(minutes=5)
        assert amqp.faults.in_effect == ["confirms are held back for 0:05:00"]
        publishing = asyncio.create_task(publish(channel))
        await amqp.expect("orders", count=1)
        await amqp.advance(minutes=4)
        await channel.declare_queue("orders")
        assert not publishing.done()
        await amqp.advance(minutes=1)
        await publishing


async def test_other_virtual_hosts_are_confirmed(
    amqp: CrossThreadProxy, amqp_broker: ThreadedBroker
) -> None:
    await amqp.faults.hold_confirms()
    async with await aio_pika.connect(amqp_broker.url) as connection:
        await publish(await connection.channel(), "nowhere")


async def test_what_a_channel_did_not_get_dies_with_it(amqp: CrossThreadProxy) -> None:
    """The next channel of its number would take it for its own."""
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("orders")
        await amqp.faults.hold_confirms()
        publishing = asyncio.create_task(publish(channel))
        await amqp.expect("orders", count=1)
        await channel.close()
        await asyncio.gather(publishing, return_exceptions=True)
        await amqp.faults.release_confirms()
        await publish(await connection.channel())


async def test_a_later_channel_of_its_number_is_confirmed_in_its_own_time(
    amqp: CrossThreadProxy,
) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        await amqp.faults.hold_confirms(seconds=10)
        channel = await connection.channel()
        await channel.declare_queue("orders")
        publishing = asyncio.create_task(publish(channel))
        await amqp.expect("orders", count=1)
        await amqp.advance(seconds=6)
        await channel.close()
        await asyncio.gather(publishing, return_exceptions=True)
        later = await connection.channel(channel.number)
        publishing = asyncio.create_task(publish(later))
        await amqp.expect("orders", count=2)
        await amqp.advance(seconds=5)
        await later.declare_queue("orders")
        assert not publishing.done()
        await amqp.advance(seconds=5)
        await publishing


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_the_next_publish_is_refused(amqp: BlockingVhost, queue_type: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        amqp.faults.nack_next(2, queue="orders")
        channel.queue_declare("orders", durable=True, arguments={"x-queue-type": queue_type})
        for _ in range(2):
            with pytest.raises(pika.exceptions.NackError):
                channel.basic_publish("", "orders", b"lost")
        channel.basic_publish("", "orders", b"kept")
        amqp.expect("orders", count=1)
        assert amqp.faults.in_effect == []


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_of_a_batch_the_first_are_refused(amqp: CrossThreadProxy, queue_type: str) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("orders", durable=True, arguments={"x-queue-type": queue_type})
        await amqp.faults.nack_next(2, queue="orders")
        publishing = [publish(channel) for _ in range(50)]
        results = await asyncio.gather(*publishing, return_exceptions=True)
        refused = [isinstance(each, aio_pika.exceptions.DeliveryError) for each in results]
        assert refused == [True] * 2 + [False] * 48
        await amqp.expect("orders", count=48)


async def test_what_comes_through_an_exchange_is_refused_by_all(amqp: CrossThreadProxy) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        fanout = await channel.declare_exchange("events", "fanout")
        for name in ("one", "two"):
            await (await channel.declare_queue(name)).bind(fanout)
        await amqp.faults.nack_next(exchange="events")
        await publish(channel, "one")
        with pytest.raises(aio_pika.exceptions.DeliveryError):
            await fanout.publish(MESSAGE, "")
        await fanout.publish(MESSAGE, "")
        await amqp.expect("one", count=2)
        await amqp.expect("two", count=1)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_of_a_batch_only_what_comes_through_the_exchange_is_refused(
    amqp: CrossThreadProxy, queue_type: str
) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            "orders", durable=True, arguments={"x-queue-type": queue_type}
        )
        fanouts = [await channel.declare_exchange(name, "fanout") for name in ("meant", "other")]
        for each in fanouts:
            await queue.bind(each)
        await amqp.faults.nack_next(2, exchange="meant")
        bodies = [b"other", b"meant", b"other", b"meant", b"meant"]
        publishing = [
            fanouts[body == b"other"].publish(aio_pika.Message(body), "") for body in bodies
        ]
        results = await asyncio.gather(*publishing, return_exceptions=True)
        refused = [isinstance(each, aio_pika.exceptions.DeliveryError) for each in results]
        assert refused == [False, True, False, True, False]
        await amqp.expect("orders", count=3)
        kept = [each.body for each in await amqp.messages("orders")]
        assert kept == [b"other", b"other", b"meant"]
        assert amqp.faults.in_effect == []


async def test_what_cannot_be_refused_is_said(amqp: CrossThreadProxy) -> None:
    with pytest.raises(SyntaxFailure, match="either 'queue' or 'exchange'"):
        await amqp.faults.nack_next()
    with pytest.raises(NotFound, match="no exchange 'events'"):
        await amqp.faults.nack_next(exchange="events")
    await amqp.faults.nack_next(queue="orders")
    with pytest.raises(PreconditionFailed, match="'orders' is refusing messages"):
        await amqp.faults.nack_next(queue="orders")


@pytest.mark.parametrize("is_first_unkind", [True, False])
async def test_confirms_are_held_back_by_who_is_unkind_as_well(
    amqp: CrossThreadProxy, is_first_unkind: bool
) -> None:
    faults = [lambda: amqp.faults.unkind(3), amqp.faults.hold_confirms]
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("orders")
        for begin in faults if is_first_unkind else reversed(faults):
            await begin()
        publishing = [asyncio.create_task(publish(channel)) for _ in range(30)]
        await amqp.expect("orders", count=30)
        await channel.declare_queue("orders")
        assert not any(each.done() for each in publishing)
        await amqp.faults.mend()
        await asyncio.gather(*publishing)
