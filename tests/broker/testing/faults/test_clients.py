"""Connections that are closed, reset, frozen and cut under real clients."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress

import aio_pika
import pika
import pytest

from fluffle.broker import Broker, ThreadedBroker
from fluffle.broker.base.errors import NotFound, PreconditionFailed, SyntaxFailure
from fluffle.broker.protocols.amqp091.connection import HEARTBEAT_FRAME
from fluffle.broker.testing.faults.operations import OPERATIONS, perform
from fluffle.broker.testing.loop_thread import CrossThreadProxy
from fluffle.broker.testing.threaded import BlockingVhost
from tests.broker.testing.conftest import CloseWaits
from tests.support.deadlines import DEADLINE_S, soon

LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""pika forgets sockets of its own when a connection cannot be made."""


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as broker:
        yield broker


async def nothing(_message: aio_pika.abc.AbstractIncomingMessage) -> None:
    """Keeps it."""


async def test_a_connection_says_who_it_is_and_what_it_does(broker: Broker) -> None:
    async with await aio_pika.connect(broker.url, client_properties={"team": "blue"}) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("orders")
        tag = await queue.consume(nothing)
        (found,) = await broker.vhost().clients.connections()
        assert (found.user, found.vhost, found.channels) == ("guest", "/", [1])
        assert found.client_properties["team"] == "blue"
        assert [(each.tag, each.queue) for each in found.consumers] == [(tag, "orders")]
        assert repr(found) == f"<connection '{found.name}' of 'guest' to '/', 1 channels>"
        await broker.add_vhost("other")
        assert await broker.vhost("other").clients.connections() == []
    assert await broker.clients.connections() == []


def test_an_operator_closes_a_connection(amqp: BlockingVhost) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(amqp.url))
    amqp.clients.connections()[0].close("maintenance")
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
        connection.process_data_events(time_limit=DEADLINE_S)
    assert (closed.value.reply_code, closed.value.reply_text) == (
        320,
        "CONNECTION_FORCED - maintenance",
    )


def test_a_reset_is_a_reset(amqp: BlockingVhost) -> None:
    host, port = amqp.url.rpartition("@")[2].partition("/")[0].split(":")
    amqp.clients.next_connection().reset()
    with socket.create_connection((host, int(port))) as client:
        client.settimeout(DEADLINE_S)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    connection = pika.BlockingConnection(pika.URLParameters(amqp.url))
    amqp.clients.connections()[0].reset()
    with pytest.raises((pika.exceptions.StreamLostError, pika.exceptions.ConnectionClosed)):
        connection.process_data_events(time_limit=DEADLINE_S)


async def test_a_frozen_connection_goes_on_where_it_stopped(amqp: CrossThreadProxy) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        (found,) = await amqp.clients.connections()
        await found.freeze()
        assert amqp.faults.in_effect == [f"connection '{found.name}' is frozen"]
        declaring = asyncio.ensure_future(channel.declare_queue("orders"))
        await asyncio.sleep(0)
        async with await aio_pika.connect(amqp.url) as other:  # nobody else minds
            await (await other.channel()).declare_queue("others")
        assert list(await amqp.queues()) == ["others"]
        await found.thaw()
        await declaring
        assert amqp.faults.in_effect == []


def test_heartbeats_stop_with_a_frozen_connection() -> None:
    """The client has to miss them: the broker does not close a connection that it cannot hear."""
    with ThreadedBroker() as broker:
        parameters = pika.URLParameters(broker.url)
        parameters.heartbeat = 60
        connection = pika.BlockingConnection(parameters)
        found = broker.clients.connections()[0]
        found.freeze()
        broker.clients_clock.advance(minutes=5)
        (line,) = broker.broker.scope().taps()
        assert line.held_bytes >= len(HEARTBEAT_FRAME)
        found.thaw()
        connection.channel()
        connection.close()


