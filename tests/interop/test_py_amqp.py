"""py-amqp, the client under kombu and Celery."""

from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from urllib.parse import unquote, urlsplit

import amqp
import pytest
from amqp.exceptions import (
    AccessRefused,
    ConsumerCancelled,
    MessageNacked,
    NotFound,
    ResourceLocked,
)

Name = Callable[[str], str]

HEADERS = {
    "text": "καλημέρα",
    "yes": True,
    "int": -7,
    "long": 2**62,
    "double": 2.5,
    "decimal": Decimal("3.25"),
    "time": datetime(2026, 2, 3, 4, 5, 6),
    "nothing": None,
    "list": [1, "two", None, [True], {"deep": "est"}],
    "table": {"a": {"b": [{}]}},
}


def connect(url: str, **options: object) -> amqp.Connection:
    parts = urlsplit(url)
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port}",
        virtual_host=unquote(parts.path[1:]),
        **{"userid": parts.username, "password": parts.password, **options},
    )
    connection.connect()
    return connection


@pytest.fixture
def connection(url: str) -> Iterator[amqp.Connection]:
    with connect(url, confirm_publish=True) as connection:
        yield connection
    assert not connection.connected


@pytest.fixture
def channel(connection: amqp.Connection) -> amqp.Channel:
    return connection.channel()


@pytest.fixture
def queue(channel: amqp.Channel) -> str:
    return channel.queue_declare(exclusive=True, auto_delete=False).queue


def publish(channel: amqp.Channel, queue: str, *bodies: str) -> None:
    for body in bodies:
        channel.basic_publish(amqp.Message(body), routing_key=queue)


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_login(url: str, mechanism: str) -> None:
    with connect(url, login_method=mechanism) as connection:
        assert connection.server_properties["product"] == "RabbitMQ"
        assert mechanism.encode() in connection.mechanisms
    with pytest.raises(AccessRefused) as caught:
        connect(url, login_method=mechanism, password="wrong")
    assert caught.value.reply_text == (
        f"ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. "
        "For details see the broker logfile."
    )


def test_negotiation(url: str) -> None:
    with connect(url, heartbeat=9) as connection:
        assert (connection.channel_max, connection.frame_max) == (2047, 131_072)
        assert (connection.server_heartbeat, connection.heartbeat) == (60, 9)


def test_direct_exchange_and_return(channel: amqp.Channel, queue: str, name: Name) -> None:
    exchange = name("direct")
    channel.exchange_declare(exchange, "direct", durable=True, auto_delete=False)
    channel.queue_bind(queue, exchange, "key")
    returned = []
    channel.events["basic_return"].add(lambda *fields: returned.append(fields))
    channel.basic_publish_confirm(amqp.Message("yes"), exchange, "key", mandatory=True)
    channel.basic_publish_confirm(amqp.Message("no"), exchange, "other", mandatory=True)
    assert channel.basic_get(queue, no_ack=True).body == "yes"
    ((error, source, key, message),) = returned
    assert (error.reply_code, error.reply_text) == (312, "NO_ROUTE")
    assert (source, key, message.body) == (exchange, "other", "no")
    channel.queue_unbind(queue, exchange, "key")
    channel.exchange_delete(exchange, if_unused=True)
    with pytest.raises(NotFound):
        channel.exchange_declare(exchange, "direct", passive=True)


def test_a_full_queue_nacks(channel: amqp.Channel) -> None:
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = channel.queue_declare(exclusive=True, arguments=limits).queue
    channel.basic_publish_confirm(amqp.Message("fits"), routing_key=queue)
    with pytest.raises(MessageNacked):
        channel.basic_publish_confirm(amqp.Message("does not"), routing_key=queue)


def test_prefetch_ack_and_requeue(
    connection: amqp.Connection, channel: amqp.Channel, queue: str
) -> None:
    publish(channel, queue, "1", "2", "3")
    got: list[amqp.Message] = []
    channel.basic_qos(0, 2, a_global=False)
    tag = channel.basic_consume(queue, callback=got.append)
    drain(connection, lambda: len(got) == 2)
    assert channel.queue_declare(queue, passive=True).message_count == 1
    channel.basic_ack(got[0].delivery_tag)
    drain(connection, lambda: len(got) == 3)
    channel.basic_cancel(tag)
    channel.basic_recover(requeue=True)
    again = [channel.basic_get(queue) for _ in range(2)]
    assert [(m.body, m.delivery_info["redelivered"]) for m in again] == [("2", True), ("3", True)]
    channel.basic_reject(again[0].delivery_tag, requeue=False)
    channel.basic_reject(again[1].delivery_tag, requeue=True)
    assert channel.queue_purge(queue) == 1
    assert channel.basic_get(queue) is None


