"""kombu: entities, producers, consumers, and the topology Celery delays tasks with."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from amqp.exceptions import AccessRefused
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.message import Message
from kombu.messaging import Consumer, Producer
from kombu.transport import native_delayed_delivery as delayed

from tests.support.deadlines import DEADLINE_S

Name = Callable[[str], str]

SELF_CLEANING = {"x-expires": 60_000}


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with Connection(url, heartbeat=30, transport_options={"confirm_publish": True}) as connection:
        yield connection
    assert not connection.connected


@pytest.fixture
def queue(connection: Connection, name: Name) -> Queue:
    exchange = Exchange(name("media"), "topic", auto_delete=True)
    return Queue(name("video"), exchange, routing_key="video.#", queue_arguments=SELF_CLEANING)(
        connection.default_channel
    )


class Inbox:
    """Takes what a consumer gets; `wait` lets kombu read until there is enough."""

    def __init__(self, connection: Connection) -> None:
        self.got: list[tuple[Any, Message]] = []
        self._connection = connection

    def __call__(self, body: Any, message: Message) -> None:
        self.got.append((body, message))

    def wait(self, count: int) -> list[Any]:
        while len(self.got) < count:
            self._connection.drain_events(timeout=DEADLINE_S)
        return [body for body, _ in self.got]


def test_the_connection_describes_itself(connection: Connection) -> None:
    assert connection.transport.driver_type == "amqp"
    assert connection.connection.server_properties["product"] == "RabbitMQ"
    assert connection.get_heartbeat_interval() == 30
    assert connection.supports_heartbeats


@pytest.mark.parametrize("compression", [None, "zlib", "bzip2"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_produce_and_consume(
    connection: Connection, queue: Queue, serializer: str, compression: str | None
) -> None:
    queue.declare()
    inbox = Inbox(connection)
    payload = {"title": "Ä" * 1000, "sizes": [1, 2.5, None], "nested": {"yes": True}}
    with Producer(connection.channel(), queue.exchange) as producer:
        producer.publish(
            payload,
            routing_key="video.big.one",
            serializer=serializer,
            compression=compression,
            headers={"attempt": 1},
        )
    with Consumer(connection.channel(), [queue], callbacks=[inbox], accept=[serializer]):
        assert inbox.wait(1) == [payload]
        message = inbox.got[0][1]
        assert message.headers.items() >= {"attempt": 1}.items()
        assert message.delivery_info["routing_key"] == "video.big.one"
        message.ack()
    assert queue.get() is None
    queue.delete()


def test_prefetch_requeue_and_reject(connection: Connection, queue: Queue) -> None:
    queue.declare()
    inbox = Inbox(connection)
    with Producer(connection.channel(), queue.exchange, "video") as producer:
        for number in range(4):
            producer.publish(number)
    with Consumer(connection.channel(), [queue], callbacks=[inbox], prefetch_count=2):
        assert inbox.wait(2) == [0, 1]
        assert queue.queue_declare(passive=True).message_count == 2
        inbox.got[1][1].requeue()
        inbox.got[0][1].ack()
        inbox.wait(4)
        again = {body: message.delivery_info["redelivered"] for body, message in inbox.got[2:]}
        assert again == {1: True, 2: False}
        inbox.got[2][1].reject()
        inbox.got[3][1].ack()
        assert inbox.wait(5)[-1] == 3
    queue.delete()


def test_mandatory_messages_come_back(connection: Connection, queue: Queue) -> None:
    queue.declare()
    returned: list[tuple[Any, ...]] = []
    with Producer(
        connection.channel(), queue.exchange, on_return=lambda *fields: returned.append(fields)
    ) as producer:
        producer.publish("?", routing_key="audio", mandatory=True)
    error, _, key, message = returned[0]
    assert (error.reply_code, key, message.body) == (312, "audio", "?")
    queue.delete()


def test_simple_queue_orders_by_priority(connection: Connection, name: Name) -> None:
    arguments = SELF_CLEANING | {"x-max-priority": 5}
    queue = Queue(name("urgent"), queue_arguments=arguments)(connection.default_channel)
    queue.declare()
    with Producer(connection.channel(), routing_key=queue.name) as producer:
        for priority in (1, 5, 3):
            producer.publish({"priority": priority}, priority=priority)
    with connection.SimpleQueue(queue) as simple:
        got = [simple.get(timeout=DEADLINE_S) for _ in range(3)]
        assert [message.payload["priority"] for message in got] == [5, 3, 1]
        for message in got:
            message.ack()
        with pytest.raises(simple.Empty):
            simple.get_nowait()
    queue.delete()


def test_a_lost_connection_is_repaired(connection: Connection, name: Name) -> None:
    queue = Queue(name("lasting"), queue_arguments=SELF_CLEANING)(connection.default_channel)
    queue.declare()
    lost = connection.connection
    with Producer(connection) as producer:
        lost.transport.close()
        producer.publish("through", routing_key=queue.name, retry=True)
    assert connection.connection is not lost
    message = queue(connection.channel()).get(no_ack=True)
    assert message is not None
    assert message.payload == "through"


def test_a_wrong_password_is_not_retried(url: str) -> None:
    connection = Connection(url)
    connection.password = "wrong"
    with pytest.raises(AccessRefused, match="ACCESS_REFUSED"):
        connection.connect()


def test_native_delayed_delivery(connection: Connection, name: Name) -> None:
    """28 topic exchanges and 28 queues that expire into the next: a binary clock for tasks."""
    prefix = name("clock")
    exchange = Exchange(name("tasks"), "topic")
    queue = Queue(name("late"), exchange, routing_key="late", queue_arguments=SELF_CLEANING)
    queue(connection.default_channel).declare()
    delayed.declare_native_delayed_delivery_exchanges_and_queues(connection, "classic", prefix)
    delayed.bind_queue_to_native_delayed_delivery_exchange(connection, queue, prefix)
    inbox = Inbox(connection)
    with Producer(connection.channel()) as producer:
        for seconds in (2, 1):
            producer.publish(
                seconds,
                exchange=delayed.level_name(delayed.MAX_LEVEL, prefix),
                routing_key=delayed.calculate_routing_key(seconds, "late"),
            )
    with Consumer(connection.channel(), [queue], callbacks=[inbox], no_ack=True):
        assert inbox.wait(2) == [1, 2]
    channel = connection.default_channel
    for level in range(delayed.MAX_LEVEL + 1):
        channel.queue_delete(delayed.level_name(level, prefix))
        channel.exchange_delete(delayed.level_name(level, prefix))
