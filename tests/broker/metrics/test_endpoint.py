"""A node that serves metrics, and one that cannot."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fluffle.broker.base.errors import StartFailed
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.metrics.endpoint import Readiness, live, text_page
from fluffle.broker.metrics.http import Request
from fluffle.broker.node import Node
from tests.support.cluster_nodes import make_cluster, until
from tests.support.no_cluster import NoCluster
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


REQUEST = Request.parse("GET /health/ready HTTP/1.1")


def reported(readiness: Readiness) -> tuple[int, Any]:
    page = readiness.page(REQUEST)
    (body,) = page.pieces
    return page.status, json.loads(body)


@pytest.mark.parametrize("protocol", ["amqp", "amqps"])
def test_a_node_is_ready_once_it_takes_clients(protocol: str) -> None:
    addresses: dict[str, object] = {"metrics": ("127.0.0.1", 15692)}
    readiness = Readiness(addresses, NoCluster(), lambda: False)
    reasons = ["it is starting, and takes no clients yet"]
    assert reported(readiness) == (503, {"status": "not ready", "reasons": reasons})
    addresses[protocol] = ("127.0.0.1", 5672)
    assert reported(readiness) == (200, {"status": "ready", "reasons": []})


def test_a_node_in_maintenance_is_not_ready() -> None:
    readiness = Readiness({"amqp": ("127.0.0.1", 5672)}, NoCluster(), lambda: True)
    reasons = ["it is in maintenance"]
    assert reported(readiness) == (503, {"status": "not ready", "reasons": reasons})


def test_who_answers_lives() -> None:
    page = live(REQUEST)
    assert (page.status, list(page.pieces)) == (200, [b'{"status": "live", "reasons": []}\n'])


async def asked(address: tuple[str, int], path: str, method: str = "GET") -> tuple[str, bytes]:
    """The status line, and the body."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head.decode().partition("\r\n")[0], body


async def test_a_node_says_that_it_is_ready(tmp_path: Path) -> None:
    node = Node(Config(listen=LOOPBACK, metrics_listen=LOOPBACK, data_dir=tmp_path))
    await node.start()
    address = node.addresses["metrics"]
    for path in ("/health/live", "/health/ready"):
        status, body = await asked(address, path)
        assert (status, json.loads(body)["reasons"]) == ("HTTP/1.1 200 OK", [])
        assert await asked(address, path, "HEAD") == ("HTTP/1.1 200 OK", b"")
    assert (await asked(address, "/health"))[0] == "HTTP/1.1 404 Not Found"
    await node.stop("shutdown")
    with pytest.raises(ConnectionRefusedError):
        await asked(address, "/health/live")


async def test_a_node_without_a_majority_lives_and_is_not_ready(tmp_path: Path) -> None:
    nodes = await make_cluster(tmp_path, 3, config=Config(metrics_listen=LOOPBACK))
    nodes["a"].begin()
    addresses = nodes["a"].node.addresses
    await until(lambda: "metrics" in addresses)
    await until(lambda: len(nodes["a"].cluster.links.peers) == 2)
    assert (await asked(addresses["metrics"], "/health/live"))[0] == "HTTP/1.1 200 OK"
    status, body = await asked(addresses["metrics"], "/health/ready")
    assert status == "HTTP/1.1 503 Service Unavailable"
    reasons: list[Any] = json.loads(body)["reasons"]
    assert reasons[0] == "it is starting, and takes no clients yet"
    assert reasons[1:] == ["there is no link to b", "there is no link to c"]
    nodes["b"].begin()
    for name in ("a", "b"):
        await nodes[name].started()
    assert (await asked(addresses["metrics"], "/health/ready"))[0] == "HTTP/1.1 200 OK"
    await nodes.stop()
