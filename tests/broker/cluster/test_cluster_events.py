"""Events and firehose of any node of a cluster, for consumers on any other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from fluffle.broker.config.config import Config
from tests.broker.cluster.queues.test_quorum_queues import QUORUM, Inbox, Scene, publish
from tests.support.cluster_nodes import start_cluster, until
from tests.support.deadlines import soon


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    nodes = await start_cluster(tmp_path, config=Config(event_exchange=True))
    async with AsyncExitStack() as stack:
        yield Scene(nodes, stack)
    await nodes.stop()


async def listening(channel: AbstractChannel, exchange: str, name: str) -> Inbox:
    """All that an exchange says, in a queue of this node."""
    queue = await channel.declare_queue(name, exclusive=True)
    await queue.bind(exchange, "#")
    inbox = Inbox()
    await queue.consume(inbox.take, no_ack=True)
    return inbox


def events(inbox: Inbox, what: str, **headers: str) -> list[AbstractIncomingMessage]:
    return [
        message
        for message in inbox.messages
        if message.routing_key == what
        and all(message.headers.get(key) == value for key, value in headers.items())
    ]


async def hears(inbox: Inbox, what: str, **headers: str) -> None:
    await until(lambda: bool(events(inbox, what, **headers)))


async def test_each_node_tells_once_what_happens_on_it_and_all_hear_it(scene: Scene) -> None:
    """Each node publishes its own events, as with RabbitMQ, and repeats none of another."""
    inboxes = [
        await listening(await scene.channel(name), "amq.rabbitmq.event", f"at {name}")
        for name in "bc"
    ]
    channel = await scene.channel("a")
    queue = await channel.declare_queue("q", durable=True, arguments=QUORUM)
    tag = await queue.consume(Inbox().take, consumer_tag="tag")
    await queue.cancel(tag)
    await queue.delete(if_unused=False, if_empty=False)
    await channel.declare_queue("last", exclusive=True)
    for inbox in inboxes:
        await hears(inbox, "queue.created", name="last")
        for what, headers in (
            ("queue.created", {"name": "q"}),
            ("queue.deleted", {"name": "q"}),
            ("consumer.created", {"consumer_tag": "tag"}),
            ("consumer.deleted", {"consumer_tag": "tag"}),
        ):
            assert len(events(inbox, what, **headers)) == 1, what
    nodes = [str(each.headers["node"]) for each in events(inboxes[0], "connection.created")]
    assert sorted(nodes) == ["a", "c"], "that at b was opened before"


async def test_what_an_operator_does_at_a_node_is_reported_once(scene: Scene) -> None:
    inbox = await listening(await scene.channel("c"), "amq.rabbitmq.event", "events")
    await scene.nodes["a"].ask("vhosts.add", name="one")
    await scene.nodes["b"].ask("vhosts.add", name="last")
    await hears(inbox, "vhost.created", name="last")
    assert len(events(inbox, "vhost.created", name="one")) == 1


async def test_the_firehose_is_of_one_node_and_heard_at_all(scene: Scene) -> None:
    """An operator switches the firehose on at each node whose clients are of interest, as with
    RabbitMQ."""
    inbox = await listening(await scene.channel("b"), "amq.rabbitmq.trace", "copies")
    await scene.declare("a")
    await scene.nodes["a"].ask("vhosts.trace", name="/", on=True)
    await publish(await scene.channel("c"), b"at c")
    await publish(await scene.channel("a"), b"at a")
    queue = await (await scene.channel("a")).get_queue("q")
    for body in (b"at c", b"at a"):
        async with soon():
            message = await queue.get(no_ack=True)
        assert message is not None
        assert message.body == body
    async with soon():
        await inbox.has(3)
    assert [(each.routing_key, each.body) for each in inbox.messages] == [
        ("publish.", b"at a"),
        ("deliver.q", b"at c"),
        ("deliver.q", b"at a"),
    ]
    assert {str(each.headers["node"]) for each in inbox.messages} == {"a"}
