"""A broker inside a test, with real clients."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import aio_pika
import pika
import pytest

from fluffle.broker import Broker, ThreadedBroker
from fluffle.broker.admin import local_client
from fluffle.broker.config.config import (
    OVERWRITE,
    Config,
    InterceptorConfig,
    ListenAddress,
    QuorumConfig,
)
from fluffle.broker.process import environment
from fluffle.broker.process.sockets import unix_socket
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.broker.testing.faults.tapped_transport import CLOSE_WAIT_S
from fluffle.broker.testing.loop_thread import PATIENCE_S, LoopThread, blocking
from fluffle.broker.testing.vhost import Vhost
from fluffle.protocol.methods import Channel, Queue, make
from fluffle.storage import store
from fluffle.storage.disk import Disk, WriteTransaction
from tests.broker.testing.conftest import CloseWaits
from tests.support.client import Client
from tests.support.cluster_nodes import until
from tests.support.daemon import READY, environment_for_nodes
from tests.support.deadlines import DEADLINE_S, soon
from tests.support.process import Process


async def test_an_asyncio_client_talks_to_a_broker_in_its_own_loop() -> None:
    async with Broker() as broker, await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("orders")
        await channel.default_exchange.publish(aio_pika.Message(b"first"), "orders")
        async with (await queue.get()).process():
            assert (await queue.declare()).message_count == 0


async def test_a_broker_waits_for_nobody_whom_a_test_has_left_behind(
    close_waits: CloseWaits,
) -> None:
    async with Broker() as broker:
        url = pika.URLParameters(broker.url)
        left = await asyncio.to_thread(pika.BlockingConnection, url)
    assert close_waits.seconds[0] == CLOSE_WAIT_S < environment.CLOSE_WAIT_S
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="shutdown"):
        left.process_data_events(time_limit=DEADLINE_S)


async def test_a_broker_sends_at_once() -> None:
    """With the loop of asyncio itself, and again at an address that was shut for a while."""
    async with Broker() as broker:
        for _ in range(2):
            async with await aio_pika.connect(broker.url):
                (connection,) = broker.node.parts.connections
                assert isinstance(connection, Connection)
                client = connection._transport.get_extra_info("socket")
                assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await until(lambda: not len(broker.node.parts.connections))
            await broker.faults.refuse_connections()
            await broker.faults.mend()


def test_a_blocking_client_talks_to_a_broker_in_a_thread() -> None:
    before = threading.enumerate()
    with (
        ThreadedBroker() as broker,
        pika.BlockingConnection(pika.URLParameters(broker.url)) as connection,
    ):
        channel = connection.channel()
        channel.queue_declare("orders", arguments={"x-queue-type": "quorum"}, durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "orders", b"first")
        assert channel.basic_get("orders", auto_ack=True)[2] == b"first"
    assert set(threading.enumerate()) <= {*before}


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_messages_expire_when_the_clock_is_moved(queue_type: str) -> None:
    """From one queue into another, where they expire again, into a third."""
    with (
        ThreadedBroker() as broker,
        pika.BlockingConnection(pika.URLParameters(broker.url)) as connection,
    ):
        channel = connection.channel()
        channel.confirm_delivery()
        for name, target in (("first", "second"), ("second", "third"), ("third", None)):
            arguments: dict[str, object] = {"x-queue-type": queue_type}
            if target is not None:
                arguments |= {
                    "x-message-ttl": 600_000,
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": target,
                }
            channel.queue_declare(name, durable=True, arguments=arguments)
        channel.basic_publish("", "first", b"late")
        counts = []
        for minutes in (9, 2, 8, 2):
            broker.clock.advance(minutes=minutes)
            counts.append(
                [
                    channel.queue_declare(name, passive=True).method.message_count
                    for name in ("first", "second", "third")
                ]
            )
        assert counts == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_a_client_that_is_silent_for_long_is_hung_up_on() -> None:
    with ThreadedBroker() as broker:
        parameters = pika.URLParameters(broker.url)
        parameters.heartbeat = 60
        connection = pika.BlockingConnection(parameters)
        broker.clock.advance(hours=1)
        connection.process_data_events()  # nobody minds
        broker.clients_clock.advance(minutes=5)
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            connection.channel()


async def test_users_and_virtual_hosts_are_arguments() -> None:
    async with Broker(users={"me": "a/b"}, vhosts=("mine", "other")) as broker:
        host, port = broker.node.addresses["amqp"]
        assert broker.url == f"amqp://me:a%2Fb@{host}:{port}/mine"
        for url in (broker.url, broker.url_of("other")):
            async with await aio_pika.connect(url):
                pass
        with pytest.raises(aio_pika.exceptions.ProbableAuthenticationError):
            await aio_pika.connect(f"amqp://guest:guest@{host}:{port}/mine")


async def test_what_is_in_a_directory_is_there_again(tmp_path: Path) -> None:
    for expected in (0, 1):
        async with (
            Broker(data_dir=tmp_path) as broker,
            await aio_pika.connect(broker.url) as connection,
        ):
            channel = await connection.channel()
            queue = await channel.declare_queue("orders", durable=True)
            assert queue.declaration_result.message_count == expected
            body = aio_pika.Message(b"", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(body, "orders")


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_it_does_not_rest_while_a_disk_writes(
    queue_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    may_write.set()

    def commit(disk: Disk, work: WriteTransaction) -> store.Result:
        may_write.wait()
        return instant(disk, work)

    instant = store.commit
    monkeypatch.setattr(store, "commit", commit)
    async with Broker(data_dir=tmp_path) as broker, await aio_pika.connect(broker.url) as client:
        channel = await client.channel(publisher_confirms=False)
        await channel.declare_queue("orders", durable=True, arguments={"x-queue-type": queue_type})
        await broker.wait_until_idle()
        may_write.clear()
        try:
            body = aio_pika.Message(b"", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(body, "orders")
            await channel.set_qos(1)  # answered behind the message
            for _ in range(10):
                await asyncio.sleep(0)
            assert not broker.node.is_at_rest
        finally:
            may_write.set()
        await broker.wait_until_idle()
        assert (await broker.vhost().queues())["orders"]["messages_ready"] == 1


async def test_brokers_know_nothing_of_each_other_and_leave_nothing() -> None:
    async with Broker() as one, Broker() as other:
        assert one.url != other.url
        assert one.node is not other.node
        async with await aio_pika.connect(one.url) as connection:
            await (await connection.channel()).declare_queue("orders")
        assert len(other.node.catalogue.vhosts["/"].queues) == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_thread_leaves_nothing_open() -> None:
    code = """
