"""Clients of three whole nodes, at one quorum queue: what one does any other sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError, QueueEmpty

from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queues.session_queue import SessionQueue
from fluffle.broker.queues.queue_api import DeliveryBatch
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.topic_filter import FilterBinding, arguments_of
from fluffle.broker.vhosts.queue_changes import subscribe, subscriptions
from fluffle.broker.vhosts.vhost import set_tracer
from tests.broker.cluster.queues.test_quorum_queues import QUORUM, Inbox, Scene, publish, scene
from tests.support.cluster_nodes import ClusterNode, until
from tests.support.deadlines import soon

__all__ = ["scene"]

NODES = "abc"


async def counts(scene: Scene, name: str) -> tuple[int | None, int | None]:
    """Ready messages and consumers, as a node tells its clients."""
    channel = await scene.channel(name)
    queue = await channel.declare_queue("q", passive=True)
    result = queue.declaration_result
    await channel.close()
    return result.message_count, result.consumer_count


async def inbox_at(scene: Scene, name: str, **how: Any) -> Inbox:
    """A consumer through a node."""
    channel = await scene.channel(name)
    if "prefetch" in how:
        await channel.set_qos(how.pop("prefetch"))
    inbox = Inbox()
    await (await channel.get_queue("q")).consume(inbox.take, **how)
    return inbox


async def test_counts_are_the_same_everywhere(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("b"), b"1", b"2", b"3")
    await inbox_at(scene, "c", prefetch=1)
    for name in NODES:
        await until_counts(scene, name, (2, 1))
    channel = await scene.channel("b")
    async with soon():
        purged = await (await channel.get_queue("q")).purge()
    assert purged.message_count == 2
    for name in NODES:
        assert await counts(scene, name) == (0, 1)


async def until_counts(scene: Scene, name: str, expected: tuple[int, int]) -> None:
    async with soon():
        while await counts(scene, name) != expected:
            pass


async def test_a_message_is_got_once_wherever_it_is_asked_for(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("b"), *(b"%d" % n for n in range(6)))
    got = []
    for name in NODES * 2:
        queue = await (await scene.channel(name)).get_queue("q")
        async with soon():
            message = await queue.get()
        assert message.redelivered is False
        got.append(message.body)
        await message.ack()
    assert got == [b"%d" % n for n in range(6)]
    with pytest.raises(QueueEmpty):
        await (await (await scene.channel("c")).get_queue("q")).get()


async def test_what_one_node_gives_back_another_gets_with_counts(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("a"), b"m")
    for at, name in enumerate(NODES):
        message = await (await (await scene.channel(name)).get_queue("q")).get()
        headers = {"x-acquired-count": at} if at else {}
        assert (message.redelivered, message.headers) == (at > 0, headers)
        await message.nack(requeue=True)
        await until_counts(scene, "a", (1, 0))


async def test_a_lost_connection_gives_back_and_counts_as_failed(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("a"), b"m")
    connection = await aio_pika.connect(scene.nodes["b"].url)
    channel = await connection.channel()
    assert (await (await channel.get_queue("q")).get()).body == b"m"
    await connection.close()
    await until_counts(scene, "c", (1, 0))
    again = await (await (await scene.channel("c")).get_queue("q")).get()
    assert again.headers == {"x-acquired-count": 1, "x-delivery-count": 1}


async def test_consumers_of_all_nodes_take_turns(scene: Scene) -> None:
    await scene.declare("a")
    inboxes = [await inbox_at(scene, name, no_ack=True) for name in NODES]
    await publish(await scene.channel("b"), *(b"%d" % n for n in range(30)))
    await until(lambda: sum(len(inbox.messages) for inbox in inboxes) == 30)
    assert all(inbox.messages for inbox in inboxes)
    assert sorted(body for inbox in inboxes for body in inbox.bodies) == sorted(
        b"%d" % n for n in range(30)
    )


async def test_a_higher_priority_is_served_first_wherever_it_is(scene: Scene) -> None:
    await scene.declare("a")
    low = await inbox_at(scene, "a", prefetch=2)
    high = await inbox_at(scene, "c", prefetch=2, arguments={"x-priority": 5})
    await publish(await scene.channel("b"), b"1", b"2", b"3")
    await until(lambda: len(low.messages) + len(high.messages) == 3)
    assert (high.bodies, low.bodies) == ([b"1", b"2"], [b"3"])


async def test_a_deletion_is_reported_to_consumers_of_all_nodes(scene: Scene) -> None:
    queue = await scene.declare("a")
    ended: list[tuple[Any, str]] = []
    for name in NODES:
        channel = await scene.channel(name)
        tag = await (await channel.get_queue("q")).consume(Inbox().take)
        ended.append((await channel.get_underlay_channel(), tag))
    await publish(await scene.channel("b"), b"unwanted")
    deleted = await queue.delete(if_unused=False, if_empty=False)
    assert deleted is not None
    await until(lambda: all(tag not in underlay.consumers for underlay, tag in ended))
    for name in NODES:
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await (await scene.channel(name)).declare_queue("q", passive=True)


async def test_a_message_for_several_queues_is_confirmed_once_all_have_it(scene: Scene) -> None:
    await scene.declare("a", "q")
    await scene.declare("b", "r")
    channel = await scene.channel("c")
    exchange = await channel.get_exchange("amq.fanout")
    here = await channel.declare_queue("here", durable=True)
    for name in ("q", "r", "here"):
        await (await channel.get_queue(name)).bind(exchange)
    async with soon():
        await exchange.publish(aio_pika.Message(b"m", delivery_mode=2), "")
    for name in ("q", "r", "here"):
        assert (await (await channel.get_queue(name)).get()).body == b"m"
    await here.delete(if_unused=False, if_empty=False)


async def test_a_transaction_is_whole_at_other_nodes(scene: Scene) -> None:
    await scene.declare("a")
    connection = await aio_pika.connect(scene.nodes["b"].url)
    channel = await connection.channel(publisher_confirms=False)
    async with soon(), channel.transaction():
        for n in range(3):
            await channel.default_exchange.publish(aio_pika.Message(b"%d" % n), "q")
    assert await counts(scene, "c") == (3, 0)
    await connection.close()


async def test_the_end_of_a_leader_is_a_pause_for_clients_of_others(scene: Scene) -> None:
    """Nothing is lost, nothing comes twice, and what was in hands stays there."""
    await scene.declare("a")
    await scene.is_led_by("a")
    publisher, inbox = await scene.channel("b"), await inbox_at(scene, "c", prefetch=10)
    await publish(publisher, *(b"%d" % n for n in range(10)))
    await until(lambda: len(inbox.messages) == 10)
    await scene.nodes["a"].kill()
    await publish(publisher, *(b"%d" % n for n in range(10, 15)))
    for message in list(inbox.messages):
        await message.ack()
    await until(lambda: len(inbox.messages) == 15)
    assert inbox.bodies == [b"%d" % n for n in range(15)]
    assert not any(message.redelivered for message in inbox.messages)
    for message in inbox.messages[10:]:
        await message.ack()
    await until_counts(scene, "b", (0, 1))


async def test_without_a_majority_a_message_waits_and_is_confirmed_when_it_heals(
    scene: Scene,
) -> None:
    await scene.declare("a")
    publisher = await scene.channel("b")
    await publish(publisher, b"0")
    await scene.nodes["a"].kill()
    await scene.nodes["c"].kill()
    publishing = asyncio.ensure_future(publish(publisher, b"1"))
    await until(lambda: pending(scene, "b") == 1)
    assert not publishing.done()
    await scene.nodes["a"].start()
    await publishing
    await until_counts(scene, "b", (2, 0))


def pending(scene: Scene, name: str) -> int:
    """Operations of a node's stream to the queue whose outcome it does not know."""
    queue = scene.nodes[name].node.catalogue.vhosts["/"].queues["q"]
    assert isinstance(queue, SessionQueue)
    return len(queue._port.session.pending)


