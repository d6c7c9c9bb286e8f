"""everywhere.rows of a cluster with real clients: any node tells of all that can be reached."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractConnection

from fluffle.broker import Cluster
from fluffle.broker.admin.all_nodes import rows as begin
from fluffle.broker.admin.context import Row
from fluffle.broker.admin.local_client import rows, wait_for
from fluffle.broker.cluster.cluster import ClusterService as NodesCluster
from fluffle.broker.cluster.rpc import OPEN_MAX
from fluffle.broker.queues.queue_api import Deferred

CHANNELS = 230
"""More than two pages of them."""


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """In which who can be reached is waited for, however slow the machine is."""
    async with Cluster(nodes=3) as cluster:
        for node in range(3):
            cluster_of(cluster, node).rpc_client.reply_timeout_s = 60.0
        yield cluster


def cluster_of(cluster: Cluster, node: int) -> NodesCluster:
    found = cluster[node].node.cluster
    assert found is not None
    return found


@pytest_asyncio.fixture
async def clients(cluster: Cluster) -> AsyncIterator[list[AbstractConnection]]:
    """Connections, one to each node."""
    async with AsyncExitStack() as opened:
        connections: list[AbstractConnection] = []
        for url in cluster.urls:
            connections.append(connection := await aio_pika.connect(url))
            await opened.enter_async_context(connection)
        yield connections


async def everywhere(cluster: Cluster, node: int, what: str, **arguments: object) -> list[Row]:
    """Rows of all nodes, from the given node."""
    return await rows(cluster[node].node.parts, "everywhere.rows", what=what, arguments=arguments)


NODES = ["node0", "node1", "node2"]


def silent(answers: list[Row]) -> list[str]:
    """Nodes that gave no answer; all are listed in order, once."""
    assert [row["node"] for row in answers] == NODES
    return [row["node"] for row in answers if "silent" in row]


@pytest.mark.usefixtures("clients")
async def test_each_node_tells_of_the_connections_of_all(cluster: Cluster) -> None:
    own = [await rows(cluster[node].node.parts, "connections.list") for node in range(3)]
    for node in range(3):
        found = await everywhere(cluster, node, "connections.list")
        assert found[0]["node"] == NODES[node]
        by_node = {row["node"]: row["row"]["name"] for row in found}
        assert [by_node[name] for name in NODES] == [row["name"] for (row,) in own]


async def test_long_lists_come_page_by_page(
    cluster: Cluster, clients: list[AbstractConnection]
) -> None:
    for _ in range(CHANNELS):
        await clients[1].channel()
    found = await everywhere(cluster, 0, "channels.list")
    assert Counter(row["node"] for row in found) == {"node1": CHANNELS}
    numbers = [row["row"]["number"] for row in found]
    assert numbers == list(range(1, CHANNELS + 1))


async def test_a_connection_is_closed_by_whichever_node_gets_the_command(
    cluster: Cluster, clients: list[AbstractConnection]
) -> None:
    gone = asyncio.Event()
    clients[2].close_callbacks.add(lambda *_: gone.set())
    (name,) = [row["name"] for row in await rows(cluster[2].node.parts, "connections.list")]
    found = await everywhere(cluster, 0, "connections.close", name=name, reason="enough")
    outcome = {each["node"]: each.get("row") or each["error"]["name"] for each in found}
    a, b, c = NODES
    assert outcome == {a: "NOT_FOUND", b: "NOT_FOUND", c: {"closed": 1}}
    await gone.wait()
    left = await everywhere(cluster, 0, "connections.list")
    assert sorted(row["node"] for row in left) == [a, b]


async def test_who_is_down_is_named(cluster: Cluster) -> None:
    await cluster.kill(2)
    assert silent(await everywhere(cluster, 0, "ping")) == ["node2"]
    context = cluster[0].node.parts
    alone = await rows(context, "everywhere.rows", what="ping", node="node1")
    assert alone == [{"node": "node1", "row": {}}]
    first, second, third = await rows(context, "nodes.list")
    assert (first["name"], second["name"]) == ("node0", "node1")
    assert first.keys() == second.keys()
    assert [each["name"] for each in first["cluster_links"]] == ["node1"]
    assert third == {
        "name": "node2",
        "type": "disc",
        "running": context.cluster_view.is_alive("node2"),
        "being_drained": False,
        "cluster_links": [],
    }


async def test_who_is_paused_or_cut_off_is_named_in_time(cluster: Cluster) -> None:
    await cluster.pause(1)
    await cluster.partition([0], [2])
    of_one, of_another = await asyncio.gather(
        everywhere(cluster, 0, "ping"), everywhere(cluster, 2, "ping")
    )
    assert silent(of_one) == ["node1", "node2"]
    assert silent(sorted(of_another, key=lambda row: str(row["node"]))) == ["node0", "node1"]


async def test_who_dies_in_the_middle_of_a_list_ends_it(
    cluster: Cluster, clients: list[AbstractConnection]
) -> None:
    for _ in range(CHANNELS):
        await clients[1].channel()
    found: list[Row] = []
    for row in begin(cluster[0].node.parts, what="channels.list"):
        if isinstance(row, Deferred):
            await wait_for(row)
        else:
            found.append(row)
            if len(found) == 1:
                await cluster.kill(1)
    assert "row" in found[0]
    assert found[-1] == {"node": "node1", "silent": "the link to it was lost"}
    assert len(found) < CHANNELS


async def test_a_node_of_an_earlier_version_is_not_asked(cluster: Cluster) -> None:
    cluster_of(cluster, 0).links.speaks["node1"] = 9
    answers = await everywhere(cluster, 0, "ping")
    assert answers[1] == {"node": "node1", "silent": "it is of an earlier version"}
    assert [list(each) for each in answers] == [
        ["node", "row"],
        ["node", "silent"],
        ["node", "row"],
    ]


async def test_lists_that_nobody_reads_to_their_end_hold_up_no_others(
    cluster: Cluster, clients: list[AbstractConnection]
) -> None:
    for _ in range(CHANNELS):
        await clients[1].channel()
    for _ in range(OPEN_MAX + 1):
        listed = begin(cluster[0].node.parts, what="channels.list")
        while isinstance(row := next(listed), Deferred):
            await wait_for(row)
        assert "row" in row
        del listed
