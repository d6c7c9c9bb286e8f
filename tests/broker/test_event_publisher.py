"""Events of a whole node in amq.rabbitmq.event that no AMQP client causes."""

from __future__ import annotations

import logging
from pathlib import Path

import aio_pika
import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.testing.broker import Broker
from tests.support.management import management

ACTOR = "user_who_performed_action"


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_queue_that_expires_is_reported_with_its_bindings(queue_type: str) -> None:
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
        reported = [await events.get(no_ack=True) for _ in range(2)]
        assert [(each.routing_key, each.headers[ACTOR]) for each in reported] == [
            ("binding.deleted", "rmq-internal"),
            ("queue.deleted", "rmq-internal"),
        ]
        timeline = str(await broker.vhost("/").timeline())
        assert "queue 'q' is deleted" in timeline


async def test_what_is_changed_by_http_is_reported_and_logged_as_of_who_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        management(tmp_path, event_exchange=True) as api,
        await aio_pika.connect(f"amqp://127.0.0.1:{api.amqp_port}") as connection,
    ):
        channel = await connection.channel()
        events = await channel.declare_queue("events", exclusive=True)
        await events.bind("amq.rabbitmq.event", "policy.*")
        await events.bind("amq.rabbitmq.event", "vhost.*")
        policy = {"pattern": "^q", "definition": {"max-length": 5}}
        for method, path in (
            ("PUT", "policies/%2F/p"),
            ("DELETE", "policies/%2F/p"),
            ("PUT", "vhosts/v"),
            ("DELETE", "vhosts/v"),
        ):
            status, _ = await api.ask(method, path, json=policy if "policies" in path else {})
            assert status in (201, 204)
        reported = [await events.get(no_ack=True) for _ in range(4)]
    assert [(each.routing_key, each.headers[ACTOR]) for each in reported] == [
        ("policy.set", "guest"),
        ("policy.cleared", "guest"),
        ("vhost.created", "guest"),
        ("vhost.deleted", "guest"),
    ]
    logged = [
        getattr(record, FIELDS_ATTRIBUTE)
        for record in caplog.records
        if record.getMessage() == "administered"
    ]
    assert logged[0] == {"verb": "policies.set", "name": "p", "vhost": "/", "by": "guest"}
