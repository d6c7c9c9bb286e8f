"""The commands show what rabbitmqctl shows, under the same names, and take what it writes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.compat.oracle import RabbitMQ
from tests.support.daemon import Daemon

pytestmark = pytest.mark.compat

VHOST = "commands"
USER = "operated"

LISTS = {
    "queues": (
        *("name", "type", "durable", "auto_delete", "exclusive", "messages", "messages_ready"),
        *("messages_unacknowledged", "consumers", "state"),
    ),
    "exchanges": ("name", "type", "durable", "auto_delete", "internal"),
    "bindings": (
        *("source_name", "source_kind", "destination_name", "destination_kind", "routing_key"),
    ),
    "connections": (
        *("user", "vhost", "state", "channels", "ssl", "timeout"),
        *("channel_max", "frame_max"),
    ),
    "channels": (
        *("number", "user", "vhost", "transactional", "confirm", "consumer_count"),
        *("messages_unacknowledged", "messages_unconfirmed", "prefetch_count"),
    ),
    "consumers": (
        *("queue_name", "consumer_tag", "ack_required", "prefetch_count", "active"),
        "activity_status",
    ),
    "permissions": ("user", "configure", "write", "read"),
    "vhosts": ("name",),
    "users": ("user", "tags"),
}
"""Columns that both have; the names of connections differ by their ports."""

IN_VHOST = {"queues", "exchanges", "bindings", "consumers", "permissions"}


def fluffle_says(daemon: Daemon, *words: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fluffle.broker", *words, "--data-dir", str(daemon.data_dir)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def estate(port: int) -> Iterator[None]:
    """A client that has something of everything."""
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1",
            port,
            VHOST,
            pika.PlainCredentials(USER, "secret"),
            client_properties={"connection_name": "worker"},
            heartbeat=45,
        )
    )
    channel = connection.channel(channel_number=3)
    channel.exchange_declare("x", "topic", durable=True)
    channel.exchange_declare("inner", "fanout", internal=True, auto_delete=True)
    channel.exchange_bind("inner", "x", "a.*")
    channel.queue_declare("durable", durable=True)
    channel.queue_declare("own", exclusive=True, auto_delete=True)
    channel.queue_bind("durable", "x", "b.#")
    channel.confirm_delivery()
    for number in range(5):
        channel.basic_publish("", "durable", b"%d" % number)
    channel.basic_qos(prefetch_count=2)
    channel.queue_declare("one", durable=True, arguments={"x-single-active-consumer": True})
    for tag in ("active", "waits"):
        channel.basic_consume("one", lambda *_args: None, consumer_tag=tag)
    delivered: list[int] = []
    channel.basic_consume("durable", lambda *_args: delivered.append(1), consumer_tag="tag")
    while len(delivered) < 2:
        connection.process_data_events(time_limit=10)
    try:
        yield
    finally:
        connection.close()


def rows(text: str, what: str) -> list[str]:
    """The columns of LISTS in each row, in an order of their own."""
    listed: list[dict[str, Any]] = json.loads(text)
    chosen = ({name: row[name] for name in LISTS[what]} for row in listed)
    return sorted(json.dumps(row, sort_keys=True) for row in chosen)


def test_lists_are_those_of_rabbitmqctl(rabbitmq: RabbitMQ, fluffle: Daemon) -> None:
    for command in (
        ("add_vhost", VHOST),
        ("add_user", USER, "secret"),
        ("set_user_tags", USER, "monitoring", "management"),
        ("set_permissions", "-p", VHOST, USER, ".*", ".*", ".*"),
    ):
        rabbitmq.ctl(*command)
    for words in (
        ("vhosts", "add", VHOST),
        ("users", "add", USER, "secret"),
        ("users", "tags", USER, "monitoring", "management"),
        ("permissions", "set", USER, ".*", ".*", ".*", "--vhost", VHOST),
    ):
        fluffle_says(fluffle, *words)
    with estate(rabbitmq.port), estate(fluffle.port):
        for what, columns in LISTS.items():
            where = ["-p", VHOST] if what in IN_VHOST else []
            asked = () if what in ("users", "permissions") else columns
            theirs = rabbitmq.ctl("-q", "--formatter", "json", f"list_{what}", *where, *asked)
            ours = fluffle_says(fluffle, what, "list", "--json", *where)
            assert rows(ours, what) == rows(theirs, what), what
    for what, where in (("users", ["delete", USER]), ("vhosts", ["delete", VHOST])):
        fluffle_says(fluffle, what, *where)
    rabbitmq.ctl("delete_user", USER)
    rabbitmq.ctl("delete_vhost", VHOST)


def test_definitions_go_round_through_a_running_node(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    file = rabbitmq.export_definitions()
    with Daemon(tmp_path / "data") as daemon:
        fluffle_says(daemon, "definitions", "import", str(file))
        exported = json.loads(fluffle_says(daemon, "definitions", "export"))
        names = {user["name"] for user in json.loads(file.read_text())["users"]}
        assert names <= {user["name"] for user in exported["users"]}
        rabbitmq.import_definitions(exported)
        assert "Traceback" not in daemon.log


def test_an_export_for_rabbitmq_is_imported_where_another_stops(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    with Daemon(tmp_path / "data") as daemon:
        fluffle_says(daemon, "users", "add", "modern", "secret", "--algorithm", "argon2")
        within = json.loads(fluffle_says(daemon, "definitions", "export"))
        without = json.loads(fluffle_says(daemon, "definitions", "export", "--for-rabbitmq"))
    with pytest.raises(RuntimeError, match="import_definitions"):
        rabbitmq.import_definitions(within)
    rabbitmq.import_definitions(without)
    assert "modern" in rabbitmq.ctl("-q", "list_users")
    rabbitmq.ctl("delete_user", "modern")
