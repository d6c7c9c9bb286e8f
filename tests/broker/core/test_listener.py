"""The listener, on real loopback sockets: accepting, stopping, cutting off who does not answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fluffle.broker.core import listener as module
from fluffle.broker.core.connections import ForcedCloses
from fluffle.broker.core.listener import Listener
from fluffle.broker.core.services import Services
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.process.environment import Accept, ListeningServer, accept
from fluffle.broker.process.sockets import listening_socket
from fluffle.broker.protocols.amqp091.connection import Connection as ServerConnection
from fluffle.broker.protocols.amqp091.event_handlers import EVENT_HANDLERS
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.methods import Connection, encode_method
from tests.support.edge import Edge
from tests.support.runtime import fake_runtime
from tests.support.socket_client import connected_client


def real_services() -> Services:
    """Services of an edge, in the running loop."""
    runtime = fake_runtime(asyncio.get_running_loop())
    template = Edge().services
    return Services(
        runtime=runtime,
        limits=template.limits,
        server_properties=template.server_properties,
        access=template.access,
        metadata=template.metadata,
        retained=template.retained,
        owners=template.owners,
        vhosts={"/": VirtualHost("/", LocalQueues(runtime.turn))},
        replies=template.replies,
        alarms=template.alarms,
        random_name=template.random_name,
        connections=template.connections,
        forced_closes=ForcedCloses(runtime.background_tasks),
    )


class AmqpListener(Listener):
    """The listener of a node that speaks AMQP alone."""

    def __init__(self, services: Services, accept: Accept, **options: float) -> None:
        super().__init__(services.connections, accept, **options)
        self._make = partial(ServerConnection, services, EVENT_HANDLERS)

    async def listen_amqp(self, host: str, port: int) -> tuple[str, int]:
        return await self.listen(self._make, host, port)


def listener_of(services: Services, accept: Accept = accept, **options: float) -> AmqpListener:
    return AmqpListener(services, accept, **options)


async def test_stopping_says_so_and_waits_for_the_answers() -> None:
    services = real_services()
    listener = listener_of(services)
    address = await listener.listen_amqp("127.0.0.1", 0)
    assert address[0] == "127.0.0.1"
    async with connected_client(address) as peer:
        await peer.log_in()
        assert len(services.connections) == 1
        stopping = asyncio.create_task(listener.stop("shutdown"))
        close = await peer.method()
        assert isinstance(close, Connection.Close)
        assert close.reply_code == 320
        assert close.reply_text == (
            "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
        )
        assert not stopping.done()
        peer.writer.write(encode_method(0, Connection.CloseOk()))
        await stopping
        assert len(services.connections) == 0
        assert await peer.reader.read() == b""
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(*address)


async def test_who_does_not_answer_is_cut_off() -> None:
    services = real_services()
    listener = listener_of(services, close_wait_s=0.01)
    async with connected_client(await listener.listen_amqp("127.0.0.1", 0)) as peer:
        await peer.log_in()
        await listener.stop("shutdown")
        assert len(services.connections) == 0
        assert isinstance(await peer.method(), Connection.Close)


async def test_several_addresses_are_listened_to_and_left_together() -> None:
    services = real_services()
    listener = listener_of(services)
    addresses = [await listener.listen_amqp("127.0.0.1", 0) for _ in range(2)]
    assert addresses[0] != addresses[1]
    for address in addresses:
        async with connected_client(address) as peer:
            await peer.log_in()
    await listener.stop("shutdown")
    for address in addresses:
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection(*address)


async def test_an_address_in_use_cannot_be_bound() -> None:
    first, second = listener_of(real_services()), listener_of(real_services())
    _host, port = await first.listen_amqp("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        await second.listen_amqp("127.0.0.1", port)
    await first.stop("shutdown")
    assert (await second.listen_amqp("127.0.0.1", port))[1] == port
    await second.stop("shutdown")


async def test_a_peer_that_goes_without_a_word_leaves_no_connection() -> None:
    services = real_services()
    listener = listener_of(services)
    async with connected_client(await listener.listen_amqp("127.0.0.1", 0)) as peer:
        await peer.log_in()
    assert await services.connections.wait_empty(10)
    await listener.stop("shutdown")


async def test_an_ipv4_client_of_a_socket_for_both_is_named_as_ipv4() -> None:
    services = real_services()
    listener = listener_of(services)
    _host, port = await listener.listen_amqp("", 0)
    async with connected_client(("127.0.0.1", port)) as peer:
        await peer.log_in()
        (connection,) = services.connections
        assert isinstance(connection, ServerConnection)
        assert connection.name.startswith("127.0.0.1:")
        assert connection.is_from_loopback
    await listener.stop("shutdown")


async def test_who_is_suspended_lets_nobody_in_and_listens_there_again() -> None:
    listener = listener_of(real_services())
    host, port = await listener.listen_amqp("127.0.0.1", 0)
    listener.suspend()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)
    await listener.resume()
    await listener.resume()  # asks for nothing more
    _reader, writer = await asyncio.open_connection(host, port)
    writer.close()
    await listener.stop("test")
    await listener.resume()  # comes too late
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)


async def test_who_is_suspended_before_it_listens_lets_nobody_in_until_then(
    tmp_path: Path,
) -> None:
    listener, path = listener_of(real_services()), tmp_path / "socket"
    listener.suspend()
    host, port = await listener.listen_amqp("127.0.0.1", 0)
    assert await listener.listen_amqp(str(path), 0) == (str(path), 0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)
    assert not path.exists()
    await listener.resume()
    assert path.is_socket()
    async with connected_client((host, port)) as peer:
        await peer.log_in()
    await listener.stop("test")


async def test_who_is_suspended_while_it_begins_to_listen_does_not() -> None:
    """Binding and listening are not one turn of the loop."""

    async def slow(
        make: Callable[[], asyncio.Protocol], listening: socket.socket
    ) -> ListeningServer:
        listener.suspend()
        return await accept(make, listening)

    listener = listener_of(real_services(), slow)
    host, port = await listener.listen_amqp("127.0.0.1", 0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)
    await listener.stop("test")


async def test_who_is_suspended_while_it_begins_again_does_not() -> None:
    """The same, for good, if it is stopped meanwhile."""
    begun = 0

    async def slow(
        make: Callable[[], asyncio.Protocol], listening: socket.socket
    ) -> ListeningServer:
        nonlocal begun
        begun += 1
        if begun == 3:
            listener.accept_no_more()
        return await accept(make, listening)

    listener = listener_of(real_services(), slow)
    addresses = [await listener.listen_amqp("127.0.0.1", 0) for _ in range(2)]
    listener.suspend()
    await listener.resume()
    for host, port in addresses:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)
    await listener.stop("test")


async def test_who_cannot_listen_again_stays_suspended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = listener_of(real_services())
    host, port = await listener.listen_amqp("127.0.0.1", 0)
    await listener.listen_amqp("127.0.0.1", 0)
    listener.suspend()
    calls: list[int] = []

    def taken(host: str, port: int) -> object:
        calls.append(port)
        if len(calls) == 2:
            raise OSError("taken")
        return listening_socket(host, port)

    with monkeypatch.context() as patch:
        patch.setattr(module, "listening_socket", taken)
        with pytest.raises(OSError, match="taken"):
            await listener.resume()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)
    await listener.resume()
    _reader, writer = await asyncio.open_connection(host, port)
    writer.close()
    await listener.stop("test")
