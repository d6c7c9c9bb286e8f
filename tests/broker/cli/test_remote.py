"""Commands for a node that is elsewhere, over its management API."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
import pytest

from fluffle.broker.cli.client import NodeUnreachable, RequestRefused
from fluffle.broker.cli.remote import RemoteClient, parsed
from fluffle.broker.config.config import ListenAddress
from tests.broker.cli.running_node import RunningNode, run


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    node = RunningNode(tmp_path_factory.mktemp("remote") / "data")
    node.config = replace(node.config, management_listen=ListenAddress("127.0.0.1", 0))
    with node:
        status = json.loads(node.output("status", "--json"))
        host, port = status["addresses"]["management"]
        node.output("users", "add", "carol", "s:e/cret", "--tags", "monitoring")
        yield f"http://guest:guest@{host}:{port}"


def said(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_url_stands_in_front_or_behind_or_in_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (("--url", url, "vhosts", "list"), ("vhosts", "list", "--url", url)):
        assert said(*words).startswith("name")
    assert said("--url", url, "rabbitmqctl", "list_vhosts", "-s") == "/\n"
    monkeypatch.setenv("FLUFFLE_URL", url)
    assert said("vhosts", "list").startswith("name")
    assert said("rabbitmqctl", "list_vhosts", "-s") == "/\n"


def test_verbs_change_and_refuse_as_they_do_here(url: str) -> None:
    said("vhosts", "add", "orders", "--url", url)
    again = run("vhosts", "add", "orders", "--url", url)
    assert (again.exit_code, again.stderr) == (1, "Error: vhost 'orders' already exists\n")
    assert said("rabbitmqctl", "--url", url, "delete_vhost", "orders").startswith("Deleting")
    absent = run("rabbitmqctl", "delete_vhost", "orders", "--url", url)
    assert absent.exit_code == 65
    exported = json.loads(said("definitions", "export", "--url", url))
    assert {user["name"] for user in exported["users"]} == {"guest", "carol"}


def test_who_may_not(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = url.partition("@")[2]
    for login in ("guest:wrong", "carol:s%3Ae%2Fcret"):
        refused = run("users", "list", "--url", f"http://{login}@{place}")
        assert refused.exit_code == 1, refused.output
        assert "cret" not in refused.output
        assert "wrong" not in refused.output
    file = tmp_path / "password"
    file.write_text("guest\n")
    monkeypatch.setenv("FLUFFLE_PASSWORD_FILE", str(file))
    assert said("users", "list", "--url", f"http://guest@{place}").startswith("user")
    monkeypatch.setenv("FLUFFLE_PASSWORD_FILE", str(tmp_path / "absent"))
    assert run("users", "list", "--url", url).exit_code == 2


def test_what_needs_the_data(url: str) -> None:
    with pytest.raises(RequestRefused, match="not on this machine"):
        print(RemoteClient(url).data_dir)
    assert run("users", "list", "--url", url, "--data-dir", "data").exit_code == 2


@pytest.mark.parametrize("words", [("stop",), ("shutdown",), ("shutdown", "--no-wait")])
def test_a_node_elsewhere_is_not_stopped(
    url: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda *signal: signalled.append(signal))
    refused = run("rabbitmqctl", *words, "--url", url)
    assert (refused.exit_code, refused.stdout, signalled) == (69, "", [])
    assert "not on this machine" in refused.stderr


def test_no_password_is_printed_for_who_types_something_wrong() -> None:
    for typed in ("--url=http://carol:s3:cr@t@host/x", "http://:s3cr@t@host/x"):
        result = run("rabbitmqctl", "list_users", "too", "many", "words", typed)
        assert (result.exit_code, "cr@t" in result.stderr) == (64, False)
        assert ":***@host/x" in result.stderr


@pytest.mark.parametrize("words", [(), ("list_queues",)])
def test_nor_in_what_is_said_of_it(words: tuple[str, ...]) -> None:
    result = run("rabbitmqctl", *words, "http://carol:s3cr@t@host/x")
    assert (result.exit_code, "cr@t" in result.stderr) == (64, False)
    assert ":***@host/x" in result.stderr


def test_urls_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLUFFLE_PASSWORD_FILE", raising=False)
    for text in ("ftp://host", "http://", "http://host:port", "http://[::1", "http://host:0"):
        with pytest.raises(click.UsageError):
            parsed(text)
    assert run("rabbitmqctl", "list_users", "--url", "ftp://host").exit_code == 64
    with pytest.raises(click.UsageError, match="FLUFFLE_PASSWORD_FILE"):
        RemoteClient("http://carol@host")


def test_nobody_is_there() -> None:
    with pytest.raises(NodeUnreachable, match=r"cannot reach 127\.0\.0\.1:1"):
        RemoteClient("http://127.0.0.1:1").call("status")


class Stranger(BaseHTTPRequestHandler):
    """HTTP server that is no broker."""

    replies = (
        (200, b"<html>"),
        (404, b'{"error": "Object Not Found"}'),
        (400, b'{"reason": "no"}'),
    )

    def do_POST(self) -> None:
        status, body = self.replies[int(self.path.rpartition(".")[2])]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Drop the log line."""


def test_somebody_else_is_there() -> None:
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            client = RemoteClient(f"http://127.0.0.1:{server.server_port}")
            for number in (0, 1):
                with pytest.raises(NodeUnreachable, match="is no management API"):
                    client.call(f"verb.{number}")
            with pytest.raises(RequestRefused, match="no"):
                client.call("verb.2")
        finally:
            server.shutdown()
            thread.join()
