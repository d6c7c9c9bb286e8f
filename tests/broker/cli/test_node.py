"""`fluffle node` against a node, as an operator types it."""

import json
import socket

import pytest

from fluffle.broker.cli.node import ShareOrSize, amount_of
from tests.broker.cli.running_node import RunningNode


def test_a_node_is_drained_and_revived(node: RunningNode) -> None:
    assert node.output("node", "drain") == "0\n"
    assert "drained" in node.output("status")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", node.port))
    node.output("node", "revive")
    socket.create_connection(("127.0.0.1", node.port)).close()
    assert node.output("queues", "critical") == "this node can be stopped\n"


def test_what_is_low_can_be_set(node: RunningNode) -> None:
    node.output("node", "memory-watermark", "2GiB")
    node.output("node", "disk-free-limit", "7MB")
    status = json.loads(node.output("status", "--json"))
    assert (status["memory_bytes_max"], status["disk_free_bytes_min"]) == (2 << 30, 7_000_000)
    assert node.output("alarms", "list") == "no alarm\n"
    assert node.run("node", "memory-watermark", "much").exit_code == 2


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0.5", ShareOrSize(share=0.5)),
        (".5", ShareOrSize(share=0.5)),
        ("100", ShareOrSize(size_bytes=100)),
        ("2GB", ShareOrSize(size_bytes=2_000_000_000)),
        ("2 GiB", ShareOrSize(size_bytes=2 << 30)),
        ("1k", ShareOrSize(size_bytes=1024)),
    ],
)
def test_amounts(text: str, amount: ShareOrSize) -> None:
    assert amount_of(text) == amount
    assert list(amount.argument().values()) == [value for value in amount if value is not None]


@pytest.mark.parametrize("text", ["", "-1", "2XB", "much", "1.5GB"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        amount_of(text)
