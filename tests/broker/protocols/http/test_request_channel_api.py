"""Declaring, deleting, binding, publishing, getting and purging over HTTP, as the user who asks."""

import sys
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from fluffle.broker.access.passwords import hashed
from fluffle.broker.admin import local_client
from fluffle.broker.base.message import Origin
from fluffle.broker.protocols.http.endpoints import queues
from fluffle.broker.protocols.http.request_channel import GotMessage, MessageChannel
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.support.loop_turns import TurnCounter
from tests.support.management import Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

READER = ("reader", "reader")
MESSAGE: dict[str, Any] = {
    "routing_key": "q",
    "payload": "hé",
    "payload_encoding": "string",
    "properties": {},
}
GET = {"count": 9, "ackmode": "ack_requeue_true", "encoding": "auto"}
REFUSED = 401, {"error": "not_authorised", "reason": "Access refused."}
ABSENT = 404, {"error": "Object Not Found", "reason": "Not Found"}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def others(api: Api) -> None:
    """A user who may read and write little, and a virtual host for nobody."""
    await verb(
        api, "users.add", name="reader", password_hash=hashed(b"reader").hash, tags=["management"]
    )
    rights = {"configure": "^$", "write": "^w", "read": "^q$"}
    await verb(api, "permissions.set", user="reader", vhost="/", **rights)
    await verb(api, "vhosts.add", name="closed")