def test_properties_and_headers_survive(channel: amqp.Channel, queue: str) -> None:
    properties = {
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "application_headers": HEADERS,
        "delivery_mode": 2,
        "priority": 5,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "60000",
        "message_id": "m",
        "timestamp": 1_800_000_000,
        "type": "t",
        "user_id": "guest",
        "app_id": "a",
    }
    channel.basic_publish(amqp.Message("", **properties), routing_key=queue)
    received = channel.basic_get(queue, no_ack=True)
    assert received.properties == properties
    assert received.body == ""


def test_a_large_body_in_many_frames(channel: amqp.Channel, queue: str) -> None:
    body = bytes(range(256)) * 4096
    channel.basic_publish(amqp.Message(body), routing_key=queue)
    received = channel.basic_get(queue, no_ack=True)
    assert received.body == body


def test_a_channel_error_leaves_the_connection_alone(
    connection: amqp.Connection, channel: amqp.Channel, name: Name
) -> None:
    with pytest.raises(NotFound) as caught:
        channel.queue_declare(name("missing"), passive=True)
    assert caught.value.code == 404
    assert caught.value.method_name == "Queue.declare"
    assert channel.is_open  # py-amqp has opened it again, under the same number
    assert channel.queue_declare(exclusive=True).message_count == 0
    assert connection.channel().queue_declare(exclusive=True).message_count == 0


def test_exclusive_queues_belong_to_one_connection(url: str, queue: str) -> None:
    assert queue.startswith("amq.gen-")
    with connect(url) as other, pytest.raises(ResourceLocked):
        other.channel().queue_bind(queue, "amq.fanout")


def test_transactions(connection: amqp.Connection, queue: str) -> None:
    connection.confirm_publish = False
    channel = connection.channel()
    other = connection.channel()
    channel.tx_select()
    publish(channel, queue, "dropped")
    channel.tx_rollback()
    publish(channel, queue, "kept")
    assert other.basic_get(queue) is None
    channel.tx_commit()
    assert other.basic_get(queue, no_ack=True).body == "kept"


def test_rpc_by_direct_reply_to(
    connection: amqp.Connection, channel: amqp.Channel, queue: str
) -> None:
    answers: list[amqp.Message] = []
    channel.basic_consume("amq.rabbitmq.reply-to", no_ack=True, callback=answers.append)
    question = amqp.Message("question", reply_to="amq.rabbitmq.reply-to", correlation_id="1")
    channel.basic_publish(question, routing_key=queue)
    server = connection.channel()
    request = server.basic_get(queue, no_ack=True)
    answer = amqp.Message("answer", correlation_id=request.properties["correlation_id"])
    server.basic_publish(answer, routing_key=request.properties["reply_to"])
    drain(connection, lambda: bool(answers))
    assert (answers[0].body, answers[0].properties["correlation_id"]) == ("answer", "1")


def test_consumer_cancel_notification(
    connection: amqp.Connection, channel: amqp.Channel, queue: str
) -> None:
    cancelled: list[str] = []
    tag = channel.basic_consume(queue, on_cancel=cancelled.append)
    connection.channel().queue_delete(queue)
    drain(connection, lambda: bool(cancelled))
    assert cancelled == [tag]
    queue = channel.queue_declare(exclusive=True).queue
    tag = channel.basic_consume(queue)  # nobody to tell: an error
    other = connection.channel()
    other.queue_delete(queue, nowait=True)
    with pytest.raises(ConsumerCancelled, match=tag):
        drain(connection, lambda: False)


def test_heartbeats_keep_an_idle_connection(url: str) -> None:
    with connect(url, heartbeat=1) as connection:
        frames = connection.bytes_recv  # it counts frames, whatever its name says
        while connection.bytes_recv < frames + 3:
            connection.heartbeat_tick()
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.2)
        assert connection.channel().is_open


def drain(connection: amqp.Connection, happened: Callable[[], bool]) -> None:
    """Let the client read; the deadline of the test bounds it."""
    while not happened():
        connection.drain_events()