@pytest.mark.parametrize("fault", ["unkind", "confirms.hold", "silence", "connections.freeze"])
async def test_what_is_wrong_with_a_connection_is_forgotten_with_it(
    broker: Broker, fault: str
) -> None:
    scope = broker.scope()
    arguments: dict[str, dict[str, object]] = {
        "unkind": {"seed": 1},
        "confirms.hold": {},
        "silence": {"silently": True},
        "connections.freeze": {"connection": "next"},
    }
    perform(scope, fault.replace("silence", "connections.refuse"), arguments[fault])
    connecting = asyncio.create_task(aio_pika.connect(broker.url))
    while not (lines := [weakref.ref(line) for line in scope.taps()]):
        await asyncio.wait((connecting,), timeout=0.001)
    perform(scope, "connections.reset", {"connection": next(scope.taps()).connection.name})
    await asyncio.gather(connecting, return_exceptions=True)
    if not (connecting.cancelled() or connecting.exception()):
        await connecting.result().close()
    await broker.wait_until_idle()
    gc.collect()
    assert [line() for line in lines] == [None]
    assert not any("'127.0.0.1" in what for what in scope.in_effect)


@pytest.mark.parametrize("bytes_left", [0, 1, 9, 100])
@LEFT_OPEN
def test_a_handshake_is_cut(amqp: BlockingVhost, bytes_left: int) -> None:
    amqp.clients.next_connection().cut_after(bytes_left)
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        pika.BlockingConnection(pika.URLParameters(amqp.url))
    pika.BlockingConnection(pika.URLParameters(amqp.url)).close()


def test_it_is_cut_in_the_midst_of_a_delivery(amqp: BlockingVhost) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(amqp.url))
    channel = connection.channel()
    channel.queue_declare("orders")
    channel.basic_publish("", "orders", bytes(1000))
    amqp.expect("orders", ready=1)
    amqp.clients.connections()[0].cut_after(500)
    with pytest.raises((pika.exceptions.StreamLostError, pika.exceptions.ConnectionClosed)):
        channel.basic_get("orders")
    amqp.expect("orders", ready=1)
    assert amqp.messages("orders")[0].redelivered


async def test_what_the_client_sends_is_cut(amqp: CrossThreadProxy) -> None:
    """The half of a message is no message."""
    connection = await aio_pika.connect(amqp.url)
    channel = await connection.channel()
    await channel.declare_queue("orders")
    (found,) = await amqp.clients.connections()
    await found.cut_after(3_000, sent_by="client")
    with suppress(aio_pika.exceptions.AMQPError, ConnectionError, asyncio.CancelledError):
        for _ in range(10):
            await channel.default_exchange.publish(aio_pika.Message(bytes(2_000)), "orders")
    await amqp.expect("orders", count=1)
    await connection.close()


async def test_the_next_connection_is_frozen(amqp: CrossThreadProxy) -> None:
    following = await amqp.clients.next_connection()
    await following.freeze()
    assert amqp.faults.in_effect == ["connection 1 from now is frozen"]
    connecting = asyncio.create_task(aio_pika.connect(amqp.url))
    async with await aio_pika.connect(await second(amqp, connecting)):
        (reported,) = amqp.faults.in_effect
        assert reported.startswith("connection '127.0.0.1:")
        assert not connecting.done()
    await amqp.faults.mend()
    await (await connecting).close()


async def test_plans_for_connections_to_come_are_distinguished(amqp: CrossThreadProxy) -> None:
    following = await amqp.clients.next_connection()
    await following.reset()
    await following.reset()
    with pytest.raises(aio_pika.exceptions.AMQPError):
        await aio_pika.connect(amqp.url)
    await following.reset()
    assert len(amqp.faults.in_effect) == 2
    await amqp.faults.mend()
    for _ in range(2):
        await (await aio_pika.connect(amqp.url)).close()


