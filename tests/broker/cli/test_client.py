"""Clients and nodes that are down, belong to another user, or do not answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from fluffle.broker.admin.control_socket import bound_socket
from fluffle.broker.cli import client as module
from fluffle.broker.cli.client import (
    LocalClient,
    NodeClient,
    NodeUnreachable,
    RequestRefused,
    close_everywhere,
    rows_everywhere,
)
from fluffle.broker.cli.output import Row
from fluffle.broker.process.data_directory import (
    LOCK_FILE,
    NODE_FILE,
    SOCKET_NAME,
    lock,
    write_node_file,
)
from tests.broker.cli.running_node import RunningNode, run

Serve = Callable[[socket.socket], object]


def serve(data_dir: Path, talk: Serve) -> threading.Thread:
    """Thread that accepts one connection."""
    listening = bound_socket(data_dir / SOCKET_NAME)
    listening.listen()

    def accept() -> None:
        with listening, listening.accept()[0] as connection:
            talk(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    return thread


def test_no_node(tmp_path: Path) -> None:
    result = run("status", "--data-dir", str(tmp_path))
    assert result.exit_code == 69
    assert result.stderr == (
        f"Error: no node runs in {tmp_path}; name its data directory with --data-dir\n"
    )


def test_no_node_beside_those_of_a_cluster_for_trying_things_out(tmp_path: Path) -> None:
    for name in "ba":
        (tmp_path / "cluster" / name).mkdir(parents=True)
        (tmp_path / "cluster" / name / NODE_FILE).touch()
    result = run("status", "--data-dir", str(tmp_path))
    assert result.stderr.endswith(f"with --data-dir, such as {tmp_path / 'cluster' / 'a'}\n")


def test_a_socket_that_was_left_behind(tmp_path: Path) -> None:
    bound_socket(tmp_path / SOCKET_NAME).close()
    with pytest.raises(NodeUnreachable, match="no node runs in"):
        LocalClient(tmp_path).call("status")


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NodeUnreachable, match="no node runs in"):
        LocalClient(tmp_path / "file").call("status")


def answer_all(connection: socket.socket) -> None:
    """Answer every request as a node with process id 1."""
    with connection.makefile("rb") as lines:
        for line in lines:
            said = json.dumps({"id": json.loads(line).get("id"), "result": {"node": "a", "pid": 1}})
            connection.sendall(said.encode() + b"\n")


@pytest.mark.parametrize("words", [("stop",), ("shutdown", "--no-wait")])
def test_the_process_is_that_at_the_other_end_and_not_that_which_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    signalled: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda *signal: signalled.append(signal))
    thread = serve(tmp_path, answer_all)
    assert run("rabbitmqctl", *words, "--data-dir", str(tmp_path)).exit_code == 0
    thread.join()
    assert signalled == [(os.getpid(), signal.SIGTERM)]


def test_a_process_that_cannot_be_seen_is_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is in another container, and only its socket is visible."""
    monkeypatch.setattr(module, "pid_of", lambda _connection: 0)
    thread = serve(tmp_path, answer_all)
    with (
        LocalClient(tmp_path) as client,
        pytest.raises(RequestRefused, match="cannot be seen from here"),
    ):
        print(client.pid)
    thread.join()


def test_a_node_that_hangs_up(tmp_path: Path) -> None:
    thread = serve(tmp_path, lambda connection: None)
    with LocalClient(tmp_path) as client, pytest.raises(NodeUnreachable, match="hung up"):
        client.call("status")
    thread.join()


def test_a_node_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_WAIT_S_MAX", 0.01)
    (tmp_path / NODE_FILE).write_text('{"pid": 4711}')
    done = threading.Event()
    thread = serve(tmp_path, lambda _connection: done.wait(20))
    with LocalClient(tmp_path) as client, pytest.raises(NodeUnreachable) as raised:
        client.call("status")
    assert "does not answer (process 4711)" in str(raised.value.message)
    done.set()
    thread.join()


def test_a_node_that_does_not_even_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_WAIT_S_MAX", 0.01)
    with bound_socket(tmp_path / SOCKET_NAME) as listening, ExitStack() as others:
        listening.listen(0)
        refused = False
        while not refused:
            client = others.enter_context(LocalClient(tmp_path))
            with pytest.raises(NodeUnreachable, match="does not answer"):
                client.call("status")
            refused = client._connection is None


