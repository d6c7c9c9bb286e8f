"""Retained messages of real nodes: on disk, on all nodes, and in snapshots."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

from fluffle.broker.base.callbacks import answer_of
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.message import RetainedMessage
from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.config.config import Config, ListenAddress, MqttConfig
from fluffle.broker.definitions.retained import RetainedLimitReached, RetainedStore
from fluffle.broker.node import Node
from tests.compat.mqtt.client import Client
from tests.support.cluster_nodes import ClusterNode, running_cluster, until
from tests.support.deadlines import soon


async def retain(store: RetainedStore, topic: str, content: bytes | None) -> BrokerError | None:
    """Put a retained message as a publisher does that waits for the answer."""
    message = None if content is None else RetainedMessage(content, b"a", "guest", store.now_ms())
    async with soon():
        return await answer_of(
            lambda answer: store.put("/", topic, message, partial(answer, None), answer)
        )


def store_of(node: Node) -> RetainedStore:
    return node._services.retained


def contents(node: Node) -> dict[str, bytes]:
    return {topic: kept.content for topic, kept in node.catalogue.vhosts["/"].retained}


def snapshot_steps(node: ClusterNode) -> int:
    """Have a snapshot of the definitions taken; in how many steps it was made."""
    group, steps = node.cluster.running.host.group(METADATA_GROUP), 1
    while group.snapshot() is None:
        steps += 1
    return steps


async def restarted(node: ClusterNode) -> None:
    await node.kill()
    await node.start()


async def test_a_node_that_is_alone_has_it_when_it_starts_again(tmp_path: Path) -> None:
    config = Config(
        listen=ListenAddress("127.0.0.1", 0),
        data_dir=tmp_path,
        mqtt=MqttConfig(retained_messages_max=2),
    )
    node = Node(config)
    await node.start()
    large = bytes(1 << 20)
    for topic, content in (("a/b", b"1"), ("a/c", b"1"), ("a/b", b"2"), ("large", large)):
        assert await retain(store_of(node), topic, content) is None
        if topic == "a/c":
            refused = await retain(store_of(node), "beyond the limit", b"")
            assert isinstance(refused, RetainedLimitReached)
            assert await retain(store_of(node), "a/c", None) is None
    await node.stop("test")
    node = Node(replace(config))
    await node.start()
    assert contents(node) == {"a/b": b"2", "large": large}
    await node.stop("test")


async def test_all_nodes_have_it_whoever_leads_and_whoever_starts_again(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as three:
        await until(lambda: any(node.cluster.metadata.leads for node in three))
        leader = next(node for node in three if node.cluster.metadata.leads)
        first, second = (node for node in three if node is not leader)
        expected = {"a": b"2"}
        for topic, content in (("a", b"1"), ("b", b"1"), ("a", b"2"), ("b", None)):
            assert await retain(store_of(first.node), topic, content) is None
        await until(lambda: all(contents(node.node) == expected for node in three))

        await leader.kill()
        assert await retain(store_of(second.node), "c", b"3") is None
        expected |= {"c": b"3"} | {f"many/{number}": b"%d" % number for number in range(1_500)}
        store = store_of(second.node)
        many = (retain(store, *each) for each in expected.items())
        assert set(await asyncio.gather(*many)) == {None}
        await until(lambda: contents(first.node) == expected)
        for node in (first, second):
            assert snapshot_steps(node) > 1
        await leader.start()
        await until(lambda: contents(leader.node) == expected)

        assert await retain(store_of(second.node), "d", b"4") is None
        expected["d"] = b"4"
        await until(lambda: all(contents(node.node) == expected for node in three))
        for node in three:
            assert snapshot_steps(node) > 1
        for node in three:
            await restarted(node)
            await until(lambda: contents(node.node) == expected)  # noqa: B023


def published(address: tuple[str, int], topic: str, payload: bytes) -> None:
    """Publish with RETAIN and QoS 1, and wait for the answer."""
    client = Client(address, "publisher").quietly()
    answer = client.publish(topic, payload, qos=1, retain=True)
    assert answer is not None
    assert answer.code in (0x00, 0x10)
    client.close()


def retained_at(address: tuple[str, int], topic_filter: str, count: int) -> dict[str, bytes]:
    """Messages that a new client is sent when it subscribes."""
    client = Client(address, "subscriber").quietly()
    client.subscribe(topic_filter)
    found: dict[str, bytes] = {}
    for heard in client.take(count):
        assert heard.publish is not None
        assert heard.publish.retain
        payload = heard.publish.payload
        assert isinstance(payload, bytes)
        found[str(heard.publish.topic)] = payload
    client.close()
    return found


async def test_clients_of_mqtt_get_it_at_any_node(tmp_path: Path) -> None:
    config = Config(mqtt=MqttConfig(listen=(ListenAddress("127.0.0.1", 0),)))
    async with running_cluster(tmp_path, config=config) as three:
        a, b, c = three
        for number, node in enumerate((a, b, c)):
            address = node.node.addresses["mqtt"]
            await asyncio.to_thread(published, address, f"a/{number}", b"%d" % number)
        expected = {f"a/{number}": b"%d" % number for number in range(3)}
        for node in three:
            await three.agree()
            address = node.node.addresses["mqtt"]
            assert await asyncio.to_thread(retained_at, address, "a/+", 3) == expected
        await a.kill()
        await until(lambda: any(node.cluster.metadata.leads for node in (b, c)))
        address = b.node.addresses["mqtt"]
        await asyncio.to_thread(published, address, "a/0", b"new")
        await three.agree()
        found = await asyncio.to_thread(retained_at, c.node.addresses["mqtt"], "a/#", 3)
        assert found == expected | {"a/0": b"new"}
