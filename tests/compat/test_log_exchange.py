"""amq.rabbitmq.log: who may do what with it, and what its messages have besides their text."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.broker.cli.running_node import run
from tests.compat.comparison import compare_all, text, transcript_of
from tests.compat.oracle import NODE, RabbitMQ
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Peer, Scenario, Transcript
from tests.compat.verbs import Speaker, speaker
from tests.support.daemon import Daemon

pytestmark = pytest.mark.compat  # processes: the level of a log is that of one

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
    """Try what clients may ask of the exchange."""
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


def levels_told(port: int, set_level: Callable[[str], object]) -> list[set[str]]:
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


def levels_of_rabbitmq(folder: Path) -> Transcript:
    with RabbitMQ(folder, "log.exchange = true\nlog.exchange.level = warning") as rabbitmq:
        wait_for_it(rabbitmq, "/")
        levels = levels_told(rabbitmq.port, partial(rabbitmq.ctl, "set_log_level"))
        return {"levels": [" ".join(sorted(each)) for each in levels]}


ASKED_FOR_LEVELS = asks("log_exchange.levels", levels_of_rabbitmq, Peer.hang_up)


def test_the_level_of_a_running_node_counts(answers: Answers, tmp_path: Path) -> None:
    there = answers.of(ASKED_FOR_LEVELS, lambda: levels_of_rabbitmq(tmp_path / "rabbitmq"))
    assert there == {"levels": ["", "info", ""]}
    with Daemon(tmp_path / "fluffle", "--log-exchange", "warning") as daemon:
        here = levels_told(daemon.port, lambda level: set_level(daemon, level))
    assert here == [set(), {"info"}, set()]


def set_level(daemon: Daemon, level: str) -> None:
    words = "node", "log-level", level, "--data-dir", str(daemon.data_dir)
    assert run(*words).exit_code == 0


def there(port: int) -> list[str]:
    """In which virtual hosts it is."""
    found = []
    for vhost in ("first", "second"):
        peer = Peer("127.0.0.1", port)
        main = speaker(peer, vhost=vhost)
        main.declare_exchange(LOG, "topic", passive=True)
        found += text(peer.hang_up())
    return found


def there_in_rabbitmq(folder: Path) -> Transcript:
    with RabbitMQ(folder, "log.exchange = true\ndefault_vhost = first") as rabbitmq:
        rabbitmq.ctl("add_vhost", "second")
        rabbitmq.ctl("set_permissions", "-p", "second", "guest", ".*", ".*", ".*")
        wait_for_it(rabbitmq, "first")
        return {"there": there(rabbitmq.port)}


ASKED_WHERE = asks("log_exchange.where", there_in_rabbitmq, Peer.hang_up)


def test_it_is_in_the_default_virtual_host(answers: Answers, tmp_path: Path) -> None:
    theirs = answers.of(ASKED_WHERE, lambda: there_in_rabbitmq(tmp_path / "rabbitmq"))["there"]
    options = "--log-exchange", "info", "--default-vhost", "first", "--vhost", "second"
    with Daemon(tmp_path / "fluffle", *options) as daemon:
        assert there(daemon.port) == theirs
    assert sum("Exchange.DeclareOk" in line for line in theirs) == 1


def messages_of_rabbitmq(folder: Path) -> Transcript:
    with RabbitMQ(folder, "log.exchange = true\nlog.exchange.level = error") as rabbitmq:
        wait_for_it(rabbitmq, "/")
        return transcript_of(conversation, rabbitmq.port, alike)


ASKED_FOR_MESSAGES = asks("log_exchange.messages", messages_of_rabbitmq, Scenario.run)


def test_messages_are_those_of_rabbitmq_but_for_their_text(
    answers: Answers, tmp_path: Path
) -> None:
    theirs = answers.of(ASKED_FOR_MESSAGES, lambda: messages_of_rabbitmq(tmp_path / "rabbitmq"))
    with Daemon(tmp_path / "fluffle", "--log-exchange", "error") as daemon:
        ours = transcript_of(conversation, daemon.port, alike)
    compare_all(theirs, ours, lines_min=8)
