"""Real clients and a broker that is unkind to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import aio_pika
import pika
import pytest

from fluffle.broker import Broker
from fluffle.broker.testing.faults.frames import ACK, FrameSplitter, WireFrame
from fluffle.broker.testing.faults.operations import perform
from fluffle.broker.testing.faults.unkind import PendingConfirms
from fluffle.broker.testing.loop_thread import CrossThreadProxy
from fluffle.broker.testing.threaded import BlockingVhost
from fluffle.protocol.hot import ack_frame
from tests.suite.seeds import seeds
from tests.support.deadlines import DEADLINE_S

COUNT = 100


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_all_is_published_and_taken_once_at_least(
    amqp: CrossThreadProxy, queue_type: str
) -> None:
    """On two channels of one connection, with confirms, in any order."""
    await amqp.faults.unkind(seed=7, cancelled_percent=0)
    async with await aio_pika.connect(amqp.url) as connection:
        channels = [await connection.channel() for _ in range(2)]
        queue = await channels[0].declare_queue(
            "orders", durable=True, arguments={"x-queue-type": queue_type}
        )
        taken: Counter[bytes] = Counter()
        marked: Counter[bytes] = Counter()

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            taken[message.body] += 1
            marked[message.body] += bool(message.redelivered)
            await message.ack()

        await queue.consume(take)
        bodies = [b"%d " % number + bytes(number * 50) for number in range(COUNT)]
        publishing = [
            channel.default_exchange.publish(aio_pika.Message(body), "orders")
            for body, channel in zip(bodies, channels * COUNT, strict=False)
        ]
        await asyncio.gather(*publishing)
        await amqp.expect("orders", count=0, within=20)
    assert set(taken) == set(bodies)
    assert max(taken.values()) > 1
    assert all(marked[body] >= taken[body] - 1 for body in bodies)


@pytest.mark.parametrize("queue", ["amq.rabbitmq.reply-to", "orders"])
def test_what_cannot_have_come_before_is_not_marked(amqp: BlockingVhost, queue: str) -> None:
    """Answers by direct reply-to, and messages of quorum queues without a count."""
    amqp.faults.unkind(seed=1, redelivered_percent=0, cancelled_percent=0)
    with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders", durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_declare("requests")
        marked = []

        def take(_channel: object, method: Any, _properties: object, _body: bytes) -> None:
            marked.append(method.redelivered)

        channel.basic_consume(queue, take, auto_ack=True)
        asks = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")
        for _ in range(COUNT):
            key = "orders"
            if queue != key:
                channel.basic_publish("", "requests", b"", asks)
                request = amqp.get("requests")
                request.ack()
                key = request.properties["reply_to"]
            channel.basic_publish("", key, b"")
        while len(marked) < COUNT:
            connection.process_data_events(time_limit=DEADLINE_S)
    assert not any(marked)


def test_a_blocking_client_is_served(amqp: BlockingVhost) -> None:
    amqp.faults.unkind(seed=1, cancelled_percent=0)
    with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("orders")
        for number in range(10):
            channel.basic_publish("", "orders", b"%d" % number)
        taken = set()
        for method, _properties, body in channel.consume("orders", inactivity_timeout=DEADLINE_S):
            assert method is not None
            taken.add(body)
            channel.basic_ack(method.delivery_tag)
            if len(taken) == 10:
                break
        assert taken == {b"%d" % number for number in range(10)}


async def test_consumers_are_cancelled_if_that_is_wanted() -> None:
    async with Broker() as broker, await aio_pika.connect(broker.url) as connection:
        scope = broker.scope("/")
        perform(scope, "unkind", {"seed": 3, "cancelled_percent": 100})
        assert scope.in_effect == ["the broker is unkind, with seed 3"]
        channel = await connection.channel()
        queue = await channel.declare_queue("orders")

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            await message.ack()

        await queue.consume(take)
        await broker.vhost().publish("", "orders", b"first")
        await broker.vhost().expect("orders", count=0, consumers=0)
        perform(scope, "kind", {})
        assert scope.in_effect == []
        await channel.declare_queue("others")


async def test_chance_is_that_of_the_seed() -> None:
    """Output is the same for the same seed, as long as the client sends the same."""

    async def heard(seed: int) -> bytes:
        async with Broker() as broker:
            host, port = broker.node.addresses["amqp"]
            await broker.faults.unkind(seed)
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"AMQP\0\0\x09\x01")
            start = await reader.readuntil(b"\xce")
            (line,) = broker.scope().taps()
            assert line.pieces is not None
            cut = b"|".join(line.pieces(bytes(20)))
            writer.close()
            await writer.wait_closed()
            return start + cut

    assert await heard(1) == await heard(1) != await heard(2)


def test_what_a_client_sends_is_split_into_frames_however_it_comes() -> None:
    header, acks = b"AMQP\0\0\x09\x01", [ack_frame(1, tag, multiple=False) for tag in range(3)]
    sent = header + b"".join(acks)
    for step in (1, 5, 8, 1000):
        splitter = FrameSplitter(waits_for_header=True)
        parts = [sent[at : at + step] for at in range(0, len(sent), step)]
        frames = [frame for part in parts for frame in splitter.feed(part)]
        assert [frame.data for frame in frames] == [header, *acks]
    for rubbish in (b"GET / HTTP/1.1\r\n", header + b"\1\0\0\0\0\0\1xy", acks[0][3:] * 2):
        splitter = FrameSplitter(waits_for_header=not rubbish.startswith(acks[0][3:]))
        frames = [frame for at in range(0, 40, 4) for frame in splitter.feed(rubbish[at : at + 4])]
        assert b"".join(frame.data for frame in frames) == rubbish[:40]


async def test_what_is_said_of_a_broker_lasts_as_long_as_the_broker() -> None:
    async with Broker(unkind=4) as broker:
        await broker.add_vhost("mine")
        await broker.faults.refuse_logins()
        await broker.delete_vhost("mine")
        assert broker.faults.in_effect == []
        async with await aio_pika.connect(broker.url) as connection:
            (line,) = broker.scope().taps()
            assert line.pieces is not None
            await connection.channel()
        await broker.wait_until_idle()
        assert list(broker.scope().taps()) == []


class Publisher:
    """Believes what it hears."""

    def __init__(self) -> None:
        self.known: dict[int, bool] = {}
        self.open: set[int] = set()

    def hear(self, frame: WireFrame) -> None:
        numbers = (
            [each for each in self.open if each <= frame.tag] if frame.multiple else [frame.tag]
        )
        for number in numbers:
            self.open.remove(number)
            self.known[number] = frame.method == ACK


@seeds(50)
def test_a_publisher_comes_to_know_what_became_of_each(seed: int) -> None:
    chance = Random(seed)
    confirms, publisher, outcomes = PendingConfirms(1), Publisher(), dict[int, bool]()
    published = 0
    unanswered: list[int] = []
    for _ in range(30):
        count = chance.randrange(4)
        unanswered += range(published + 1, published + count + 1)
        publisher.open.update(range(published + 1, published + count + 1))
        published += count
        if unanswered and chance.random() < 0.7:
            is_ack, multiple = chance.random() < 0.8, chance.random() < 0.5
            tag = chance.choice(unanswered)
            answered = [each for each in unanswered if each <= tag] if multiple else [tag]
            confirms.add(tag, multiple=multiple, is_ack=is_ack)
            outcomes |= dict.fromkeys(answered, is_ack)
            unanswered = [each for each in unanswered if each not in answered]
        if chance.random() < 0.5:
            for frame in confirms.due(chance):
                publisher.hear(frame)
    for frame in confirms.due(chance):
        publisher.hear(frame)
    assert publisher.known == outcomes, f"seed {seed}"


def test_some_are_reported_as_one_and_some_out_of_order() -> None:
    shapes = set()
    for seed in range(20):
        confirms = PendingConfirms(1)
        for number in (1, 2, 3):
            confirms.add(number, multiple=False, is_ack=True)
        due = [(frame.tag, frame.multiple) for frame in confirms.due(Random(seed))]
        shapes.add(tuple(due))
    assert ((3, True),) in shapes
    assert any(shape[0] == (3, False) for shape in shapes)
