"""Clients of a cluster go on while the node that leads their queue is killed, and notice nothing.

They are connected to other nodes than that.  What holds of RabbitMQ holds here, too: each test runs
against both, by day only where this folder was touched.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import aio_pika
import pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from pika.adapters.blocking_connection import BlockingChannel

from tests.compat.clusters import Cluster, FluffleCluster, RabbitMQCluster
from tests.interop.test_node import FOLDER
from tests.support.node_packages import installed
from tests.support.require import require

Name = Callable[[str], str]

COUNT = 400
PERSISTENT = pika.BasicProperties(delivery_mode=2)
QUORUM = {"x-queue-type": "quorum"}


@pytest.fixture(
    scope="module",
    params=["fluffle", pytest.param("rabbitmq", marks=[pytest.mark.compat, pytest.mark.oracle])],
)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp(request.param)
    is_ours = request.param == "fluffle"
    with FluffleCluster(folder) if is_ours else RabbitMQCluster(folder) as cluster:
        yield cluster


class Led:
    """A quorum queue that node a leads, which can be killed; clients talk to the others."""

    def __init__(self, cluster: Cluster, queue: str) -> None:
        self.cluster = cluster
        self.queue = queue
        self.is_killed = False
        self._bodies: set[bytes] = set()

    def url(self, node: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.cluster.port(node)}/%2F"

    def channel(self, node: str) -> BlockingChannel:
        return pika.BlockingConnection(pika.URLParameters(self.url(node))).channel()

    def kill(self) -> None:
        self.cluster.kill("a")
        self.is_killed = True

    def take(self, body: bytes, *, redelivered: bool) -> bool:
        """A consumer has got a message; whether it has all then.  Halfway the leader is killed."""
        assert redelivered or body not in self._bodies, f"{body!r} is new for the second time"
        self._bodies.add(body)
        if len(self._bodies) == COUNT // 2 and not self.is_killed:
            self.kill()
        return len(self._bodies) == COUNT


@pytest.fixture
def led(cluster: Cluster, name: Name) -> Iterator[Led]:
    led = Led(cluster, name("failover"))
    channel = led.channel("a")
    channel.queue_declare(led.queue, durable=True, arguments=QUORUM)
    channel.connection.close()
    yield led
    if led.is_killed:
        cluster.start("a")
    channel = led.channel("b")
    assert channel.queue_delete(led.queue).method.message_count == 0
    channel.connection.close()


def test_pika(led: Led) -> None:
    def publish() -> None:
        channel = led.channel("b")
        channel.confirm_delivery()
        for number in range(COUNT):
            channel.basic_publish("", led.queue, b"%d" % number, PERSISTENT, mandatory=True)
        channel.connection.close()

    with ThreadPoolExecutor(1) as beside:
        publishing = beside.submit(publish)
        channel = led.channel("c")
        channel.basic_qos(prefetch_count=20)
        for method, _properties, body in channel.consume(led.queue):
            channel.basic_ack(method.delivery_tag)
            if led.take(body, redelivered=method.redelivered):
                break
        assert channel.cancel() == 0
        publishing.result()
        assert channel.queue_declare(led.queue, passive=True).method.message_count == 0
        channel.connection.close()


def test_pika_that_polls(led: Led) -> None:
    channel = led.channel("b")
    channel.confirm_delivery()
    is_over = False
    for number in range(COUNT):
        channel.basic_publish("", led.queue, b"%d" % number, PERSISTENT, mandatory=True)
        method, _properties, body = channel.basic_get(led.queue)
        assert body == b"%d" % number
        is_over = led.take(body, redelivered=method.redelivered)
        channel.basic_ack(method.delivery_tag)
    assert is_over
    channel.connection.close()


async def test_aio_pika(led: Led) -> None:
    is_over = asyncio.Event()
    events: list[object] = []

    async def take(message: AbstractIncomingMessage) -> None:
        if await asyncio.to_thread(led.take, message.body, redelivered=bool(message.redelivered)):
            is_over.set()
        await message.ack()

    consumes = await aio_pika.connect_robust(led.url("c"))
    publishes = await aio_pika.connect_robust(led.url("b"))
    for connection in (consumes, publishes):
        connection.close_callbacks.add(lambda _sender, why: events.append(why))
        connection.reconnect_callbacks.add(lambda _sender: events.append("reconnected"))
    channel = await consumes.channel()
    await channel.set_qos(prefetch_count=20)
    queue = await channel.get_queue(led.queue)
    await queue.consume(take)
    exchange = (await publishes.channel()).default_exchange
    for number in range(COUNT):
        message = aio_pika.Message(b"%d" % number, delivery_mode=2)
        await exchange.publish(message, led.queue)
    await is_over.wait()
    assert events == []
    await consumes.close()
    await publishes.close()


def test_amqplib(led: Led) -> None:
    variables = {"AMQP_URL": led.url("b"), "AMQP_QUEUE": led.queue}
    with subprocess.Popen(
        [installed(FOLDER), "failover.mjs", str(COUNT)],
        cwd=FOLDER,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "half\n"
        led.kill()
        seen = json.loads(program.stdout.readline())
    del seen["again"]  # what comes again says so
    assert seen == {
        "confirmed": COUNT, "refused": 0, "received": COUNT, "unmarked": 0, "left": 0, "events": []
    }  # fmt: skip


def test_rabbitmq_c(led: Led) -> None:
    consume = ["amqp-consume", "--queue", led.queue, "--count", str(COUNT), "--prefetch-count", "7"]
    publish = ["amqp-publish", "--persistent", "-l", "--routing-key", led.queue]
    consume[1:1] = ["--url", led.url("c")]
    publish[1:1] = ["--url", led.url("b")]
    with (
        subprocess.Popen(
            [require(consume[0]), *consume[1:], "cat"], stdout=subprocess.PIPE
        ) as consumes,
        subprocess.Popen([require(publish[0]), *publish[1:]], stdin=subprocess.PIPE) as publishes,
    ):
        assert consumes.stdout is not None
        assert publishes.stdin is not None
        for number in range(COUNT):
            publishes.stdin.write(b"%03d\n" % number)
            publishes.stdin.flush()
            body = consumes.stdout.readline().strip()
            assert body == b"%03d" % number
            led.take(body, redelivered=False)
        publishes.stdin.close()
        assert (publishes.wait(), consumes.wait()) == (0, 0)
