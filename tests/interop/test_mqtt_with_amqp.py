"""Each client of MQTT, over each transport that it has, asks a client of AMQP and is answered."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from queue import Queue
from typing import Any, Literal

import aio_pika
import aiomqtt
import gmqtt
import paho.mqtt.client as paho
import pika
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.interop.mqtt_broker import LOOPBACK, TRANSPORTS, MqttBroker
from tests.support.deadlines import DEADLINE_S
from tests.support.node_packages import installed
from tests.support.require import require

Name = Callable[[str], str]
NODE = Path(__file__).parent / "node"
EXCHANGE = "amq.topic"
SCHEMES = {"tcp": "mqtt", "tls": "mqtts", "websockets": "ws"}
LOGIN: Any = {"username": "guest", "password": "guest"}


@pytest.fixture
def name(name: Name) -> Name:
    """Names as of all tests, without dots: RabbitMQ takes them for slashes."""
    return lambda base: name(base).replace(".", "-")


@dataclass(frozen=True, slots=True)
class Way:
    """How a client comes in, and the topic below which it asks."""

    port: int
    transport: str
    ca_file: str
    topic: str

    @property
    def tls(self) -> ssl.SSLContext | None:
        is_tls = self.transport == "tls"
        return ssl.create_default_context(cafile=self.ca_file) if is_tls else None


# Clients of AMQP


def answers_by_pika(url: str, topic: str, is_ready: Callable[[], object]) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, EXCHANGE, f"{topic}.ask")
        is_ready()
        _method, _properties, body = next(channel.consume(queue, auto_ack=True))
        answer = pika.BasicProperties(delivery_mode=2)
        channel.basic_publish(EXCHANGE, f"{topic}.answer", b"answer to " + body, answer, True)


def answers_by_aio_pika(url: str, topic: str, is_ready: Callable[[], object]) -> None:
    async def answer() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(EXCHANGE, f"{topic}.ask")
            is_ready()
            async with queue.iterator(no_ack=True) as messages:
                asked = await anext(messages)
            exchange = await channel.get_exchange(EXCHANGE)
            answer = aio_pika.Message(b"answer to " + asked.body, delivery_mode=2)
            await exchange.publish(answer, f"{topic}.answer", mandatory=True)

    asyncio.run(answer())


RESPONDERS = {"pika": answers_by_pika, "aio-pika": answers_by_aio_pika}


@contextmanager
def answered(mqtt: MqttBroker, topic: str, responder: str) -> Iterator[None]:
    """A client of AMQP in a thread of its own, which answers one question."""
    is_ready = threading.Event()
    arguments = (mqtt.amqp_url, topic, is_ready.set)
    thread = threading.Thread(target=RESPONDERS[responder], args=arguments, daemon=True)
    thread.start()
    assert is_ready.wait(DEADLINE_S)
    yield
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


# Clients of MQTT


def ask_with_paho(way: Way) -> str:
    transport: Literal["tcp", "websockets"] = "tcp"
    if way.transport == "websockets":
        transport = "websockets"
    client = paho.Client(
        CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, transport=transport
    )
    if transport == "websockets":
        client.ws_set_options(path="/ws")
    if way.tls is not None:
        client.tls_set_context(way.tls)
    client.username_pw_set("guest", "guest")
    heard: Queue[bytes | bytearray] = Queue()

    def subscribe(*_: Any) -> None:
        client.subscribe(f"{way.topic}/answer", 2)

    def ask(*_: Any) -> None:
        client.publish(f"{way.topic}/ask", "question", 2)

    client.on_connect, client.on_subscribe = subscribe, ask
    client.on_message = lambda _c, _u, message: heard.put(message.payload)
    client.connect(LOOPBACK, way.port)
    client.loop_start()
    try:
        return heard.get(timeout=DEADLINE_S).decode()
    finally:
        client.disconnect()
        client.loop_stop()


async def ask_with_aiomqtt(way: Way) -> str:
    options: Any = {"tls_context": way.tls}
    if way.transport == "websockets":
        options = {"transport": "websockets", "websocket_path": "/ws"}
    async with aiomqtt.Client(LOOPBACK, way.port, **LOGIN, **options) as client:
        await client.subscribe(f"{way.topic}/answer", qos=2)
        await client.publish(f"{way.topic}/ask", "question", qos=2)
        payload = (await anext(client.messages)).payload
        assert isinstance(payload, bytes)
        return payload.decode()


async def ask_with_gmqtt(way: Way) -> str:
    client = gmqtt.Client(way.topic)
    client.set_auth_credentials("guest", "guest")
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    client.on_message = lambda _c, _t, payload, _q, _p: heard.put_nowait(payload)
    client.on_subscribe = lambda *_: client.publish(f"{way.topic}/ask", "question", qos=2)
    await client.connect(LOOPBACK, way.port, ssl=way.tls or False)
    try:
        client.subscribe(f"{way.topic}/answer", qos=2)
        return (await heard.get()).decode()
    finally:
        await client.disconnect()


def in_a_loop(ask: Callable[[Way], Awaitable[str]]) -> Callable[[Way], str]:
    async def bounded(way: Way) -> str:
        return await asyncio.wait_for(ask(way), DEADLINE_S)

    return lambda way: asyncio.run(bounded(way))


def printed(command: list[str], **options: Any) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def ask_with_mqtt_js(way: Way) -> str:
    url = f"{SCHEMES[way.transport]}://{LOOPBACK}:{way.port}/ws"
    command = [installed(NODE), "mqtt-request.mjs", url, way.topic]
    trusting = os.environ | {"NODE_EXTRA_CA_CERTS": way.ca_file}
    return printed(command, cwd=NODE, env=trusting)


def ask_with_mosquitto(way: Way) -> str:
    secure = ["--cafile", way.ca_file] if way.transport == "tls" else []
    where = ["-h", LOOPBACK, "-p", str(way.port), "-u", "guest", "-P", "guest", *secure]
    topics = ["-t", f"{way.topic}/ask", "-e", f"{way.topic}/answer"]
    return printed([require("mosquitto_rr"), *where, *topics, "-q", "2", "-m", "question"])


CLIENTS: Mapping[str, tuple[Callable[[Way], str], tuple[str, ...]]] = {
    "paho": (ask_with_paho, ("tcp", "tls", "websockets")),
    "aiomqtt": (in_a_loop(ask_with_aiomqtt), ("tcp", "tls", "websockets")),
    "gmqtt": (in_a_loop(ask_with_gmqtt), ("tcp", "tls")),
    "MQTT.js": (ask_with_mqtt_js, ("tcp", "tls", "websockets")),
    "mosquitto_rr": (ask_with_mosquitto, ("tcp", "tls")),
}
"""Clients with the transports that they have."""
WAYS = [
    (client, transport)
    for client, (_, transports) in CLIENTS.items()
    for transport in transports
    if transport in TRANSPORTS
]


@pytest.mark.parametrize(
    ("client", "transport", "responder"), [(*way, each) for way, each in product(WAYS, RESPONDERS)]
)
def test_a_question_of_mqtt_is_answered_by_amqp(
    mqtt: MqttBroker, name: Name, client: str, transport: str, responder: str
) -> None:
    ask, _ = CLIENTS[client]
    way = Way(mqtt.ports[transport], transport, mqtt.ca_file, name("request"))
    with answered(mqtt, way.topic, responder):
        assert ask(way) == "answer to question"
