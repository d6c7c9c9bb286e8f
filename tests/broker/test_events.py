"""What a whole node tells to amq.rabbitmq.event, of what no client does."""

from __future__ import annotations

import aio_pika
import pytest

from fluffle.broker.config import Config, ListenAddress
from fluffle.broker.testing.broker import Broker

ACTOR = "user_who_performed_action"


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_queue_that_expires_is_told_with_its_bindings(queue_type: str) -> None:
    config = Config(listen=ListenAddress("127.0.0.1", 0), event_exchange=True)
    async with Broker(config) as broker, await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        events = await channel.declare_queue("events", exclusive=True)
        await events.bind("amq.rabbitmq.event", "*.deleted")
        queue = await channel.declare_queue(
            "q", durable=True, arguments={"x-queue-type": queue_type, "x-expires": 1000}
        )
        await queue.bind("amq.fanout")
        await broker.clock.advance(seconds=1)
        told = [await events.get(no_ack=True) for _ in range(2)]
        assert [(each.routing_key, each.headers[ACTOR]) for each in told] == [
            ("binding.deleted", "rmq-internal"),
            ("queue.deleted", "rmq-internal"),
        ]
        timeline = str(await broker.vhost("/").timeline())
        assert "queue 'q' is deleted" in timeline
