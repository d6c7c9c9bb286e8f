"""TLS and the PROXY protocol on real sockets, under both event loops."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.config.config import Config, ListenAddress, MqttConfig
from fluffle.broker.core import listener
from fluffle.broker.node import Node
from fluffle.broker.protocols.amqp091.connection import Connection as ServerConnection
from fluffle.protocol.methods import Channel, Connection, encode_method
from fluffle.protocol.mqtt.codes import MQTT_3_1_1
from fluffle.protocol.mqtt.packets import Connect, encode
from fluffle.protocol.proxy import SIGNATURE
from fluffle.protocol.spec import PROTOCOL_HEADER
from tests.broker.conftest import Run
from tests.support.certificates import Authority
from tests.support.edge import publish_frames
from tests.support.socket_client import connected_client

LOOPBACK = ListenAddress("127.0.0.1", 0)
ALICE = "\0alice\0wonder"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def config(authority: Authority, tmp_path: Path) -> Config:
    return Config(
        data_dir=tmp_path,
        listen=LOOPBACK,
        tls_listen=LOOPBACK,
        tls_cert=authority.cert_file,
        tls_key=authority.key_file,
        tls_ca=authority.ca_file,
        tls_login_from="common_name",
        mqtt=MqttConfig(
            listen=(LOOPBACK,),
            tls_listen=(LOOPBACK,),
            ws_listen=(LOOPBACK,),
            ws_tls_listen=(LOOPBACK,),
        ),
        users={"guest": "guest", "alice": "wonder"},
    )


@asynccontextmanager
async def node_of(config: Config) -> AsyncIterator[Node]:
    node = Node(config)
    await node.start()
    try:
        yield node
    finally:
        await node.stop("shutdown")


def logged(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, object]]:
    """The fields of each event of that name."""
    records = [record for record in caplog.records if record.getMessage() == name]
    return [getattr(record, FIELDS_ATTRIBUTE) for record in records]


async def closed_without_a_word(address: tuple[str, int], said: bytes = b"") -> None:
    async with connected_client(address) as peer:
        peer.writer.write(said)
        with suppress(ConnectionResetError):
            assert await peer.reader.read() == b""


def test_a_client_logs_in_over_tls(run: Run, config: Config, authority: Authority) -> None:
    async def scenario() -> None:
        async with node_of(config) as node:
            async with connected_client(node.addresses["amqps"], authority.client()) as peer:
                await peer.log_in()
                (connection,) = node._services.connections
                assert isinstance(connection, ServerConnection)
                assert connection.is_from_loopback
                assert connection.certificate == {}
                client = connection._transport.get_extra_info("socket")
                assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "it sends at once"
            async with connected_client(node.addresses["amqp"]) as peer:
                assert await peer.greet() == ["PLAIN", "AMQPLAIN"]

    run(scenario())


async def close_with_more_on_its_way(address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
    """Close like a client that writes its channels in turn: what it has queued comes behind."""
    close = encode_method(0, Connection.Close(200, "", 0, 0))
    flood = publish_frames(bytes(100_000)) * 80
    async with connected_client(address, tls) as peer:
        await peer.log_in()
        peer.writer.write(encode_method(1, Channel.Open()))
        await peer.method()
        peer.writer.write(flood[: len(flood) // 8] + close + flood)
        assert isinstance(await peer.method(), Connection.CloseOk)
        await peer.writer.drain()
        peer.writer.write(flood)
        await peer.writer.drain()
        peer.writer.close()
        await peer.writer.wait_closed()


@pytest.mark.parametrize("listener", ["amqp", "amqps"])
def test_a_client_that_still_writes_hears_close_ok(
    run: Run, config: Config, authority: Authority, listener: str
) -> None:
    async def scenario() -> None:
        async with node_of(config) as node:
            tls = authority.client() if listener == "amqps" else None
            for _ in range(5):
                await close_with_more_on_its_way(node.addresses[listener], tls)
            assert await node._services.connections.wait_empty(10)

    run(scenario())


def test_a_certificate_is_a_login(run: Run, config: Config, authority: Authority) -> None:
    async def scenario() -> None:
        async with node_of(replace(config, tls_verify="request")) as node:
            address = node.addresses["amqps"]
            async with connected_client(address, authority.client("alice")) as peer:
                await peer.log_in("", mechanism="EXTERNAL")
                (connection,) = node._services.connections
                assert connection.handshake.user is not None
                assert connection.handshake.user.name == "alice"
            async with connected_client(address, authority.client("mallory")) as peer:
                assert await peer.greet() == ["PLAIN", "AMQPLAIN", "EXTERNAL"]
                refusal = await peer.authenticate("", mechanism="EXTERNAL")
                assert isinstance(refusal, Connection.Close)
                assert refusal.reply_code == 403
                assert "mechanism EXTERNAL" in refusal.reply_text
            async with connected_client(address, authority.client()) as peer:
                assert await peer.greet() == ["PLAIN", "AMQPLAIN"]
                refusal = await peer.authenticate("", mechanism="EXTERNAL")
                assert isinstance(refusal, Connection.Close)
                assert refusal.reply_code == 503

    run(scenario())


def test_who_must_show_a_certificate_is_not_let_in_without(
    run: Run, config: Config, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(address: tuple[str, int], client: ssl.SSLContext) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            async with connected_client(address, client) as peer:
                await peer.greet()

    async def scenario() -> None:
        async with node_of(replace(config, tls_verify="require")) as node:
            address = node.addresses["amqps"]
            await refused(address, authority.client())
            stranger = Authority(tmp_path).client("alice")
            stranger.load_verify_locations(authority.ca_file)
            await refused(address, stranger)
            async with connected_client(address, authority.client("alice")) as peer:
                await peer.log_in(ALICE)

    run(scenario())
    assert len(logged(caplog, "handshake_failed")) == 2


def test_a_renewed_certificate_is_for_the_next_connection(
    run: Run, config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    config = replace(
        config,
        tls_cert=authority.cert_file,
        tls_key=authority.key_file,
        tls_ca=authority.ca_file,
    )

    async def shown(address: tuple[str, int]) -> bytes:
        async with connected_client(address, authority.client()) as peer:
            await peer.log_in()
            certificate = peer.writer.get_extra_info("ssl_object").getpeercert(True)
            assert isinstance(certificate, bytes)
            return certificate

    async def scenario() -> None:
        async with node_of(config) as node:
            address = node.addresses["amqps"]
            async with connected_client(address, authority.client()) as early:
                await early.log_in()
                first = await shown(address)
                assert await shown(address) == first
                authority.renew()
                second = await shown(address)
                assert second != first
                authority.key_file.write_text("not yet written")
                assert await shown(address) == second
                assert await shown(address) == second
                authority.renew()
                node.reload()
                third = await shown(address)
                assert third not in (first, second)
                assert len(node._services.connections) >= 1
                assert not early.reader.at_eof()

    caplog.set_level(logging.INFO)
    run(scenario())
    assert len(logged(caplog, "certificates_loaded")) == 2
    (kept,) = logged(caplog, "certificates_kept")
    assert str(kept["reason"]).startswith(f"cannot use the certificate in {authority.cert_file}")


@pytest.mark.parametrize("listener", ["amqps", "mqtts", "mqtt-wss"])
@pytest.mark.parametrize(
    "said", [PROTOCOL_HEADER, encode(Connect(MQTT_3_1_1, "meter"), MQTT_3_1_1), b"GET /ws HTTP/1.1"]
)
def test_who_does_not_speak_tls_is_one_line_that_says_so(
    run: Run,
    config: Config,
    authority: Authority,
    *,
    listener: str,
    said: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """OpenSSL's "wrong version number" sends an operator to the versions of TLS."""

    async def scenario() -> None:
        async with node_of(config) as node:
            await closed_without_a_word(node.addresses[listener], said)
            async with connected_client(node.addresses["amqps"], authority.client()) as other:
                await other.log_in()

    run(scenario())
    (failed,) = logged(caplog, "handshake_failed")
    assert str(failed["peer"]).startswith("127.0.0.1:")
    assert failed["reason"] == "a client without TLS at a port for TLS"
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("listener", "protocol"),
    [("amqp", "AMQP 0-9-1"), ("mqtt", "MQTT"), ("mqtt-ws", "websockets")],
)
def test_who_speaks_tls_at_a_port_without_is_one_line_that_says_so(
    run: Run,
    config: Config,
    authority: Authority,
    *,
    listener: str,
    protocol: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with node_of(config) as node:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with connected_client(node.addresses[listener], authority.client()):
                    pass

    caplog.set_level(logging.INFO)
    run(scenario())
    (closed,) = logged(caplog, "connection_closed")
    reason = str(closed["reason"]).removeprefix("connection lost: ")
    assert reason == f"a client of TLS at a port for {protocol} without TLS"
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("is_proxied", [False, True], ids=["tls", "proxy"])
def test_who_takes_too_long_is_turned_away(
    run: Run,
    config: Config,
    is_proxied: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT_S", 0.02)

    async def scenario() -> None:
        async with node_of(replace(config, proxy_protocol=is_proxied)) as node:
            await closed_without_a_word(node.addresses["amqps"], b"PROXY TCP4" * is_proxied)

    run(scenario())
    assert len(logged(caplog, "handshake_failed")) == 1


def test_who_is_slow_to_come_in_makes_room_at_each_port(
    run: Run, config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else those who come over some ports could take all files of the node together."""
    monkeypatch.setattr("fluffle.broker.node.unauthenticated_max", lambda: 8)

    async def scenario() -> None:
        async with node_of(replace(config, proxy_protocol=True)) as node:
            for port in ("amqp", "amqps"):
                async with (
                    connected_client(node.addresses[port]) as first,
                    AsyncExitStack() as later,
                ):
                    for _ in range(2):
                        await later.enter_async_context(connected_client(node.addresses[port]))
                    with suppress(ConnectionResetError):
                        assert await first.reader.read() == b""

    run(scenario())
    reasons = [str(failed["reason"]) for failed in logged(caplog, "handshake_failed")]
    assert all(reason.startswith("closed by peer") for reason in reasons), "none was too slow"


def test_a_node_that_stops_does_not_wait_for_handshakes(run: Run, config: Config) -> None:
    async def scenario() -> None:
        async with node_of(config) as node:
            reader, writer = await asyncio.open_connection(*node.addresses["amqps"])
            writer.write(b"\x16")
            await asyncio.sleep(0)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()

    run(scenario())


LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 5672\r\n"
OWN = SIGNATURE + b"\x20\x00\x00\x00"
"""The proxy connects for itself, to see whether we live."""


def test_the_client_behind_a_proxy_counts(
    run: Run, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with node_of(replace(config, proxy_protocol=True)) as node:
            address = node.addresses["amqp"]
            async with connected_client(address) as peer:
                peer.writer.write(LINE)  # and the first bytes of AMQP in the same segment
                await peer.log_in(ALICE)
                (connection,) = node._services.connections
                assert isinstance(connection, ServerConnection)
                assert connection.name == "192.0.2.7:4711 -> 198.51.100.1:5672"
            async with connected_client(address) as peer:
                peer.writer.write(LINE)
                await peer.greet()
                refusal = await peer.authenticate("\0guest\0guest")
                assert isinstance(refusal, Connection.Close)
            async with connected_client(address) as peer:
                peer.writer.write(OWN)
                await peer.log_in()
            await closed_without_a_word(address, PROTOCOL_HEADER)

    run(scenario())
    (refused,) = logged(caplog, "authentication_failed")
    assert refused["reason"] == "user 'guest' can only connect via localhost"
    (failed,) = logged(caplog, "handshake_failed")
    assert "no PROXY header begins with" in str(failed["reason"])


def test_a_proxy_may_pass_tls_on(run: Run, config: Config, authority: Authority) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with node_of(replace(config, proxy_protocol=True)) as node:
            client = socket.create_connection(node.addresses["amqps"])
            client.sendall(LINE)
            client.setblocking(False)
            reader = asyncio.StreamReader()
            transport, _protocol = await loop.create_connection(
                lambda: asyncio.StreamReaderProtocol(reader),
                sock=client,
                ssl=authority.client(),
                server_hostname="localhost",
            )
            transport.write(PROTOCOL_HEADER)
            await reader.readuntil(b"en_US\xce")
            (connection,) = node._services.connections
            assert isinstance(connection, ServerConnection)
            assert connection.name.startswith("192.0.2.7:4711 -> ")
            transport.abort()

    run(scenario())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tls_cert": None}, "--tls-listen needs a certificate; name its PEM file with --tls-cert"),
        ({"tls_cert": Path("/none")}, "cannot read /none .*; name another file with --tls-cert"),
        ({"tls_key": Path("/none")}, "cannot read /none .*; name another file with --tls-key"),
        ({"tls_ca": Path("/none")}, "cannot read /none .*; name another file with --tls-ca"),
        ({"tls_ca": None, "tls_verify": "require"}, "--tls-verify require needs .* with --tls-ca"),
        ({"tls_key": None}, "there is no key in .*cert.pem; name .* with --tls-key"),
        ({"tls_ca": Path(__file__)}, "cannot use the authorities in .*test_listener_accept.py"),
        ({"tls_listen": ListenAddress("192.0.2.1", 1)}, "cannot listen on .* with --tls-listen"),
    ],
)
async def test_what_keeps_a_node_from_starting(
    config: Config, changes: dict[str, Any], reason: str
) -> None:
    node = Node(replace(config, **changes))
    with pytest.raises(StartFailed, match=reason):
        await node.start()
    await node.stop("failed")


async def test_a_key_with_a_password_is_no_prompt(
    config: Config, authority: Authority, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(authority.key_file.read_bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    node = Node(replace(config, tls_key=tmp_path / "key.pem"))
    with pytest.raises(StartFailed, match="--tls-key is encrypted; decrypt it"):
        await node.start()
    await node.stop("failed")
