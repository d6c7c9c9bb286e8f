"""The whole: a `fluffle serve` process, AMQP clients, and an operator at a shell."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from tests.support.certificates import Authority
from tests.support.daemon import Daemon
from tests.support.deadlines import DEADLINE_S

pytestmark = pytest.mark.slow("each command is a process, and so is its node")

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("FLUFFLE_")}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "data") as running:
        yield running


def fluffle(daemon: Daemon, *words: str, exit_code: int = 0, stdin: str = "") -> str:
    """A command in a process of its own; what it printed, or why it was refused."""
    done = subprocess.run(
        [sys.executable, "-m", "fluffle.broker", *words, "--data-dir", str(daemon.data_dir)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == exit_code, done.stderr
    return done.stderr if exit_code else done.stdout


def connect(daemon: Daemon, user: str, password: str) -> pika.BlockingConnection:
    credentials = pika.PlainCredentials(user, password)
    return pika.BlockingConnection(
        pika.ConnectionParameters("127.0.0.1", daemon.port, credentials=credentials)
    )


def exported(daemon: Daemon) -> dict[str, list[str]]:
    """The definitions, each category in an order of its own."""
    content = json.loads(fluffle(daemon, "definitions", "export"))
    return {
        category: sorted(map(json.dumps, entries))
        for category, entries in content.items()
        if isinstance(entries, list)
    }


def test_what_an_operator_does_is_felt_at_once(daemon: Daemon) -> None:
    fluffle(daemon, "users", "add", "bob", "--password-stdin", stdin="builder\n")
    fluffle(daemon, "permissions", "set", "bob", ".*", ".*", ".*")
    connection = connect(daemon, "bob", "builder")
    channel = connection.channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", "q", b"1", pika.BasicProperties(delivery_mode=2))
    (row,) = json.loads(fluffle(daemon, "queues", "list", "--json"))
    assert (row["name"], row["messages"], row["durable"]) == ("q", 1, True)
    (row,) = json.loads(fluffle(daemon, "connections", "list", "--json"))
    assert (row["user"], row["state"], row["channels"]) == ("bob", "running", 1)

    fluffle(daemon, "connections", "close", row["name"], "--reason", "maintenance")
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="maintenance") as closed:
        connection.process_data_events(time_limit=DEADLINE_S)
    assert closed.value.reply_code == 320

    connection = connect(daemon, "bob", "builder")
    fluffle(daemon, "users", "delete", "bob")
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="user 'bob' is deleted"):
        connection.process_data_events(time_limit=DEADLINE_S)
    assert fluffle(daemon, "queues", "purge", "q") == "1\n"


def test_what_was_answered_is_on_disk(daemon: Daemon, tmp_path: Path) -> None:
    fluffle(daemon, "users", "add", "bob", "builder", "--tags", "monitoring")
    fluffle(daemon, "users", "limits", "bob", "--max-channels", "5")
    fluffle(daemon, "vhosts", "add", "orders")
    fluffle(daemon, "vhosts", "limits", "orders", "--max-queues", "7")
    fluffle(daemon, "permissions", "set", "bob", "^a", "^b", "^c", "-p", "orders")
    fluffle(daemon, "permissions", "topic-set", "bob", "x", "^d", "", "-p", "orders")
    fluffle(daemon, "users", "add", "eve", "--no-password")
    fluffle(daemon, "users", "delete", "eve")
    file = tmp_path / "in.json"
    file.write_text(json.dumps({"queues": [{"vhost": "orders", "name": "q", "durable": True}]}))
    fluffle(daemon, "definitions", "import", str(file))
    before = exported(daemon)
    daemon.kill()
    daemon.start()
    assert exported(daemon) == before
    fluffle(daemon, "users", "authenticate", "bob", "builder")


def test_a_node_that_has_been_killed_is_not_there(daemon: Daemon) -> None:
    fluffle(daemon, "status")
    daemon.kill()
    assert (daemon.data_dir / "control.sock").exists()
    assert "no node runs in" in fluffle(daemon, "status", exit_code=69)
    daemon.start()
    fluffle(daemon, "status")
    assert daemon.stop() == 0
    assert not (daemon.data_dir / "control.sock").exists()


def test_who_speaks_tls_is_shown_so(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    options = (
        "--tls-listen=127.0.0.1:0",
        f"--tls-cert={authority.cert_file}",
        f"--tls-key={authority.key_file}",
    )
    with Daemon(tmp_path / "data", *options) as daemon:
        parameters = pika.ConnectionParameters(
            "127.0.0.1",
            daemon.addresses["amqps"][1],
            ssl_options=pika.SSLOptions(authority.client(), "localhost"),
        )
        plain, encrypted = connect(daemon, "guest", "guest"), pika.BlockingConnection(parameters)
        rows = json.loads(fluffle(daemon, "connections", "list", "--json"))
        assert [row["ssl"] for row in rows] == [False, True]
        plain.close()
        encrypted.close()
