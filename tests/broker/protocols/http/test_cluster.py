"""Any node answers for all of them, and acts on what is at others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aio_pika
import pytest
import pytest_asyncio
from aiohttp import ClientSession

from fluffle.broker.admin import member_changes
from fluffle.broker.admin.context import Row
from fluffle.broker.admin.local_client import ask, rows
from fluffle.broker.cluster.queues import membership
from fluffle.broker.config.config import Config
from fluffle.broker.statistics.volumes import QUORUM_NAMES
from tests.support.cluster_nodes import make_calm, running_cluster, until
from tests.support.deadlines import DEADLINE_S, soon
from tests.support.management import HERE, Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE = {"routing_key": "q", "payload": "x", "payload_encoding": "string", "properties": {}}
TAKE = {"count": 9, "ackmode": "ack_requeue_false", "encoding": "auto"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Api, Api, Api]]:
    """APIs of three nodes."""
    config = Config(management_listen=HERE)
    with pytest.MonkeyPatch.context() as patching:
        make_calm(patching)
        async with served(tmp_path_factory.mktemp("nodes"), config) as apis:
            yield apis


@asynccontextmanager
async def served(directory: Path, config: Config) -> AsyncIterator[tuple[Api, Api, Api]]:
    async with (
        running_cluster(directory, config=config) as nodes,
        ClientSession() as session,
    ):
        for name in "abc":
            nodes[name].cluster.rpc_client.reply_timeout_s = 60.0  # however slow this machine is
        at, other, third = (Api(nodes[name].node, session) for name in "abc")
        yield at, other, third


async def declared(apis: tuple[Api, Api, Api], path: str, queue_type: str) -> None:
    """A queue that all nodes know."""
    body = {"durable": True, "arguments": {"x-queue-type": queue_type}}
    assert await apis[0].ask("PUT", path, json=body) == (201, None)
    for api in apis[1:]:
        status, _reported = await api.ask("PUT", path, json=body)
        assert status in (201, 204)  # it may not have heard of the queue before


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_queue_that_is_led_elsewhere(apis: tuple[Api, Api, Api], queue_type: str) -> None:
    at, other, third = apis
    path = f"queues/%2F/{queue_type}"
    await declared(apis, path, queue_type)
    message = {**MESSAGE, "routing_key": queue_type}
    for api in apis:
        answer = await api.ask("POST", "exchanges/%2F/amq.default/publish", json=message)
        assert answer == (200, {"routed": True})
    assert (await third.get(path))["messages"] == 3
    (listed,) = await other.get("queues")
    assert (listed["messages"], listed["node"]) == (3, (await at.get(path))["node"])
    status, taken = await other.ask("POST", f"{path}/get", json={**TAKE, "count": 1})
    assert (status, taken[0]["message_count"]) == (200, 2)
    assert await third.ask("DELETE", f"{path}/contents") == (204, None)
    assert (await at.get(path))["messages"] == 0
    assert await other.ask("DELETE", path) == (204, None)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_how_much_is_in_a_queue_whoever_leads_it_and_whoever_holds_it(
    apis: tuple[Api, Api, Api], queue_type: str
) -> None:
    """A node is asked, another one leads, and clients of all hold messages."""
    name = f"measured-{queue_type}"
    path = f"queues/%2F/{name}"
    await declared(apis, path, queue_type)
    async with AsyncExitStack() as clients:
        for number, api in enumerate(apis):
            connection = await aio_pika.connect(f"amqp://127.0.0.1:{api.amqp_port}/")
            channel = await (await clients.enter_async_context(connection)).channel()
            for _ in range(2):
                message = aio_pika.Message(b"x" * 100, delivery_mode=2, timestamp=77)
                await channel.default_exchange.publish(message, name)
            if number:
                await (await channel.get_queue(name)).get()
        for api in apis:
            row = await api.get(path)
            assert (row["messages_ready"], row["messages_unacknowledged"]) == (4, 2)
            assert (row["message_bytes_ready"], row["message_bytes_unacknowledged"]) == (400, 200)
            assert row["message_bytes"] == 600
            known = 6 if queue_type == "quorum" else 4  # edges do not know what a home has recorded
            assert row["messages_persistent"] == known
            assert row["head_message_timestamp"] == 77
            assert kinds_of(row) == ((0, 4, 0, 0, 0, 3) if queue_type == "quorum" else ())
            listed = await api.get("queues?page=1&columns=name,messages_ready_normal,publishers")
            (found,) = [row for row in listed["items"] if row["name"] == name]
            wanted = {"messages_ready_normal": 4, "publishers": 3}
            assert found == {"name": name, **(wanted if queue_type == "quorum" else {})}
    if queue_type == "quorum":
        row = await apis[0].get(path)  # channels are gone, and so are their messages back
        assert kinds_of(row) == (0, 4, 2, 0, 0, 0)
    assert (await apis[0].ask("DELETE", path))[0] == 204


def kinds_of(row: Row) -> tuple[int, ...]:
    """The numbers that quorum queues alone have."""
    return tuple(row[name] for name in (*QUORUM_NAMES, "publishers") if name in row)


async def test_connections_at_other_nodes(apis: tuple[Api, Api, Api]) -> None:
    at, other, third = apis
    closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    connection = await aio_pika.connect(f"amqp://127.0.0.1:{at.amqp_port}/")
    connection.close_callbacks.add(lambda _connection, error: closed.set_result(error))
    await connection.channel()
    (row,) = await other.get("connections")
    assert row["node"] == at.node.parts.config.node_name
    path = f"connections/{quote(row['name'], safe='')}"
    assert (await third.get(path))["name"] == row["name"]
    assert len(await third.get(f"{path}/channels")) == 1
    assert await third.ask("DELETE", path, headers={"X-Reason": "enough"}) == (204, None)
    assert "enough" in str(await asyncio.wait_for(closed, DEADLINE_S))


async def test_members_of_a_quorum_queue(apis: tuple[Api, Api, Api]) -> None:
    at, other, _third = apis
    await declared(apis, "queues/%2F/members", "quorum")
    rows: list[dict[str, Any]] = []
    async with soon():  # until all have begun, and one leads
        while {row["Raft State"] for row in rows} != {"leader", "follower"}:
            rows = await other.get("queues/quorum/%2F/members/status")
    assert sorted(row["Node Name"] for row in rows) == ["a", "b", "c"]
    assert sorted(row["Raft State"] for row in rows) == ["follower", "follower", "leader"]
    assert {row["Membership"] for row in rows} == {"voter"}
    assert all(row["Term"] > 0 for row in rows)
    replicas = "queues/quorum/%2F/members/replicas"
    follower = {"node": next(row["Node Name"] for row in rows if row["Raft State"] == "follower")}
    assert await other.ask("DELETE", f"{replicas}/delete", json=follower) == (202, None)
    assert await other.ask("POST", f"{replicas}/add", json=follower) == (204, None)
    absent = 503, {"error": "service_unavailable", "reason": "node_not_running"}
    assert await other.ask("POST", f"{replicas}/add", json={"node": "z"}) == absent
    assert await other.ask("DELETE", f"{replicas}/delete", json={"node": "z"}) == (202, None)
    on = "queues/quorum/replicas/on"
    growth = {"strategy": "even", "vhost_pattern": "^/$", "queue_pattern": "^m"}
    assert await at.ask("POST", f"{on}/c/grow", json=growth) == (204, None)
    assert await at.ask("DELETE", f"{on}/z/shrink") == (202, None)
    assert await at.ask("POST", "rebalance/queues") == (204, None)


async def test_what_is_no_quorum_queue(apis: tuple[Api, Api, Api]) -> None:
    at = apis[0]
    await at.ask("PUT", "queues/%2F/plain", json={})
    reason = "classic_queue_not_supported"
    refused = 503, {"status": "failed", "reason": reason}
    assert await at.ask("GET", "queues/quorum/%2F/plain/status") == refused
    refused = 503, {"error": "service_unavailable", "reason": reason}
    replicas = "queues/quorum/%2F/plain/replicas"
    assert await at.ask("POST", f"{replicas}/add", json={"node": "a"}) == refused
    unknown = 400, {"error": "bad_request", "reason": ["unknown_strategy", "no"]}
    on = "queues/quorum/replicas/on/a/grow"
    assert await at.ask("POST", on, json={"strategy": "no"}) == unknown


async def test_the_cluster_as_a_whole(apis: tuple[Api, Api, Api]) -> None:
    at, other, third = apis
    names = [api.node.parts.config.node_name for api in apis]
    assert [row["name"] for row in await other.get("nodes")] == sorted(names)
    assert (await other.get(f"nodes/{names[0]}/memory"))["memory"]["total"]["rss"] > 1_000_000
    connection = await aio_pika.connect(f"amqp://127.0.0.1:{at.amqp_port}/")
    await connection.channel()
    answer = await third.get("overview")
    assert answer["node"] == names[2]
    assert {row["node"] for row in answer["listeners"]} == set(names)
    assert {row["node"] for row in answer["contexts"]} == set(names)
    totals = answer["object_totals"]
    assert (totals["connections"], totals["channels"], totals["consumers"]) == (1, 1, 0)
    await connection.close()
    size = {"status": "ok", "cluster_size": 3, "target_cluster_size": 3}
    assert await other.ask("GET", "health/checks/reached-target-cluster-size") == (200, size)
    assert (await other.get("health/checks/node-is-quorum-critical")) == {"status": "ok"}
    (root,) = [row for row in await other.get("vhosts") if row["name"] == "/"]
    assert root["cluster_state"] == dict.fromkeys(names, "running")


async def test_a_node_that_never_ran_is_still_awaited_by_the_queues_that_grow(
    apis: tuple[Api, Api, Api],
) -> None:
    at, on = apis[0], "queues/quorum/replicas/on/y"
    await ask(at.node.parts, "cluster.add", name="y", address="127.0.0.1:1")
    await at.ask(
        "PUT", "queues/%2F/growing", json={"durable": True, "arguments": {"x-queue-type": "quorum"}}
    )
    pattern = {"strategy": "all", "queue_pattern": "^growing$"}
    status, answer = await at.ask("POST", f"{on}/grow", json=pattern)
    assert status == 202
    (queue,) = answer["under_way"]
    assert (queue["vhost"], queue["name"]) == ("/", "growing")
    assert "that node does not run, and gets one once it does" in queue["reason"]
    assert await at.ask("DELETE", f"{on}/shrink") == (202, None)
    await ask(at.node.parts, "cluster.forget", name="y")


async def test_all_queues_grow_at_once_and_those_that_do_not_are_named(
    apis: tuple[Api, Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No virtual host waits until the queues of another have grown."""
    monkeypatch.setattr(membership, "steps", lambda *_arguments: [])
    monkeypatch.setattr(member_changes, "GIVE_UP_MS", 600_000)
    at = apis[0]
    await at.ask("PUT", "vhosts/zoo")
    arguments = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 1}
    for vhost in ("%2F", "zoo"):
        body = {"durable": True, "arguments": arguments}
        assert (await at.ask("PUT", f"queues/{vhost}/twin", json=body))[0] == 201
    twins = [at.node.catalogue.vhosts[vhost].queues["twin"] for vhost in ("/", "zoo")]
    pattern = {"strategy": "all", "queue_pattern": "^twin$"}
    growing = asyncio.ensure_future(
        at.ask("POST", "queues/quorum/replicas/on/b/grow", json=pattern)
    )
    await until(lambda: all("b" in twin.definition.wanted for twin in twins))
    meant = [{"vhost": vhost, "name": "twin"} for vhost in ("/", "zoo")]
    await rows(at.node.parts, "queues.shrink", node="b", queues=meant)
    async with soon():
        status, answer = await growing
    assert status == 202
    assert [(each["vhost"], each["name"]) for each in answer["superseded"]] == [
        ("/", "twin"), ("zoo", "twin"),
    ]  # fmt: skip
