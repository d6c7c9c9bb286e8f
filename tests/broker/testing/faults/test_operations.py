"""A broker that blocks publishers, and does not let clients in."""

from __future__ import annotations

import asyncio
import errno
import socket

import aio_pika
import pika
import pytest

from fluffle.broker import Broker, ThreadedBroker
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.testing.faults.operations import perform
from fluffle.broker.testing.loop_thread import CrossThreadProxy
from fluffle.broker.testing.threaded import BlockingVhost
from tests.support.deadlines import DEADLINE_S, soon

LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""pika forgets sockets of its own when a connection cannot be made."""


def test_who_publishes_is_blocked(amqp: BlockingVhost) -> None:
    with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
        reported: list[object] = []
        connection.add_on_connection_blocked_callback(
            lambda _c, frame: reported.append(frame.method)
        )
        connection.add_on_connection_unblocked_callback(
            lambda _c, frame: reported.append(frame.method)
        )
        channel = connection.channel()
        channel.queue_declare("orders")
        amqp.faults.block("low on disk & memory")
        channel.basic_publish("", "orders", b"first")
        while not reported:
            connection.process_data_events(time_limit=DEADLINE_S)
        assert isinstance(reported[0], pika.spec.Connection.Blocked)
        assert reported[0].reason == "low on disk & memory"
        amqp.expect("orders", count=0)
        amqp.faults.unblock()
        while len(reported) < 2:
            connection.process_data_events(time_limit=DEADLINE_S)
        amqp.expect("orders", count=1)


async def test_a_reason_is_one_of_rabbitmq(amqp: CrossThreadProxy) -> None:
    with pytest.raises(SyntaxFailure, match="like 'low on memory'"):
        await amqp.faults.block("tired")
    assert amqp.faults.in_effect == []


@LEFT_OPEN
def test_logins_are_refused(amqp: BlockingVhost) -> None:
    amqp.faults.refuse_logins()
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
        pika.BlockingConnection(pika.URLParameters(amqp.url))
    amqp.faults.allow_logins()
    pika.BlockingConnection(pika.URLParameters(amqp.url)).close()


async def test_there_is_no_broker_for_a_while() -> None:
    async with Broker() as broker, await aio_pika.connect(broker.url) as connection:
        for _ in range(2):
            await broker.faults.refuse_connections()
            with pytest.raises(ConnectionError):
                await aio_pika.connect(broker.url)
            await connection.channel()  # those that are open stay
            await broker.faults.accept_connections()
            await (await aio_pika.connect(broker.url)).close()
        await broker.faults.refuse_connections()


class Taken(socket.socket):
    """Socket whose address is in use."""

    def bind(self, address: object) -> None:
        raise OSError(errno.EADDRINUSE, "in use", address)


async def test_an_address_that_was_taken_meanwhile_is_listened_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Broker() as broker:
        with monkeypatch.context() as patching:
            patching.setattr(socket, "socket", Taken)
            with pytest.raises(OSError, match="in use"):
                await broker.faults.refuse_connections()
        await broker.faults.mend()
        await (await aio_pika.connect(broker.url)).close()


async def test_all_ends_though_the_end_of_one_fails() -> None:
    async with Broker() as broker:
        scope, ended = broker.scope(), list[str]()

        def fail() -> None:
            raise OSError(errno.EADDRINUSE, "in use")

        scope.begin("first", "first", lambda: ended.append("first"))
        scope.begin("second", "second", fail)
        scope.begin("third", "third", lambda: ended.append("third"))
        with pytest.raises(OSError, match="in use"):
            scope.mend()
        assert (ended, scope.in_effect) == (["third", "first"], [])


async def test_a_client_that_comes_again_finds_its_broker() -> None:
    async with Broker() as broker:
        connection = await aio_pika.connect_robust(broker.url, reconnect_interval=0.01)
        channel = await connection.channel()
        queue = await channel.declare_queue("orders", auto_delete=False)
        taken: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(taken.put)
        await broker.faults.refuse_connections()
        (found,) = await broker.clients.connections()
        await found.reset()
        await broker.vhost().expect("orders", consumers=0)
        await broker.vhost().publish("", "orders", b"first")
        await broker.faults.accept_connections()
        async with soon():
            await (await taken.get()).ack()
        await connection.close()


async def test_a_broker_accepts_and_says_nothing(amqp: CrossThreadProxy) -> None:
    await amqp.faults.refuse_connections(silently=True)
    connecting = asyncio.create_task(aio_pika.connect(amqp.url))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(connecting), 0.05)
    await amqp.faults.accept_connections()
    await (await aio_pika.connect(amqp.url)).close()
    assert not connecting.done()
    await amqp.faults.mend()
    await (await connecting).close()


async def test_what_two_have_refused_is_so_until_both_are_done() -> None:
    async with Broker() as broker:
        one, two = broker.faults, broker.vhost().faults
        for faults in (one, two):
            await faults.block()
            await faults.refuse_logins()
            await faults.refuse_connections()
        alarms = broker.node.parts.alarms
        await one.unblock()
        assert alarms.reason == "low on memory"
        await two.unblock()
        assert alarms.reason == ""
        await one.accept_connections()
        with pytest.raises(ConnectionError):
            await aio_pika.connect(broker.url)
        await two.accept_connections()
        await one.allow_logins()
        with pytest.raises(aio_pika.exceptions.ProbableAuthenticationError):
            await aio_pika.connect(broker.url)
        await two.allow_logins()
        await (await aio_pika.connect(broker.url)).close()


async def test_what_two_have_frozen_is_so_until_both_thaw_it() -> None:
    async with Broker() as broker, await aio_pika.connect(broker.url) as connection:
        scenes = broker.scope(), broker.scope("/")
        (named,) = await broker.clients.connections()
        for scope in scenes:
            perform(scope, "connections.freeze", {"connection": named.name})
        for scope, is_frozen in zip(scenes, (True, False), strict=True):
            perform(scope, "connections.thaw", {"connection": named.name})
            (now,) = perform(scope, "connections.list", {})["connections"]
            assert now["frozen"] is is_frozen
        await connection.channel()


@LEFT_OPEN
def test_each_fault_ends_with_its_virtual_host() -> None:
    with ThreadedBroker() as broker:
        vhost = broker.add_vhost("mine")
        vhost.faults.refuse_logins()
        vhost.faults.refuse_connections(silently=True)
        vhost.faults.block()
        vhost.faults.hold_confirms()
        assert repr(vhost.faults) == (
            "<faults of vhost 'mine': logins are refused, new connections are accepted in silence, "
            "publishers are blocked, confirms are held back>"
        )
        broker.delete_vhost("mine")
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("orders")
            channel.basic_publish("", "orders", b"first")
        assert repr(broker.faults) == "<faults of the broker: none>"
