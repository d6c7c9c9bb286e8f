"""The control API of a cluster: its nodes, disks and network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest

from fluffle.broker import Cluster
from fluffle.broker.testing.server.cluster_operations import OPERATIONS
from fluffle.broker.testing.server.operations import OperationDispatcher
from tests.support.control_api import Api


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with Cluster(nodes=3, seed=1) as cluster:
        yield Api(OperationDispatcher(cluster, OPERATIONS))


@pytest.fixture
async def vhost(api: Api) -> dict[str, Any]:
    """Virtual host with a quorum queue, in which there is a message."""
    vhost: dict[str, Any] = await api.post("vhosts/add")
    async with await aio_pika.connect(vhost["url"]) as connection:
        arguments: dict[str, Any] = {"x-queue-type": "quorum"}
        channel = await connection.channel()
        await channel.declare_queue("orders", durable=True, arguments=arguments)
    await api.post("vhosts/test-1/publish", routing_key="orders", body="first")
    await api.post("vhosts/test-1/expect", queue="orders", count=1, within=10)
    return vhost


async def states(api: Api) -> list[str]:
    return [node["state"] for node in (await api.post("nodes"))["nodes"]]


@pytest.mark.usefixtures("vhost")
async def test_a_leader_dies_and_another_has_its_messages(api: Api) -> None:
    former = (await api.post("vhosts/test-1/leader", queue="orders"))["node"]
    assert (await api.post("vhosts/test-1/members", queue="orders"))["nodes"] == [0, 1, 2]
    await api.post(f"nodes/{former}/kill")
    assert (await states(api))[former] == "down"
    leader = await api.post("vhosts/test-1/leader", queue="orders", other_than=former)
    assert leader["node"] != former
    seen = await api.post("vhosts/test-1/messages", queue="orders")
    assert [message["body"] for message in seen["messages"]] == ["first"]
    assert await api.fails(f"nodes/{former}/pause") == (409, f"node {former} is down")
    await api.post(f"nodes/{former}/start")
    await api.post("vhosts/test-1/move_leader", queue="orders", node=former)
    assert await api.post("vhosts/test-1/leader", queue="orders") == {"node": former}


@pytest.mark.usefixtures("vhost")
async def test_nobody_leads_while_no_node_sees_a_majority(api: Api) -> None:
    await api.post("net/partition", sides=[[0], [1], [2]])
    status, why = await api.fails("vhosts/test-1/expect", queue="orders", count=2, within=0.01)
    assert (status, "has not had 2 messages" in why) == (409, True)
    await api.post("net/heal")
    await api.post("vhosts/test-1/leader", queue="orders")


async def test_clients_of_a_node_are_reached_by_its_name(api: Api, vhost: dict[str, Any]) -> None:
    assert len(vhost["urls"]) == 3
    assert vhost["mqtt_urls"][0] == vhost["mqtt_url"]
    async with await aio_pika.connect(vhost["urls"][2]):
        found = [
            len((await api.post(f"nodes/{number}/vhosts/test-1/connections/list"))["connections"])
            for number in range(3)
        ]
        assert found == [0, 0, 1]
    await api.post("nodes/2/pause")
    assert await states(api) == ["running", "running", "paused"]
    assert await api.fails("nodes/2/vhosts/test-1/faults/list") == (409, "node 2 is paused")
    await api.post("nodes/2/resume")
    assert await api.post("nodes/2/vhosts/test-1/faults/list") == {"faults": []}


@pytest.mark.parametrize(
    ("path", "arguments", "status", "why"),
    [
        ("nodes/3/kill", {}, 404, "there is no node 3, but 0 to 2"),
        ("nodes/-1/kill", {}, 404, "there is no node -1, but 0 to 2"),
        ("nodes/0/vhosts/gone/faults/list", {}, 404, "vhost 'gone' does not exist"),
        ("vhosts/gone/leader", {"queue": "orders"}, 404, "vhost 'gone' does not exist"),
        ("vhosts/%2F/members", {"queue": "orders"}, 404, "no queue 'orders' in vhost '/'"),
        ("vhosts/%2F/leader", {"queue": "orders", "within": 0.01}, 409, "no queue 'orders'"),
        ("net/cut", {"from_node": 0, "to_node": 0}, 400, "no way from node 0 to node 0"),
        ("net/partition", {"sides": [[0], [0, 1]]}, 400, "not the sides of a partition"),
        ("net/partition", {"sides": [0]}, 400, "must be a list of lists of whole numbers"),
        ("net/drop", {"share": 1.5}, 400, "no share"),
        ("nodes/0/start", {}, 409, "node 0 is running"),
        ("nodes/0/disk/corrupt", {"body": "nowhere"}, 400, "nowhere"),
    ],
)
async def test_what_cannot_be_done_is_reported(
    api: Api, path: str, arguments: dict[str, Any], status: int, why: str
) -> None:
    found, result = await api.fails(path, **arguments)
    assert found == status, result
    assert why in result
    assert await states(api) == ["running"] * 3
