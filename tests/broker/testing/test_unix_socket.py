"""A broker on a unix socket, and clients that can connect to one."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from fluffle.broker import Broker, ThreadedBroker
from fluffle.broker.process.sockets import unix_socket
from fluffle.broker.protocols.amqp091.connection import Connection
from fluffle.protocol.methods import Channel, Queue, make
from tests.support.client import Client
from tests.support.daemon import READY, environment_for_nodes
from tests.support.process import Process


def over(path: Path) -> Client:
    """A client whose socket is connected to a path."""
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(10)
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


def test_clients_of_a_path_are_told_apart(tmp_path: Path) -> None:
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
