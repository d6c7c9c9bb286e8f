"""The operations of the control API: what they do, and what is reported when they cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from types import NoneType
from typing import Any

import aio_pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker import Broker
from fluffle.broker.testing.server.operations import (
    ANSWER_BYTES_MAX,
    OPERATIONS,
    PROPERTIES,
    OperationDispatcher,
    Row,
    itself,
    operations,
)
from tests.support.control_api import Api


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as broker:
        yield broker


@pytest.fixture
def api(broker: Broker) -> Api:
    return Api(OperationDispatcher(broker, OPERATIONS))


@pytest.fixture
async def channel(broker: Broker) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(broker.url) as connection:
        yield await connection.channel()


@pytest.fixture
async def orders(channel: aio_pika.abc.AbstractChannel) -> None:
    """A queue of that name."""
    await channel.declare_queue("orders")


async def test_fresh_virtual_hosts(api: Api) -> None:
    first = await api.post("vhosts/add")
    assert await api.post("vhosts/add", name="mine /%") == {
        "name": "mine /%",
        "url": first["url"].replace(first["name"], "mine%20%2F%25"),
        "mqtt_url": first["mqtt_url"].replace(first["name"], "mine%20%2F%25"),
    }
    assert await api.post("vhosts") == {"vhosts": ["/", "test-1", "mine /%"]}
    async with await aio_pika.connect(first["url"]) as connection:
        await (await connection.channel()).declare_queue("orders")
        assert list((await api.post("vhosts/test-1/queues"))["queues"]) == ["orders"]
        assert await api.post("vhosts/mine%20%2F%25/queues") == {"queues": {}}
        await api.post("vhosts/delete", name="test-1")
    assert (await api.post("vhosts/add"))["name"] == "test-2"
    assert await api.fails("vhosts/add", name="test-2") == (400, "vhost 'test-2' already exists")
    assert await api.fails("vhosts/gone/queues") == (404, "vhost 'gone' does not exist")


async def test_a_virtual_host_with_what_is_wanted_in_it(api: Api) -> None:
    queue = {"name": "app.orders", "durable": True, "auto_delete": False, "arguments": {}}
    vhost = await api.post(
        "vhosts/add",
        users={"app": "secret"},
        permissions={"app": ["^app", ".*", ".*"]},
        definitions={"queues": [queue]},
        default_queue_type="quorum",
    )
    assert vhost["url"].startswith("amqp://app:secret@")
    async with await aio_pika.connect(vhost["url"]) as connection:
        await (await connection.channel()).declare_queue("app.bills", durable=True)
        with pytest.raises(aio_pika.exceptions.ChannelClosed, match="ACCESS_REFUSED"):
            await (await connection.channel()).declare_queue("bills", durable=True)
    queues = (await api.post("vhosts/test-1/queues"))["queues"]
    assert queues.keys() == {"app.orders", "app.bills"}
    assert queues["app.bills"]["type"] == "quorum"


async def test_what_goes_wrong(api: Api, channel: aio_pika.abc.AbstractChannel) -> None:
    await channel.declare_queue("orders")
    await api.post("vhosts/%2F/publishes/nack_next", queue="orders")
    assert await api.post("vhosts/%2F/faults/list") != {"faults": []}
    with pytest.raises(aio_pika.exceptions.DeliveryError):
        await channel.default_exchange.publish(aio_pika.Message(b""), "orders")
    await api.post("vhosts/%2F/faults/mend")
    (connection,) = (await api.post("vhosts/%2F/connections/list"))["connections"]
    lost = asyncio.get_running_loop().create_future()
    channel.close_callbacks.add(lambda _channel, error: lost.set_result(error))
    await api.post("vhosts/%2F/connections/reset", connection=connection["name"])
    await lost
    status, why = await api.fails("vhosts/%2F/connections/reset", connection="gone")
    assert (status, why) == (404, "no connection 'gone', but: none")
    assert (await api.fails("vhosts/gone/faults/mend"))[0] == 404


async def test_expecting_waits(api: Api, channel: aio_pika.abc.AbstractChannel) -> None:
    waiting = asyncio.create_task(api.post("vhosts/%2F/expect", queue="orders", count=1))
    await channel.declare_queue("orders")
    await api.post("vhosts/%2F/publish", routing_key="orders", body="first")
    assert await waiting == {}
    status, why = await api.fails("vhosts/%2F/expect", queue="orders", count=2, within=0.01)
    assert (status, why.partition(";")[2]) == (
        409, " it has 1 messages, 1 ready, 0 unacknowledged, 0 consumers",
    )  # fmt: skip


async def test_a_message_that_is_seen_can_be_published(
    api: Api, channel: aio_pika.abc.AbstractChannel
) -> None:
    await channel.declare_queue("orders")
    text = {
        "body": '{"größe": 1}',
        "body_encoding": "utf-8",
        "exchange": "",
        "routing_key": "orders",
        "headers": {"try": 1, "who": {"name": "a"}, "ratio": 0.5, "is": True, "none": None},
        "properties": {"content_type": "application/json", "delivery_mode": 1, "priority": 3},
    }
    octets = {**text, "body": "/w==", "body_encoding": "base64", "headers": {}, "properties": {}}
    for message in (text, octets):
        await api.post("vhosts/%2F/publish", **message)
    seen = (await api.post("vhosts/%2F/messages", queue="orders"))["messages"]
    octets["properties"] = {"delivery_mode": 2}
    assert seen == [{**text, "redelivered": False}, {**octets, "redelivered": False}]
    assert len((await api.post("vhosts/%2F/messages", queue="orders", count=1))["messages"]) == 1
    assert await api.post("vhosts/%2F/purge", queue="orders") == {"messages": 2}


async def test_messages_are_taken(api: Api, channel: aio_pika.abc.AbstractChannel) -> None:
    await channel.declare_queue(
        "orders",
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "rejected"},
    )
    await channel.declare_queue("rejected")
    for body in ("1", "2", "3"):
        await api.post("vhosts/%2F/publish", routing_key="orders", body=body)
    taken = await api.post("vhosts/%2F/get", queue="orders", outcome="requeue")
    assert (taken["message"]["body"], taken["message"]["redelivered"]) == ("1", False)
    await api.post("vhosts/%2F/expect", queue="orders", ready=3)
    taken = await api.post("vhosts/%2F/get", queue="orders", outcome="reject")
    assert (taken["message"]["body"], taken["message"]["redelivered"]) == ("1", True)
    taken = await api.post("vhosts/%2F/consume", queue="orders", count=2)
    assert [each["body"] for each in taken["messages"]] == ["2", "3"]
    await api.post("vhosts/%2F/expect", queue="rejected", count=1)
    await api.post("vhosts/%2F/expect", queue="orders", count=0)
    assert (await api.fails("vhosts/%2F/get", queue="orders", within=0.01))[0] == 409


async def test_what_has_happened(api: Api, channel: aio_pika.abc.AbstractChannel) -> None:
    orders = await channel.declare_queue("orders")
    await channel.default_exchange.publish(aio_pika.Message(b"first"), "orders")
    message = await orders.get()
    status, why = await api.fails("vhosts/%2F/assert/no_unacked", within=0.01)
    assert (status, "first" in why) == (409, True)
    await message.ack()
    await api.post("vhosts/%2F/assert/no_unacked")
    await api.post("vhosts/%2F/assert/no_unroutable")
    assert (await api.fails("vhosts/%2F/assert/no_leaked_channels", within=0.01))[0] == 409
    (seen,) = (await api.post("vhosts/%2F/history", queue="orders"))["messages"]
    assert [step["what"] for step in seen["steps"]] == ["published", "delivered", "acked"]
    assert (seen["body"], seen["state"], seen["acked_by"]) == ("first", "acked", "")
    assert "orders" in (await api.post("vhosts/%2F/timeline"))["text"]
    assert (await api.fails("vhosts/%2F/history", queue="gone"))[0] == 404


async def test_why_a_message_goes_nowhere(api: Api, channel: aio_pika.abc.AbstractChannel) -> None:
    bills = await channel.declare_queue("bills")
    await bills.bind(await channel.declare_exchange("events", "headers"), "", arguments={"paid": 1})
    unpaid = await api.post("vhosts/%2F/explain", exchange="events", routing_key="", headers={})
    assert unpaid["queues"] == []
    assert "- queue 'bills'" in unpaid["text"]
    paid = {"exchange": "events", "routing_key": "", "headers": {"paid": 1}}
    assert (await api.post("vhosts/%2F/explain", **paid))["queues"] == ["bills"]
    assert (await api.fails("vhosts/%2F/explain", exchange="gone", routing_key=""))[0] == 404


async def test_the_clock(api: Api, channel: aio_pika.abc.AbstractChannel) -> None:
    await channel.declare_queue("orders", arguments={"x-expires": 60_000})
    await api.post("clock/advance", seconds=59)
    assert (await api.post("vhosts/%2F/queues"))["queues"].keys() == {"orders"}
    await api.post("clock/advance", minutes=0.5, seconds=1)
    assert await api.post("vhosts/%2F/queues") == {"queues": {}}


PUBLISH = "vhosts/%2F/publish"
EXPECT = "vhosts/%2F/expect"


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize(
    ("path", "arguments", "status", "why"),
    [
        ("", {}, 404, "no path '', but: vhosts, vhosts/add, "),
        ("vhosts/%2F/expec", {}, 404, "no path 'vhosts/{vhost}/expec', but: "),
        ("vhosts/%FF/queues", {}, 400, "invalid start byte"),
        ("vhosts/add", {"name": "x" * 256}, 400, "has 1 to 255 bytes"),
        ("vhosts/add", {"users": {"app": 1}}, 400, "passwords are strings"),
        ("vhosts/add", {"permissions": {"guest": ["("] * 3}}, 400, "("),
        ("vhosts/add", {"definitions": {"queues": [1]}}, 400, ""),
        ("vhosts/add", {"default_queue_type": "stack"}, 400, "stack"),
        ("vhosts/%2F/get", {"queue": "orders", "outcome": "eat"}, 400, "ack, reject, requeue"),
        (EXPECT, {}, 400, "'queue' is missing; the arguments are: queue, count, "),
        (EXPECT, {"queue": "orders"}, 400, "at least one of count"),
        (EXPECT, {"queue": "orders", "counts": 1}, 400, "no argument 'counts'; "),
        (EXPECT, {"queue": "orders", "count": "1"}, 400, "'count' must be a whole number or null"),
        (EXPECT, {"queue": "orders", "count": 1, "within": 301}, 400, "from 0 to 300 seconds"),
        (EXPECT, {"queue": "orders", "count": 1, "within": 1e999}, 400, "JSON has no Infinity"),
        ("vhosts/%2F/messages", {"queue": "gone"}, 404, "no queue 'gone' in vhost '/'"),
        ("vhosts/%2F/messages", {"queue": "orders", "count": 0}, 400, "from 1 to 1000"),
        ("vhosts/%2F/consume", {"queue": "orders", "within": 0}, 409, "0"),
        ("clock/advance", {"minutes": -1}, 400, "time does not go back by 60000 ms"),
        ("clock/advance", {"days": 1e300}, 400, ""),
        (PUBLISH, {"routing_key": "nobody"}, 409, "no queue takes what is published to "),
        (PUBLISH, {"routing_key": "a", "exchange": "gone"}, 404, "no exchange 'gone'"),
        (PUBLISH, {"routing_key": "x" * 256}, 400, "a short string of 256 bytes"),
        (PUBLISH, {"routing_key": "a", "body_encoding": "x"}, 400, "is utf-8 or base64"),
        (PUBLISH, {"routing_key": "a", "body": "?", "body_encoding": "base64"}, 400, "ase64"),
        (PUBLISH, {"routing_key": "a", "properties": {"colour": 1}}, 400, "argument 'colour'"),
        (PUBLISH, {"routing_key": "a", "properties": {"type": 1}}, 400, "'type' must be a string"),
        (PUBLISH, {"routing_key": "orders", "properties": {"priority": 256}}, 400, "range(0, 256)"),
        (
            PUBLISH,
            {"routing_key": "orders", "properties": {"timestamp": 1 << 64}},
            400,
            "too large",
        ),
        (PUBLISH, {"routing_key": "orders", "properties": {"type": "x" * 256}}, 400, "256 bytes"),
        (PUBLISH, {"routing_key": "orders", "headers": {"x": 1 << 64}}, 400, "too large"),
        (PUBLISH, {"routing_key": "orders", "headers": {"x" * 256: 1}}, 400, "256 bytes"),
        (PUBLISH, {"routing_key": "orders", "headers": {"x": "\ud800"}}, 400, "surrogates"),
    ],
)
async def test_what_cannot_be_done_is_reported_and_changes_nothing(
    api: Api, path: str, arguments: Row, status: int, why: str
) -> None:
    found, result = await api.fails(path, **arguments)
    assert found == status, result
    assert why in result
    assert await api.post("vhosts") == {"vhosts": ["/"]}
    assert (await api.post("vhosts/%2F/queues"))["queues"]["orders"]["messages"] == 0


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[]", "arguments are an object"),
        (b"{", "double quotes"),
        (b"\xff", "decode"),
        (b'{"name": NaN}', "JSON has no NaN"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"name": ' + b"9" * 5_000 + b"}", "digits"),
    ],
)
async def test_a_body_that_is_no_object_is_refused(broker: Broker, body: bytes, why: str) -> None:
    status, result = await OperationDispatcher(broker, OPERATIONS).answer("vhosts", body)
    assert status == 400
    assert why in json.loads(result)["error"]


async def test_deep_headers_are_refused(broker: Broker) -> None:
    headers = '{"a":' * 400 + "1" + "}" * 400
    body = f'{{"routing_key": "a", "headers": {headers}}}'.encode()
    status, result = await OperationDispatcher(broker, OPERATIONS).answer(PUBLISH, body)
    assert status == 400, result


async def test_a_bug_is_a_500_and_the_next_request_is_served(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(broker: Broker) -> Row:
        raise KeyError("no such thing")

    async def endless(broker: Broker) -> Row:
        return {"text": "x" * ANSWER_BYTES_MAX}

    acts = {"broken": broken, "endless": endless}
    api = Api(OperationDispatcher(broker, operations("", acts, itself)))
    assert await api.fails("broken") == (500, "this is a bug; see the log")
    assert "no such thing" in caplog.text
    status, why = await api.fails("endless")
    assert (status, why.partition(";")[2]) == (400, " ask for fewer")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("orders"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Row]:
    """Random requests to some path, with some of its arguments, of any kind."""
    path = draw(st.sampled_from(list(OPERATIONS)))
    arguments = {
        name: draw(st.one_of(JSON, *(KINDS_OF[kind] for kind in argument.kinds)))
        for name, argument in OPERATIONS[path].arguments.items()
        if argument.required or draw(st.booleans())
    }
    if path == "vhosts/add":
        arguments.pop("users", None)  # whose passwords are hashed: that takes long
    if "within" in OPERATIONS[path].arguments:
        arguments["within"] = 0
    return path.replace("{vhost}", "%2F"), arguments


KINDS_OF: Mapping[object, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(),
    float: st.floats(0, 1000),
    bool: st.booleans(),
    dict[str, Any]: st.dictionaries(st.text() | st.sampled_from(sorted(PROPERTIES)), JSON),
    NoneType: st.none(),
}


def test_whatever_is_asked_for_is_no_bug() -> None:
    with asyncio.Runner() as runner:
        broker = Broker()
        runner.run(broker.__aenter__())
        serving = OperationDispatcher(broker, OPERATIONS)

        @given(requests())
        def asks(request: tuple[str, Row]) -> None:
            path, arguments = request
            result = runner.run(serving.answer(path, json.dumps(arguments).encode()))
            assert result.status in (200, 400, 404, 409), result

        asks()
        runner.run(broker.__aexit__(None, None, None))


async def test_no_two_virtual_hosts_without_a_name_are_called_the_same(api: Api) -> None:
    async def fresh() -> str:
        row = await api.post("vhosts/add")
        return str(row["name"])

    await api.post("vhosts/add", name="test-2")
    at_once = await asyncio.gather(*(fresh() for _ in range(4)))
    assert at_once == ["test-1", "test-3", "test-4", "test-5"]
    for name in at_once:
        await api.post("vhosts/delete", name=name)
    assert await fresh() == "test-6"
