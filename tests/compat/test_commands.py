"""The commands show what rabbitmqctl shows, under the same names, and take what it writes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika

from tests.broker.cli.running_node import run
from tests.compat.comparison import difference_of
from tests.compat.embedded import Serving, serving
from tests.compat.estate import with_estate
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript

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


def fluffle_says(fluffle: Serving, *words: str, stdin: str = "") -> str:
    """Output of a command that succeeds."""
    done = run(*words, "--data-dir", str(fluffle.data_dir), input=stdin)
    assert done.exit_code == 0, done.output
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


THEIRS = (
    ("add_vhost", VHOST),
    ("add_user", USER, "secret"),
    ("set_user_tags", USER, "monitoring", "management"),
    ("set_permissions", "-p", VHOST, USER, ".*", ".*", ".*"),
)
OURS = (
    ("vhosts", "add", VHOST),
    ("users", "add", USER, "secret"),
    ("users", "tags", USER, "monitoring", "management"),
    ("permissions", "set", USER, ".*", ".*", ".*", "--vhost", VHOST),
)


def listed_by_rabbitmq(folder: Path) -> Transcript:
    with with_estate(folder) as rabbitmq:
        for command in THEIRS:
            rabbitmq.ctl(*command)
        found: Transcript = {}
        with estate(rabbitmq.port):
            for what, columns in LISTS.items():
                where = ["-p", VHOST] if what in IN_VHOST else []
                asked = () if what in ("users", "permissions") else columns
                words = ("-q", "--formatter", "json", f"list_{what}", *where, *asked)
                found[what] = rows(rabbitmq.ctl(*words), what)
        return found


def listed_by_fluffle(fluffle: Serving) -> Transcript:
    for command in OURS:
        fluffle_says(fluffle, *command)
    found: Transcript = {}
    with estate(fluffle.port):
        for what in LISTS:
            where = ["-p", VHOST] if what in IN_VHOST else []
            found[what] = rows(fluffle_says(fluffle, what, "list", "--json", *where), what)
    return found


ASKED = asks("commands.lists", listed_by_rabbitmq)


def test_lists_are_those_of_rabbitmqctl(
    answers: Answers, definitions: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "fluffle", answers, f"--definitions={definitions}") as fluffle:
        theirs, ours = answers.both(
            ASKED,
            lambda: listed_by_rabbitmq(tmp_path / "rabbitmq"),
            lambda: listed_by_fluffle(fluffle),
        )
    assert ours == theirs, difference_of(theirs, ours)
