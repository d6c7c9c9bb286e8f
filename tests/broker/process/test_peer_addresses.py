"""Addresses of clients, and whether one has broken off, as its socket tells without a read."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from fluffle.broker.process.peer_addresses import is_loopback, is_reset, plain_host

Pair = tuple[socket.socket, socket.socket]


def over_tcp() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    return client, accepted


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A client's socket and the one that was accepted, to which the client has sent something."""
    client, accepted = over_tcp() if request.param == "tcp" else socket.socketpair()
    with closing(client), closing(accepted):
        client.sendall(b"something")
        yield client, accepted


def transport_of(accepted: socket.socket | None) -> asyncio.BaseTransport:
    return asyncio.BaseTransport({"socket": accepted})


def test_a_client_that_is_there_has_not_broken_off(pair: Pair) -> None:
    assert not is_reset(transport_of(pair[1]))


def test_nor_has_one_that_closed_in_order(pair: Pair) -> None:
    client, accepted = pair
    client.close()
    assert not is_reset(transport_of(accepted))
    assert accepted.recv(100) == b"something"


def test_nor_has_one_without_a_socket() -> None:
    assert not is_reset(transport_of(None))


def test_one_that_aborts_has() -> None:
    client, accepted = over_tcp()
    with closing(accepted):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert is_reset(transport_of(accepted))


def test_one_that_leaves_without_reading_what_it_was_sent_has(pair: Pair) -> None:
    client, accepted = pair
    accepted.sendall(b"an answer")
    client.close()
    assert is_reset(transport_of(accepted))


@pytest.mark.parametrize(
    ("host", "plain", "loopback"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("::ffff:10.0.0.1", "10.0.0.1", False),
        ("fe80::1%eth0", "fe80::1", False),
        ("::1", "::1", True),
        ("no address", "no address", False),
    ],
)
def test_hosts(host: str, plain: str, loopback: bool) -> None:
    assert plain_host(host) == plain
    assert is_loopback(plain) is loopback
