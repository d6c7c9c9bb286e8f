"""x-delayed-message on three whole nodes: what was confirmed comes, whoever has died meanwhile.

RabbitMQ's plugin has one copy of each message and loses it with its node, as its README says under
"Limitations".  What is expected here is in docs/compatibility.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractExchange, AbstractQueue
from aiormq.exceptions import ChannelPreconditionFailed
from pamqp.common import FieldTable

from fluffle.broker.metadata.nodes import CHANGES_TYPES
from tests.broker.cluster.queues.test_quorum_queues import QUORUM, Inbox, Scene
from tests.support.cluster_nodes import running_cluster, until
from tests.support.deadlines import soon

HELD = "amq.delayed.x"


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_cluster(tmp_path) as three, AsyncExitStack() as stack:
        yield Scene(three, stack)


async def declare(scene: Scene, name: str) -> AbstractExchange:
    channel = await scene.channel(name)
    arguments: FieldTable = {"x-delayed-type": "direct"}
    exchange = await channel.declare_exchange(
        "x", "x-delayed-message", durable=True, arguments=arguments
    )
    queue = await channel.declare_queue("q", durable=True, arguments=QUORUM)
    await queue.bind("x", "k")
    return exchange


async def send(exchange: AbstractExchange, delays_ms: list[int]) -> None:
    """A message for each, with its number; returns when all are confirmed."""
    async with soon():
        await asyncio.gather(
            *(
                exchange.publish(aio_pika.Message(b"%d" % at, headers={"x-delay": delay_ms}), "k")
                for at, delay_ms in enumerate(delays_ms)
            )
        )


async def consumed(scene: Scene, name: str) -> Inbox:
    """Messages consumed and held: those under way when a leader dies are lost only without acks."""
    queue: AbstractQueue = await (await scene.channel(name)).get_queue("q")
    inbox = Inbox()
    await queue.consume(inbox.take)
    return inbox


async def has_each(inbox: Inbox, count: int) -> None:
    """Until each has come, and once: a quorum queue knows what it has had."""
    async with soon():
        await until(lambda: len({*inbox.bodies}) == count)
    assert sorted(inbox.bodies, key=int) == [b"%d" % number for number in range(count)]


async def test_it_is_on_all_nodes_and_serves_any(scene: Scene) -> None:
    await declare(scene, "a")
    await scene.nodes.agree()
    definition = scene.nodes["c"].node.catalogue.vhosts["/"].queues[HELD].definition
    assert sorted(dict(definition.members)) == ["a", "b", "c"]
    exchange = await (await scene.channel("b")).get_exchange("x")
    inbox = await consumed(scene, "c")
    await send(exchange, [400, 150, 600])
    async with soon():
        await inbox.has(3)
    assert inbox.bodies == [b"1", b"0", b"2"]
    assert [message.headers["x-delay"] for message in inbox.messages] == [-150, -400, -600]


async def test_the_leader_is_killed_and_all_come(scene: Scene) -> None:
    await declare(scene, "a")
    await scene.nodes.agree()
    exchange = await (await scene.channel("b")).get_exchange("x")
    inbox = await consumed(scene, "c")
    await scene.is_led_by("a", HELD)
    await send(exchange, [100 + 25 * at for at in range(100)])
    await scene.nodes["a"].kill()
    await has_each(inbox, 100)
    assert scene.leader(HELD) in ("b", "c")


async def test_all_are_killed_and_what_was_confirmed_comes(scene: Scene) -> None:
    exchange = await declare(scene, "a")
    await send(exchange, [1_000 + 10 * at for at in range(50)])
    for node in scene.nodes:
        await node.kill()
    await scene.nodes.start()
    inbox = await consumed(scene, "b")
    await has_each(inbox, 50)


async def test_it_goes_from_all_nodes_with_its_exchange(scene: Scene) -> None:
    exchange = await declare(scene, "a")
    await send(exchange, [3_600_000])
    group = scene.nodes["a"].node.catalogue.vhosts["/"].queues[HELD].definition.id
    await exchange.delete()
    await scene.nodes.agree()
    for node in scene.nodes:
        assert HELD not in node.node.catalogue.vhosts["/"].queues
        await until(lambda node=node: group not in node.node.parts.cluster_view.groups)  # type: ignore[misc]


async def test_no_exchange_is_made_while_a_node_is_of_an_older_version(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node could not apply such a definition, and would stop."""
    monkeypatch.setattr("fluffle.broker.metadata.nodes.KNOWS", CHANGES_TYPES)
    await scene.nodes["b"].stop()
    await scene.nodes["b"].start()
    await scene.nodes.agree()
    with pytest.raises(ChannelPreconditionFailed, match="node 'b' is of a version that knows noth"):
        await declare(scene, "a")
    assert HELD not in scene.nodes["a"].node.catalogue.vhosts["/"].queues
    monkeypatch.undo()
    await scene.nodes["b"].stop()
    await scene.nodes["b"].start()
    await declare(scene, "a")


async def test_a_leader_that_knows_less_than_others_lets_go_of_nothing(tmp_path: Path) -> None:
    """The leader is cut off from the metadata leader, but not from the client's node."""
    async with running_cluster(tmp_path, is_cuttable=True) as three, AsyncExitStack() as stack:
        scene = Scene(three, stack)
        orders = three["a"].cluster.metadata.leader
        assert orders is not None
        due, seen = (name for name in "abc" if name != orders)
        channel = await scene.channel(due)
        arguments: FieldTable = {"x-delayed-type": "direct"}
        await channel.declare_exchange("x", "x-delayed-message", durable=True, arguments=arguments)
        await three.agree()
        await scene.is_led_by(due, HELD)
        three.cut(due, orders)
        channel = await scene.channel(seen)
        queue = await channel.declare_queue("q", durable=True, arguments=QUORUM)
        await queue.bind("x", "k")
        await send(await channel.get_exchange("x"), [100])
        if scene.leader(HELD) == due:
            letters = three[due].node._begun.dead_letters
            await until(lambda: bool(letters._asking) or scene.leader(HELD) != due)
        three.mend(due, orders)
        await has_each(await consumed(scene, seen), 1)
