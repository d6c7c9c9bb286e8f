"""aiomqtt and gmqtt, clients for asyncio, with aio-pika on the other side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import aiomqtt
import gmqtt
import pytest

from tests.interop.mqtt_broker import LOOPBACK, MqttBroker

Name = Callable[[str], str]
LOGIN: Any = {"username": "guest", "password": "guest"}
VERSIONS = {"3.1.1": aiomqtt.ProtocolVersion.V311, "5": aiomqtt.ProtocolVersion.V5}


@pytest.fixture
def name(name: Name) -> Name:
    """Names as of all tests, without dots: RabbitMQ takes them for slashes."""
    return lambda base: name(base).replace(".", "-")


@pytest.mark.parametrize("version", VERSIONS)
async def test_aiomqtt_receives_what_it_publishes(
    mqtt: MqttBroker, name: Name, version: str
) -> None:
    topic = name("aiomqtt")
    options: Any = {"port": mqtt.ports["tcp"], "protocol": VERSIONS[version], **LOGIN}
    async with aiomqtt.Client(LOOPBACK, **options) as client:
        await client.subscribe(f"{topic}/#", qos=2)
        for qos in (0, 1, 2):
            await client.publish(f"{topic}/{qos}", f"{qos}", qos)
        heard = []
        async for message in client.messages:
            heard.append((str(message.topic), message.payload, message.qos))
            if len(heard) == 3:
                break
    assert heard == [(f"{topic}/{qos}", b"%d" % qos, qos) for qos in (0, 1, 2)]


async def test_aiomqtt_and_aio_pika(mqtt: MqttBroker, name: Name) -> None:
    """A request by MQTT is answered by AMQP."""
    topic = name("request")
    async with (
        await aio_pika.connect(mqtt.amqp_url) as connection,
        aiomqtt.Client(LOOPBACK, port=mqtt.ports["tcp"], **LOGIN) as client,
    ):
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("amq.topic", f"{topic}.ask")
        exchange = await channel.get_exchange("amq.topic")
        await client.subscribe(f"{topic}/answer", qos=1)
        await client.publish(f"{topic}/ask", "question", qos=1)
        async with queue.iterator() as messages:
            async for asked in messages:
                async with asked.process():
                    assert asked.body == b"question"
                    answer = aio_pika.Message(b"answer", delivery_mode=2)
                    await exchange.publish(answer, f"{topic}.answer")
                break
        heard = await anext(client.messages)
        assert (heard.payload, heard.qos) == (b"answer", 1)


@asynccontextmanager
async def connected(mqtt: MqttBroker, client_id: str) -> AsyncIterator[gmqtt.Client]:
    client = gmqtt.Client(client_id)
    client.set_auth_credentials("guest", "guest")
    await client.connect(LOOPBACK, mqtt.ports["tcp"], version=gmqtt.constants.MQTTv50)
    try:
        yield client
    finally:
        await client.disconnect()


async def test_gmqtt_with_properties(mqtt: MqttBroker, name: Name) -> None:
    topic = name("gmqtt")
    heard: asyncio.Queue[tuple[str, bytes, int, Any]] = asyncio.Queue()
    granted = asyncio.Event()
    async with connected(mqtt, name("one")) as one, connected(mqtt, name("other")) as other:
        one.on_message = lambda _c, to, payload, qos, properties: heard.put_nowait(
            (to, payload, qos, properties)
        )
        one.on_subscribe = lambda *_: granted.set()
        one.subscribe(gmqtt.Subscription(f"{topic}/+", qos=2), subscription_identifier=3)
        await granted.wait()
        for qos in (0, 1, 2):
            properties = {"content_type": "text/plain", "user_property": ("a", "b")}
            other.publish(f"{topic}/{qos}", f"{qos}", qos=qos, **properties)
        for qos in (0, 1, 2):
            to, payload, received_qos, properties = await heard.get()
            assert (to, payload, received_qos) == (f"{topic}/{qos}", b"%d" % qos, qos)
            assert properties["content_type"] == ["text/plain"]
            assert properties["user_property"] == [("a", "b")]
            assert properties["subscription_identifier"] == [3]