def test_a_node_that_has_answered_may_take_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PING_WAIT_S_MAX", 20.0)
    monkeypatch.setattr(module, "ANSWER_WAIT_S_MAX", 0.01)
    monkeypatch.setattr(module, "NOTICE_AFTER_S", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    done = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b'{"id": null, "error": {"text": "there is no verb \'ping\'"}}\n')
        done.wait(20)

    thread = serve(tmp_path, talk)
    with LocalClient(tmp_path) as client, pytest.raises(NodeUnreachable, match="does not answer"):
        client.call("status")
    assert "at work" in capsys.readouterr().err
    done.set()
    thread.join()


def test_a_socket_that_is_gone_from_under_its_node(node: RunningNode) -> None:
    data_dir = node.config.data_dir
    write_node_file(data_dir / NODE_FILE, "a", "1", {})
    (data_dir / SOCKET_NAME).unlink()
    with pytest.raises(NodeUnreachable, match="no node runs in"):
        LocalClient(data_dir).call("status")
    with lock(data_dir / LOCK_FILE):
        result = node.run("status")
    assert result.exit_code == 69
    assert f"runs (process {os.getpid()}), but its control.sock is gone" in result.stderr


def test_many_requests_go_over_one_connection(node: RunningNode) -> None:
    with LocalClient(node.config.data_dir) as client:
        assert client.call("status")["node"] == "a"
        assert [row["name"] for row in client.rows("vhosts.list")] == ["/"]
        with pytest.raises(RequestRefused, match="there is no verb 'nonsense'"):
            client.call("nonsense")
        assert client.call("status", nothing=None)["users"] == 1


def test_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    with RunningNode(folder) as running:
        assert "node" in running.output("status")


class Reported:
    """A client of a node that says this."""

    def __init__(self, *answer: Row) -> None:
        self.reported = answer
        self.asked: list[Row] = []

    def rows(self, verb: str, **arguments: Any) -> list[Row]:
        self.asked.append({"verb": verb, **arguments})
        return list(self.reported)


def client_of(*answer: Row) -> NodeClient:
    return cast(NodeClient, Reported(*answer))


MISSING = {"code": 404, "name": "NOT_FOUND", "text": "no connection 'c'"}
DOWN = {"node": "b", "silent": "there is no link to it"}


def closed(node: str, count: int) -> Row:
    return {"node": node, "row": {"closed": count}}


def test_rows_are_those_of_all_and_who_is_silent_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = Reported({"node": "a", "row": {"n": 1}}, DOWN, {"node": "c", "row": {"n": 2}})
    listed = rows_everywhere(cast(NodeClient, answer), "connections.list", vhost=None, name="x")
    assert list(listed) == [{"n": 1}, {"n": 2}]
    asked = {"verb": "everywhere.rows", "what": "connections.list", "arguments": {"name": "x"}}
    assert answer.asked == [asked]
    assert capsys.readouterr().err == "node 'b' tells nothing: there is no link to it\n"


def test_a_refusal_is_one() -> None:
    with pytest.raises(RequestRefused, match="no connection 'c'") as refusal:
        list(rows_everywhere(client_of({"node": "a", "error": MISSING}), "connections.list"))
    assert refusal.value.code == 404


def test_closed_are_those_of_all_nodes() -> None:
    assert close_everywhere(client_of(closed("a", 2), DOWN, closed("c", 3)), user="u") == 5
    assert close_everywhere(client_of(closed("a", 0)), everybody=True) == 0


def test_who_has_one_that_is_meant_is_enough() -> None:
    missing = {"node": "a", "error": MISSING}
    assert close_everywhere(client_of(missing, closed("b", 1)), name="c") == 1
    with pytest.raises(RequestRefused, match="no connection 'c'"):
        close_everywhere(client_of(missing, DOWN), name="c")
    request = {"node": "b", "error": {"code": 406, "name": "PRECONDITION_FAILED", "text": "ends"}}
    with pytest.raises(RequestRefused, match="ends"):
        close_everywhere(client_of(missing, request), name="c")
