"""The management API beside RabbitMQ's: of the same queues, exchanges, bindings and clients each
endpoint tells the same keys with the same types, and bad requests are refused alike."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple

import pika
import pytest

from tests.compat.comparison import difference_of
from tests.compat.embedded import Embedded, Serving, serving
from tests.compat.http import PATIENCE_S, Http, HttpAnswer, segment, shape_of
from tests.compat.oracle import RabbitMQ, free_port
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript

CONFIG = """
    management.tcp.ip = 127.0.0.1
    management.tcp.port = {}
    collect_statistics_interval = 200
    management.db_cache_multiplier = 0
"""
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
"""Requests that make objects by the API."""

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


class Node(NamedTuple):
    """A broker with the topology in it, and a client that stays."""

    port: int
    http: Http
    connected: pika.BlockingConnection


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Node]]:
    """RabbitMQ with its management API, which looks at what is so more often than it does; started
    by whoever is the first to ask for it."""
    with ExitStack() as running:

        @cache
        def started() -> Node:
            port, folder = free_port(), tmp_path_factory.mktemp("rabbitmq")
            rabbitmq = RabbitMQ(folder, CONFIG.format(port), "rabbitmq_management")
            running.enter_context(rabbitmq)
            return running.enter_context(furnished(rabbitmq.port, port))

        yield started


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, answers: Answers) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("fluffle")
    with (
        serving(folder, answers, "--management=127.0.0.1:0") as broker,
        furnished(broker.port, broker.addresses["management"][1], time_of(broker)) as node,
    ):
        yield node


def time_of(broker: Serving) -> Callable[[], object] | None:
    """Function that lets time pass, where the broker is in this process."""
    return broker.pass_idle_time if isinstance(broker, Embedded) else None


@contextmanager
def furnished(
    port: int, management_port: int, pass_time: Callable[[], object] | None = None
) -> Iterator[Node]:
    """Return when it has told all that is measured of what is in it, which takes a while unless
    there is a way to have the time pass."""
    http = Http(management_port)
    for method, path, body in TOPOLOGY:
        told = http.ask(method, path, body)
        assert told.status in (200, 201, 204), (method, path, told)
    client = client_of(port)
    if pass_time is not None:
        pass_time()
    http.wait_for("connections", "recv_oct", "client_properties", "channels")
    http.wait_for("channels", "message_stats", "consumer_count", "idle_since")
    http.wait_for("consumers", "consumer_tag")
    http.wait_for("queues/%2F/short", "messages_details", "idle_since")
    for name in ("q", "mine"):
        http.wait_for(f"queues/%2F/{name}", "message_stats", "messages_details", "idle_since")
    http.wait_for("queues/%2F/replicated", "message_stats", "messages_details")
    http.wait_for("exchanges/%2F/news", "message_stats")
    try:
        yield Node(port, http, client)
    finally:
        client.close()


def client_of(port: int) -> pika.BlockingConnection:
    """Connection that has published, and holds a message of a queue of its own."""
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


HOW = (furnished, Http.ask, Http.get, Http.wait_for)


def shapes_of(node: Node) -> Transcript:
    """Types of values in the answers, by path."""
    found: Transcript = {}
    for path in PATHS:
        shape = shape_of(node.http.get(path_at(node.http, path)))
        found[path] = [f"{at}: {' '.join(sorted(kinds))}" for at, kinds in sorted(shape.items())]
    return found


ASKED_TO_READ = asks("management_topology.read", shapes_of, *HOW, said=CONFIG)


@pytest.fixture(scope="module")
def shapes(
    answers: Answers, theirs: Callable[[], Node], ours: Node
) -> tuple[Transcript, Transcript]:
    """RabbitMQ's and ours."""
    return answers.both(ASKED_TO_READ, lambda: shapes_of(theirs()), lambda: shapes_of(ours))


@pytest.mark.parametrize("path", PATHS)
def test_keys_and_types_are_the_same(path: str, shapes: tuple[Transcript, Transcript]) -> None:
    theirs, ours = (
        {at: set(kinds.split()) for at, _, kinds in (line.partition(": ") for line in each[path])}
        for each in shapes
    )
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


def label(request: tuple[Any, ...]) -> str:
    return " ".join(map(str, request))


