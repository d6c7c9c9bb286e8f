"""Requests of the pages beyond RabbitMQ's API."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractChannel

from fluffle.broker.access.passwords import hashed
from fluffle.broker.admin.messages import held
from fluffle.broker.base.message import RetainedMessage
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.support.management import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

READER = ("reader", "secret")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(api: Api) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{api.amqp_port}/")
    async with connection:
        yield await connection.channel()


async def post(api: Api, path: str, **body: object) -> object:
    status, answer = await api.ask("POST", f"fluffle/{path}", json=body)
    assert status == 200, answer
    return answer


async def publish(channel: AbstractChannel, queue: str, *bodies: bytes) -> None:
    for body in bodies:
        await channel.default_exchange.publish(aio_pika.Message(body), queue)


async def counts(api: Api, name: str) -> object:
    _status, answer = await api.ask(
        "POST", "fluffle/verbs/queues.show", json={"vhost": "/", "name": name}
    )
    return answer["result"]["messages_ready"], answer["result"]["messages_unacknowledged"]


async def test_why_a_message_goes_where_it_goes(api: Api, channel: AbstractChannel) -> None:
    exchange = await channel.declare_exchange("events", "topic")
    for name, key in (("audit", "#"), ("bills", "bill.*")):
        await (await channel.declare_queue(name)).bind(exchange, key)
    answer = await post(api, "explain/%2F", exchange="events", routing_key="order.new")
    assert isinstance(answer, dict)
    assert (answer["routed"], answer["queues"]) == (True, ["audit"])
    (visit,) = answer["exchanges"]
    assert [(each["destination"], each["matches"]) for each in visit["bindings"]] == [
        ("audit", True),
        ("bills", False),
    ]
    assert "'bill'" in visit["bindings"][1]["reason"]
    assert answer["text"].endswith("goes to: 'audit'")


async def test_what_cannot_be_explained(api: Api) -> None:
    for body in (
        {"properties": {"colour": "red"}},
        {"properties": {"priority": "high"}},
        {"properties": {"timestamp": -1}},
        {"headers": {"n": 1 << 64}},
        {"routing_key": 1},
        {"exchange": "events", "colour": "red"},
        {"verb": "queues.purge"},
        {"self": 1},
    ):
        status, answer = await api.ask("POST", "fluffle/explain/%2F", json=body)
        assert (status, answer["error"]) == (400, "bad_request"), body
    assert (await api.ask("POST", "fluffle/explain/%2F", json={"exchange": "none"}))[0] == 404
    assert (await api.ask("POST", "fluffle/explain/none", json={}))[0] in (401, 404)


async def test_who_peeks_changes_nothing(api: Api, channel: AbstractChannel) -> None:
    await channel.declare_queue("seen")
    await publish(channel, "seen", b"one", b"two")
    for _ in range(2):
        answer = await post(api, "queues/%2F/seen/peek", count=5)
        assert isinstance(answer, list)
        assert [(row["payload"], row["redelivered"]) for row in answer] == [
            ("one", False),
            ("two", False),
        ]
    assert await counts(api, "seen") == (2, 0)
    status, answer = await api.ask("POST", "fluffle/queues/%2F/seen/peek", json={"count": 0})
    assert (status, answer["reason"]) == (400, "'count' must be from 1 to 10000")
    most = {"count": 10_000, "body_bytes": 1 << 18}
    status, answer = await api.ask("POST", "fluffle/queues/%2F/seen/peek", json=most)
    assert (status, answer["reason"]) == (400, f"'count' times 'body_bytes' may be {1 << 26}")


async def test_messages_are_moved(api: Api, channel: AbstractChannel) -> None:
    for name in ("here", "there"):
        await channel.declare_queue(name)
    await publish(channel, "here", b"1", b"2", b"3")
    answer = await post(api, "queues/%2F/here/move", to="there", limit=2)
    assert isinstance(answer, dict)
    assert answer["moved"] == 2
    assert (await counts(api, "here"), await counts(api, "there")) == ((1, 0), (2, 0))
    status, _reported = await api.ask("POST", "fluffle/queues/%2F/here/move", json={"to": "here"})
    assert status == 400


async def test_dead_letters_go_back_where_they_died(api: Api, channel: AbstractChannel) -> None:
    await channel.declare_queue("graves")
    for name in ("left", "right"):
        arguments: dict[str, Any] = {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "graves",
        }
        queue = await channel.declare_queue(name, arguments=arguments)
        await publish(channel, name, name.encode())
        message = await queue.get()
        await message.reject()
    await publish(channel, "graves", b"born here")
    assert await post(api, "queues/%2F/graves/redrive") == {
        "moved": 2,
        "queues": {"left": 1, "right": 1},
    }
    assert await counts(api, "graves") == (1, 0)
    assert await counts(api, "left") == await counts(api, "right") == (1, 0)


async def test_who_holds_messages(api: Api, channel: AbstractChannel) -> None:
    arguments: dict[str, Any] = {"x-consumer-timeout": 3_600_000}
    queue = await channel.declare_queue("held", arguments=arguments)
    await publish(channel, "held", b"1", b"2")
    first, second = await queue.get(), await queue.get()
    rows = await api.get("fluffle/queues/%2F/held/held")
    assert [(row["messages"], row["consumer_tag"], row["user"]) for row in rows] == [
        (1, None, "guest"),
        (1, None, "guest"),
    ]
    assert all(row["held_ms"] >= 0 and row["routing_keys"] == ["held"] for row in rows)
    await second.ack()
    await first.ack()
    await queue.get(fail=False)  # answered once what was sent before has been acted on
    assert await api.get("fluffle/queues/%2F/held/held") == []


async def test_what_is_settled_while_it_is_shown_is_left_out(
    api: Api, channel: AbstractChannel
) -> None:
    queue = await channel.declare_queue("settled")
    await publish(channel, "settled", b"1", b"2")
    first, second = await queue.get(), await queue.get()
    rows = held(api.node.parts, name="settled", vhost="/")
    assert isinstance(next(rows), dict)
    await second.ack()
    await queue.get(fail=False)
    assert list(rows) == []
    await first.ack()


async def test_who_holds_messages_of_a_quorum_queue(api: Api, channel: AbstractChannel) -> None:
    quorum: dict[str, Any] = {"x-queue-type": "quorum"}
    queue = await channel.declare_queue("three", durable=True, arguments=quorum)
    await publish(channel, "three", b"1")
    message = await queue.get()
    (row,) = await api.get("fluffle/queues/%2F/three/held")
    assert (row["messages"], row["consumer_tag"]) == (1, None)
    assert row["held_ms"] is None or row["held_ms"] >= 0
    await message.ack()
    assert (await api.ask("GET", "fluffle/queues/%2F/none/held"))[0] == 404


async def test_who_may_not_read_sees_nothing(api: Api, channel: AbstractChannel) -> None:
    await channel.declare_queue("secret")
    name, password = READER
    stored = hashed(password.encode()).hash
    rights = {"configure": "", "write": "", "read": "^open"}
    for verb, given in (
        ("users.add", {"name": name, "password_hash": stored, "tags": ["management"]}),
        ("permissions.set", {"user": name, "vhost": "/", **rights}),
    ):
        status, answer = await api.ask("POST", f"fluffle/verbs/{verb}", json=given)
        assert status == 200, answer
    await channel.declare_queue("open")
    body = json.dumps({}).encode()
    for path, expected in (
        ("queues/%2F/open/peek", 200), ("queues/%2F/secret/peek", 401),
        ("queues/%2F/open/move", 401), ("queues/%2F/open/redrive", 401), ("explain/%2F", 200),
    ):  # fmt: skip
        status, answer = await api.ask("POST", f"fluffle/{path}", user=READER, data=body)
        assert status == expected, (path, answer)
    for name, expected in (("open", 200), ("secret", 401)):
        path = f"fluffle/queues/%2F/{name}/held"
        assert (await api.ask("GET", path, user=READER))[0] == expected
    await channel.declare_queue("open to one", exclusive=True)
    for act in ("peek", "move", "redrive"):
        path = f"fluffle/queues/%2F/open%20to%20one/{act}"
        status, answer = await api.ask("POST", path, user=READER, json={})
        assert (status, answer["reason"].split(" '")[0]) == (
            400,
            "cannot obtain exclusive access to locked queue",
        )


async def test_what_topics_retain_is_seen_and_removed(api: Api) -> None:
    retained = api.node.catalogue.vhosts["/"].retained
    content = build_content(encode_properties(Properties(content_type="text/plain")), b"21.5")
    for topic in ("home/attic", "home/cellar", "$SYS/x"):
        retained.put(topic, RetainedMessage(content, b"", "meter", 1_000))
    listed = await api.get("mqtt/retained/%2F?sort=topic&columns=topic,user,payload_bytes")
    assert listed[0] == {"topic": "$SYS/x", "user": "meter", "payload_bytes": 4}
    page = await api.get("mqtt/retained/%2F?page=1&page_size=2")
    assert (page["total_count"], page["item_count"]) == (3, 2)
    one = await api.get("mqtt/retained/%2F/home%2Fattic")
    assert (one["payload"], one["properties"]) == ("21.5", {"content_type": "text/plain"})
    for path, method, status in (
        ("mqtt/retained/%2F/home%2Fattic", "DELETE", 204),
        ("mqtt/retained/%2F/home%2Fattic", "DELETE", 404),
        ("mqtt/retained/%2F/home%2Fattic", "GET", 404),
        ("mqtt/retained/missing", "GET", 404),
        ("mqtt/retained/%2F", "DELETE", 204),
    ):
        assert (await api.ask(method, path))[0] == status, (method, path)
    assert await api.get("mqtt/retained/%2F") == []


async def test_who_does_not_monitor_sees_nothing_of_what_is_retained(api: Api) -> None:
    body = {"password": "secret", "tags": "management"}
    await api.ask("PUT", "users/plain", json=body)
    given = {"configure": ".*", "write": ".*", "read": ".*"}
    await api.ask("PUT", "permissions/%2F/plain", json=given)
    user = ("plain", "secret")
    for method in ("GET", "DELETE"):
        assert (await api.ask(method, "mqtt/retained/%2F", user=user))[0] == 401
        assert (await api.ask(method, "mqtt/retained/%2F/a", user=user))[0] == 401