import socket
from fluffle.broker import ThreadedBroker
ThreadedBroker()
with ThreadedBroker() as broker:
    client = socket.create_connection(broker.broker.node.addresses["amqp"])
    client.sendall(b"AMQP\\0\\0\\x09\\1")
    assert client.recv(1)
client.close()
"""
    words = [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "unclosed" not in done.stderr, done.stderr


class AskedThread(LoopThread):
    """A thread that is asked, and notes how long it may take."""

    asked_s = 0.0

    def call(self, _work: object, *, patience_s: float = 0.0) -> Any:
        self.asked_s = patience_s


def test_who_expects_for_long_is_given_the_time() -> None:
    asked = AskedThread("asked")
    blocking(asked, Vhost.expect)(cast(Vhost, None), "orders", count=1, within=600)
    assert asked.asked_s == PATIENCE_S + 600


def test_a_broker_that_cannot_start_says_so_and_ends_its_thread() -> None:
    with ThreadedBroker() as first:
        before = threading.enumerate()
        host, port = first.broker.node.addresses["amqp"]
        config = Config(listen=ListenAddress(host, port))
        with pytest.raises(OSError, match="in use"), ThreadedBroker(config):
            pass
        assert set(threading.enumerate()) <= {*before}


async def test_a_node_that_never_rests_is_waited_for_no_longer_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_client, "ANSWER_TIMEOUT_S", 0.01)
    async with Broker() as broker:
        busy = [broker.node.turn.touch_commit]

        def again() -> None:
            for touch in busy:
                touch()
                asyncio.get_running_loop().call_soon(again)

        again()
        with pytest.raises(TimeoutError, match=r"not done 'what there is to do' in 0\.01 s"):
            await broker.wait_until_idle()
        busy.clear()
        monkeypatch.undo()
        await broker.wait_until_idle()


async def test_who_is_in_a_virtual_host_that_goes_is_notified_and_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Broker() as broker:
        vhost = await broker.add_vhost("mine")
        connection = await aio_pika.connect(vhost.url)
        reported: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        connection.close_callbacks.add(lambda _connection, why: reported.set_result(why))
        async with await aio_pika.connect(broker.url) as other:
            await broker.delete_vhost("mine")
            async with soon():
                assert "the test is over" in str(await reported)
            await other.channel()
    ours = [each for each in caplog.records if each.name.startswith("fluffle")]
    assert [each.getMessage() for each in ours if each.levelname != "INFO"] == []


def test_what_is_no_argument_is_said_at_once() -> None:
    for wrong, why in (
        (lambda: Broker(vhosts="orders"), r"vhosts=\['orders'\]"),
        (lambda: Broker(definitions={"queues": []}), "definitions is a path"),  # type: ignore[arg-type]
        (lambda: Broker(listen="127.0.0.1:0"), "path of a unix socket"),
        (lambda: ThreadedBroker(data_dir=7), "data_dir is a path"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=why):
            wrong()
    with pytest.raises(RuntimeError, match="before its `with` block"):
        _ = ThreadedBroker().url


def test_paths_may_be_strings(tmp_path: Path) -> None:
    definitions = tmp_path / "definitions.json"
    definitions.write_text('{"vhosts": [{"name": "of a file"}]}')
    with ThreadedBroker(data_dir=str(tmp_path / "data"), definitions=str(definitions)) as broker:
        assert broker.vhost("of a file").queues() == {}
    assert (tmp_path / "data").is_dir()


def test_options_of_a_node_are_those_of_an_embedded_one() -> None:
    config = Config(
        listen=ListenAddress("127.0.0.1", 0),
        stamps=InterceptorConfig(OVERWRITE, OVERWRITE, sent=True),
        quorum=QuorumConfig(relaxed_redeclare=True),
    )
    with (
        ThreadedBroker(config) as broker,
        pika.BlockingConnection(pika.URLParameters(broker.url)) as connection,
    ):
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_declare("q", arguments={"x-queue-type": "classic"})
        channel.basic_publish("", "q", b"x")
        properties = channel.basic_get("q", auto_ack=True)[1]
        assert [*properties.headers] == [
            "timestamp_in_ms",
            "x-opt-rabbitmq-sent-time",
            "x-routed-by",
        ]


def over(path: Path) -> Client:
    """A client whose socket is connected to a path."""
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(DEADLINE_S)
    connected.connect(str(path))
    return Client.connected_by(connected)


def test_a_client_talks_over_a_path(tmp_path: Path) -> None:
    path = tmp_path / "amqp.sock"
    with ThreadedBroker(listen=path) as broker, over(path) as client:
        assert broker.url == f"amqp://guest:guest@{quote(str(path), safe='')}/%2F"
        client.open()
        client.channel()
        client.call(1, make(Queue.Declare, queue="orders"))
        client.publish(1, "", "orders", b"first")
        broker.vhost().expect("orders", count=1)
        (connection,) = broker.broker.node.parts.connections
        assert isinstance(connection, Connection)
        assert connection.is_from_loopback
    assert not path.exists()


def test_clients_of_a_path_are_distinguished(tmp_path: Path) -> None:
    path = tmp_path / "amqp.sock"
    with ThreadedBroker(listen=path) as broker, over(path) as one, over(path) as two:
        vhost = broker.vhost()
        for client in (one, two):
            client.open()
            client.channel()
        first, second = vhost.clients.connections()
        assert (first.name, second.name) == (":1 -> :0", ":2 -> :0")
        second.freeze()
        assert [each.is_frozen for each in vhost.clients.connections()] == [False, True]
        second.thaw()
        one.close()
        while len(vhost.clients.connections()) > 1:  # each look is a turn of the broker
            pass
        with pytest.raises(AssertionError, match="1 not closed:\n  connection :2 with channels 1"):
            vhost.assert_no_leaked_channels(within=0.01)
        two.call(1, make(Queue.Declare, queue="orders"))
        two.call(1, make(Channel.Close, reply_code=200, reply_text="", class_id=0, method_id=0))
        two.channel()


async def test_clients_of_a_path_can_be_refused_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "amqp.sock"
    async with Broker(listen=path) as broker:
        await broker.faults.refuse_connections()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(path)
        await broker.faults.accept_connections()
        _reader, writer = await asyncio.open_unix_connection(path)
        writer.close()
        await writer.wait_closed()
    assert not path.exists()


def test_a_path_that_was_left_behind_is_taken_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "amqp.sock"
    with unix_socket(path) as first:
        first.listen()
        with pytest.raises(OSError, match="in use"):
            unix_socket(path)
    with unix_socket(path):
        assert path.is_socket()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="in use"):
        unix_socket(tmp_path / "file")


def test_a_daemon_listens_on_a_path(tmp_path: Path) -> None:
    path = tmp_path / "amqp.sock"
    words = ("serve", "--listen", f"unix:{path}", "--data-dir", str(tmp_path / "data"))
    command = [sys.executable, "-m", "fluffle.broker", *words]
    daemon = Process(command, READY, environment_for_nodes())
    with over(path) as client:
        client.open()
    node = json.loads((tmp_path / "data" / "node.json").read_text())
    assert node["addresses"]["amqp"] == [str(path), 0]
    assert daemon.stop() == 0, daemon.log
    assert f"unix:{path}" in daemon.log
    assert not path.exists()