def refused(node: Node) -> Transcript:
    """The answers to all bad requests."""
    return {label(each): [shown(node.http.ask(*each))] for each in BAD}


def shown(told: HttpAnswer) -> str:
    return json.dumps([told.status, told.content, told.location], sort_keys=True)


ASKED_TO_REFUSE = asks("management_topology.refused", refused, *HOW, said=CONFIG)


@pytest.fixture(scope="module")
def refusals(
    answers: Answers, theirs: Callable[[], Node], ours: Node
) -> tuple[Transcript, Transcript]:
    """RabbitMQ's and ours."""
    return answers.both(ASKED_TO_REFUSE, lambda: refused(theirs()), lambda: refused(ours))


@pytest.mark.parametrize("request_", BAD, ids=lambda each: label(each)[:60])
def test_bad_requests_are_refused_alike(
    request_: tuple[Any, ...], refusals: tuple[Transcript, Transcript]
) -> None:
    theirs, ours = (each[label(request_)] for each in refusals)
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


MEASURED_EVERY_S = 5.0
"""Interval at which RabbitMQ measures quorum queues."""


class Unchanged:
    """Condition that the measured values of a queue have not changed for longer than a measurement
    takes."""

    def __init__(self) -> None:
        self._last: dict[str, list[str]] = {}
        self._since_s = 0.0

    def __call__(self, name: str, lines: list[str]) -> bool:
        if self._last.get(name) != lines:
            self._last[name], self._since_s = lines, time.monotonic()
        return time.monotonic() - self._since_s > 2 * MEASURED_EVERY_S


def in_parts(node: Node, is_enough: Callable[[str, list[str]], bool]) -> Transcript:
    """Measured values of two quorum queues in use, and after one of them was purged."""
    for name, arguments in (("parted", QUORUM), ("kept", KEPT)):
        body = {"durable": True, "arguments": arguments}
        assert node.http.ask("PUT", f"queues/%2F/{name}", body).status == 201
    with pika.BlockingConnection(parameters_at(node.port)) as connection:
        use_in_part(connection)
        found = {name: measured(node, name, name, is_enough) for name in ("parted", "kept")}
    assert node.http.ask("DELETE", "queues/%2F/parted/contents").status == 204
    found["purged"] = measured(node, "purged", "parted", is_enough)
    for name in ("parted", "kept"):
        assert node.http.ask("DELETE", f"queues/%2F/{name}").status == 204
    return found


def measured(
    node: Node, name: str, queue: str, is_enough: Callable[[str, list[str]], bool]
) -> list[str]:
    """Measured values of a queue, once they are enough."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        row = node.http.get(f"queues/%2F/{queue}")
        lines = [f"{each}: {row.get(each)}" for each in MEASURED]
        if is_enough(name, lines) or time.monotonic() > deadline:
            return lines


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


ASKED_TO_MEASURE = asks("management_topology.parts", in_parts, Unchanged, *HOW, said=CONFIG)


def test_parts_of_quorum_queues_have_the_same_numbers(
    answers: Answers, theirs: Callable[[], Node], ours: Node
) -> None:
    wanted = answers.of(ASKED_TO_MEASURE, lambda: in_parts(theirs(), Unchanged()))
    found = in_parts(ours, lambda name, lines: lines == wanted[name])
    assert "None" not in str(wanted)
    assert found == wanted, difference_of(wanted, found)


BOUND = "bindings/%2F/e/news/q/short"


def bound(node: Node) -> Transcript:
    """Where new bindings are."""
    found: Transcript = {}
    for key in ("a.b", "", "ü ~", "a/b"):
        told = node.http.ask("POST", BOUND, {"routing_key": key})
        node.http.ask("DELETE", BOUND.replace("q/short", f"q/{told.location}"))
        # RabbitMQ quotes ~ into what is no text.
        found[key] = [str(told.status), told.location if "~" not in key else ""]
    return found


ASKED_TO_BIND = asks("management_topology.bound", bound, *HOW, said=CONFIG)


def test_new_bindings_are_at_the_same_place(
    answers: Answers, theirs: Callable[[], Node], ours: Node
) -> None:
    wanted, found = answers.both(ASKED_TO_BIND, lambda: bound(theirs()), lambda: bound(ours))
    assert found == wanted
    assert {status for status, _ in found.values()} == {"201"}