async def second(amqp: CrossThreadProxy, connecting: asyncio.Task[object]) -> str:
    """The URL, once the first client is there."""
    while amqp.faults.in_effect == ["connection 1 from now is frozen"]:
        await asyncio.wait((connecting,), timeout=0.001)
    return str(amqp.url)


async def test_much_that_is_held_up_holds_up_consumers(broker: Broker) -> None:
    vhost = broker.vhost()
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("orders")
        got = asyncio.Event()
        seen: list[bytes] = []

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            seen.append(message.body)
            if len(seen) == 40:
                got.set()

        await queue.consume(take, no_ack=True)
        (found,) = await vhost.clients.connections()
        await found.freeze()
        for number in range(40):
            await vhost.publish("", "orders", bytes([number]) * 100_000)
        await broker.wait_until_idle()
        ready = (await vhost.queues())["orders"]["messages_ready"]
        assert 0 < ready < 40
        await found.thaw()
        await got.wait()
        assert [each[0] for each in seen] == [*range(40)]


async def test_a_broker_that_stops_thaws(broker: Broker, close_waits: CloseWaits) -> None:
    connection = await aio_pika.connect(broker.url)
    (found,) = await broker.clients.connections()
    await found.freeze()
    await broker.__aexit__(None, None, None)
    assert close_waits.all_gone
    await connection.close()


async def test_operations_are_called_by_name_with_plain_values(broker: Broker) -> None:
    scope = broker.scope("/")
    connection = await aio_pika.connect(broker.url)
    (row,) = perform(scope, "connections.list", {})["connections"]
    assert row["client_properties"]["product"] == "aiormq"
    perform(scope, "connections.cut_after", {"connection": "next", "bytes": 9})
    assert perform(scope, "faults.list", {}) == {
        "faults": ["connection 1 from now is cut after 9 bytes of the broker"]
    }
    perform(scope, "faults.mend", {})
    await (await aio_pika.connect(broker.url)).close()
    with pytest.raises(NotFound, match=r"no connection 'nobody', but: '127\.0"):
        perform(scope, "connections.reset", {"connection": "nobody"})
    with pytest.raises(SyntaxFailure, match="'connection' is missing"):
        perform(scope, "connections.close", {})
    with pytest.raises(Exception, match=r"there is no operation 'connections\.open'"):
        perform(scope, "connections.open", {})
    assert all(act.__doc__ for act in OPERATIONS.values())
    await connection.close()


Incoming = aio_pika.abc.AbstractIncomingMessage


async def declared(
    channel: aio_pika.abc.AbstractChannel, queue_type: str
) -> aio_pika.abc.AbstractQueue:
    return await channel.declare_queue(
        "orders", durable=True, arguments={"x-queue-type": queue_type}
    )


async def test_one_that_comes_again_with_its_tag_is_thawed_as_well(amqp: CrossThreadProxy) -> None:
    taken: asyncio.Queue[Incoming] = asyncio.Queue()

    async def consume_frozen(connection: aio_pika.abc.AbstractConnection) -> None:
        queue = await (await connection.channel()).declare_queue("orders")
        await queue.consume(taken.put, consumer_tag="worker", no_ack=True)
        await (await amqp.clients.consumer("worker")).freeze()

    async with await aio_pika.connect(amqp.url) as connection:
        await consume_frozen(connection)
    await amqp.expect("orders", consumers=0)
    async with await aio_pika.connect(amqp.url) as connection:
        await consume_frozen(connection)
        await amqp.publish("", "orders", b"first")
        await (await amqp.clients.consumer("worker")).thaw()
        async with soon():
            assert (await taken.get()).body == b"first"


