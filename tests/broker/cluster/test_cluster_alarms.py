"""What is low on one node holds the publishers of all back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aio_pika
import pytest

from fluffle.broker.alarms.alarms import Alarms
from fluffle.broker.cluster.ports import FrameKind, TrafficClass
from tests.support.cluster_nodes import ClusterNode, running_cluster, until


def alarms(node: ClusterNode) -> Alarms:
    return node.node._services.alarms


async def test_an_alarm_of_one_node_is_one_of_all_while_there_is_a_link(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        alarms(three["a"]).set("memory", low=True)
        await until(lambda: all(alarms(node).reason == "low on memory" for node in three))
        assert [alarms(node).raised for node in three] == [("memory",), (), ()]
        alarms(three["b"]).set("disk", low=True)
        await until(lambda: alarms(three["c"]).reason == "low on disk & memory")
        await three["c"].kill()
        await three["c"].start()
        await until(lambda: alarms(three["c"]).reason == "low on disk & memory")
        await three["a"].kill()
        await until(lambda: alarms(three["c"]).reason == "low on disk")
        alarms(three["b"]).set("disk", low=False)
        await until(lambda: all(alarms(node).reason == "" for node in three.running))


async def test_a_publisher_of_another_node_is_held_back(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        connection = await aio_pika.connect(three["b"].url)
        async with connection:
            channel = await connection.channel()
            await channel.declare_queue("q", durable=True)
            alarms(three["a"]).set("disk", low=True)
            await until(lambda: bool(alarms(three["b"]).reason))
            message = aio_pika.Message(b"m", delivery_mode=2)
            publish = asyncio.ensure_future(channel.default_exchange.publish(message, "q"))
            connections = three["b"].node._services.connections
            await until(lambda: any(each.state == "blocked" for each in connections))
            assert not publish.done()
            alarms(three["a"]).set("disk", low=False)
            await publish


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\xa6memory", b"\x91\xa4time", b"\x91\x01"])
async def test_what_is_no_alarm_is_refused(
    tmp_path: Path, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_cluster(tmp_path, 2) as two:
        links = two["a"].cluster.links
        await until(lambda: links.is_up("b"))
        links.send("b", FrameKind.ALARM, payload, lane=TrafficClass.URGENT)
        await until(lambda: "frame_rejected" in [each.getMessage() for each in caplog.records])
        assert alarms(two["b"]).reason == ""
