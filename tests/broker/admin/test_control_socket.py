"""The socket itself: whose it is, what it replaces, what is left of it."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fluffle.broker.admin.control_socket import bound_socket
from fluffle.broker.base.errors import StartFailed
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.node import Node
from fluffle.broker.process.data_directory import PATH_BYTES_MAX, SOCKET_NAME, control_address

LOOPBACK = ListenAddress("127.0.0.1", 0)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(Config(data_dir=tmp_path, listen=LOOPBACK))
    await node.start()
    yield node
    await node.stop("test")


async def asked(path: str, *lines: bytes) -> list[dict[str, object]]:
    """All that comes back until the node closes."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"".join(line + b"\n" for line in lines))
    writer.write_eof()
    answers = (await reader.read()).splitlines()
    writer.close()
    await writer.wait_closed()
    return [json.loads(answer) for answer in answers]


def test_a_socket_is_its_owners_from_the_first_moment(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with bound_socket(tmp_path / SOCKET_NAME):
            assert stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode) == 0o600
        assert os.umask(0) == 0, "the umask was not put back"
    finally:
        os.umask(mask)


def test_one_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    bound_socket(tmp_path / SOCKET_NAME).close()
    bound_socket(tmp_path / SOCKET_NAME).close()


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / SOCKET_NAME).write_text("precious")
    with pytest.raises(OSError, match="in use"):
        bound_socket(tmp_path / SOCKET_NAME)
    assert (tmp_path / SOCKET_NAME).read_text() == "precious"


@pytest.mark.parametrize("length", [PATH_BYTES_MAX, PATH_BYTES_MAX + 1, 400])
def test_a_path_may_be_longer_than_a_sockets(tmp_path: Path, length: int) -> None:
    folder = tmp_path
    while rest := length - len(str(folder / SOCKET_NAME)):
        folder /= "d" * min(rest - 1, 100)
    folder.mkdir(parents=True)
    with bound_socket(folder / SOCKET_NAME) as listening:
        listening.listen()
        with (
            socket.socket(socket.AF_UNIX) as client,
            control_address(folder) as address,
        ):
            client.connect(address)
    assert (folder / SOCKET_NAME).is_socket()


async def test_a_node_answers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    node = Node(Config(data_dir=tmp_path, listen=LOOPBACK, node_name="a"))
    await node.start()
    path = tmp_path / SOCKET_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (answer,) = await asked(str(path), b'{"verb": "status", "id": 1}')
    result = answer["result"]
    assert isinstance(result, dict)
    assert (result["node"], result["data_dir"]) == ("a", str(tmp_path))
    await node.stop("test")
    assert not path.exists()


@pytest.mark.usefixtures("node")
async def test_a_declaration_is_safe_before_it_is_listed(tmp_path: Path) -> None:
    path = str(tmp_path / SOCKET_NAME)
    entry = b'{"vhost": "/", "name": "q", "durable": true}'
    add = b'{"verb": "definitions.import", "arguments": {"category": "queues", "entries": [%s]}}'
    made, listed = await asked(path, add % entry, b'{"verb": "queues.list", "id": 2}')
    assert made == {"id": None, "result": {"skipped": []}}
    assert listed["more"] is False


@pytest.mark.usefixtures("node")
async def test_garbage_is_answered_with_a_sentence(tmp_path: Path) -> None:
    path = str(tmp_path / SOCKET_NAME)
    answers = await asked(path, b"\x00\xff", b"GET / HTTP/1.1", b'{"verb": "status"}')
    assert [sorted(answer) for answer in answers] == [
        ["error", "id"],
        ["error", "id"],
        ["id", "result"],
    ]


async def test_who_is_there_is_hung_up_on_at_the_end(tmp_path: Path) -> None:
    node = Node(Config(data_dir=tmp_path, listen=LOOPBACK))
    await node.start()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET_NAME))
    writer.write(b'{"verb": "status"}\n')
    await reader.readline()
    await node.stop("test")
    assert await reader.read() == b""
    writer.close()


async def test_a_place_without_sockets_keeps_a_node_from_starting(tmp_path: Path) -> None:
    (tmp_path / SOCKET_NAME).mkdir()
    node = Node(Config(data_dir=tmp_path, listen=LOOPBACK))
    with pytest.raises(StartFailed, match=f"cannot make the control socket {tmp_path}"):
        await node.start()
    await node.stop("start failed")
