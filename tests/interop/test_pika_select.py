"""pika's SelectConnection: callbacks on an event loop of its own."""

from collections.abc import Callable, Generator
from typing import Any

import pika
from pika.channel import Channel

Name = Callable[[str], str]
Start = Callable[[Callable[..., None]], object]
Scenario = Generator[Start, Any, None]


def run(url: str, scenario: Callable[[pika.SelectConnection], Scenario]) -> None:
    """Let `scenario` read like blocking code: it yields what to start with a callback, and goes
    on with the arguments of that callback (the first, if it is the only one).  The connection is
    closed when it ends.
    """
    steps: Scenario | None = None
    failures: list[BaseException] = []

    def proceed(*values: object) -> None:
        assert steps is not None
        try:
            start = steps.send(None if not values else values[0] if len(values) == 1 else values)
            start(proceed)
        except StopIteration:
            connection.close()
        except Exception as error:  # noqa: BLE001 - run() raises it
            failures.append(error)
            connection.ioloop.stop()

    def opened(connection: pika.SelectConnection) -> None:
        nonlocal steps
        steps = scenario(connection)
        proceed()

    def failed(connection: pika.SelectConnection, error: BaseException) -> None:
        if not isinstance(error, pika.exceptions.ConnectionClosedByClient):
            failures.append(error)
        connection.ioloop.stop()

    connection = pika.SelectConnection(
        pika.URLParameters(url),
        on_open_callback=opened,
        on_open_error_callback=failed,
        on_close_callback=failed,
    )
    connection.ioloop.start()
    connection.ioloop.close()
    if failures:
        raise failures[0]


def channel_of(connection: pika.SelectConnection) -> Start:
    return lambda done: connection.channel(on_open_callback=done)


def server_named_queue(channel: Channel) -> Start:
    return lambda done: channel.queue_declare("", exclusive=True, callback=done)


def test_confirms_come_for_every_message(url: str) -> None:
    unconfirmed = set(range(1, 501))

    def scenario(connection: pika.SelectConnection) -> Scenario:
        channel: Channel = yield channel_of(connection)
        queue = (yield server_named_queue(channel)).method.queue
        wake: list[Callable[..., None]] = []

        def on_confirm(frame: Any) -> None:
            assert isinstance(frame.method, pika.spec.Basic.Ack)
            tag = frame.method.delivery_tag
            if not frame.method.multiple:
                unconfirmed.remove(tag)
            unconfirmed.difference_update(range(tag + 1) if frame.method.multiple else ())
            if not unconfirmed:
                wake.pop()()

        yield lambda done: channel.confirm_delivery(on_confirm, callback=done)
        for number in range(500):
            channel.basic_publish("", queue if number % 2 else "nowhere", b"%d" % number)
        yield wake.append
        count = yield lambda done: channel.queue_declare(queue, passive=True, callback=done)
        assert count.method.message_count == 250

    run(url, scenario)
    assert unconfirmed == set()


def test_consume_with_prefetch_until_cancelled(url: str) -> None:
    bodies: list[bytes] = []

    def scenario(connection: pika.SelectConnection) -> Scenario:
        channel: Channel = yield channel_of(connection)
        queue = (yield server_named_queue(channel)).method.queue
        for number in range(100):
            channel.basic_publish("", queue, b"%d" % number)
        yield lambda done: channel.basic_qos(prefetch_count=10, callback=done)
        drained: list[Callable[..., None]] = []

        def on_message(channel: Channel, method: Any, _properties: object, body: bytes) -> None:
            bodies.append(body)
            if len(bodies) % 10 == 0:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if len(bodies) == 100:
                drained.pop()()

        tag = channel.basic_consume(queue, on_message)
        yield drained.append
        cancelled = yield lambda done: channel.basic_cancel(tag, callback=done)
        assert cancelled.method.consumer_tag == tag
        left = yield lambda done: channel.queue_declare(queue, passive=True, callback=done)
        assert (left.method.message_count, left.method.consumer_count) == (0, 0)

    run(url, scenario)
    assert bodies == [b"%d" % number for number in range(100)]


def test_returns_and_gets(url: str) -> None:
    def scenario(connection: pika.SelectConnection) -> Scenario:
        channel: Channel = yield channel_of(connection)
        queue = (yield server_named_queue(channel)).method.queue

        def publish_nowhere(done: Callable[..., None]) -> None:
            channel.add_on_return_callback(done)
            channel.basic_publish("amq.topic", "no.body", b"returned", mandatory=True)

        _, returned, _, body = yield publish_nowhere
        assert (returned.reply_code, returned.routing_key, body) == (312, "no.body", b"returned")
        channel.basic_publish("", queue, b"got")
        _, got, _, body = yield lambda done: channel.basic_get(queue, done)
        assert (got.message_count, got.redelivered, body) == (0, False, b"got")
        channel.basic_nack(got.delivery_tag)
        _, again, _, body = yield lambda done: channel.basic_get(queue, done)
        assert (again.redelivered, body) == (True, b"got")

    run(url, scenario)


def test_a_closed_channel_is_replaced(url: str, name: Name) -> None:
    def scenario(connection: pika.SelectConnection) -> Scenario:
        channel: Channel = yield channel_of(connection)

        def bind_to_nothing(done: Callable[..., None]) -> None:
            channel.add_on_close_callback(done)
            channel.exchange_bind("amq.fanout", name("missing"))

        _, reason = yield bind_to_nothing
        assert isinstance(reason, pika.exceptions.ChannelClosedByBroker)
        assert reason.reply_code == 404
        again: Channel = yield channel_of(connection)
        assert again.is_open

    run(url, scenario)


def test_consumer_cancel_notification(url: str) -> None:
    def scenario(connection: pika.SelectConnection) -> Scenario:
        channel: Channel = yield channel_of(connection)
        queue = (yield server_named_queue(channel)).method.queue
        tag = yield lambda done: channel.basic_consume(
            queue, lambda *_: None, callback=lambda ok: done(ok.method.consumer_tag)
        )

        def delete_queue(done: Callable[..., None]) -> None:
            channel.add_on_cancel_callback(done)
            channel.queue_delete(queue)

        cancel = yield delete_queue
        assert cancel.method.consumer_tag == tag

    run(url, scenario)
