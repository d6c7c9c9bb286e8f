"""amq.rabbitmq.log: who may do what with it, and what its messages have besides their text."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.compat.comparing import compare_told, text
from tests.compat.oracle import NODE, RabbitMQ
from tests.compat.scenario import Peer
from tests.compat.verbs import Speaker, speaker
from tests.support.daemon import Daemon

pytestmark = pytest.mark.compat

NOW = re.compile(r"\b1[6-9]\d{8}\b")
NODES = re.compile(rf"{NODE}|fluffle@[\w.-]+")
OTHER = re.compile(r"delivery_tag=\d+, | b'2\S*…b.*bytes\)$")
"""How many lines there were, and what one says, as a transcript shows it."""
LOG = "amq.rabbitmq.log"


def conversation(peer: Peer) -> None:
    main = speaker(peer, "main")
    main.declare("errors", exclusive=True)
    refused(main)
    main.bind("errors", LOG, "error")
    main.bind("errors", LOG, "error.#")
    other = main.another()
    other.publish("nowhere", "k", "x")
    other.refused()
    while b"nowhere" not in (line := main.get("errors")).body:
        main.forget(f"[{main.number}] Basic.Get")
    main.client.transcript.append(str(line.body[-1:]))


def refused(main: Speaker) -> None:
    """What clients ask of the exchange."""
    main.another().declare_exchange(LOG, "topic", passive=True)
    main.another().declare_exchange(LOG, "topic", durable=True, internal=True)
    main.another().declare_exchange(LOG, "topic", durable=True)
    main.another().declare_exchange(LOG, "fanout", durable=True, internal=True)
    main.another().delete_exchange(LOG)
    publisher = main.another()
    publisher.publish(LOG, "error", "not by the node")
    publisher.refused()


def alike(line: str) -> str:
    return OTHER.sub("", NODES.sub("NODE", NOW.sub("S", line)))


def told(port: int, set_level: Callable[[str], object]) -> list[set[str]]:
    """The levels of lines up to an error, while that of the log is one or another."""
    peer = Peer("127.0.0.1", port)
    main = speaker(peer)
    main.declare("lines", exclusive=True)
    main.bind("lines", LOG, "#")
    levels: list[set[str]] = []
    for level in ("error", "info", "error"):
        set_level(level)
        speaker(peer, f"another {len(levels)}")
        refused = main.another()
        refused.publish(name := f"nowhere {len(levels)}", "k", "x")
        refused.refused()
        found: set[str] = set()
        while name.encode() not in (line := main.get("lines")).body:
            found |= {str(line.method.routing_key)} if line.name == "Basic.GetOk" else set()  # type: ignore[attr-defined]
        levels.append(found)
    peer.hang_up()
    return levels


def wait_for_it(rabbitmq: RabbitMQ, vhost: str) -> None:
    """RabbitMQ makes it when the virtual host is there, and takes clients meanwhile."""
    while LOG not in rabbitmq.ctl("list_exchanges", "--vhost", vhost, "name"):
        pass


def test_the_level_of_a_running_node_counts(tmp_path: Path) -> None:
    config = "log.exchange = true\nlog.exchange.level = warning"
    with (
        RabbitMQ(tmp_path / "rabbitmq", config) as rabbitmq,
        Daemon(tmp_path / "fluffle", "--log-exchange", "warning") as daemon,
    ):
        wait_for_it(rabbitmq, "/")
        there = told(rabbitmq.port, partial(rabbitmq.ctl, "set_log_level"))
        here = told(daemon.port, lambda level: commanded(daemon, "node", "log-level", level))
    assert there == here == [set(), {"info"}, set()]


def commanded(daemon: Daemon, *words: str) -> None:
    """A command of ours, for that node."""
    command = [sys.executable, "-m", "fluffle.broker", *words, "--data-dir", str(daemon.data_dir)]
    subprocess.run(command, check=True, capture_output=True)


def there(port: int) -> list[str]:
    """In which virtual hosts it is."""
    found = []
    for vhost in ("first", "second"):
        peer = Peer("127.0.0.1", port)
        main = speaker(peer, vhost=vhost)
        main.declare_exchange(LOG, "topic", passive=True)
        found += text(peer.hang_up())
    return found


def test_it_is_in_the_default_virtual_host(tmp_path: Path) -> None:
    config = "log.exchange = true\ndefault_vhost = first"
    options = "--log-exchange", "info", "--default-vhost", "first", "--vhost", "second"
    with (
        RabbitMQ(tmp_path / "rabbitmq", config) as rabbitmq,
        Daemon(tmp_path / "fluffle", *options) as daemon,
    ):
        rabbitmq.ctl("add_vhost", "second")
        rabbitmq.ctl("set_permissions", "-p", "second", "guest", ".*", ".*", ".*")
        wait_for_it(rabbitmq, "first")
        assert there(daemon.port) == (said := there(rabbitmq.port))
    assert sum("Exchange.DeclareOk" in line for line in said) == 1


def test_messages_are_those_of_rabbitmq_but_for_their_text(tmp_path: Path) -> None:
    config = "log.exchange = true\nlog.exchange.level = error"
    with (
        RabbitMQ(tmp_path / "rabbitmq", config) as rabbitmq,
        Daemon(tmp_path / "fluffle", "--log-exchange", "error") as daemon,
    ):
        wait_for_it(rabbitmq, "/")
        compare_told(conversation, rabbitmq.port, daemon.port, lines_min=8, alike=alike)
