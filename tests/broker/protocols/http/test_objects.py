"""Exchanges, queues and bindings, as they are shown."""

from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
import pytest_asyncio
from aiormq.exceptions import ChannelLockedResource

from fluffle.broker.admin.context import Row
from fluffle.broker.protocols.http.objects import with_idleness
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.journal import Owner
from fluffle.broker.statistics.report import time_of
from fluffle.broker.statistics.volumes import MESSAGE_BYTES, QUEUE_BYTES
from fluffle.broker.vhosts.queue_changes import declare_queue, delete_queue
from tests.support.management import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def topology(api: Api) -> AsyncIterator[None]:
    """A few of each, made by a client of AMQP that stays."""
    async with await aio_pika.connect(f"amqp://127.0.0.1:{api.amqp_port}/") as connection:
        channel = await connection.channel()
        orders = await channel.declare_queue("orders", durable=True)
        await channel.declare_queue("mine", exclusive=True)
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        news = await channel.declare_exchange("news", "topic", durable=True)
        all_news = await channel.declare_exchange("all", "fanout", auto_delete=True)
        await orders.bind(news, "a.#")
        await orders.bind(news, "")
        await orders.bind(news, "b", arguments={"x": 1})
        await all_news.bind(news, "#")
        await channel.default_exchange.publish(aio_pika.Message(b"one"), "orders")
        yield


async def test_queues(api: Api) -> None:
    rows = {row["name"]: row for row in await api.get("queues")}
    assert sorted(rows) == ["kept", "mine", "orders"]
    assert counts_error(rows["orders"]) == {
        "name": "orders",
        "vhost": "/",
        "type": "classic",
        "node": api.node.parts.config.node_name,
        "state": "running",
        "durable": True,
        "auto_delete": False,
        "exclusive": False,
        "arguments": {},
        "effective_policy_definition": {},
        "consumers": 0,
        "consumer_capacity": 0.0,
        "consumer_utilisation": 0.0,
        "messages": 1,
        "messages_ready": 1,
        "messages_unacknowledged": 0,
        **volume(ready=1, size_bytes=3),
    }
    assert rows["kept"]["leader"] == rows["orders"]["node"]
    assert rows["kept"]["members"] == rows["kept"]["online"] == [rows["orders"]["node"]]
    assert rows["kept"]["delivery_limit"] == 20
    assert rows["mine"]["owner_pid_details"]["peer_host"] == "127.0.0.1"
    lists = [await api.get(f"{path}?disable_stats=true") for path in ("queues/%2F", "queues")]
    assert lists[0] == lists[1]
    nothing = dict.fromkeys(("operator_policy", "policy", "single_active_consumer_tag"))
    in_detail = [{**nothing, **row} for row in lists[0]]
    assert await api.get("queues/detailed?disable_stats=true") == in_detail


def volume(*, ready: int, size_bytes: int) -> Row:
    """The volume of a queue with messages in memory, and in no log."""
    return {
        "message_bytes": size_bytes,
        "message_bytes_ready": size_bytes,
        "message_bytes_unacknowledged": 0,
        "message_bytes_ram": size_bytes,
        "message_bytes_persistent": 0,
        "messages_ram": ready,
        "messages_ready_ram": ready,
        "messages_unacknowledged_ram": 0,
        "messages_persistent": 0,
        "messages_paged_out": 0,
        "message_bytes_paged_out": 0,
        "memory": QUEUE_BYTES + ready * MESSAGE_BYTES + size_bytes,
    }


def counts_error(row: Row) -> Row:
    """Columns that do not change by themselves."""
    return {
        name: value
        for name, value in row.items()
        if name != "message_stats" and not name.endswith("_details")
    }


async def test_what_has_happened_is_reported_with_queues_and_exchanges(api: Api) -> None:
    past = "lengths_age=60&lengths_incr=5&msg_rates_age=60&msg_rates_incr=5"
    rows = {row["name"]: row for row in await api.get(f"queues?{past}")}
    stats = rows["orders"]["message_stats"]
    assert stats["publish"] == 1
    assert "samples" in stats["publish_details"]
    assert "samples" in rows["orders"]["messages_details"]
    assert "message_stats" not in rows["kept"]
    one = await api.get(f"queues/%2F/orders?{past}")
    assert one["message_stats"]["publish"] == 1
    assert (await api.get("exchanges/%2F/amq.default"))["message_stats"]["publish_in"] == 1
    (default,) = [row for row in await api.get("exchanges/%2F") if row["name"] == ""]
    assert default["message_stats"]["publish_in"] == 1
    (default,) = [row for row in await api.get("exchanges?disable_stats=true") if not row["name"]]
    assert "message_stats" not in default


