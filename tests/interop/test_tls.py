"""TLS with other people's clients: passwords, certificates as logins, renewal, a proxy in front."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Iterator
from os import kill
from pathlib import Path

import aio_pika
import pika
import pika.exceptions
import pytest
from pika.credentials import ExternalCredentials

from tests.support.certificates import Authority
from tests.support.daemon import Daemon

LARGE = bytes(range(256)) * 8_192
"""Two megabytes: many TLS records, many frames."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def daemon(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(
        tmp_path_factory.mktemp("tls-node"),
        "--tls-listen=127.0.0.1:0",
        f"--tls-cert={authority.cert_file}",
        f"--tls-key={authority.key_file}",
        f"--tls-ca={authority.ca_file}",
        "--tls-verify=request",
        "--tls-login-from=common_name",
        "--user=alice:wonder",
    )
    with daemon:
        yield daemon
    assert "Traceback" not in daemon.log, daemon.log


def connect(
    daemon: Daemon, tls: ssl.SSLContext, credentials: object | None = None
) -> pika.BlockingConnection:
    port = daemon.addresses["amqps"][1]
    parameters = pika.ConnectionParameters(
        "127.0.0.1",
        port,
        credentials=credentials or pika.PlainCredentials("guest", "guest"),
        ssl_options=pika.SSLOptions(tls, "localhost"),
    )
    return pika.BlockingConnection(parameters)


def round_trip(connection: pika.BlockingConnection, body: bytes) -> bytes:
    channel = connection.channel()
    channel.confirm_delivery()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_publish("", queue, body, mandatory=True)
    _method, _properties, received = next(channel.consume(queue, auto_ack=True))
    assert isinstance(received, bytes)
    return received


def test_pika_with_a_password(daemon: Daemon, authority: Authority) -> None:
    with connect(daemon, authority.client()) as connection:
        assert round_trip(connection, LARGE) == LARGE


def test_pika_with_a_certificate(daemon: Daemon, authority: Authority) -> None:
    with connect(daemon, authority.client("alice"), ExternalCredentials()) as connection:
        assert round_trip(connection, b"hello") == b"hello"
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        connect(daemon, authority.client("mallory"), ExternalCredentials())


def test_a_certificate_of_another_authority_is_refused(
    daemon: Daemon, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path).client("alice")
    stranger.load_verify_locations(authority.ca_file)
    with pytest.raises((pika.exceptions.AMQPConnectionError, OSError)):
        connect(daemon, stranger, ExternalCredentials())
    with connect(daemon, authority.client()) as connection:
        assert round_trip(connection, b"hello") == b"hello"


async def test_aio_pika_with_a_password(daemon: Daemon, authority: Authority) -> None:
    url = f"amqps://guest:guest@localhost:{daemon.addresses['amqps'][1]}/%2F"
    async with await aio_pika.connect(url, ssl_context=authority.client()) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        bodies = [str(number).encode() for number in range(500)] + [LARGE]
        await asyncio.gather(
            *(
                channel.default_exchange.publish(aio_pika.Message(body), queue.name)
                for body in bodies
            )
        )
        async with queue.iterator(no_ack=True) as messages:
            for body in bodies:
                assert (await anext(messages)).body == body


async def test_aio_pika_with_a_certificate(
    daemon: Daemon, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.write_client("alice", tmp_path)
    options = f"cafile={authority.ca_file}&certfile={cert}&keyfile={key}&auth=external"
    url = f"amqps://alice@localhost:{daemon.addresses['amqps'][1]}/%2F?{options}"
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), queue.name)
        message = await queue.get(no_ack=True)
        assert message.body == b"hello"


def shown(daemon: Daemon, authority: Authority) -> str:
    return ssl.get_server_certificate(daemon.addresses["amqps"], ca_certs=str(authority.ca_file))


def test_a_renewed_certificate_needs_no_restart(daemon: Daemon, authority: Authority) -> None:
    with connect(daemon, authority.client()) as early:
        first = shown(daemon, authority)
        authority.renew()
        kill(daemon.pid, signal.SIGHUP)
        assert shown(daemon, authority) != first
        assert round_trip(early, b"still here") == b"still here"


def test_a_certificate_that_is_missing_is_one_line(tmp_path: Path) -> None:
    daemon = Daemon(
        tmp_path / "data", "--tls-listen=127.0.0.1:0", f"--tls-cert={tmp_path / 'none.pem'}"
    )
    with pytest.raises(RuntimeError, match="did not become ready") as refused:
        daemon.start()
    assert "start_failed" in str(refused.value)
    assert "name another file with --tls-cert" in str(refused.value)
    assert "Traceback" not in str(refused.value)