@pytest_asyncio.fixture(loop_scope="module", params=["classic", "quorum"])
async def queue(api: Api, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A queue that is empty."""
    body = {"durable": True, "arguments": {"x-queue-type": request.param}}
    assert await api.ask("PUT", "queues/%2F/q", json=body) == (201, None)
    yield "queues/%2F/q"
    assert await api.ask("DELETE", "queues/%2F/q") == (204, None)


async def verb(api: Api, verb_name: str, **arguments: Any) -> None:
    status, answer = await api.ask("POST", f"fluffle/verbs/{verb_name}", json=arguments)
    assert status == 200, answer


async def publish(api: Api, exchange: str = "amq.default", **changed: Any) -> tuple[int, Any]:
    path = f"exchanges/%2F/{exchange}/publish"
    return await api.ask("POST", path, json={**MESSAGE, **changed})


async def test_what_is_published_is_got(api: Api, queue: str) -> None:
    properties = {
        "delivery_mode": 2,
        "priority": 5,
        "timestamp": 7,
        "headers": {"i": 1, "f": 1.5, "b": True, "l": [1, {"x": "y"}]},
    }
    with_hyphen = {"content-type": "text/plain", "unknown": 1}
    assert await publish(api, properties={**properties, **with_hyphen}) == (200, {"routed": True})
    blob = {"payload": "AP8=", "payload_encoding": "base64"}
    assert await publish(api, **blob) == (200, {"routed": True})
    assert await publish(api, routing_key="nowhere") == (200, {"routed": False})
    status, messages = await api.ask("POST", f"{queue}/get", json={**GET, "truncate": 2})
    assert status == 200
    assert messages == [
        {
            "payload_bytes": 3,
            "redelivered": False,
            "exchange": "",
            "routing_key": "q",
            "message_count": 1,
            "properties": {"content_type": "text/plain", **properties},
            "payload": "aMM=",  # half a letter is no text
            "payload_encoding": "base64",
        },
        {
            "payload_bytes": 2,
            "redelivered": False,
            "exchange": "",
            "routing_key": "q",
            "message_count": 0,
            "properties": {},
            **blob,
        },
    ]
    taking = {"count": "1", "ackmode": "ack_requeue_false", "encoding": "base64"}
    _status, (first,) = await api.ask("POST", f"{queue}/get", json=taking)
    assert (first["payload"], first["redelivered"]) == ("aMOp", True)
    rejecting = {"count": 1, "ackmode": "reject_requeue_false", "encoding": "auto"}
    _status, (second,) = await api.ask("POST", f"{queue}/get", json=rejecting)
    assert second["payload_encoding"] == "base64"
    assert await api.ask("POST", f"{queue}/get", json=GET) == (200, [])


async def test_purging(api: Api, queue: str) -> None:
    await publish(api)
    assert await api.ask("DELETE", f"{queue}/contents") == (204, None)
    assert (await api.get(queue))["messages"] == 0
    assert await api.ask("DELETE", "queues/%2F/no/contents") == ABSENT


async def test_a_message_that_a_queue_does_not_take(api: Api) -> None:
    full = {"arguments": {"x-max-length": 0, "x-overflow": "reject-publish"}}
    await api.ask("PUT", "queues/%2F/full", json=full)
    reason = "rejected Unable to publish message. Check queue limits."
    expected = 400, {"error": "bad_request", "reason": reason}
    assert await publish(api, routing_key="full") == expected
    assert await api.ask("DELETE", "queues/%2F/full?if-empty=true&if-unused=true") == (204, None)


async def test_declaring_again(api: Api) -> None:
    path = "exchanges/%2F/news"
    assert await api.ask("PUT", path, json={"type": "topic"}) == (201, None)
    assert await api.ask("PUT", path, json={"type": "topic"}) == (204, None)
    reason = (
        "inequivalent arg 'type' for exchange 'news' in vhost '/': "
        "received 'fanout' but current is 'topic'"
    )
    expected = 400, {"error": "bad_request", "reason": reason}
    assert await api.ask("PUT", path, json={"type": "fanout"}) == expected
    assert await api.ask("PUT", "queues/%2F/again", json={"durable": "true"}) == (201, None)
    assert await api.ask("PUT", "queues/%2F/again", json={"durable": True}) == (204, None)
    reason = (
        "inequivalent arg 'durable' for queue 'again' in vhost '/': "
        "received 'false' but current is 'true'"
    )
    expected = 400, {"error": "bad_request", "reason": reason}
    assert await api.ask("PUT", "queues/%2F/again") == expected
    assert await api.ask("DELETE", "queues/%2F/again") == (204, None)
    assert await api.ask("DELETE", path) == (204, None)
    assert await api.ask("DELETE", path) == ABSENT


async def test_binding(api: Api) -> None:
    for name in ("one", "two"):
        await api.ask("PUT", f"exchanges/%2F/{name}", json={"type": "topic"})
    await api.ask("PUT", "queues/%2F/bound", json={})
    path = "bindings/%2F/e/one/q/bound"
    assert await located(api, path, {"routing_key": "a b.#"}) == "bound/a%2Bb.%2523"
    assert await located(api, path, {}) == "bound/~"
    with_arguments = await located(api, path, {"routing_key": "k", "arguments": {"x": 1}})
    assert with_arguments.startswith("bound/k~")
    between = "bindings/%2F/e/one/e/two"
    assert await located(api, between, {"routing_key": "k"}) == "two/k"
    assert len(await api.get(path)) == 3
    in_use = {"error": "bad_request", "reason": "exchange 'one' in vhost '/' in use"}
    assert await api.ask("DELETE", "exchanges/%2F/one?if-unused=true") == (400, in_use)
    for props in ("a%2Bb.%2523", "~", with_arguments.removeprefix("bound/")):
        assert await api.ask("DELETE", f"{path}/{props}") == (204, None)
        assert await api.ask("DELETE", f"{path}/{props}") == ABSENT
    assert await api.ask("DELETE", f"{between}/k") == (204, None)
    assert await api.ask("DELETE", "exchanges/%2F/one?if-unused=true") == (204, None)


async def test_what_php_calls_an_empty_table(api: Api) -> None:
    for method, path, body in (
        ("PUT", "exchanges/%2F/php", {"type": "topic", "arguments": []}),
        ("PUT", "queues/%2F/php", {"arguments": []}),
        ("POST", "bindings/%2F/e/php/q/php", {"routing_key": None, "arguments": []}),
    ):
        assert await api.ask(method, path, json=body) == (201, None), path
    assert (await api.get("queues/%2F/php"))["arguments"] == {"x-queue-type": "classic"}
    (binding,) = await api.get("bindings/%2F/e/php/q/php")
    assert (binding["routing_key"], binding["arguments"]) == ("", {})
    empty: tuple[Any, ...] = ([], {"headers": []})
    for properties in empty:
        assert await publish(api, "php", routing_key="", properties=properties) == (
            200,
            {"routed": True},
        )
    for path in ("exchanges/%2F/php", "queues/%2F/php"):
        assert await api.ask("DELETE", path) == (204, None)


@pytest.mark.parametrize("props", ["a+b", "a%20b", "a%2520b", "a%2Bb"])
async def test_a_blank_in_a_key_may_be_quoted_in_any_way(api: Api, props: str) -> None:
    await api.ask("PUT", "queues/%2F/blank", json={})
    path = "bindings/%2F/e/amq.topic/q/blank"
    for key in ("a b", "a%20b", "b"):
        assert (await api.ask("POST", path, json={"routing_key": key}))[0] == 201
    assert (await api.get(f"{path}/{props}"))["routing_key"] == "a b"
    assert (await api.get(f"{path}/a%252520b"))["routing_key"] == "a%20b"
    assert await api.ask("DELETE", f"{path}/{props}") == (204, None)
    assert await api.ask("DELETE", "queues/%2F/blank") == (204, None)


async def located(api: Api, path: str, body: Any) -> str:
    """Where a new binding is."""
    status, location = await api.location("POST", path, json=body)
    assert status == 201
    return location


@pytest.mark.parametrize(
    ("method", "path", "body", "reason"),
    [
        ("PUT", "queues/%2F/b", {"durable": "maybe"}, ["not_boolean", "maybe"]),
        ("PUT", "queues/%2F/b", {"durable": 1}, ["not_boolean", 1]),
        ("PUT", "queues/%2F/b", {"arguments": {"x": None}}, "null_not_allowed"),
        ("PUT", "queues/%2F/b", {"arguments": [1]}, ["not_a_table", "arguments"]),
        ("PUT", "queues/%2F/b", {"node": "no"}, "Node no could not be contacted"),
        (
            "PUT",
            "queues/%2F/b",
            {"arguments": {"x-max-length": "a"}},
            "invalid arg 'x-max-length' for queue 'b' in vhost '/': "
            '"expected integer, got longstr"',
        ),
        (
            "PUT",
            f"queues/%2F/{'x' * 256}",
            {},
            "queue should be less than 255 bytes, actually was 256\n",
        ),
        ("PUT", "exchanges/%2F/b", {"type": "no"}, "unknown exchange type 'no'"),
        ("PUT", "queues/%2F/b", [], "not_json"),
        ("POST", "queues/%2F/w/actions", {"action": "sync"}, ["unknown", "sync"]),
        ("POST", "queues/%2F/w/actions", {}, "[{key_missing,action}]"),
        ("POST", "queues/%2F/w/get", {**GET, "ackmode": "no"}, ["unknown_ackmode", "no"]),
        ("POST", "queues/%2F/w/get", {**GET, "count": "a"}, ["not_integer", "a"]),
        ("POST", "queues/%2F/w/get", {**GET, "truncate": "x"}, ["not_integer", "x"]),
        (
            "POST",
            "queues/%2F/w/get",
            {**GET, "encoding": "no"},
            "Unsupported encoding. Please use auto or base64.",
        ),
        (
            "POST",
            "queues/%2F/w/get",
            {},
            "[{key_missing,ackmode},{key_missing,count},{key_missing,encoding}]",
        ),
    ],
)
async def test_what_cannot_be(api: Api, method: str, path: str, body: Any, reason: Any) -> None:
    await api.ask("PUT", "queues/%2F/w", json={})
    expected = 400, {"error": "bad_request", "reason": reason}
    assert await api.ask(method, path, json=body) == expected


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"payload": 5}, "payload_not_string"),
        ({"payload_encoding": "no"}, ["unsupported_encoding", "no"]),
        ({"payload_encoding": "base64", "payload": "!"}, ["not_base64", "!"]),
        ({"properties": {"priority": "a"}}, ["not_int", "priority"]),
        ({"properties": {"priority": True}}, ["not_int", "priority"]),
        ({"properties": {"expiration": 5}}, ["not_string", "expiration"]),
        ({"properties": {"headers": 5}}, ["not_a_table", "headers"]),
        ({"properties": {"headers": {"a": [None]}}}, "null_not_allowed"),
        ({"properties": [1]}, ["not_a_table", "properties"]),
        ({"routing_key": []}, ["not_string", "routing_key"]),
        (
            {"properties": {"user_id": "bob"}},
            "406 PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was "
            "'guest'",
        ),
    ],
)
async def test_what_is_no_message(api: Api, changed: Any, reason: Any) -> None:
    expected = 400, {"error": "bad_request", "reason": reason}
    assert await publish(api, **changed) == expected


async def test_what_a_message_goes_to_must_be_there(api: Api) -> None:
    absent = 404, {"error": "not_found", "reason": "exchange_not_found"}
    assert await publish(api, "no") == absent
    refused = "cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'"
    expected = 400, {"error": "bad_request", "reason": f"403 ACCESS_REFUSED - {refused}"}
    assert await publish(api, "amq.rabbitmq.trace") == expected


@pytest.mark.parametrize(
    ("method", "path", "body", "reason"),
    [
        ("PUT", "queues/no/q", {}, "vhost_not_found"),
        ("PUT", "exchanges/no/q", {}, "vhost_not_found"),
        ("POST", "queues/%2F/no/get", GET, "queue_not_found"),
        ("POST", "queues/%2F/no/actions", {"action": "sync"}, "queue_not_found"),
        ("POST", "bindings/%2F/e/no/q/w", {}, "no exchange 'no' in vhost '/'"),
        ("POST", "bindings/%2F/e/amq.topic/q/no", {}, "no queue 'no' in vhost '/'"),
    ],
)
async def test_what_is_needed_is_not_there(
    api: Api, method: str, path: str, body: Any, reason: str
) -> None:
    await api.ask("PUT", "queues/%2F/w", json={})
    expected = 404, {"error": "not_found", "reason": reason}
    assert await api.ask(method, path, json=body) == expected


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "queues/%2F/r", {}),
        ("PUT", "exchanges/%2F/r", {}),
        ("DELETE", "queues/%2F/w", None),
        ("DELETE", "queues/%2F/w/contents", None),
        ("DELETE", "exchanges/%2F/amq.topic", None),
        ("POST", "bindings/%2F/e/amq.topic/q/w", {}),
    ],
)
async def test_who_may_not(api: Api, method: str, path: str, body: Any) -> None:
    await api.ask("PUT", "queues/%2F/w", json={})
    assert await api.ask(method, path, json=body, user=READER) == REFUSED


async def test_who_may_not_read_or_write(api: Api) -> None:
    await api.ask("PUT", "queues/%2F/w", json={})
    reason = "403 ACCESS_REFUSED - write access to exchange 'amq.topic' in vhost '/' refused for "
    path = "exchanges/%2F/amq.topic/publish"
    expected = 400, {"error": "bad_request", "reason": f"{reason}user 'reader'"}
    assert await api.ask("POST", path, json=MESSAGE, user=READER) == expected
    reason = "ACCESS_REFUSED - read access to queue 'w' in vhost '/' refused for user 'reader'"
    expected = 401, {"error": "not_authorised", "reason": reason}
    assert await api.ask("POST", "queues/%2F/w/get", json=GET, user=READER) == expected


async def test_who_may_not_enter_a_virtual_host(api: Api) -> None:
    reason = "User not authorised to access virtual host"
    expected = 401, {"error": "not_authorised", "reason": reason}
    for method, path in (("PUT", "queues/closed/q"), ("GET", "queues/closed")):
        assert await api.ask(method, path, user=READER) == expected
    assert await api.get("queues/closed") == []  # who administers may look
    assert await api.ask("PUT", "queues/closed/q") == REFUSED


async def test_nothing_is_left_of_who_has_asked(api: Api) -> None:
    await api.ask("PUT", "queues/%2F/w", json={})
    await publish(api, routing_key="w")
    assert len(api.node.parts.connections) == 0


class Full:
    """A channel to a queue that always has another message."""

    def __init__(self, body: bytes) -> None:
        content = build_content(encode_properties(Properties()), body)
        self._got = GotMessage(Origin("", "q"), content, is_redelivered=False, left_count=1)

    async def get(self, _name: str) -> GotMessage:
        return self._got


async def taken(body: bytes, count: int, bytes_max: int | None = None) -> int:
    channel = cast(MessageChannel, Full(body))
    return len(await queues.taken(channel, "q", count, "auto", bytes_max=bytes_max))


async def test_messages_without_a_body_fill_the_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "GOT_BYTES_MAX", 100_000)
    assert 10 < await taken(b"", 1_000_000) <= 100
    assert 10 < await taken(b"x" * 100_000, 1_000_000, bytes_max=0) <= 100


async def test_who_takes_many_messages_lets_others_have_their_turn() -> None:
    others = TurnCounter()
    async with others.counted():
        assert await taken(b"", 1000) == 1000
    assert others.turns >= 10


async def test_what_takes_too_long_is_named(api: Api) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_client, "ANSWER_TIMEOUT_S", 0)
        answer = await api.ask("PUT", "queues/%2F/slow", json={"durable": True})
    reason = "the broker has not done 'Queue.Declare' in 0 s"
    assert answer == (503, {"error": "timeout", "reason": reason})
    await api.ask("DELETE", "queues/%2F/slow")


async def test_nothing_is_published_while_an_alarm_is_raised(api: Api) -> None:
    alarms = api.node.parts.alarms
    alarms.move_memory_watermark(0)
    try:
        reason = "blocked low on memory: nothing is published until the alarm is over"
        assert await publish(api) == (503, {"error": "service_unavailable", "reason": reason})
    finally:
        alarms.move_memory_watermark(sys.maxsize)
    assert (await publish(api))[0] == 200


async def test_an_empty_queue_is_asked_once(api: Api, queue: str) -> None:
    """Else it is counted twice, and a message may come in between."""
    get = MessageChannel.get
    asked: list[str] = []

    async def seen(channel: MessageChannel, name: str) -> GotMessage | None:
        asked.append(name)
        return await get(channel, name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MessageChannel, "get", seen)
        assert await api.ask("POST", f"{queue}/get", json=GET) == (200, [])
    assert asked == ["q"]
