"""amq.rabbitmq.log: who may do what with it, and what its messages have besides their text."""

import difflib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.compat.comparing import text
from tests.compat.oracle import NODE, RabbitMQ
from tests.compat.scenario import Peer, Transcript
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


def heard(port: int) -> Transcript:
    peer = Peer("127.0.0.1", port)
    try:
        conversation(peer)
    finally:
        transcript = peer.hang_up()
    return {
        name: [OTHER.sub("", NODES.sub("NODE", NOW.sub("S", line))) for line in lines]
        for name, lines in transcript.items()
    }


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
        assert there(daemon.port) == (said := there(rabbitmq.port))
    assert sum("Exchange.DeclareOk" in line for line in said) == 1


def test_messages_are_those_of_rabbitmq_but_for_their_text(tmp_path: Path) -> None:
    config = "log.exchange = true\nlog.exchange.level = error"
    with (
        RabbitMQ(tmp_path / "rabbitmq", config) as rabbitmq,
        Daemon(tmp_path / "fluffle", "--log-exchange", "error") as daemon,
        ThreadPoolExecutor(1) as beside,
    ):
        running = beside.submit(heard, rabbitmq.port)
        here = text(heard(daemon.port))
        there = text(running.result())
    assert len(there) > 8
    assert here == there, "\n".join(difflib.unified_diff(there, here, "RabbitMQ", "fluffle"))