@pytest.mark.parametrize("path", ["queues", "queues/%2F/orders", "exchanges", "exchanges/%2F/news"])
async def test_a_past_that_is_too_long_is_refused(api: Api, path: str) -> None:
    answer = await api.ask("GET", f"{path}?msg_rates_age=99999&msg_rates_incr=1")
    reason = "Invalid range parameters: age 99999, incr 1"
    error = "bad_request" if "/" in path else "invalid_range_parameters"
    assert answer == (400, {"error": error, "reason": reason})


async def test_what_is_not_wanted_of_a_queue_is_not_there(api: Api) -> None:
    query = "disable_stats=true&page=1&name=ord&columns=name,messages"
    assert (await api.get(f"queues?{query}"))["items"] == [{"name": "orders"}]
    query = "disable_stats=true&enable_queue_totals=true&sort=messages&sort_reverse=true"
    assert (await api.get(f"queues?{query}"))[0]["messages"] == 1


async def test_a_queue(api: Api) -> None:
    row = await api.get("queues/%2F/orders")
    assert (row["name"], row["messages"], row["policy"]) == ("orders", 1, None)
    keys = [each["properties_key"] for each in await api.get("queues/%2F/orders/bindings")]
    assert sorted(keys)[:3] == ["a.%23", "b~" + keys[-1][2:], "orders"]


async def test_columns_of_one_object(api: Api) -> None:
    assert await api.get("queues/%2F/orders?columns=name,arguments.none,vhost") == {
        "name": "orders",
        "vhost": "/",
    }
    assert await api.get("overview?columns=object_totals.queues,name") == {
        "object_totals": {"queues": (await api.get("overview"))["object_totals"]["queues"]}
    }
    for path in ("exchanges/%2F/amq.direct", "vhosts/%2F", "users/guest", "whoami"):
        answer = await api.get(path)
        assert await api.get(f"{path}?columns=name,none") == {"name": answer["name"]}, path


async def test_a_queue_is_idle_once_nothing_has_happened_to_it_for_a_while() -> None:
    row = {"name": "q", "used_at": time_of(1)}
    assert with_idleness(dict(row), time_of(2)) == {"name": "q", "idle_since": time_of(1)}
    assert with_idleness(dict(row), time_of(1)) == {"name": "q"}
    assert with_idleness({"name": "q"}, time_of(1)) == {"name": "q"}


async def test_exchanges(api: Api) -> None:
    names = [row["name"] for row in await api.get("exchanges?sort=name")]
    assert names == [
        *("", "all", "amq.direct", "amq.fanout", "amq.headers", "amq.match"),
        *("amq.rabbitmq.trace", "amq.topic", "news"),
    ]
    assert await api.get("exchanges/%2F/all") == {
        "name": "all",
        "vhost": "/",
        "type": "fanout",
        "durable": False,
        "auto_delete": True,
        "internal": False,
        "arguments": {},
        "incoming": [],
    }
    assert (await api.get("exchanges/%2F/amq.default"))["name"] == ""
    assert len(await api.get("exchanges/%2F/")) == len(names)
    assert (await api.get("exchanges/%2F//"))["name"] == ""
    assert len(await api.get("exchanges/%2F//bindings/source")) == 3
    from_news = await api.get("exchanges/%2F/news/bindings/source")
    (to_all,) = await api.get("exchanges/%2F/all/bindings/destination")
    assert to_all in from_news
    assert len(from_news) == 4


async def test_bindings(api: Api) -> None:
    every = await api.get("bindings/%2F")
    assert len(every) == 4 + 3  # each queue is bound to the default exchange
    (by_number,) = (row for row in every if row["arguments"])
    path = "bindings/%2F/e/news/q/orders"
    of_news = await api.get(path)
    assert by_number in of_news
    assert await api.get(f"{path}/{by_number['properties_key']}") == by_number
    assert await api.get(f"{path}/~") == {
        "source": "news",
        "vhost": "/",
        "destination": "orders",
        "destination_type": "queue",
        "routing_key": "",
        "arguments": {},
        "properties_key": "~",
    }
    assert await api.get(f"{path}/a.%2523") == await api.get(f"{path}/a.%23")
    assert len(await api.get("bindings/%2F/e/news/e/all")) == 1
    assert await api.get("bindings/%2F/e/news/q/nothing") == []


