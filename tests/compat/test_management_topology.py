"""The management API beside RabbitMQ's: of the same queues, exchanges, bindings and clients each
endpoint tells the same keys with the same types, and bad requests are refused alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pika
import pytest

from tests.compat.http import PATIENCE_S, Http, segment, shape_of
from tests.compat.oracle import RabbitMQ, free_port
from tests.support.daemon import Daemon

pytestmark = pytest.mark.compat

MESSAGE = {"payload": "x", "payload_encoding": "string", "properties": {}}
GET = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}

TOPOLOGY: tuple[tuple[str, str, object], ...] = (
    ("PUT", "users/reader", {"password": "reader", "tags": "management"}),
    ("PUT", "permissions/%2F/reader", {"configure": "^$", "write": "^w", "read": "^q$"}),
    ("PUT", "users/monitor", {"password": "monitor", "tags": "monitoring"}),
    ("PUT", "vhosts/closed", {}),
    ("DELETE", "permissions/closed/guest", None),
    ("PUT", "queues/%2F/q", {"durable": True}),
    ("PUT", "queues/%2F/replicated", {"durable": True, "arguments": {"x-queue-type": "quorum"}}),
    ("PUT", "queues/%2F/short", {"arguments": {"x-max-length": 3, "x-expires": 1800000}}),
    ("PUT", "policies/%2F/ttl", {"pattern": "^short$", "definition": {"message-ttl": 60000}}),
    ("PUT", "exchanges/%2F/news", {"type": "topic", "durable": True}),
    ("PUT", "exchanges/%2F/all", {"type": "fanout", "arguments": {"alternate-exchange": "news"}}),
    ("POST", "bindings/%2F/e/news/q/q", {"routing_key": "a b.#"}),
    ("POST", "bindings/%2F/e/news/q/q", {}),
    ("POST", "bindings/%2F/e/news/q/q", {"routing_key": "k", "arguments": {"x": 1, "y": ["z"]}}),
    ("POST", "bindings/%2F/e/news/e/all", {"routing_key": "#"}),
    ("POST", "exchanges/%2F/news/publish", {**MESSAGE, "routing_key": "k"}),
    ("POST", "exchanges/%2F/amq.default/publish", {**MESSAGE, "routing_key": "replicated"}),
    ("POST", "exchanges/%2F/amq.default/publish", {**MESSAGE, "routing_key": "nowhere"}),
    ("POST", "queues/%2F/q/get", GET),
)
"""What is there, made by the API."""

PATHS = (
    *("queues", "queues/%2F", "queues/detailed", "queues/%2F/q", "queues/%2F/replicated"),
    *("queues/%2F/short", "queues/%2F/mine", "queues/%2F/q/bindings", "queues?page=1&name=q"),
    *("queues/%2F/q?columns=name,message_stats.publish", "overview?columns=node,queue_totals"),
    *("queues?disable_stats=true", "queues?disable_stats=true&enable_queue_totals=true"),
    *("queues?sort=name&sort_reverse=true&columns=name,message_stats.publish", "queues?name=q"),
    *("queues?page=1&name=none", "queues/%2F?page=1&use_regex=true&name=^Q&pagination=false"),
    *("exchanges", "exchanges/%2F", "exchanges/%2F/news", "exchanges/%2F/amq.default"),
    *("exchanges/%2F/news/bindings/source", "exchanges/%2F/all/bindings/destination"),
    *("exchanges/%2F/", "exchanges/%2F//", "exchanges/%2F//bindings/source"),
    *("exchanges?page=1&page_size=2", "bindings", "bindings/%2F", "bindings/%2F/e/news/q/q"),
    *("bindings/%2F/e/news/e/all", "bindings/%2F/e/news/q/q/~"),
    *("bindings/%2F/e/news/q/q/a%2Bb.%2523", "bindings/%2F/e/news/q/none"),
    *("connections", "connections/{connection}", "connections/{connection}/channels"),
    *("connections/username/guest", "vhosts/%2F/connections", "connections?disable_stats=true"),
    *("channels", "channels/{channel}", "vhosts/%2F/channels", "consumers", "consumers/%2F"),
    "queues/quorum/%2F/replicated/status",
)

ERLANG = "of Erlang's processes, which there are none of"
LACKING = {
    "garbage_collection": ERLANG,
    "reductions": ERLANG,
    "reductions_details": ERLANG,
    "storage_version": "of RabbitMQ's store",
    "open_files": "of RabbitMQ's store",
    "incoming": "of a queue: not counted by pairs with exchanges; of an exchange it is told",
    "outgoing": "likewise",
    "user_who_performed_action": "who declared an exchange is not remembered",
    "x-queue-type": "RabbitMQ adds it to what clients declare, `type` says it in both",
}
"""Keys that RabbitMQ has and fluffle does not, wherever they stand, and why."""

NOTHING_YET = (".message_stats",)
"""RabbitMQ writes zeroes for what has not happened to an object to which something has."""


class Pair(NamedTuple):
    """Both brokers."""

    theirs: Http
    ours: Http


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Http, int]]:
    """RabbitMQ with its management API, which looks at what is so more often than it does."""
    port = free_port()
    config = f"""
        management.tcp.ip = 127.0.0.1
        management.tcp.port = {port}
        collect_statistics_interval = 200
    """
    folder = tmp_path_factory.mktemp("rabbitmq")
    with RabbitMQ(folder, config, "rabbitmq_management") as node:
        yield Http(port), node.port


@pytest.fixture(scope="module")
def fluffle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Http, int]]:
    with Daemon(tmp_path_factory.mktemp("fluffle"), "--management", "127.0.0.1:0") as daemon:
        yield Http(daemon.addresses["management"][1]), daemon.port
    assert "Traceback" not in daemon.log


@pytest.fixture(scope="module")
def pair(rabbitmq: tuple[Http, int], fluffle: tuple[Http, int]) -> Iterator[Pair]:
    """Both with the same in them, and a client who stays."""
    clients = []
    for http, port in (rabbitmq, fluffle):
        for method, path, body in TOPOLOGY:
            told = http.ask(method, path, body)
            assert told.status in (200, 201, 204), (method, path, told)
        clients.append(client_of(port))
        http.wait_for("connections", "recv_oct", "client_properties", "channels")
        http.wait_for("channels", "message_stats", "consumer_count", "idle_since")
        http.wait_for("consumers", "consumer_tag")
        http.wait_for("queues/%2F/short", "messages_details", "idle_since")
        for name in ("q", "mine"):
            http.wait_for(f"queues/%2F/{name}", "message_stats", "messages_details", "idle_since")
        http.wait_for("queues/%2F/replicated", "message_stats", "messages_details")
        http.wait_for("exchanges/%2F/news", "message_stats")
    yield Pair(rabbitmq[0], fluffle[0])
    for client in clients:
        client.close()


def client_of(port: int) -> pika.BlockingConnection:
    """It has published, and holds a message of a queue of its own."""
    connection = pika.BlockingConnection(parameters_at(port, {"connection_name": "mine"}))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_qos(prefetch_count=5)
    channel.queue_declare("mine", exclusive=True)
    channel.basic_publish("", "mine", b"x")
    channel.basic_consume("mine", lambda *_: None, consumer_tag="tag", arguments={"x-priority": 3})
    connection.process_data_events(0)
    return connection


def parameters_at(port: int, properties: Any = None) -> pika.ConnectionParameters:
    return pika.ConnectionParameters("127.0.0.1", port, client_properties=properties)


def path_at(http: Http, path: str) -> str:
    """With the names of the client."""
    if "{" not in path:
        return path
    name = http.get("connections")[0]["name"]
    return path.format(connection=segment(name), channel=segment(f"{name} (1)"))


def last(path: str) -> str:
    return path.rpartition(".")[2].removesuffix("[]")


@pytest.mark.parametrize("path", PATHS)
def test_keys_and_types_are_the_same(pair: Pair, path: str) -> None:
    theirs, ours = (shape_of(http.get(path_at(http, path))) for http in pair)
    assert lacking(theirs, ours) == {}
    assert unlike(theirs, ours) == {}


def lacking(theirs: dict[str, set[str]], ours: dict[str, set[str]]) -> dict[str, set[str]]:
    """Keys that only they have, and nobody has said why."""
    return {
        path: kinds for path, kinds in theirs.items() if path not in ours and not is_argued(path)
    }


def is_argued(path: str) -> bool:
    parts = {part.removesuffix("[]") for part in path.split(".")}
    return not parts.isdisjoint(LACKING) or any(each in path for each in NOTHING_YET)


def unlike(theirs: dict[str, set[str]], ours: dict[str, set[str]]) -> dict[str, Any]:
    """Keys of which the types differ."""
    return {
        path: (kinds, ours[path])
        for path, kinds in theirs.items()
        if path in ours and not ours[path] <= kinds | {"null"}
    }


BAD: tuple[tuple[Any, ...], ...] = (
    ("PUT", "queues/%2F/q", {"durable": False}),
    ("PUT", "queues/%2F/q", {"durable": True, "arguments": {"x-max-length": 3}}),
    ("PUT", "queues/%2F/b", {"arguments": {"x-max-length": "a"}}),
    ("PUT", "queues/%2F/b", {"arguments": {"x-queue-type": "no"}}),
    ("PUT", "queues/%2F/b", {"arguments": {"x": None}}),
    ("PUT", "queues/%2F/b", {"durable": "maybe"}),
    ("PUT", "queues/%2F/b", {"durable": 1}),
    ("PUT", "queues/%2F/b", {"auto_delete": "x"}),
    ("PUT", "queues/%2F/b", {"node": "rabbit@no"}),
    ("PUT", "queues/%2F/b", b"{"),
    ("PUT", "queues/%2F/b", b"[]"),
    ("PUT", "queues/%2F/amq.x", {}),
    ("PUT", "queues/no/q", {}),
    ("PUT", f"queues/%2F/{'x' * 256}", {}),
    ("PUT", "queues/closed/q", {}),
    ("PUT", "exchanges/%2F/news", {"type": "fanout"}),
    ("PUT", "exchanges/%2F/b", {"type": "x-fluffle"}),
    ("PUT", "exchanges/%2F/amq.b", {"type": "direct"}),
    ("PUT", "exchanges/no/x", {}),
    ("DELETE", "exchanges/%2F/amq.topic"),
    ("DELETE", "exchanges/%2F/amq.default"),
    ("DELETE", "exchanges/%2F/no"),
    ("DELETE", "exchanges/%2F//"),
    ("PUT", "exchanges/%2F//", {"type": "direct"}),
    ("DELETE", "exchanges/%2F/news?if-unused=true"),
    ("DELETE", "queues/%2F/no"),
    ("DELETE", "queues/%2F/q?if-empty=true"),
    ("DELETE", "queues/%2F/replicated?if-unused=true"),
    ("DELETE", "queues/%2F/no/contents"),
    ("POST", "bindings/%2F/e/no/q/q", {}),
    ("POST", "bindings/%2F/e/news/q/no", {}),
    ("POST", "bindings/%2F/e/amq.default/q/q", {}),
    ("DELETE", "bindings/%2F/e/news/q/q/no"),
    ("DELETE", "bindings/%2F/e/no/q/q/no"),
    ("POST", "exchanges/%2F/no/publish", {**MESSAGE, "routing_key": "a"}),
    ("POST", "exchanges/%2F/news/publish", MESSAGE),
    ("POST", "exchanges/%2F/news/publish", b"{"),
    ("POST", "exchanges/%2F/news/publish", {**MESSAGE, "routing_key": "a", "payload": 5}),
    (
        "POST",
        "exchanges/%2F/news/publish",
        {**MESSAGE, "routing_key": "a", "payload_encoding": "no"},
    ),
    (
        "POST",
        "exchanges/%2F/news/publish",
        {**MESSAGE, "routing_key": "a", "payload": "!", "payload_encoding": "base64"},
    ),
    (
        "POST",
        "exchanges/%2F/news/publish",
        {**MESSAGE, "routing_key": "a", "properties": {"priority": "a"}},
    ),
    (
        "POST",
        "exchanges/%2F/news/publish",
        {**MESSAGE, "routing_key": "a", "properties": {"expiration": 5}},
    ),
    (
        "POST",
        "exchanges/%2F/news/publish",
        {**MESSAGE, "routing_key": "a", "properties": {"user_id": "bob"}},
    ),
    ("POST", "exchanges/%2F/amq.rabbitmq.trace/publish", {**MESSAGE, "routing_key": "a"}),
    ("POST", "queues/%2F/no/get", GET),
    ("POST", "queues/%2F/q/get", {}),
    ("POST", "queues/%2F/q/get", {**GET, "count": "a"}),
    ("POST", "queues/%2F/q/get", {**GET, "encoding": "no"}),
    ("POST", "queues/%2F/q/get", {**GET, "truncate": "x"}),
    ("POST", "queues/%2F/q/actions", {"action": "sync"}),
    ("POST", "queues/%2F/q/actions", {}),
    ("GET", "queues/no"),
    ("GET", "queues/%2F/no"),
    ("GET", "queues/%2F//"),
    ("GET", "queues//"),
    ("GET", "exchanges//"),
    ("GET", "overview//"),
    ("GET", "queues?page=9"),
    ("GET", "queues?page=0"),
    ("GET", "queues?page=x"),
    ("GET", "queues?page=1&page_size=501"),
    ("GET", "queues?page=1&page_size=x"),
    ("GET", "queues?page=1&name=(&use_regex=true"),
    ("GET", "queues?msg_rates_age=100000&msg_rates_incr=1"),
    ("GET", "exchanges/%2F/no"),
    ("GET", "bindings/no"),
    ("GET", "bindings/%2F/e/news/q/q/no"),
    ("GET", "connections/no"),
    ("GET", "connections/no/sessions"),
    ("GET", "channels/no"),
    ("GET", "consumers/no"),
    ("GET", "vhosts/no/connections"),
    ("GET", "vhosts/no/channels"),
    ("DELETE", "connections/no"),
    ("GET", "queues/quorum/%2F/q/status"),
    ("GET", "queues/quorum/%2F/no/status"),
    ("POST", "queues/quorum/%2F/replicated/replicas/add", {"node": "rabbit@no"}),
    ("POST", "queues/quorum/%2F/replicated/replicas/add", {}),
    ("POST", "queues/quorum/%2F/q/replicas/add", {"node": "rabbit@no"}),
    ("DELETE", "queues/quorum/%2F/replicated/replicas/delete", {"node": "rabbit@no"}),
    ("DELETE", "queues/quorum/replicas/on/rabbit@no/shrink"),
    ("PUT", "queues/%2F/r", {}, "reader:reader"),
    ("PUT", "exchanges/%2F/r", {"type": "direct"}, "reader:reader"),
    ("DELETE", "queues/%2F/q", None, "reader:reader"),
    ("POST", "bindings/%2F/e/news/q/q", {}, "reader:reader"),
    ("POST", "exchanges/%2F/news/publish", {**MESSAGE, "routing_key": "a"}, "reader:reader"),
    ("POST", "queues/%2F/short/get", GET, "reader:reader"),
    ("DELETE", "queues/%2F/short/contents", None, "reader:reader"),
    ("GET", "queues/closed", None, "reader:reader"),
    ("GET", "queues/%2F", None, "monitor:monitor"),
    ("GET", "bindings/%2F", None, "monitor:monitor"),
    ("PUT", "queues/%2F/m", {}, "monitor:monitor"),
    ("GET", "connections/username/guest", None, "reader:reader"),
    ("DELETE", "connections/username/guest", None, "monitor:monitor"),
    ("POST", "rebalance/queues", None, "reader:reader"),
    ("POST", "queues/quorum/%2F/replicated/replicas/add", {"node": "x"}, "reader:reader"),
)


@pytest.mark.parametrize("request_", BAD, ids=lambda each: " ".join(map(str, each))[:60])
def test_bad_requests_are_refused_alike(pair: Pair, request_: tuple[Any, ...]) -> None:
    theirs, ours = (http.ask(*request_) for http in pair)
    assert ours == theirs


QUORUM = {"x-queue-type": "quorum"}
KEPT = {
    **QUORUM,
    "x-dead-letter-exchange": "absent",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-message-ttl": 1,
}
"""The arguments of a queue whose messages die at once, and have no place to go."""

MEASURED = (
    *("messages", "messages_ready", "messages_unacknowledged", "messages_persistent"),
    *("messages_ready_high", "messages_ready_normal", "messages_ready_returned"),
    *("messages_dlx", "publishers", "message_bytes_ready", "message_bytes_unacknowledged"),
)


def test_parts_of_quorum_queues_have_the_same_numbers(
    rabbitmq: tuple[Http, int], fluffle: tuple[Http, int]
) -> None:
    pair = Pair(rabbitmq[0], fluffle[0])
    for http in pair:
        for name, arguments in (("parted", QUORUM), ("kept", KEPT)):
            body = {"durable": True, "arguments": arguments}
            assert http.ask("PUT", f"queues/%2F/{name}", body).status == 201
    with ExitStack() as clients:
        for _http, port in (rabbitmq, fluffle):
            use_in_part(clients.enter_context(pika.BlockingConnection(parameters_at(port))))
        expect_same_numbers(pair)
    for http in pair:
        assert http.ask("DELETE", "queues/%2F/parted/contents").status == 204
    expect_same_numbers(pair)
    for http in pair:
        for name in ("parted", "kept"):
            assert http.ask("DELETE", f"queues/%2F/{name}").status == 204


def use_in_part(connection: pika.BlockingConnection) -> None:
    """Three channels: two have published, one of them to both queues, and one holds two messages
    and has given one back."""
    publishing, other, getting = (connection.channel() for _ in range(3))
    publishing.confirm_delivery()
    other.confirm_delivery()
    for _ in range(3):
        other.basic_publish("", "parted", b"x" * 10)
    tags = [getting.basic_get("parted")[0].delivery_tag for _ in range(3)]
    getting.basic_nack(tags[0], requeue=True)
    for priority in (5, 9, 4, 0, None, 4, 255):
        properties = pika.BasicProperties(priority=priority)
        publishing.basic_publish("", "parted", b"x" * 10, properties)
    for _ in range(4):
        publishing.basic_publish("", "kept", b"x" * 10)


def expect_same_numbers(pair: Pair) -> None:
    """RabbitMQ measures quorum queues every five seconds."""
    deadline = time.monotonic() + PATIENCE_S
    for name in ("parted", "kept"):
        path = f"queues/%2F/{name}"
        while True:
            theirs, ours = ({each: http.get(path).get(each) for each in MEASURED} for http in pair)
            if theirs == ours or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert None not in theirs.values(), name
        assert ours == theirs, name


def test_new_bindings_are_at_the_same_place(pair: Pair) -> None:
    path = "bindings/%2F/e/news/q/short"
    for key in ("a.b", "", "ü ~", "a/b"):
        theirs, ours = (http.ask("POST", path, {"routing_key": key}) for http in pair)
        assert ours.status == theirs.status == 201
        if "~" not in key:  # RabbitMQ quotes that into what is no text
            assert ours.location == theirs.location
        for http in pair:
            http.ask("DELETE", path.replace("q/short", f"q/{ours.location}"))
