"""Connections, channels and consumers, as they are shown, and closed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import quote

import aio_pika
import aiormq.exceptions
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, AbstractQueue

from fluffle.broker.access.passwords import hashed
from fluffle.broker.core.client import SessionCounts, client_fields
from fluffle.broker.protocols.amqp091.connection import Connection
from tests.support.deadlines import DEADLINE_S
from tests.support.management import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = ("other", "other")
NOT_HIS = 401, {"error": "not_authorised", "reason": "User not authorised to access object"}
RATES = ("recv_oct_details", "send_oct_details")
ABSENT = 404, {"error": "Object Not Found", "reason": "Not Found"}


class Client(NamedTuple):
    """A consumer and where it is."""

    connection: AbstractConnection
    name: str
    queue: AbstractQueue

    @property
    def path(self) -> str:
        return f"connections/{quote(self.name, safe='')}"

    @property
    def channel_path(self) -> str:
        return f"channels/{quote(f'{self.name} (1)', safe='')}"


NUMBERS = count(1)


async def ignore(_message: AbstractIncomingMessage) -> None:
    """Nothing comes."""


async def his(api: Api, client: Client, path: str) -> list[Any]:
    """Rows of one client."""
    return [row for row in await api.get(path) if row["name"].startswith(client.name)]


def without_rates(row: dict[str, Any]) -> dict[str, Any]:
    """A row but for what the next sample changes though its client does nothing."""
    return {name: value for name, value in row.items() if name not in RATES}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def other(api: Api) -> None:
    """A user who may look at little."""
    user = {"name": "other", "tags": ["management"], "password_hash": hashed(b"other").hash}
    assert (await api.ask("POST", "fluffle/verbs/users.add", json=user))[0] == 200
    rights = {"user": "other", "vhost": "/", "configure": "", "write": "", "read": ""}
    assert (await api.ask("POST", "fluffle/verbs/permissions.set", json=rights))[0] == 200


@pytest_asyncio.fixture(loop_scope="module")
async def client(api: Api) -> AsyncIterator[Client]:
    """Client that consumes from a queue of its own."""
    name = f"client {next(NUMBERS)}"
    connection = await aio_pika.connect(f"amqp://127.0.0.1:{api.amqp_port}/?name={name}")
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=5)
    queue = await channel.declare_queue("mine", exclusive=True)
    await queue.consume(ignore, consumer_tag="tag", arguments={"x-priority": 3})
    rows = await api.get("connections")
    (found,) = (row["name"] for row in rows if row["user_provided_name"] == name)
    yield Client(connection, found, queue)
    await connection.close()


async def test_a_connection(api: Api, client: Client) -> None:
    (row,) = await his(api, client, "connections")
    answer = {
        name: row[name] for name in ("user", "vhost", "state", "channels", "type", "protocol")
    }
    assert answer == {
        "user": "guest",
        "vhost": "/",
        "state": "running",
        "channels": 1,
        "type": "network",
        "protocol": "AMQP 0-9-1",
    }
    assert row["name"] == f"127.0.0.1:{row['peer_port']} -> 127.0.0.1:{api.amqp_port}"
    assert (await api.get(client.path))["name"] == row["name"]
    bare = {name: row[name] for name in ("name", "vhost", "user", "node")}
    for path in ("connections?disable_stats=true", "connections/username/guest"):
        assert await his(api, client, path) == [bare]
    (again,) = await his(api, client, "vhosts/%2F/connections")
    assert again.keys() == row.keys()
    assert without_rates(again) == without_rates(row)
    assert await api.ask("GET", f"{client.path}/sessions") == ABSENT


async def test_a_channel(api: Api, client: Client) -> None:
    (row,) = await his(api, client, "channels")
    assert (row["name"], row["number"]) == (f"{client.name} (1)", 1)
    assert row["connection_details"]["name"] == client.name
    assert row["prefetch_count"] == 5
    assert "consumer_details" not in row
    (consumer,) = (await api.get(client.channel_path))["consumer_details"]
    assert (consumer["consumer_tag"], consumer["queue"]["name"]) == ("tag", "mine")
    assert await his(api, client, "vhosts/%2F/channels") == [row]
    assert len(await api.get(f"{client.path}/channels")) == 1


async def test_a_consumer(api: Api, client: Client) -> None:
    (row,) = (await api.get("queues/%2F/mine"))["consumer_details"]
    assert row["channel_details"]["connection_name"] == client.name
    assert (row["prefetch_count"], row["ack_required"], row["active"]) == (5, True, True)
    for path in ("consumers", "consumers/%2F"):
        assert row in await api.get(path)


async def test_others_are_not_shown(api: Api, client: Client) -> None:
    for path in ("connections", "channels", "consumers", "vhosts/%2F/channels"):
        assert await api.ask("GET", path, user=OTHER) == (200, [])
    for path in (client.path, client.channel_path, "connections/username/guest"):
        assert await api.ask("GET", path, user=OTHER) == NOT_HIS
    assert await api.ask("DELETE", client.path, user=OTHER) == NOT_HIS
    assert await api.ask("DELETE", "connections/username/guest", user=OTHER) == NOT_HIS
    assert await api.ask("DELETE", "connections/username/other", user=OTHER) == (204, None)


async def test_a_name_that_others_have_too(api: Api, client: Client) -> None:
    """Connections to several nodes may have the same name, from networks with the same
    addresses."""
    url = f"amqp://other:other@127.0.0.1:{api.amqp_port}/"
    async with await aio_pika.connect(url) as connection:
        await connection.channel()
        connections = api.node.parts.connections
        (own,) = (each for each in connections if client_fields(each)["user"] == "other")
        assert isinstance(own, Connection)
        own.name = client.name
        status, answer = await api.ask("GET", client.path, user=OTHER)
        assert (status, answer["user"]) == (200, "other")
        status, answer = await api.ask("GET", f"{client.path}/channels", user=OTHER)
        assert [row["user"] for row in answer] == ["other"]
        assert await api.ask("DELETE", client.path, user=OTHER) == (204, None)
        await client.queue.declare()  # is answered to who has not been closed


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"X-Reason": "go away"}, "CONNECTION_FORCED - go away"),
        ({}, "CONNECTION_FORCED - Closed via management plugin"),
    ],
)
async def test_closing(api: Api, client: Client, headers: dict[str, str], text: str) -> None:
    closed = asyncio.get_running_loop().create_future()
    client.connection.close_callbacks.add(lambda _connection, error: closed.set_result(error))
    assert await api.ask("DELETE", client.path, headers=headers) == (204, None)
    error = await asyncio.wait_for(closed, DEADLINE_S)
    assert isinstance(error, aiormq.exceptions.ConnectionClosed)
    assert str(error) == f"[Errno 320] {text}"


async def test_closing_all_of_a_user(api: Api, client: Client) -> None:
    closed = asyncio.get_running_loop().create_future()
    client.connection.close_callbacks.add(lambda _connection, error: closed.set_result(error))
    assert await api.ask("DELETE", "connections/username/guest") == (204, None)
    await asyncio.wait_for(closed, DEADLINE_S)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "connections/no"),
        ("DELETE", "connections/no"),
        ("GET", "connections/no/channels"),
        ("GET", "channels/no"),
        ("GET", "consumers/no"),
        ("GET", "vhosts/no/connections"),
    ],
)
async def test_what_is_not_there(api: Api, method: str, path: str) -> None:
    assert await api.ask(method, path) == ABSENT


async def test_a_past_that_is_too_long(api: Api) -> None:
    status, answer = await api.ask("GET", "connections?data_rates_age=100000&data_rates_incr=1")
    assert (status, answer["reason"]) == (400, "Invalid range parameters: age 100000, incr 1")


async def test_who_is_nobody(api: Api) -> None:
    assert await api.get("connections/username/nobody") == []
    assert await api.ask("DELETE", "connections/username/nobody") == (204, None)


class Keeper:
    """Keeper of one session, as `SessionKeeper`."""

    def session_rows(self) -> Iterator[dict[str, Any]]:
        yield {"vhost": "/", "client_id": "meter", "user": "guest"}

    def session_counts(self) -> SessionCounts:
        return SessionCounts(connected=0, away=1, taken_over=0)


async def test_sessions_of_clients_that_may_be_away(api: Api) -> None:
    keepers = api.node.parts.connections.session_keepers
    keepers.append(Keeper())
    try:
        for path in ("mqtt/sessions", "mqtt/sessions/%2F"):
            (row,) = await api.get(path)
            assert (row["client_id"], row["name"]) == ("meter", "meter")
            assert await api.ask("GET", path, user=OTHER) == (200, [])
        assert await api.ask("GET", "mqtt/sessions/none") == ABSENT
    finally:
        keepers.clear()
