"""A node that was killed or stopped comes back with what is durable, and with nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import amqp
import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from tests.support.daemon import Daemon

PERSISTENT = pika.BasicProperties(delivery_mode=2)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path) as daemon:
        yield daemon


def open_channel(daemon: Daemon) -> BlockingChannel:
    return pika.BlockingConnection(pika.URLParameters(daemon.url)).channel()


def close(channel: BlockingChannel) -> None:
    channel.connection.close()


def is_there(daemon: Daemon, kind: str, name: str) -> bool:
    channel = open_channel(daemon)
    try:
        getattr(channel, f"{kind}_declare")(name, passive=True)
    except ChannelClosedByBroker:
        return False
    finally:
        close(channel)
    return True


def test_what_is_durable_survives_a_kill_and_the_rest_does_not(daemon: Daemon) -> None:
    connection = amqp.Connection(f"127.0.0.1:{daemon.port}")
    connection.connect()
    channel = connection.channel()
    durability = (("kept", True), ("lost", False))
    for name, durable in durability:
        channel.exchange_declare(name, "topic", durable=durable, auto_delete=False)
    for name, durable in durability:
        channel.queue_declare(
            name, durable=durable, auto_delete=False, arguments={"x-max-length": 100}
        )
        channel.queue_bind(name, "kept", "k", arguments={"a": 1})
        channel.queue_bind(name, "lost", "k")
    channel.exchange_declare("inner", "fanout", durable=True, auto_delete=False)
    channel.exchange_bind("inner", "kept", "k")
    channel.queue_bind("kept", "inner", "")
    channel.queue_declare("exclusive", durable=True, exclusive=True)
    channel.queue_declare("unbound", durable=True, auto_delete=False)
    channel.queue_bind("unbound", "kept", "k")
    channel.queue_unbind("unbound", "kept", "k")
    channel.queue_declare("deleted", durable=True, auto_delete=False)
    channel.queue_delete("deleted")
    daemon.kill()
    connection.transport.sock.close()
    daemon.start()
    found = {
        (kind, name)
        for kind in ("queue", "exchange")
        for name in ("kept", "lost", "exclusive", "unbound", "deleted", "inner")
        if is_there(daemon, kind, name)
    }
    assert found == {
        ("queue", "kept"),
        ("queue", "unbound"),
        ("exchange", "kept"),
        ("exchange", "inner"),
    }
    channel = open_channel(daemon)
    channel.queue_declare("kept", durable=True, arguments={"x-max-length": 100})
    channel.confirm_delivery()
    channel.basic_publish("kept", "k", b"routed", mandatory=True)
    assert channel.queue_declare("unbound", passive=True).method.message_count == 0
    assert channel.queue_declare("kept", passive=True).method.message_count == 1
    close(channel)


def fill(daemon: Daemon) -> None:
    """Six messages: the first acknowledged, the second seen, the third seen and given back."""
    channel = open_channel(daemon)
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    for number in range(6):
        channel.basic_publish("", "q", b"%d" % number, PERSISTENT)
    channel.basic_publish("", "q", b"transient")
    for _ in range(3):
        channel.basic_get("q")
    channel.basic_ack(1)
    channel.basic_nack(3)
    channel.queue_declare("q", passive=True)  # what came before is safe once this is answered
    close(channel)


def drain(daemon: Daemon) -> list[tuple[bytes, bool]]:
    """All messages, each with whether it may have been seen before."""
    channel = open_channel(daemon)
    found = []
    while (message := channel.basic_get("q", auto_ack=True))[0] is not None:
        found.append((message[2], message[0].redelivered))
    close(channel)
    return found


def test_after_an_orderly_stop_it_is_known_what_was_seen(daemon: Daemon) -> None:
    fill(daemon)
    daemon.stop()
    daemon.start()
    seen = [(b"1", True), (b"2", True)]
    assert drain(daemon) == [*seen, (b"3", False), (b"4", False), (b"5", False)]


def test_after_a_kill_everything_may_have_been_seen(daemon: Daemon) -> None:
    fill(daemon)
    daemon.kill()
    daemon.start()
    assert drain(daemon) == [(b"%d" % number, True) for number in range(1, 6)]


def test_what_comes_after_a_restart_comes_behind_what_was_there(daemon: Daemon) -> None:
    fill(daemon)
    for number in range(2):
        daemon.kill()
        daemon.start()
        channel = open_channel(daemon)
        channel.confirm_delivery()
        channel.basic_publish("", "q", b"later %d" % number, PERSISTENT)
        close(channel)
    contents = [content for content, _ in drain(daemon)]
    assert contents == [b"1", b"2", b"3", b"4", b"5", b"later 0", b"later 1"]


def test_what_has_expired_does_not_come_back_after_a_kill(daemon: Daemon) -> None:
    channel = open_channel(daemon)
    channel.confirm_delivery()
    channel.queue_declare("dead", durable=True)
    to_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    channel.queue_declare("aging", durable=True, arguments=to_dead)
    for body, lifetime_ms in ((b"old", "1"), (b"young", "600000")):
        properties = pika.BasicProperties(delivery_mode=2, expiration=lifetime_ms)
        channel.basic_publish("", "aging", body, properties)
    method, _, body = next(channel.consume("dead"))
    assert method is not None
    assert body == b"old"
    channel.basic_publish("", "dead", b"behind that", PERSISTENT)
    close(channel)
    daemon.kill()
    daemon.start()
    channel = open_channel(daemon)
    counts = {
        queue: channel.queue_declare(queue, passive=True).method.message_count
        for queue in ("aging", "dead")
    }
    assert counts == {"aging": 1, "dead": 2}
    _, _, body = channel.basic_get("aging")
    assert body == b"young"
    close(channel)
