"""History of each message, asked afterwards: with real clients, on either type of queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue

from fluffle.broker import Broker
from fluffle.broker.base.errors import NotFound
from fluffle.broker.testing import timeline
from fluffle.broker.testing.timeline import STEPS_MAX, StepKind
from fluffle.broker.testing.vhost import Vhost

TYPES = pytest.mark.parametrize("queue_type", ["classic", "quorum"])


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as broker:
        yield broker


@pytest.fixture
async def channel(broker: Broker) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(broker.url) as connection:
        yield await connection.channel()


@pytest.fixture
def vhost(broker: Broker) -> Vhost:
    return broker.vhost()


async def declared(
    channel: AbstractChannel, name: str, queue_type: str = "classic", **arguments: object
) -> AbstractQueue:
    named = {key.replace("_", "-"): value for key, value in arguments.items()}
    named["x-queue-type"] = queue_type
    return await channel.declare_queue(name, durable=True, arguments=named)  # type: ignore[arg-type]


async def publish(channel: AbstractChannel, queue: str, *bodies: bytes, **properties: int) -> None:
    for body in bodies:
        message = aio_pika.Message(body, **properties)  # type: ignore[arg-type]
        await channel.default_exchange.publish(message, queue)


async def steps(vhost: Vhost, queue: str) -> list[list[str]]:
    return [[step.what for step in each.steps] for each in await vhost.history(queue)]


@TYPES
async def test_each_message_has_its_way_reported(
    vhost: Vhost, channel: AbstractChannel, queue_type: str
) -> None:
    await declared(channel, "dead")
    queue = await declared(
        channel, "orders", queue_type, x_dead_letter_exchange="", x_dead_letter_routing_key="dead"
    )
    await publish(channel, "orders", b"acked", b"rejected", b"back", b"waits")
    await (await queue.get()).ack()
    await (await queue.get()).reject()
    await (await queue.get()).nack()
    await vhost.expect("dead", ready=1)
    back = await queue.get()
    assert back.body == b"back"
    assert await steps(vhost, "orders") == [
        ["published", "delivered", "acked"],
        ["published", "delivered", "rejected", "dead-lettered"],
        ["published", "delivered", "requeued", "delivered"],
        ["published"],
    ]
    found = await vhost.history("orders")
    assert [each.body for each in found] == [b"acked", b"rejected", b"back", b"waits"]
    assert [each.state for each in found] == ["acked", "dead-lettered", "unacked", "ready"]
    assert [each.acked_by for each in found] == ["", None, None, None]
    assert found[1].last.detail == "rejected, to exchange '' with key 'dead'"
    (dead,) = await vhost.history("dead")
    assert str(dead.last) == "found, dead-lettered from queue 'orders', rejected"


@TYPES
async def test_a_consumer_is_named(vhost: Vhost, channel: AbstractChannel, queue_type: str) -> None:
    queue = await declared(channel, "orders", queue_type)

    async def ack(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        await message.ack()

    await queue.consume(ack, consumer_tag="worker")
    await publish(channel, "orders", b"first")
    await vhost.expect("orders", count=0)
    await vhost.assert_no_unacked()
    (first,) = await vhost.history("orders")
    assert first.acked_by == "worker"
    by = first.steps[0].who
    reported = (
        f"published by {by}; delivered to 'worker' of {by}, tag 1; acked by 'worker' of {by}>"
    )
    assert repr(first).endswith(reported)


@TYPES
async def test_of_equal_messages_each_has_its_own_way(
    vhost: Vhost, channel: AbstractChannel, queue_type: str
) -> None:
    queue = await declared(channel, "orders", queue_type)
    await publish(channel, "orders", *[b"same"] * 4)
    first, second = await queue.get(), await queue.get()
    await second.ack()
    await first.nack()
    third = await queue.get(no_ack=True)
    assert third.redelivered
    assert await steps(vhost, "orders") == [
        ["published", "delivered", "requeued", "taken"],
        ["published", "delivered", "acked"],
        ["published"],
        ["published"],
    ]


@TYPES
async def test_what_expires_is_dropped_or_goes_on(
    broker: Broker, vhost: Vhost, channel: AbstractChannel, queue_type: str
) -> None:
    await declared(channel, "late", queue_type, x_message_ttl=1_000)
    await declared(
        channel, "retry", queue_type, x_message_ttl=1_000,
        x_dead_letter_exchange="", x_dead_letter_routing_key="late",
    )  # fmt: skip
    await publish(channel, "late", b"1", b"2")
    await publish(channel, "retry", b"3")
    await vhost.expect("retry", ready=1)
    await broker.clock.advance(seconds=1)
    await vhost.expect("late", ready=1)
    assert await steps(vhost, "late") == [["published", "dropped"]] * 2 + [["found"]]
    assert await steps(vhost, "retry") == [["published", "dead-lettered"]]
    await broker.clock.advance(seconds=1)
    assert [each.state for each in await vhost.history("late")] == ["dropped"] * 3


async def test_what_is_in_front_of_too_many_is_dropped(
    vhost: Vhost, channel: AbstractChannel
) -> None:
    await declared(channel, "short", x_max_length=2)
    await publish(channel, "short", b"1", b"2", b"3")
    found = await vhost.history("short")
    assert [each.state for each in found] == ["dropped", "ready", "ready"]
    assert found[0].last.detail == "maxlen"


@TYPES
async def test_what_nobody_saw_leave_is_gone(
    vhost: Vhost, channel: AbstractChannel, queue_type: str
) -> None:
    queue = await declared(channel, "orders", queue_type)
    await publish(channel, "orders", b"1", b"2")
    await queue.purge()
    await publish(channel, "orders", b"3")
    assert await steps(vhost, "orders") == [["published", "gone"]] * 2 + [["published"]]
    await queue.delete(if_unused=False, if_empty=False)
    assert [each.last.what for each in await vhost.history("orders")] == [StepKind.GONE] * 3
    with pytest.raises(NotFound, match=r"no queue 'missing'.*, but: "):
        await vhost.history("missing")


@TYPES
async def test_what_is_purged_is_distinguished_from_what_comes_after(
    vhost: Vhost, channel: AbstractChannel, queue_type: str
) -> None:
    queue = await declared(channel, "orders", queue_type)
    await publish(channel, "orders", b"same")
    await queue.purge()
    await publish(channel, "orders", b"same")
    await (await queue.get()).ack()
    await publish(channel, "orders", b"same")
    await vhost.purge("orders")
    assert await steps(vhost, "orders") == [
        ["published", "gone"], ["published", "delivered", "acked"], ["published", "gone"],
    ]  # fmt: skip
    first, _, third = await vhost.history("orders")
    assert str(first.last) == f"gone by {first.steps[0].who}, purged"
    assert str(third.last) == "gone by the test, purged"


@TYPES
async def test_what_the_test_takes_is_seen(
    vhost: Vhost, channel: AbstractChannel, queue_type: str
) -> None:
    await declared(channel, "orders", queue_type)
    await publish(channel, "orders", b"same", b"same", b"held")
    await vhost.consume("orders")
    (await vhost.get("orders")).reject(requeue=True)
    await vhost.expect("orders", ready=2)
    await vhost.consume("orders")
    await vhost.get("orders")
    found = await vhost.history("orders")
    assert [[step.what for step in each.steps] for each in found] == [
        ["published", "delivered", "acked"],
        ["published", "delivered", "requeued", "delivered", "acked"],
        ["published", "delivered"],
    ]
    assert str(found[0].last) == "acked by the test"
    assert "the test: takes b'held' of queue 'orders'" in await vhost.timeline()
    with pytest.raises(AssertionError, match=r"1 not acknowledged:\n.* delivered to the test"):
        await vhost.assert_no_unacked(within=0.01)


@TYPES
async def test_what_a_client_has_left_is_no_more_once_the_test_has_it(
    broker: Broker, vhost: Vhost, channel: AbstractChannel, queue_type: str
) -> None:
    await declared(channel, "taken", queue_type)
    await declared(channel, "purged", queue_type)
    async with await aio_pika.connect(broker.url) as connection:
        leaving = await connection.channel()
        for name in ("taken", "purged"):
            await publish(channel, name, b"1")
            await (await leaving.get_queue(name, ensure=False)).get()
    for name in ("taken", "purged"):
        await vhost.expect(name, ready=1)
    with pytest.raises(AssertionError, match="2 not acknowledged"):
        await vhost.assert_no_unacked(within=0.01)
    await vhost.consume("taken")
    await vhost.purge("purged")
    await vhost.assert_no_unacked()


async def test_what_a_client_has_left_is_not_in_a_queue_that_is_empty(
    broker: Broker, vhost: Vhost, channel: AbstractChannel
) -> None:
    await declared(channel, "orders")
    async with await aio_pika.connect(broker.url) as connection:
        await publish(channel, "orders", b"1")
        await (await (await connection.channel()).get_queue("orders", ensure=False)).get()
    await vhost.expect("orders", ready=1)
    broker.node.catalogue.vhosts["/"].queues["orders"].purge()  # as a command does
    await vhost.assert_no_unacked()


async def test_a_transaction_is_seen_when_it_is_committed(vhost: Vhost, broker: Broker) -> None:
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await declared(channel, "orders")
        async with channel.transaction():
            await publish(channel, "orders", b"1")
        message = await queue.get()
        rolled_back = channel.transaction()
        await rolled_back.select()
        await publish(channel, "orders", b"2")
        await message.ack()
        assert await steps(vhost, "orders") == [
            ["published", "delivered"], ["published", "gone"],
        ]  # fmt: skip
        await rolled_back.commit()
        first, second = await vhost.history("orders")
        assert (first.state, second.state) == ("acked", "ready")
        assert second.steps[0].detail == "in a transaction"


@TYPES
async def test_what_is_acknowledged_in_vain_is_not_acknowledged(
    vhost: Vhost, channel: AbstractChannel, queue_type: str
) -> None:
    queue = await declared(channel, "orders", queue_type)
    taken: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
    await queue.consume(taken.put)
    await publish(channel, "orders", b"1")
    first = await taken.get()
    await (await vhost.clients.consumer("orders")).redeliver()
    second = await taken.get()
    await first.ack()
    await vhost.expect("orders", unacked=1)
    assert await steps(vhost, "orders") == [["published", "delivered", "delivered"]]
    await second.ack()
    await vhost.assert_no_unacked()


@TYPES
async def test_a_queue_that_is_made_again_numbers_anew(
    vhost: Vhost, channel: AbstractChannel, queue_type: str
) -> None:
    queue = await declared(channel, "orders", queue_type)
    await publish(channel, "orders", b"1")
    first = await queue.get()
    await queue.delete(if_unused=False, if_empty=False)
    await declared(channel, "orders", queue_type)
    await publish(channel, "orders", b"2")
    second = await queue.get()
    await first.ack()
    await vhost.expect("orders", unacked=1)
    assert await steps(vhost, "orders") == [
        ["published", "delivered", "gone"], ["published", "delivered"],
    ]  # fmt: skip
    with pytest.raises(AssertionError, match="1 not acknowledged"):
        await vhost.assert_no_unacked(within=0.01)
    await second.ack()
    await vhost.assert_no_unacked()


async def test_what_was_there_before_is_found(tmp_path: Path) -> None:
    for expected in ([["published"]], [["found", "delivered"]]):
        async with (
            Broker(data_dir=tmp_path) as broker,
            await aio_pika.connect(broker.url) as connection,
        ):
            channel = await connection.channel()
            queue = await declared(channel, "orders")
            if expected[0][0] == "published":
                message = aio_pika.Message(b"1", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await channel.default_exchange.publish(message, "orders")
            else:
                await queue.get()
            assert await steps(broker.vhost(), "orders") == expected


async def test_the_test_publishes_as_clients_do(vhost: Vhost, channel: AbstractChannel) -> None:
    await declared(channel, "orders")
    await vhost.publish("", "orders", b"1")
    (first,) = await vhost.history("orders")
    assert str(first.last) == "published by the test"


async def test_a_delayed_message_says_that_it_was(
    broker: Broker, vhost: Vhost, channel: AbstractChannel
) -> None:
    late = await channel.declare_exchange(
        "late", "x-delayed-message", durable=True, arguments={"x-delayed-type": "fanout"}
    )
    queue = await declared(channel, "orders")
    await queue.bind(late)
    await late.publish(aio_pika.Message(b"1", headers={"x-delay": 5_000}), "")
    await broker.clock.advance(seconds=5)
    await vhost.expect("orders", ready=1)
    (message,) = await vhost.history("orders")
    assert str(message.last) == "found, after a delay of 5000 ms"


async def test_a_message_that_goes_round_keeps_its_first_and_latest_steps(
    vhost: Vhost, channel: AbstractChannel
) -> None:
    queue = await declared(channel, "orders")
    await publish(channel, "orders", b"1")
    for _ in range(STEPS_MAX):
        await (await queue.get()).nack()
    (message,) = await vhost.history("orders")
    assert len(message.steps) == STEPS_MAX
    assert (message.steps[0].what, message.last.what) == (StepKind.PUBLISHED, StepKind.REQUEUED)


async def test_there_is_an_end_to_what_is_remembered(
    vhost: Vhost, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "PASSAGES_MAX", 3)
    await declared(channel, "orders")
    await publish(channel, "orders", *(b"%d" % n for n in range(5)))
    assert [each.body for each in await vhost.history("orders")][-1] == b"4"
    assert "messages are forgotten)" in await vhost.timeline()
    for _ in range(timeline.LINES_MAX):
        await publish(channel, "nowhere", b"1")
    reported = (await vhost.timeline()).splitlines()
    assert reported[0].endswith("earlier lines are left out)")
    assert f"  and {timeline.UNROUTABLE_MAX - 20} more" in reported
    assert (
        reported[-1]
        == f"({timeline.LINES_MAX - timeline.UNROUTABLE_MAX} unroutable messages are forgotten)"
    )
