"""Sockets to accept on, and the way in: rests after errors, one a turn, nobody lost at the end."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from fluffle.broker.process.sockets import (
    PAUSE_S,
    QUICK_ACK,
    Acceptor,
    acknowledge_read,
    is_loopback,
    is_reset,
    listening_socket,
    plain_host,
)
from tests.broker.conftest import Run
from tests.support.deadlines import DEADLINE_S
from tests.support.loop_turns import turns_until


class Listening(socket.socket):
    """Remembers whom it accepted, and fails as often as asked."""

    def __init__(self, errors: list[int]) -> None:
        bound = listening_socket("127.0.0.1", 0)
        super().__init__(fileno=bound.detach())
        self.accepted: list[socket.socket] = []
        self.errors = errors

    def accept(self) -> tuple[socket.socket, Any]:
        if self.errors:
            raise OSError(self.errors.pop(0), "no")
        client, address = super().accept()
        self.accepted.append(client)
        return client, address


@contextmanager
def clients_of(listening: socket.socket, count: int) -> Iterator[None]:
    """So many have dialled, and wait to be accepted."""
    clients = [socket.create_connection(listening.getsockname(), 10) for _ in range(count)]
    try:
        yield
    finally:
        for client in clients:
            client.close()


async def stay(_client: socket.socket, _address: tuple[Any, ...]) -> None:
    """Never gets in."""
    await asyncio.Event().wait()


async def ended(doorway: Acceptor) -> None:
    """Close it, and wait for those who were not in yet."""
    await asyncio.gather(*doorway.close(), return_exceptions=True)


def test_an_empty_host_is_every_interface() -> None:
    with listening_socket("", 0) as bound:
        is_dual = socket.has_dualstack_ipv6()
        assert bound.family is (socket.AF_INET6 if is_dual else socket.AF_INET)
        with socket.create_connection(("127.0.0.1", bound.getsockname()[1]), timeout=DEADLINE_S):
            pass


@pytest.mark.parametrize("turns", range(6))
def test_whoever_was_accepted_when_it_closes_is_turned_away(run: Run, turns: int) -> None:
    async def scenario() -> None:
        listening = Listening([])
        doorway = Acceptor(stay)
        doorway.open(listening)
        await asyncio.sleep(0)
        with clients_of(listening, 2):
            for _ in range(turns):
                await asyncio.sleep(0)
            await ended(doorway)
        assert listening.fileno() < 0
        assert len(listening.accepted) <= turns
        assert all(client.fileno() < 0 for client in listening.accepted)

    run(scenario())


def test_accepting_gives_way_while_others_wait(run: Run) -> None:
    async def scenario() -> None:
        listening = Listening([])
        with clients_of(listening, 20):
            doorway = Acceptor(stay)
            doorway.open(listening)
            turn = 0
            while len(listening.accepted) < 20:
                assert len(listening.accepted) <= turn
                turn += 1
                await asyncio.sleep(0)
            await ended(doorway)
        assert all(client.fileno() < 0 for client in listening.accepted)

    run(scenario())


def test_who_came_first_makes_room_for_who_comes_last(run: Run) -> None:
    async def scenario() -> None:
        listening = Listening([])
        with clients_of(listening, 3):
            doorway = Acceptor(stay, clients_max=2)
            doorway.open(listening)
            await turns_until(
                lambda: len(listening.accepted) == 3 and listening.accepted[0].fileno() < 0
            )
            assert all(client.fileno() >= 0 for client in listening.accepted[1:])
            await ended(doorway)

    run(scenario())


class Rested:
    """A loop in which nobody waits for time, and it is written down how long they would."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.add_reader, self.remove_reader = loop.add_reader, loop.remove_reader
        self.create_task = loop.create_task
        self.rests: list[float] = []

    def call_later(
        self, delay_s: float, call: Callable[..., object], *args: object
    ) -> asyncio.Handle:
        self.rests.append(delay_s)
        return asyncio.get_running_loop().call_soon(call, *args)


def test_accepting_goes_on_after_errors_when_it_has_taken_a_rest(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        listening = Listening([errno.ECONNABORTED, errno.EMFILE, errno.EPERM])
        doorway, loop = Acceptor(stay), Rested(asyncio.get_running_loop())
        monkeypatch.setattr(doorway, "_loop", loop)
        with clients_of(listening, 1):
            doorway.open(listening)
            await turns_until(lambda: listening.accepted != [])
            await ended(doorway)
        assert loop.rests == [PAUSE_S] * 3

    run(scenario())
    assert [record.getMessage() for record in caplog.records] == ["accept_failed"] * 3


def test_a_rest_ends_with_the_doorway(run: Run) -> None:
    async def scenario() -> None:
        listening = Listening([errno.EMFILE])
        doorway = Acceptor(stay)
        with clients_of(listening, 1):
            doorway.open(listening)
            await turns_until(lambda: not listening.errors)
            await ended(doorway)
        assert (listening.fileno(), listening.accepted) == (-1, [])

    run(scenario())


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


@pytest.mark.skipif(QUICK_ACK is None, reason="the kernel decides alone when it acknowledges")
def test_what_was_read_is_acknowledged_at_once() -> None:
    """Also between two that answer each other, when kernels wait for the next answer."""
    client, accepted = over_tcp()
    with closing(client), closing(accepted):
        for _ in range(3):
            client.sendall(b"question")
            assert accepted.recv(100) == b"question"
            accepted.sendall(b"answer")
            assert client.recv(100) == b"answer"
        client.sendall(b"question")
        assert accepted.recv(100) == b"question"
        acknowledge_read(transport_of(accepted))
        unacknowledged = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)[24:28]
        assert struct.unpack("I", unacknowledged) == (0,)


def test_nothing_but_tcp_is_acknowledged() -> None:
    acknowledge_read(transport_of(None))
    client, accepted = socket.socketpair()
    with closing(client), closing(accepted):
        acknowledge_read(transport_of(accepted))
    client, accepted = over_tcp()
    client.close()
    accepted.close()
    acknowledge_read(transport_of(accepted))


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