async def test_subscriptions_are_shown_as_with_rabbitmq(api: Api) -> None:
    """Without the arguments that it does not have, and by the key that comes of the others."""
    queue = "mqtt-subscription-cqos1"
    path = f"bindings/%2F/e/amq.topic/q/{queue}"
    async with await aio_pika.connect(f"amqp://127.0.0.1:{api.amqp_port}/") as connection:
        channel = await connection.channel()
        session = await channel.declare_queue(queue)
        shown: dict[str, Any] = {"x-binding-key": "a.*"}
        hidden: dict[str, Any] = {
            "x-topic-filter": "a/+",
            "x-subscription-options": 1,
            "x-subscription-id": 7,
        }
        await session.bind("amq.topic", "a.*", arguments={**shown, **hidden})
        await session.bind("amq.topic", "b", arguments={"x-topic-filter": "b"})
        await session.bind("amq.topic", "c", arguments=shown)
        rows = {row["routing_key"]: row for row in await api.get(path)}
        assert [rows[key]["arguments"] for key in ("a.*", "b", "c")] == [shown, {}, shown]
        assert rows["b"]["properties_key"] == "b"
        mark = rows["c"]["properties_key"].removeprefix("c~")
        assert rows["a.*"]["properties_key"] == f"a.%2A~{mark}"
        for key in ("a.%2A~" + mark, "b"):
            found = await api.get(f"{path}/{key}")
            assert found in rows.values()
            assert found in await api.get("bindings/%2F")
            assert await api.ask("DELETE", f"{path}/{key}") == (204, None)
        assert [row["routing_key"] for row in await api.get(path)] == ["c"]
        await session.delete()


async def test_a_queue_for_qos_0_of_mqtt_is_shown_as_with_rabbitmq(api: Api) -> None:
    name, catalogue = "mqtt-subscription-cqos0", api.node.catalogue
    declared = Declaration(name, durable=True, exclusive=True, mailbox_limit=200)
    vhost, owner = catalogue.vhosts["/"], Owner("n", 0, 1, "127.0.0.1:1 -> 127.0.0.1:1883")
    catalogue.apply(declare_queue(vhost, declared, owner))
    row = await api.get(f"queues/%2F/{name}")
    shown = row["type"], row["durable"], row["exclusive"], row["arguments"]
    assert shown == ("rabbit_mqtt_qos0_queue", True, True, {})
    assert [each["type"] for each in await api.get("queues") if each["name"] == name] == [shown[0]]
    async with await aio_pika.connect(f"amqp://127.0.0.1:{api.amqp_port}/") as connection:
        channel = await connection.channel()
        with pytest.raises(ChannelLockedResource):
            await channel.declare_queue(name, passive=True)
    catalogue.apply(delete_queue(vhost, vhost.queues[name]))
    assert name not in [each["name"] for each in await api.get("queues")]


async def test_bindings_of_nothing(api: Api) -> None:
    assert await api.get("bindings/%2F/e/news/q/nothing") == []


@pytest.mark.parametrize(
    "path",
    [
        *("queues/no", "queues/%2F/no", "queues/%2F/no/bindings", "exchanges/no"),
        *("overview//", "exchanges//", "queues/%2F//"),
        *("exchanges/%2F/no", "exchanges/%2F/no/bindings/source", "bindings/no"),
        "bindings/%2F/e/news/q/orders/no",
    ],
)
async def test_what_is_not_there(api: Api, path: str) -> None:
    nothing = 404, {"error": "Object Not Found", "reason": "Not Found"}
    assert await api.ask("GET", path) == nothing


async def test_how_much_is_in_queues_and_in_hands(api: Api) -> None:
    for kind in ("classic", "quorum"):
        name, path = f"weighed-{kind}", f"queues/%2F/weighed-{kind}"
        body = {"durable": True, "arguments": {"x-queue-type": kind}}
        assert (await api.ask("PUT", path, json=body))[0] == 201
        connection = await aio_pika.connect(f"amqp://127.0.0.1:{api.amqp_port}")
        async with connection:
            channel = await connection.channel()
            for number in range(5):
                message = aio_pika.Message(
                    b"x" * 100, delivery_mode=2, timestamp=1_000 + number, priority=0
                )
                await channel.default_exchange.publish(message, name)
            queue = await channel.get_queue(name)
            for _ in range(2):
                await queue.get()
            row = await api.get(path)
            assert row["message_bytes"] == row["message_bytes_persistent"] == 500
            assert (row["message_bytes_ready"], row["message_bytes_unacknowledged"]) == (300, 200)
            assert (row["messages_persistent"], row["messages_ready_ram"]) == (5, 3)
            assert row["head_message_timestamp"] == 1_002
            named = await api.get(f"queues?page=1&name={name}&columns=name,message_bytes")
            assert named["items"] == [{"name": name, "message_bytes": 500}]
        assert (await api.ask("DELETE", path))[0] == 204
