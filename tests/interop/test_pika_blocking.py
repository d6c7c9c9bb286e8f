"""pika's BlockingConnection: one call, one answer."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    NackError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    UnroutableError,
)

from tests.support.deadlines import DEADLINE_S

Name = Callable[[str], str]

DURABLE = {"durable": True, "arguments": {"x-expires": 60_000}}
"""A queue that several connections use, and that an external broker gets rid of by itself."""

HEADERS = {
    "text": "καλημέρα",
    "empty": "",
    "bytes": b"\x00\xff",
    "yes": True,
    "no": False,
    "int": -7,
    "long": 2**62,
    "decimal": Decimal("-3.25"),
    "time": datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC),
    "nothing": None,
    "list": [1, "two", None, [True], {"deep": "est"}],
    "table": {"a": {"b": [{}]}},
}


@pytest.fixture
def connection(url: str) -> Iterator[pika.BlockingConnection]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    yield connection
    if connection.is_open:
        connection.close()
    assert connection.is_closed


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> BlockingChannel:
    return connection.channel()


@pytest.fixture
def queue(channel: BlockingChannel) -> str:
    """An exclusive queue with a name that the server chose."""
    name: str = channel.queue_declare("", exclusive=True).method.queue
    return name


def publish(channel: BlockingChannel, queue: str, *bodies: bytes) -> None:
    for body in bodies:
        channel.basic_publish("", queue, body)


def counts(channel: BlockingChannel, queue: str) -> tuple[int, int]:
    """Ready messages and consumers."""
    method = channel.queue_declare(queue, passive=True).method
    return method.message_count, method.consumer_count


def test_the_server_says_what_it_can(connection: pika.BlockingConnection) -> None:
    properties = connection._impl.server_properties
    assert properties["product"] == "RabbitMQ"
    assert {"version", "platform", "cluster_name", "capabilities"} <= properties.keys()
    assert connection.publisher_confirms_supported
    assert connection.consumer_cancel_notify_supported
    assert connection.exchange_exchange_bindings_supported
    assert connection.basic_nack_supported


def test_topic_exchange_bind_and_unbind(channel: BlockingChannel, queue: str, name: Name) -> None:
    exchange = name("topic")
    channel.exchange_declare(exchange, "topic", auto_delete=True, durable=True)
    channel.queue_bind(queue, exchange, "stock.*.#")
    channel.confirm_delivery()
    channel.basic_publish(exchange, "stock.nyse.ibm", b"yes", mandatory=True)
    channel.basic_publish(exchange, "bond.nyse", b"no")
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert (method.exchange, method.routing_key, body) == (exchange, "stock.nyse.ibm", b"yes")
    assert method.message_count == 0
    channel.queue_unbind(queue, exchange, "stock.*.#")  # and with the last binding, the exchange
    with pytest.raises(ChannelClosedByBroker, match=r"404.*no exchange"):
        channel.exchange_declare(exchange, passive=True)


def test_exchange_to_exchange_binding(channel: BlockingChannel, queue: str, name: Name) -> None:
    source, target = name("source"), name("target")
    channel.exchange_declare(source, "direct", durable=True)
    channel.exchange_declare(target, "fanout", durable=True)
    channel.exchange_bind(target, source, "key")
    channel.queue_bind(queue, target)
    publish(channel, queue, b"by the default exchange")
    channel.basic_publish(source, "key", b"by two exchanges")
    assert [channel.basic_get(queue, auto_ack=True)[2] for _ in range(2)] == [
        b"by the default exchange",
        b"by two exchanges",
    ]
    channel.exchange_unbind(target, source, "key")
    channel.exchange_delete(target)
    channel.exchange_delete(source)


def test_unroutable_mandatory_message_comes_back(channel: BlockingChannel) -> None:
    channel.confirm_delivery()
    with pytest.raises(UnroutableError) as caught:
        channel.basic_publish("amq.direct", "nowhere", b"back to me", mandatory=True)
    (returned,) = caught.value.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.method.exchange, returned.body) == ("amq.direct", b"back to me")


def test_a_full_queue_nacks(channel: BlockingChannel) -> None:
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = channel.queue_declare("", exclusive=True, arguments=limits).method.queue
    channel.confirm_delivery()
    publish(channel, queue, b"fits")
    with pytest.raises(NackError):
        publish(channel, queue, b"does not")
    assert counts(channel, queue) == (1, 0)


def test_prefetch_bounds_a_consumer(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    publish(channel, queue, *(b"%d" % n for n in range(5)))
    got: list[tuple[int, bytes]] = []

    def on_message(
        _channel: object, method: pika.spec.Basic.Deliver, _p: object, body: bytes
    ) -> None:
        got.append((method.delivery_tag, body))

    channel.basic_qos(prefetch_count=2)
    tag = channel.basic_consume(queue, on_message)
    assert tag
    until(connection, lambda: len(got) == 2)
    assert counts(channel, queue) == (3, 1)
    channel.basic_ack(got[0][0])
    until(connection, lambda: len(got) == 3)
    channel.basic_ack(got[2][0], multiple=True)
    until(connection, lambda: len(got) == 5)
    assert [body for _, body in got] == [b"0", b"1", b"2", b"3", b"4"]
    channel.basic_cancel(tag)
    assert counts(channel, queue) == (0, 0)


def test_requeued_messages_come_again_in_their_place(channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, b"1", b"2", b"3")
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(3)]
    assert channel.basic_get(queue) == (None, None, None)
    channel.basic_ack(tags[1])
    channel.basic_nack(tags[0], requeue=True)
    channel.basic_reject(tags[2], requeue=True)
    seen = [channel.basic_get(queue) for _ in range(2)]
    assert [(method.redelivered, body) for method, _, body in seen] == [(True, b"1"), (True, b"3")]
    channel.basic_recover(requeue=True)
    assert counts(channel, queue) == (2, 0)
    assert channel.queue_purge(queue).method.message_count == 2


def test_rejected_messages_tell_how_they_died(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}
    source = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    publish(channel, source, b"unloved")
    channel.basic_nack(channel.basic_get(source)[0].delivery_tag, requeue=False)
    dead: list[pika.BasicProperties] = []
    channel.basic_consume(queue, lambda _c, _m, properties, _b: dead.append(properties), True)
    until(connection, lambda: bool(dead))
    (death,) = dead[0].headers["x-death"]
    assert (death["reason"], death["queue"], death["count"]) == ("rejected", source, 1)


def test_properties_and_headers_survive(channel: BlockingChannel, queue: str) -> None:
    sent = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers=HEADERS,
        delivery_mode=2,
        priority=5,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="m",
        timestamp=1_800_000_000,
        type="t",
        user_id="guest",
        app_id="a",
    )
    channel.basic_publish("", queue, b"", sent)
    _, received, body = channel.basic_get(queue, auto_ack=True)
    assert (received, body) == (sent, b"")


@pytest.mark.parametrize("frame_max", [8192, 131_072])
def test_a_large_body_in_many_frames(url: str, frame_max: int) -> None:
    body = bytes(range(256)) * 4096
    parameters = pika.URLParameters(url)
    parameters.frame_max = frame_max
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        publish(channel, queue, body)
        assert channel.basic_get(queue, auto_ack=True)[2] == body


def test_a_channel_error_leaves_the_connection_alone(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: Name
) -> None:
    missing = name("missing")
    with pytest.raises(ChannelClosedByBroker) as caught:
        channel.queue_declare(missing, passive=True)
    assert caught.value.reply_code == 404
    assert caught.value.reply_text == f"NOT_FOUND - no queue '{missing}' in vhost '/'"
    assert channel.is_closed
    again = connection.channel()
    assert again.queue_declare("", exclusive=True).method.message_count == 0


def test_a_connection_error_closes_all_channels(connection: pika.BlockingConnection) -> None:
    channel, other = connection.channel(), connection.channel()
    with pytest.raises(ConnectionClosedByBroker) as caught:
        channel.basic_qos(prefetch_size=1)
    assert caught.value.reply_code == 540
    assert connection.is_closed
    assert other.is_closed


def test_wrong_password_and_unknown_vhost(url: str) -> None:
    parameters = pika.URLParameters(url)
    parameters.credentials = pika.PlainCredentials("guest", "wrong")
    with pytest.raises(ProbableAuthenticationError, match=r"403.*Login was refused"):
        pika.BlockingConnection(parameters)
    parameters = pika.URLParameters(url)
    parameters.virtual_host = "no-such-vhost"
    with pytest.raises((ProbableAccessDeniedError, ConnectionClosedByBroker), match="530"):
        pika.BlockingConnection(parameters)


def test_rpc_by_direct_reply_to(url: str, connection: pika.BlockingConnection, queue: str) -> None:
    client = connection.channel()
    answers: list[tuple[str, bytes]] = []

    def on_answer(
        _channel: object, _m: object, properties: pika.BasicProperties, body: bytes
    ) -> None:
        answers.append((properties.correlation_id, body))

    client.basic_consume("amq.rabbitmq.reply-to", on_answer, auto_ack=True)
    properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="42")
    client.basic_publish("", queue, b"six by nine", properties)
    server = connection.channel()
    _, request, _ = server.basic_get(queue, auto_ack=True)
    assert request.reply_to.startswith("amq.rabbitmq.reply-to.")
    with pika.BlockingConnection(pika.URLParameters(url)) as elsewhere:
        answer = pika.BasicProperties(correlation_id=request.correlation_id)
        elsewhere.channel().basic_publish("", request.reply_to, b"forty-two", answer)
    until(connection, lambda: bool(answers))
    assert answers == [("42", b"forty-two")]


def test_exclusive_queues_belong_to_one_connection(url: str, queue: str) -> None:
    assert queue.startswith("amq.gen-")
    with pika.BlockingConnection(pika.URLParameters(url)) as other:
        with pytest.raises(ChannelClosedByBroker, match=r"405.*cannot obtain exclusive access"):
            other.channel().queue_declare(queue, passive=True)
        mine = other.channel().queue_declare("", exclusive=True).method.queue
    with (
        pika.BlockingConnection(pika.URLParameters(url)) as third,
        pytest.raises(ChannelClosedByBroker, match="404"),
    ):
        third.channel().queue_declare(mine, passive=True)


def test_transactions(connection: pika.BlockingConnection, queue: str) -> None:
    channel, other = connection.channel(), connection.channel()
    channel.tx_select()
    publish(channel, queue, b"kept")
    assert counts(other, queue) == (0, 0)
    channel.tx_commit()
    publish(channel, queue, b"dropped")
    channel.tx_rollback()
    assert counts(other, queue) == (1, 0)
    channel.basic_ack(channel.basic_get(queue)[0].delivery_tag)
    channel.tx_commit()
    channel.close()
    assert counts(other, queue) == (0, 0)


def test_a_consumer_hears_that_its_queue_is_gone(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str
) -> None:
    publish(channel, queue, b"last")
    other = connection.channel()
    seen = []
    for _, _, body in channel.consume(queue, auto_ack=True):
        seen.append(body)
        other.queue_delete(queue)  # the server cancels the consumer, which ends the loop
    assert seen == [b"last"]
    assert channel.is_open


def test_unacknowledged_messages_outlive_their_connection(
    url: str, channel: BlockingChannel, name: Name
) -> None:
    queue = channel.queue_declare(name("handed-over"), **DURABLE).method.queue
    publish(channel, queue, b"still here")
    with pika.BlockingConnection(pika.URLParameters(url)) as other:
        assert other.channel().basic_get(queue)[2] == b"still here"
        assert counts(channel, queue) == (0, 0)
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert (method.redelivered, body) == (True, b"still here")
    channel.queue_delete(queue)


def test_heartbeats_keep_an_idle_connection(url: str) -> None:
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 1
    with pika.BlockingConnection(parameters) as connection:
        checker = connection._impl._heartbeat_checker
        until(connection, lambda: checker._heartbeat_frames_received >= 3)
        assert checker._heartbeat_frames_sent >= 2
        assert connection.channel().is_open


def until(
    connection: pika.BlockingConnection, happened: Callable[[], bool], within_s: float = DEADLINE_S
) -> None:
    """Let pika read until something happened."""
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, f"nothing came within {within_s} s"
        connection.process_data_events(time_limit=0.1)