def test_a_consumer_is_cancelled_and_keeps_what_it_has(amqp: BlockingVhost) -> None:
    with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders")
        cancelled: list[object] = []
        channel.add_on_cancel_callback(cancelled.append)
        got: list[int] = []
        channel.basic_consume("orders", lambda _c, method, _p, _b: got.append(method.delivery_tag))
        amqp.publish("", "orders", b"first")
        while not got:
            connection.process_data_events(time_limit=DEADLINE_S)
        amqp.clients.consumer("orders").cancel()
        while not cancelled:
            connection.process_data_events(time_limit=DEADLINE_S)
        amqp.expect("orders", unacked=1, consumers=0)
        channel.basic_ack(got[0])
        amqp.expect("orders", count=0)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_frozen_consumer_gets_nothing_and_others_do(
    amqp: CrossThreadProxy, queue_type: str
) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        queue = await declared(channel, queue_type)
        first: asyncio.Queue[Incoming] = asyncio.Queue()
        second: asyncio.Queue[Incoming] = asyncio.Queue()
        await queue.consume(first.put, consumer_tag="first", no_ack=True)
        consumer = await amqp.clients.consumer("first")
        await consumer.freeze()
        await amqp.publish("", "orders", b"1")
        await amqp.expect("orders", ready=1)
        await queue.consume(second.put, consumer_tag="second", no_ack=True)
        await amqp.publish("", "orders", b"2")
        assert [(await second.get()).body, (await second.get()).body] == [b"1", b"2"]
        await queue.cancel("second")
        await amqp.publish("", "orders", b"3")
        await amqp.expect("orders", ready=1)
        assert amqp.faults.in_effect == ["consumer 'first' of queue 'orders' is frozen"]
        await amqp.faults.mend()
        assert (await first.get()).body == b"3"
        await amqp.expect("orders", count=0)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_what_a_consumer_holds_is_delivered_again(
    amqp: CrossThreadProxy, queue_type: str
) -> None:
    """Its acknowledgement comes too late, and is no error; only the second one counts."""
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        queue = await declared(channel, queue_type)
        taken: asyncio.Queue[Incoming] = asyncio.Queue()
        await queue.consume(taken.put)
        await amqp.publish("", "orders", b"first")
        once = await taken.get()
        assert await (await amqp.clients.consumer("orders")).redeliver() == 1
        twice = await taken.get()
        assert (once.body, once.redelivered) == (b"first", False)
        assert (twice.body, twice.redelivered) == (b"first", True)
        await once.ack()
        await declared(channel, queue_type)  # the ack has been acted on
        await amqp.expect("orders", unacked=1)
        await twice.ack()
        await amqp.expect("orders", count=0)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_what_is_held_twice_comes_back_once(amqp: CrossThreadProxy, queue_type: str) -> None:
    connection = await aio_pika.connect(amqp.url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=2)
    queue = await declared(channel, queue_type)
    taken: asyncio.Queue[Incoming] = asyncio.Queue()
    await queue.consume(taken.put)
    for body in (b"1", b"2", b"3"):
        await amqp.publish("", "orders", body)
    assert [(await taken.get()).body for _ in range(2)] == [b"1", b"2"]
    assert await (await amqp.clients.consumer("orders")).redeliver() == 2
    assert [(await taken.get()).body for _ in range(2)] == [b"1", b"2"]
    await amqp.expect("orders", unacked=2, ready=1)
    await connection.close()
    await amqp.expect("orders", unacked=0, ready=3)


async def test_a_name_must_mean_one_consumer(amqp: CrossThreadProxy) -> None:
    async with await aio_pika.connect(amqp.url) as connection:
        channel = await connection.channel()
        queue = await declared(channel, "classic")
        for tag in ("one", "two"):
            await queue.consume(asyncio.Queue[Incoming]().put, consumer_tag=tag)
        with pytest.raises(PreconditionFailed, match="means several consumers: 'one', 'two'"):
            await amqp.clients.consumer("orders")
        with pytest.raises(NotFound, match="no consumer 'three', but: 'one', 'two'"):
            await amqp.clients.consumer("three")
        consumer = await amqp.clients.consumer("two")
        assert repr(consumer) == "<consumer 'two' of queue 'orders', which held 0>"
