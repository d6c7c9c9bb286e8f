"""Timeline of a virtual host as text, and leftovers of a test."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from fluffle.broker import Broker, ThreadedBroker
from fluffle.broker.config.config import Config
from fluffle.broker.node import Node
from fluffle.broker.testing.broker import LOOPBACK
from fluffle.broker.testing.threaded import BlockingVhost
from fluffle.broker.testing.timeline import OpenTraces, Passage


@pytest.fixture(scope="module")
def threaded() -> Iterator[ThreadedBroker]:
    with ThreadedBroker() as broker:
        yield broker


@pytest.fixture
def vhost(threaded: ThreadedBroker) -> Iterator[BlockingVhost]:
    yield threaded.add_vhost("mine")
    threaded.delete_vhost("mine")


def connect(vhost: BlockingVhost) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(vhost.url))


@pytest.fixture
def channel(vhost: BlockingVhost) -> Iterator[BlockingChannel]:
    with connect(vhost) as connection:
        yield connection.channel()


def lines(vhost: BlockingVhost) -> list[str]:
    """Without times and addresses."""
    text = re.sub(r"127\.0\.0\.1:\d+", "client", vhost.timeline())
    return [re.sub(r"^ *\d+ ms  ", "", line) for line in text.splitlines()]


def test_all_that_happens_is_reported_in_order(
    vhost: BlockingVhost, channel: BlockingChannel
) -> None:
    channel.exchange_declare("events", "topic", durable=True)
    channel.queue_declare("orders", arguments={"x-max-length": 9})
    channel.queue_bind("orders", "events", "order.#")
    channel.confirm_delivery()
    channel.basic_publish("events", "order.new", b"1")
    channel.basic_qos(prefetch_count=5)
    channel.basic_consume("orders", lambda *_: None, consumer_tag="worker")
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish("events", "bill", b"2", mandatory=True)
    channel.queue_delete("orders")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        channel.basic_publish("missing", "", b"3")
    assert lines(vhost) == [
        "client: opens a connection as 'guest'",
        "client (1): opens the channel",
        "client: declares exchange 'events' (topic, durable)",
        "client: declares queue 'orders' (classic, x-max-length=9)",
        "client: binds queue 'orders' to exchange 'events' by 'order.#'",
        "client (1): publishes b'1' to exchange 'events' with key 'order.new': it goes to 'orders'",
        "client (1): consumes queue 'orders' as 'worker', 5 at once",
        "client (1): 'worker' is given b'1' of queue 'orders', delivery tag 1",
        "client (1): publishes b'2' to exchange 'events' with key 'bill': "
        "it goes nowhere and is returned",
        "client: unbinds queue 'orders' from exchange 'events' by 'order.#'",
        "client: queue 'orders' is deleted",
        "client (1): 'worker' ends, of queue 'orders', which is gone: "
        "it is cancelled by the broker",
        "client (1): the channel is closed: 404 NOT_FOUND - no exchange 'missing' in vhost 'mine'",
        "client (1): the channel ends",
        "unroutable:",
        "  b'2' to exchange 'events', key 'bill' by client (1), returned",
        "open:",
        "  connection client",
    ]


def test_what_follows_each_other_is_reported_together(
    vhost: BlockingVhost, channel: BlockingChannel
) -> None:
    channel.queue_declare("orders")
    with connect(vhost) as other:
        publisher = other.channel()
        for number in range(5):
            publisher.basic_publish("", "orders", b"%d" % number)
        vhost.expect("orders", ready=5)
    channel.basic_consume("orders", lambda *_: None, consumer_tag="worker")
    vhost.expect("orders", unacked=5)
    channel.basic_ack(3, multiple=True)
    vhost.expect("orders", unacked=2)
    text = lines(vhost)
    assert (
        "client (1): 'worker' is given b'0' and 4 more of queue 'orders', delivery tags 1 to 5"
        in text
    )
    assert "client (1): acks b'0' and 2 more of queue 'orders'" in text
    assert "left in queue 'orders': 0 ready, 2 unacknowledged" in text
    # How the publishes are reported depends on how many of them the broker finds in one read.
    of_the_last = [line for line in text if "b'4'" in line and " publishes " not in line]
    assert len(of_the_last) == 1
    assert of_the_last[0].startswith("  <b'4' (exchange '', key 'orders'")
    assert any(line.startswith("  <b'3' (exchange '', key 'orders'") for line in text)


def test_how_a_connection_ends_is_reported(vhost: BlockingVhost) -> None:
    connection = connect(vhost)
    connection.close(reply_text="enough")
    other = connect(vhost)
    (seen,) = vhost.clients.connections()
    seen.reset()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        other.channel()
    vhost.assert_no_leaked_channels()
    ends = [line for line in lines(vhost) if "is closed" in line]
    assert ends == [
        "client: is closed: closed by client: 200 enough",
        "client: is closed: closed by peer without close",
    ]
    wrong = pika.URLParameters(vhost.url.replace("guest:guest", "guest:wrong"))
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        pika.BlockingConnection(wrong)
    (refused,) = [line for line in lines(vhost) if "may not log in" in line]
    assert "as 'guest'" in refused


def test_what_is_not_acknowledged_fails(vhost: BlockingVhost, channel: BlockingChannel) -> None:
    channel.queue_declare("orders")
    vhost.publish("", "orders", b"1")
    with connect(vhost) as other:
        other.channel().basic_get("orders")
        with pytest.raises(AssertionError, match=r"^1 not acknowledged:\n  <b'1'.* tag 1>$"):
            vhost.assert_no_unacked(within=0.01)
    vhost.expect("orders", ready=1)
    with pytest.raises(AssertionError, match="abandoned by"):
        vhost.assert_no_unacked(within=0.01)
    channel.basic_get("orders", auto_ack=True)
    vhost.assert_no_unacked()


def test_what_was_taken_from_who_held_it_for_too_long_is_not_held(
    threaded: ThreadedBroker, vhost: BlockingVhost, channel: BlockingChannel
) -> None:
    channel.queue_declare("orders", arguments={"x-consumer-timeout": 60_000})
    vhost.publish("", "orders", b"1")
    channel.basic_consume("orders", lambda *_: None)
    vhost.expect("orders", unacked=1)
    threaded.clock.advance(minutes=3)
    vhost.expect("orders", ready=1)
    vhost.assert_no_unacked()
    (message,) = vhost.history("orders")
    assert message.last.detail == "taken from its consumer"


def test_what_leads_nowhere_fails(vhost: BlockingVhost, channel: BlockingChannel) -> None:
    vhost.assert_no_unroutable()
    channel.confirm_delivery()
    channel.basic_publish("", "nowhere", b"1" * 100)
    body = re.escape(f"b'{'1' * 40}'")
    with pytest.raises(
        AssertionError,
        match=rf"^1 unroutable:\n  {body} to exchange '', key 'nowhere' by .*, dropped$",
    ):
        vhost.assert_no_unroutable()


def test_what_is_left_open_fails(vhost: BlockingVhost) -> None:
    vhost.assert_no_leaked_channels()
    with connect(vhost) as connection:
        connection.channel(7)
        connection.channel(3)
        with pytest.raises(AssertionError, match=r"1 not closed:\n  connection .* channels 3, 7$"):
            vhost.assert_no_leaked_channels(within=0.01)
    vhost.assert_no_leaked_channels()


async def test_virtual_hosts_know_nothing_of_each_other() -> None:
    async with Broker(vhosts=["a", "b"]) as broker:
        async with await aio_pika.connect(broker.url_of("a")) as connection:
            await (await connection.channel()).declare_queue("orders")
        assert "orders" in await broker.vhost("a").timeline()
        assert await broker.vhost("b").timeline() == "nothing has happened"


async def test_a_daemon_has_nobody_who_sees(tmp_path: Path) -> None:
    async with Broker() as broker:
        assert broker.node._services.observers
    node = Node(Config(data_dir=tmp_path, listen=LOOPBACK))
    await node.start()
    assert node._services.observers == ()
    assert node.catalogue.vhosts["/"].tracer is None
    await node.stop("shutdown")


def passage(number: int) -> Passage:
    return Passage("orders", b"", exchange="", routing_key="orders", key=number, number=number)


def test_what_comes_back_is_in_front_in_its_order() -> None:
    course = OpenTraces()
    course.wait([passage(1), passage(2)])
    course.wait([passage(3), passage(4)], in_front=True)
    assert [each.number for each in course.ready] == [3, 4, 1, 2]


def test_one_more_costs_no_more_where_many_wait() -> None:
    course = OpenTraces()
    course.wait([passage(number) for number in range(9_000)])
    tracemalloc.start()
    try:
        course.wait([])
        course.wait([passage(9_000)])
        course.wait([passage(9_001)], in_front=True)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 10_000
