"""A node that serves metrics, and one that cannot."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.config.start_error import StartFailed
from fluffle.broker.node import Node
from fluffle.broker.observability.metrics.endpoint import text_page
from tests.support.socket_client import connected_client

LOOPBACK = ListenAddress("127.0.0.1", 0)


async def test_a_node_tells_its_metrics(tmp_path: Path) -> None:
    node = Node(Config(listen=LOOPBACK, metrics_listen=LOOPBACK, data_dir=tmp_path))
    await node.start()
    async with connected_client(node.addresses["amqp"]) as peer:
        await peer.log_in()
        reader, writer = await asyncio.open_connection(*node.addresses["metrics"])
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert "Content-Type: text/plain; version=0.0.4" in head
        length = re.search(r"Content-Length: (\d+)", head)
        assert length is not None
        body = (await reader.readexactly(int(length[1]))).decode()
        assert "\nrabbitmq_connections 1.0\n" in body
        assert re.search(r"^rabbitmq_disk_space_available_bytes \d", body, re.MULTILINE)
    await node.stop("shutdown")
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("text/plain;version=x", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=\xff", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text"),
    ],
)
def test_who_asks_for_no_format_that_exists_gets_the_plain_one(
    accept: str, content_type: str
) -> None:
    assert text_page([], accept).content_type.startswith(content_type)


async def test_an_address_in_use_says_which_option_names_another(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = ListenAddress(*other.getsockname())
        node = Node(Config(listen=LOOPBACK, metrics_listen=taken, data_dir=tmp_path))
        with pytest.raises(StartFailed, match=r"in use; .* with --metrics$"):
            await node.start()
        await node.stop("failed")


def test_who_serves_no_metrics_does_not_load_what_they_need() -> None:
    code = (
        "import sys, fluffle.broker.daemon.daemon, fluffle.broker.node; "
        "print([name for name in sys.modules if 'prometheus' in name or 'server.tls' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
