"""x-jms-topic exchanges of several nodes, of this version and of those before."""

from __future__ import annotations

from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelPreconditionFailed
from pamqp.common import FieldTable

from fluffle.broker.metadata.nodes import DELAYS
from tests.support.cluster_nodes import ClusterNode, running_cluster

SELECTOR: FieldTable = {"rjms_erlang_selector": "{'>',{'ident',<<\"n\">>},5}."}


async def selected(channel: AbstractChannel, exchange: str) -> list[bytes]:
    """Bodies that get into the queue, of four messages."""
    published = await channel.get_exchange(exchange)
    for n in (4, 5, 6, 7):
        await published.publish(aio_pika.Message(b"%d" % n, headers={"n": n}), "k", mandatory=False)
    queue = await channel.get_queue("q")
    bodies: list[bytes] = []
    while (message := await queue.get(fail=False)) is not None:
        bodies.append(message.body)
        await message.ack()
    return bodies


async def restarted(node: ClusterNode) -> None:
    await node.stop()
    await node.start()


@pytest.mark.parametrize("kind", ["x-jms-topic", "x-delayed-message"])
async def test_no_exchange_is_made_while_a_node_is_of_an_older_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The node could not apply such a definition, and would stop."""
    inner: FieldTable = {"x-delayed-type": "x-jms-topic"} if kind == "x-delayed-message" else {}
    async with running_cluster(tmp_path) as three:
        monkeypatch.setattr("fluffle.broker.metadata.nodes.KNOWS", DELAYS)
        await restarted(three["b"])
        await three.agree()
        async with await aio_pika.connect(three["a"].url) as connection:
            channel = await connection.channel()
            with pytest.raises(ChannelPreconditionFailed, match="node 'b' is of a version that"):
                await channel.declare_exchange("x", kind, durable=True, arguments=inner)
        monkeypatch.undo()
        await restarted(three["b"])
        await three.agree()
        async with await aio_pika.connect(three["b"].url) as connection:
            channel = await connection.channel()
            await channel.declare_exchange("x", kind, durable=True, arguments=inner)
            await channel.declare_queue("q", durable=True, arguments={"x-queue-type": "quorum"})
            await (await channel.get_queue("q")).bind("x", "k", arguments=SELECTOR)
            assert await selected(channel, "x") == [b"6", b"7"]
        for name in "bc":
            await three.agree()
            await restarted(three[name])
            async with await aio_pika.connect(three[name].url) as connection:
                assert await selected(await connection.channel(), "x") == [b"6", b"7"]
