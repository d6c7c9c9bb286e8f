"""Looking inside a broker, without sleeping and without touching what is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import process_time
from typing import cast

import aio_pika
import pytest

from fluffle.broker import Broker
from fluffle.broker.base.errors import NotFound, PreconditionFailed
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
async def test_expecting_ends_when_it_is_so(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel, queue_type: str
) -> None:
    expecting = asyncio.create_task(vhost.expect("orders", count=3, ready=1, consumers=1))
    queue = await channel.declare_queue(
        "orders", durable=True, arguments={"x-queue-type": queue_type}
    )
    await channel.set_qos(2)
    taken: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
    await queue.consume(taken.put)
    for body in (b"1", b"2"):
        await channel.default_exchange.publish(aio_pika.Message(body), "orders")
    await vhost.expect("orders", unacked=2)
    assert not expecting.done()
    await channel.default_exchange.publish(aio_pika.Message(b"3"), "orders")
    await expecting
    for _ in range(3):
        await (await taken.get()).ack()
    await vhost.expect("orders", count=0)


async def test_packets_that_mqtt_does_not_have_are_an_error(vhost: Vhost) -> None:
    assert await vhost.packets("PUBACK") == []
    with pytest.raises(ValueError, match="MQTT has no packet 'PUBAK', but: CONNECT, CONNACK"):
        await vhost.packets("PUBAK")
    with pytest.raises(ValueError, match="MQTT has no packet 'publish'"):
        await vhost.expect_packets("publish")


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_messages_of_a_test_expire_as_those_of_clients(
    broker: Broker, vhost: Vhost, channel: aio_pika.abc.AbstractChannel, queue_type: str
) -> None:
    await channel.declare_queue("orders", durable=True, arguments={"x-queue-type": queue_type})
    await vhost.publish("", "orders", b"1", expiration="60000")
    await vhost.publish("", "orders", b"2")
    await vhost.expect("orders", count=2)
    await broker.clock.advance(minutes=2)
    await vhost.expect("orders", count=1)
    assert [message.body for message in await vhost.messages("orders")] == [b"2"]


async def test_what_is_done_without_a_client_is_seen_at_once(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel
) -> None:
    await channel.declare_queue("orders")
    for act, count in (
        (lambda: vhost.publish("", "orders"), 1),
        (lambda: vhost.purge("orders"), 0),
    ):
        expecting = asyncio.create_task(vhost.expect("orders", count=count))
        await asyncio.sleep(0)  # it has looked, and waits
        assert not expecting.done()
        await act()
        await expecting


async def test_what_was_seen_is_reported_when_it_is_not_so(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel
) -> None:
    with pytest.raises(AssertionError, match=r"no queue 'orders' after 0\.01 s, but: none"):
        await vhost.expect("orders", count=1, within=0.01)
    await channel.declare_queue("orders")
    reported = (
        "queue 'orders' has not had 1 messages, 2 consumers within 0.01 s; it has 0 messages, "
        "0 ready, 0 unacknowledged, 0 consumers"
    )
    with pytest.raises(AssertionError, match=reported):
        await vhost.expect("orders", count=1, consumers=2, within=0.01)
    with pytest.raises(AssertionError, match=r"there is no queue 'order' after .*, but: 'orders'"):
        await vhost.expect("order", count=0, within=0.01)
    with pytest.raises(TypeError, match="at least one of count, ready, unacked, consumers"):
        await vhost.expect("orders")


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_messages_are_looked_at_and_stay_as_they_are(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel, queue_type: str
) -> None:
    queue = await channel.declare_queue(
        "orders", durable=True, arguments={"x-queue-type": queue_type}
    )
    await vhost.publish("", "orders", b'{"number": 7}', headers={"try": 1}, content_type="x")
    await vhost.publish("", "orders", b"\xff")
    await vhost.expect("orders", count=2)
    for _ in range(2):
        first, second = await vhost.messages("orders")
        assert first.json() == {"number": 7}
        assert (first.headers, first.properties["content_type"]) == ({"try": 1}, "x")
        assert (second.body, second.routing_key, second.redelivered) == (b"\xff", "orders", False)
    taken = await queue.get(no_ack=True)
    assert not taken.redelivered
    assert taken.headers == {"try": 1}
    assert await vhost.purge("orders") == 1
    with pytest.raises(NotFound, match=r"no queue 'missing'.*, but: 'orders'"):
        await vhost.messages("missing")
    with pytest.raises(NotFound, match=r"no queue 'missing'.*, but: 'orders'"):
        await vhost.purge("missing")


async def test_what_no_message_can_be_is_said(vhost: Vhost) -> None:
    with pytest.raises(TypeError, match="is bytes, and no dict: encode it first"):
        await vhost.publish("", "orders", cast(bytes, {"number": 7}))
    with pytest.raises(TypeError, match=r"no property 'kind', but: content_type, .*, cluster_id"):
        await vhost.publish("", "orders", b"", kind="order")


async def test_publishing_where_nothing_leads_is_an_error(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel
) -> None:
    await channel.declare_exchange("events", "topic")
    reported = (
        r"(?s)exchange 'events' with routing key 'a\.b' .*published to exchange 'events' \(topic"
    )
    with pytest.raises(AssertionError, match=reported):
        await vhost.publish("events", "a.b")
    with pytest.raises(NotFound, match="no exchange 'missing'"):
        await vhost.publish("missing", "a.b")


async def test_a_virtual_host_for_one_test_is_there_at_once_and_gone_after_it(
    broker: Broker,
) -> None:
    vhost = await broker.add_vhost("mine")
    async with await aio_pika.connect(vhost.url) as connection:
        await (await connection.channel()).declare_queue("orders")
        assert list(await vhost.queues()) == ["orders"]
        assert await broker.vhost().queues() == {}
    with pytest.raises(PreconditionFailed, match="already exists"):
        await broker.add_vhost("mine")
    await broker.delete_vhost("mine")
    with pytest.raises(NotFound):
        broker.vhost("mine")


async def test_a_virtual_host_costs_little(broker: Broker) -> None:
    """Two milliseconds of a processor; here only that it is not slow, whatever else runs."""
    began_s = process_time()
    for number in range(50):
        await broker.add_vhost(f"test {number}")
        await broker.delete_vhost(f"test {number}")
    assert process_time() - began_s < 5


async def test_a_route_is_explained(vhost: Vhost, channel: aio_pika.abc.AbstractChannel) -> None:
    events = await channel.declare_exchange("events", "topic")
    queue = await channel.declare_queue("bills")
    await queue.bind(events, "bill.#")
    reported = await vhost.explain("events", "order.created")
    assert reported.queues == ()
    assert "where 'bill' should be there is 'order'" in str(reported)
    assert (await vhost.explain("events", "x", {"CC": ["bill.paid"]})).queues == ("bills",)
    with pytest.raises(NotFound, match="no exchange 'missing'"):
        await vhost.explain("missing", "a")


async def test_a_route_by_a_property_is_explained(
    vhost: Vhost, channel: aio_pika.abc.AbstractChannel
) -> None:
    shares = await channel.declare_exchange(
        "shares", "x-consistent-hash", arguments={"hash-property": "message_id"}
    )
    for name in ("a", "b", "c"):
        await (await channel.declare_queue(name)).bind(shares, "10")
    reported = dict[str, set[str]]()
    for number in map(str, range(20)):
        await shares.publish(aio_pika.Message(b"", message_id=number), "")
        (queue,) = (await vhost.explain("shares", "", message_id=number)).queues
        reported.setdefault(queue, set()).add(number)
    assert len(reported) > 1
    for queue, numbers in reported.items():
        assert {each.properties["message_id"] for each in await vhost.messages(queue)} == numbers
    with pytest.raises(TypeError, match="colour"):
        await vhost.explain("shares", "", colour="red")