async def test_a_slow_client_keeps_nothing_from_others(scene: Scene) -> None:
    await scene.declare("a")
    slow = Inbox()
    gate = asyncio.Event()

    async def wait(message: AbstractIncomingMessage) -> None:
        await gate.wait()
        await slow.take(message)

    channel = await scene.channel("b")
    await channel.set_qos(5)
    await (await channel.get_queue("q")).consume(wait)
    quick = await inbox_at(scene, "c", no_ack=True)
    body = b"m" * 10_000
    await publish(await scene.channel("a"), *[body] * 200)
    await until(lambda: len(quick.messages) == 195)
    gate.set()


async def test_what_a_full_queue_refuses_is_nacked_at_other_nodes(scene: Scene) -> None:
    channel = await scene.channel("a")
    arguments: Any = {"x-queue-type": "quorum", "x-max-length": 2, "x-overflow": "reject-publish"}
    await channel.declare_queue("q", durable=True, arguments=arguments)
    publisher = await scene.channel("c")
    await publish(publisher, b"1", b"2", b"3")
    async with soon():
        with pytest.raises(DeliveryError):
            await publisher.default_exchange.publish(aio_pika.Message(b"4"), "q")
    assert await counts(scene, "b") == (3, 0)


async def test_every_node_lists_what_is_in_a_queue(scene: Scene) -> None:
    await scene.declare("a")
    await publish(await scene.channel("b"), b"1", b"2", b"3")
    await inbox_at(scene, "c", prefetch=1)
    await until_counts(scene, "a", (2, 1))
    for name in NODES:
        row = await scene.nodes[name].ask("queues.show", name="q", vhost="/")
        assert (row["messages_ready"], row["messages_unacknowledged"]) == (2, 1)
        assert (row["messages"], row["consumers"]) == (3, 1)
        (listed,) = [row async for row in scene.nodes[name].listed("queues.list")]
        assert listed == row


