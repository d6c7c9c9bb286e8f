"""Messages in the hands of a test, without a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aio_pika
import pytest
from pamqp.common import FieldTable

from fluffle.broker import Broker
from fluffle.broker.base.errors import ResourceLocked
from fluffle.broker.testing.loop_thread import CrossThreadProxy
from fluffle.broker.testing.threaded import BlockingVhost
from fluffle.broker.testing.vhost import Vhost


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as broker:
        yield broker


@pytest.fixture
async def channel(broker: Broker) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(broker.url) as connection:
        yield await connection.channel()


@pytest.fixture
def vhost(broker: Broker) -> Vhost:
    return broker.vhost()


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_what_is_taken_is_held_until_it_is_settled(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel, queue_type: str
) -> None:
    await channel.declare_queue("dead")
    arguments: FieldTable = {"x-queue-type": queue_type, "x-dead-letter-exchange": ""}
    arguments |= {"x-dead-letter-routing-key": "dead"}
    await channel.declare_queue("orders", durable=True, arguments=arguments)
    for body in (b"1", b"2", b"3"):
        await vhost.publish("", "orders", body, headers={"try": 1}, priority=3, type="order")
    first, second = await vhost.get("orders"), await vhost.get("orders")
    assert (first.body, first.text(), first.headers) == (b"1", "1", {"try": 1})
    assert (first.exchange, first.routing_key, first.redelivered) == ("", "orders", False)
    assert (first.properties["priority"], first.properties["type"]) == (3, "order")
    await vhost.expect("orders", ready=1, unacked=2)
    second.reject(requeue=True)
    await vhost.expect("orders", ready=2, unacked=1)
    again = await vhost.get("orders")
    assert (again.body, again.redelivered) == (b"2", True)
    again.reject()
    await vhost.expect("dead", count=1)
    first.ack()
    await vhost.expect("orders", count=1)
    with pytest.raises(RuntimeError, match="settled already"):
        first.reject()


async def test_what_is_not_there_yet_is_waited_for(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel
) -> None:
    taking = asyncio.create_task(vhost.consume("orders", count=2))
    await channel.declare_queue("orders")
    await vhost.publish("", "orders", b"1")
    await vhost.expect("orders", unacked=1)
    await vhost.publish("", "orders", b"2")
    assert [each.body for each in await taking] == [b"1", b"2"]
    await vhost.expect("orders", count=0)


async def test_what_does_not_come_is_reported_and_the_rest_goes_back(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel
) -> None:
    with pytest.raises(AssertionError, match="'orders' is not there, and so gave 0 of 1 messages"):
        await vhost.get("orders", within=0.01)
    await channel.declare_queue("orders")
    await vhost.publish("", "orders", b"1")
    output = r"queue 'orders' gave 1 of 2 messages within 0\.01 s"
    with pytest.raises(AssertionError, match=output):
        await vhost.consume("orders", count=2, within=0.01)
    await vhost.expect("orders", ready=1, unacked=0)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_who_is_cancelled_gives_back_what_came(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel, queue_type: str
) -> None:
    await channel.declare_queue("orders", durable=True, arguments={"x-queue-type": queue_type})
    taking = asyncio.create_task(vhost.consume("orders", count=2))
    await vhost.publish("", "orders", b"1")
    await vhost.expect("orders", unacked=1)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await vhost.expect("orders", ready=1, unacked=0)


async def test_what_is_held_for_too_long_goes_back(
    broker: Broker, vhost: Vhost, channel: aio_pika.abc.AbstractChannel
) -> None:
    arguments: FieldTable = {"x-queue-type": "quorum", "x-consumer-timeout": 60_000}
    await channel.declare_queue("orders", durable=True, arguments=arguments)
    await vhost.publish("", "orders", b"1")
    message = await vhost.get("orders")
    await broker.clock.advance(minutes=2)
    await vhost.expect("orders", ready=1, unacked=0)
    message.ack()  # in vain, as for any client
    await broker.wait_until_idle()
    await vhost.expect("orders", ready=1)


async def test_who_is_alone_with_a_queue_stays_alone(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel
) -> None:
    arguments: FieldTable = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    await channel.declare_queue("orders", durable=True, arguments=arguments)
    with pytest.raises(ResourceLocked, match="has a single active consumer"):
        await vhost.get("orders")


@pytest.mark.amqp(definitions={"queues": [{"name": "orders", "durable": True}]})
class TestFromOtherThreads:
    def test_plain(self, amqp: BlockingVhost) -> None:
        amqp.publish("", "orders", b"1")
        amqp.get("orders").reject(requeue=True)
        assert amqp.consume("orders")[0].redelivered
        amqp.expect("orders", count=0)

    async def test_coroutine(self, amqp: CrossThreadProxy) -> None:
        await amqp.publish("", "orders", b"1")
        (await amqp.get("orders")).reject(requeue=True)
        assert (await amqp.consume("orders"))[0].redelivered
        await amqp.expect("orders", count=0)
