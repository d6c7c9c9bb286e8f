"""Commands about queues, where they end otherwise than they began."""

from collections.abc import Iterator

import pika
import pytest

from fluffle.broker.cli.client import LocalClient
from fluffle.broker.cli.output import Row
from tests.broker.cli.running_node import RunningNode, run


def test_a_move_that_is_interrupted_says_how_many_it_has_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def some_rows(_client: LocalClient, _verb: str, **_arguments: object) -> Iterator[Row]:
        yield {"moved": 7, "ready": 20, "skipped": 0}
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalClient, "rows", some_rows)
    result = run("queues", "move", "from", "to")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: interrupted: at least 7 messages were moved, all others are where they were\n"
    )


def test_a_quorum_queue_is_deleted_if_it_is_empty_and_unused(node: RunningNode) -> None:
    """AMQP clients cannot ask for that."""
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", node.port)) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        channel.basic_publish("", "q", b"1")
        delete = ("queues", "delete", "q")
        assert node.refusal(*delete, "--if-empty") == "queue 'q' in vhost '/' not empty"
        channel.queue_purge("q")
        tag = channel.basic_consume("q", lambda *_: None)
        assert node.refusal(*delete, "--if-unused") == "queue 'q' in vhost '/' in use"
        channel.basic_cancel(tag)
        assert node.output(*delete, "--if-empty", "--if-unused") == "0\n"