async def test_one_node_tells_metrics_of_a_queue(scene: Scene) -> None:
    await scene.declare("a")
    await scene.is_led_by("a")
    await publish(await scene.channel("b"), b"1", b"2")
    here = {
        name: scene.nodes[name].node.catalogue.vhosts["/"].queues["q"].local_counts
        for name in NODES
    }
    assert here == {"a": (2, 0, 0, 0), "b": None, "c": None}


LONG_ANNOTATIONS = bytes(range(256)) * 250


class AnnotationsSeen:
    """A tracer that keeps the annotations of what is delivered through a node."""

    def __init__(self, node: ClusterNode) -> None:
        self.seen: list[bytes] = []
        set_tracer(node.node.catalogue.vhosts["/"], "annotations", self)

    def published(self, *_said: object) -> None: ...

    def delivered(self, _client: object, batch: DeliveryBatch, _first_tag: int) -> None:
        self.seen += [origin.annotations for origin in batch.origins]

    def purging(self, *_said: object) -> Callable[[], None]:
        return lambda: None


def annotated(exchange: str, routing_key: str, **_others: object) -> Origin:
    return Origin(exchange, routing_key, annotations=LONG_ANNOTATIONS)


async def test_annotations_survive_the_leader_and_go_along_to_a_dead_letter(scene: Scene) -> None:
    """Through a node that leads nothing, from a quorum queue into a classic one of another node."""
    dead = await scene.channel("b")
    await dead.declare_queue("dead", durable=True)
    arguments: dict[str, Any] = QUORUM | {"x-dead-letter-exchange": "amq.fanout"}
    queue = await (await scene.channel("a")).declare_queue("q", durable=True, arguments=arguments)
    await (await dead.get_queue("dead")).bind("amq.fanout")
    publishing = scene.nodes["c"].node.catalogue.vhosts["/"]
    unannotated = publishing.origin
    publishing.origin = cast(Any, annotated)
    await publish(await scene.channel("c"), b"1", b"2")
    publishing.origin = unannotated
    await publish(await scene.channel("c"), b"3")
    await scene.is_led_by("a")
    await scene.nodes["a"].kill()
    tracer = AnnotationsSeen(scene.nodes["c"])
    channel = await scene.channel("c")
    inbox = Inbox()
    queue = await channel.get_queue("q")
    await queue.consume(inbox.take)
    await inbox.has(3)
    assert tracer.seen == [LONG_ANNOTATIONS, LONG_ANNOTATIONS, b""]
    await inbox.messages[0].reject()
    await (await channel.get_queue("dead")).consume(inbox.take)
    await inbox.has(4)
    assert tracer.seen[3:] == [LONG_ANNOTATIONS]


def options_at(node: ClusterNode) -> list[int]:
    """The options of the subscriptions of `q` that a node knows."""
    vhost = node.node.catalogue.vhosts["/"]
    return sorted(found.options for _, found in subscriptions(vhost, "amq.topic", "q"))


def has_options(node: ClusterNode, options: int) -> bool:
    return options_at(node) == [options]


def knows(node: ClusterNode) -> bool:
    return "q" in node.node.catalogue.vhosts["/"].queues


async def test_a_subscription_is_one_on_all_nodes_whichever_has_changed_it(scene: Scene) -> None:
    """Two concurrent subscriptions are merged by the next change; no node has none meanwhile."""
    await scene.declare("a")

    async def subscribe_at(name: str, options: int) -> None:
        node = scene.nodes[name]
        vhost, arguments = (
            node.node.catalogue.vhosts["/"],
            arguments_of(FilterBinding("a/+", options)),
        )
        binding = Binding("amq.topic", "q", DestinationKind.QUEUE, "a.*", arguments)
        await node.change(lambda: subscribe(vhost, [binding], None))

    for node in scene.nodes:
        await until(partial(knows, node))
    await asyncio.gather(*(subscribe_at(name, 1 + at) for at, name in enumerate(NODES)))
    await scene.nodes.agree()
    for options, name in enumerate(NODES, 10):
        await subscribe_at(name, options)
        for node in scene.nodes:
            await until(partial(has_options, node, options))
