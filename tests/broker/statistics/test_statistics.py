"""A node with real clients, whose counts are asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.node import Node
from fluffle.broker.statistics.statistics import Statistics

LOOPBACK = ListenAddress("127.0.0.1", 0)


@asynccontextmanager
async def counting(data_dir: Path) -> AsyncIterator[tuple[Node, Statistics]]:
    node = Node(Config(listen=LOOPBACK, metrics_listen=LOOPBACK, data_dir=data_dir))
    await node.start()
    try:
        assert isinstance(node.parts.statistics, Statistics)
        yield node, node.parts.statistics
    finally:
        await node.stop("shutdown")


def counts(row: dict[str, Any]) -> dict[str, int]:
    stats = row.get("message_stats", {})
    return {name: value for name, value in stats.items() if isinstance(value, int) and value}


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_queues_of_each_type_are_counted_alike(tmp_path: Path, kind: str) -> None:
    async with counting(tmp_path) as (node, statistics):
        host, port = node.addresses["amqp"]
        async with await aio_pika.connect(f"amqp://{host}:{port}/") as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1)
            arguments: dict[str, Any] = {"x-queue-type": kind}
            queue = await channel.declare_queue("q", durable=True, arguments=arguments)
            for body in (b"1", b"2", b"3"):
                await channel.default_exchange.publish(aio_pika.Message(body), "q")
            first = await queue.get()
            await first.nack(requeue=True)
            async with queue.iterator() as messages:
                for _ in range(3):
                    await (await anext(messages)).ack()
            assert await queue.get(fail=False) is None
            got = {"get": 1, "get_empty": 1, "deliver": 3, "redeliver": 1, "ack": 3}
            queue_counts = {"publish": 3, **got, "deliver_get": 4}
            assert counts(statistics.of_queue("/", "q")) == queue_counts
            assert counts(statistics.totals()) == queue_counts | {"confirm": 3}
            (server_side,) = node.parts.connections
            row = statistics.of_connection(server_side)
            assert row["recv_oct"] > 500
            assert row["send_oct"] > 500
            await channel.queue_delete("q")
            await channel.declare_queue("q", durable=True, arguments=arguments)
            assert counts(statistics.of_queue("/", "q")) == {}
        churn = statistics.churn()
        assert (churn["queue_created"], churn["queue_deleted"], churn["queue_declared"]) == (
            2,
            1,
            2,
        )


async def test_nobody_counts_in_a_node_that_tells_nobody(tmp_path: Path) -> None:
    node = Node(Config(listen=LOOPBACK, data_dir=tmp_path))
    await node.start()
    try:
        assert node.parts.statistics is None
    finally:
        await node.stop("shutdown")
