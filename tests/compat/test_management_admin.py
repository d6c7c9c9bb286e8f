"""The management API of both brokers, asked for the same: what administers them.

Keys and types of what is read, statuses and bodies of what is changed, and rabbitmqadmin as
RabbitMQ 4.0.5 serves it.  What differs is argued in the tables.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.compat.comparison import difference_of
from tests.compat.embedded import serving
from tests.compat.entries import Asked
from tests.compat.http import Http
from tests.compat.oracle import NODE, RabbitMQ, free_port
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript
from tests.support.require import require

GUEST = base64.b64encode(b"guest:guest").decode()
CONFIG = """
    management.tcp.ip = 127.0.0.1
    management.tcp.port = {}
"""
NAME = "N"
"""Name of a node, in paths and bodies."""


class Api:
    """Management API of one of the brokers."""

    def __init__(self, port: int, node: str) -> None:
        self.port = port
        self.node = node

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Status and body; a body that is text is sent as it is."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"authorization": f"Basic {GUEST}", "content-type": "application/json"}
        sent = body if isinstance(body, str) or body is None else json.dumps(body)
        path = path.replace(f"/{NAME}", f"/{self.node}")
        try:
            connection.request(method, f"/api/{path}", sent, headers)
            response = connection.getresponse()
            return response.status, response.read().decode().replace(self.node, NAME)
        finally:
            connection.close()

    def allow(self, method: str, path: str) -> tuple[int, str | None]:
        """Status and which methods there are."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            path = path.replace(f"/{NAME}", f"/{self.node}")
            connection.request(method, f"/api/{path}", headers={"authorization": f"Basic {GUEST}"})
            response = connection.getresponse()
            return response.status, response.getheader("allow")
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, body = self.ask("GET", path)
        assert status == 200, (path, status, body)
        return json.loads(body)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Api]]:
    """RabbitMQ's, with the estate in it, started by whoever is the first to ask for it.

    It has measured itself twice: before that it tells nothing of a node but that it runs, and then
    no rates.
    """
    with ExitStack() as running:

        @cache
        def started() -> Api:
            port = free_port()
            folder, config = tmp_path_factory.mktemp("rabbitmq"), CONFIG.format(port)
            running.enter_context(RabbitMQ(folder, config, "rabbitmq_management"))
            Http(port).wait_for("nodes", "mem_used_details")
            return Api(port, NODE)

        yield started


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, answers: Answers) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("fluffle")
    with serving(folder, answers, "--management=127.0.0.1:0") as broker:
        _host, port = broker.addresses["management"]
        node = json.loads(Api(port, NODE).ask("GET", "overview")[1])["node"]
        yield Api(port, node)


ESTATE: tuple[tuple[str, str, object], ...] = (
    ("PUT", "vhosts/estate", {"description": "d", "tags": ["a"], "default_queue_type": "quorum"}),
    ("PUT", "users/estate", {"password": "x", "tags": "management", "limits": {}}),
    (
        "PUT",
        "permissions/estate/estate",
        {"configure": ".*", "write": ".*", "read": ".*"},
    ),
    (
        "PUT",
        "topic-permissions/estate/estate",
        {"exchange": "amq.topic", "write": "a", "read": "b"},
    ),
    ("PUT", "policies/estate/p", {"pattern": "^q", "definition": {"max-length": 10}}),
    ("PUT", "operator-policies/estate/p", {"pattern": "^q", "definition": {"max-length": 9}}),
    ("PUT", "vhost-limits/estate/max-queues", {"value": 100}),
    ("PUT", "user-limits/estate/max-channels", {"value": 100}),
    ("PUT", "global-parameters/g", {"value": {"a": 1}}),
    ("PUT", "cluster-name", {"name": "estate"}),
    ("PUT", "queues/estate/q", {"durable": True, "arguments": {"x-queue-type": "classic"}}),
    ("PUT", "exchanges/estate/x", {"type": "topic", "durable": True}),
    ("POST", "bindings/estate/e/x/q/q", {"routing_key": "k"}),
)

READ = """
    overview cluster-name nodes nodes/N definitions definitions/estate whoami version
    feature-flags auth auth/hash_password/foo auth/attempts/N auth/attempts/N/source vhosts
    vhosts/estate vhosts/estate/permissions vhosts/estate/topic-permissions users users/estate
    users/estate/permissions users/estate/topic-permissions users/without-permissions permissions
    permissions/estate/estate topic-permissions topic-permissions/estate/estate policies
    policies/estate policies/estate/p operator-policies operator-policies/estate
    operator-policies/estate/p parameters parameters/operator_policy
    parameters/operator_policy/estate parameters/operator_policy/estate/p global-parameters
    global-parameters/g vhost-limits vhost-limits/estate user-limits user-limits/estate
    health/checks/alarms health/checks/local-alarms health/checks/virtual-hosts
    health/checks/certificate-expiration/1/months health/checks/node-is-quorum-critical
    health/checks/protocol-listener/amqp aliveness-test/estate healthchecks/node
    healthchecks/node/N nodes/N/memory nodes/N/memory/relative
"""

ANYTHING = "*"
"""Stands for whatever comes there in a path of keys."""

LACKING: Mapping[str, str] = {
    "sample_retention_policies.basic": "we keep one history of each number, that of `global`",
    "sample_retention_policies.detailed": "likewise",
    "memory.*": "parts of Erlang's memory; ours are named as they are made up here",
    "contexts.cowboy_opts": "options of Erlang's web server",
    "contexts.ssl_opts": "likewise",
    "listeners.socket_opts.*": "of Erlang's sockets",
    "churn_rates.*": "absent while nothing has happened",
    "message_stats.*": "absent while nothing has happened",
    "ra_open_file_metrics": "files of Erlang's Raft",
    "metrics_gc_queue_length": "a queue of Erlang's processes",
    "gc_bytes_reclaimed": "Python's collector does not say",
    "mnesia_ram_tx_count": "there is no Mnesia",
    "mnesia_disk_tx_count": "likewise",
    "msg_store_read_count": "there is no message store of this kind",
    "msg_store_write_count": "likewise",
    "queue_index_read_count": "likewise",
    "queue_index_write_count": "likewise",
    "io_read_avg_time": "reads go through a map of the disk, which nobody can time",
    "io_read_bytes": "likewise",
    "io_read_count": "likewise",
    "io_seek_avg_time": "likewise",
    "io_seek_count": "likewise",
    "io_reopen_count": "likewise",
    "io_write_avg_time": "a write is a commit, whose time is io_sync_avg_time",
    **dict.fromkeys(
        (
            *("mem_used_details", "fd_used_details", "sockets_used_details", "proc_used_details"),
            *("disk_free_details", "gc_num_details", "context_switches_details"),
            *("io_sync_count_details", "io_sync_avg_time_details", "io_write_count_details"),
            "io_write_bytes_details",
        ),
        "what the process takes is told as it is now: its history is what Prometheus keeps",
    ),
    "vhosts.description": "RabbitMQ reads it in the metadata",
    "vhosts.tags": "likewise",
    "vhosts.default_queue_type": "likewise",
}
"""Columns of RabbitMQ's that are missing here, and why; with an `x` goes its `x_details`."""

OTHERWISE: Mapping[str, str] = {
    "cluster_tags": "an empty object, where RabbitMQ has an empty list in one place",
    "value": "RabbitMQ keeps limits that were taken away as an empty list",
}
"""Columns of another type, and why."""


def shape(value: Any, path: str = "") -> dict[str, str]:
    """The type of each thing in it, by its path; numbers are one type, as in JSON."""
    if isinstance(value, dict):
        found = {path: "object"} if path else {}
        for key, inner in value.items():
            found |= shape(inner, f"{path}.{key}".lstrip("."))
        return found
    if isinstance(value, list):
        found = {path: "array"} if path else {}
        for inner in value:
            found |= shape(inner, path) if isinstance(inner, dict | list) else {}
        return found | ({path: "array"} if path else {})
    names = {bool: "boolean", int: "number", float: "number", str: "text"}
    return {path: names.get(type(value), "null")}


def is_argued(path: str, table: Mapping[str, str]) -> bool:
    """True if the table names it, or what it is in or the number that it is about."""
    words = path.split(".")
    without = [word.removesuffix("_details") for word in words]
    fronts = [".".join(each[: end + 1]) for each in (words, without) for end in range(len(words))]
    return any(front in table or f"{front}.{ANYTHING}" in table for front in fronts)


def read(api: Api) -> Transcript:
    """The shapes of all that is read, when the estate has been made."""
    made = answered(api, ESTATE)
    shapes = {path: shape(api.get(path)) for path in READ.split()}
    return made | {
        path: [f"{key}: {kind}" for key, kind in sorted(each.items())]
        for path, each in shapes.items()
    }


ASKED_TO_READ = asks("management_admin.read", read, Api.ask, Api.get, said=CONFIG)


@pytest.fixture(scope="module")
def shapes(answers: Answers, theirs: Callable[[], Api], ours: Api) -> tuple[Transcript, Transcript]:
    """RabbitMQ's and ours."""
    return answers.both(ASKED_TO_READ, lambda: read(theirs()), lambda: read(ours))


def test_the_estate_is_made_in_the_same_way(shapes: tuple[Transcript, Transcript]) -> None:
    wanted, found = ({name: said for name, said in each.items() if " " in name} for each in shapes)
    assert len(wanted) == len(ESTATE)
    assert found == wanted


@pytest.mark.parametrize("path", READ.split())
def test_what_is_read_has_the_same_shape(path: str, shapes: tuple[Transcript, Transcript]) -> None:
    wanted, found = (dict(line.split(": ") for line in each[path]) for each in shapes)
    lacking = [key for key in wanted.keys() - found.keys() if not is_argued(key, LACKING)]
    assert not lacking, sorted(lacking)
    differ = {key: (wanted[key], found[key]) for key in wanted.keys() & found.keys()}
    unlike = {key: pair for key, pair in differ.items() if pair[0] != pair[1]}
    assert not {key for key in unlike if not is_argued(key, OTHERWISE)}, unlike


EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}
HASHED_ELSEWHERE = {
    "name": "elsewhere",
    "tags": "",
    "password_hash": "aGVsbG8=",
    "hashing_algorithm": "nope",
    "permissions": {"/": EVERYTHING},
}

SAME: tuple[tuple[str, str, object], ...] = (
    ("PUT", "vhosts/a", None),
    ("PUT", "vhosts/a", {}),
    ("PUT", "vhosts/c", []),
    ("PUT", "vhosts/c", "{"),
    ("PUT", "vhosts/c", '"x"'),
    ("PUT", "vhosts/c", "null"),
    ("POST", "vhosts/a/start/N", {}),
    ("POST", "vhosts/a/start/elsewhere", {}),
    ("POST", "vhosts/nope/start/elsewhere", {}),
    ("OPTIONS", "overview", None),
    ("OPTIONS", "queues/%2F/q", None),
    ("GET", "overview?lengths_age=-5&lengths_incr=5", None),
    ("GET", "overview?lengths_age=2505&lengths_incr=5", None),
    *(
        ("GET", f"{path}?{past}", None)
        for past in ("lengths_age=2505&lengths_incr=5", "node_stats_age=9999&node_stats_incr=1")
        for path in (
            *("overview", "queues", "queues/%2F", "exchanges/%2F/amq.topic", "vhosts"),
            *("vhosts/%2F", "connections", "vhosts/%2F/connections", "channels", "nodes"),
        )
    ),
    ("OPTIONS", "nothing", None),
    ("POST", "nothing", {}),
    ("PUT", "queues/%2F/q/nothing", {}),
    ("DELETE", "users/guest/queues", None),
    ("GET", "users/guest/queues", None),
    ("POST", "vhosts/%2F/start/", {}),
    ("PUT", "exchanges/a/php", {"type": "topic", "arguments": []}),
    ("PUT", "queues/a/php", {"arguments": []}),
    ("POST", "bindings/a/e/php/q/php", {"routing_key": "a b"}),
    ("GET", "bindings/a/e/php/q/php/a%20b", None),
    ("GET", "bindings/a/e/php/q/php/a%2520b", None),
    ("GET", "bindings/a/e/php/q/php/a+b", None),
    ("DELETE", "vhosts/c", None),
    ("DELETE", "vhosts/c", None),
    ("PUT", "users/u", {}),
    ("PUT", "users/u", {"password": "x"}),
    ("PUT", "users/u", {"tags": "a"}),
    ("PUT", "users/u", {"password": "x", "tags": ["a", "b"]}),
    ("PUT", "users/u", {"password_hash": "", "tags": "c, d"}),
    ("GET", "users/u", None),
    ("PUT", "users/u", {"password": "a", "password_hash": "AAAA", "tags": ""}),
    ("PUT", "users/w", {"password": "x", "tags": "", "permissions": {"/": EVERYTHING}}),
    ("GET", "users/w/permissions", None),
    ("PUT", "users/w", {"password": "x", "tags": "", "permissions": {}}),
    ("PUT", "users/w", {"password_hash": "aGVs bG8=", "administrator": True}),
    ("GET", "users/w", None),
    ("PUT", "users/w", {"password_hash": "", "administrator": "false"}),
    ("GET", "users/w", None),
    ("PUT", "users/w", {"password_hash": "aGVsbG8=", "tags": "", "hashing_algorithm": "nope"}),
    ("GET", "users/w", None),
    ("PUT", "users/w", {"password_hash": "aGVsbG8", "tags": ""}),
    ("PUT", "users/w", {"password_hash": None, "tags": ""}),
    ("DELETE", "users/w", None),
    ("POST", "definitions", {"users": [HASHED_ELSEWHERE]}),
    ("GET", "users/elsewhere/permissions", None),
    ("DELETE", "users/elsewhere", None),
    ("PUT", "vhosts/full", {}),
    ("GET", "aliveness-test/full", None),
    ("DELETE", "queues/full/aliveness-test", None),
    ("PUT", "vhost-limits/full/max-queues", {"value": 0}),
    ("GET", "aliveness-test/full", None),
    ("DELETE", "vhosts/full", None),
    ("POST", "users/bulk-delete", {"users": ["nope"]}),
    ("POST", "users/bulk-delete", {}),
    ("POST", "users/bulk-delete", []),
    ("PUT", "permissions/%2F/u", {"configure": "", "write": ""}),
    ("PUT", "permissions/%2F/u", {"configure": "", "write": "", "read": ""}),
    ("PUT", "permissions/%2F/u", {"configure": "b", "write": "", "read": ""}),
    ("GET", "permissions/%2F/u", None),
    ("PUT", "permissions/%2F/nope", {"configure": "", "write": "", "read": ""}),
    ("PUT", "permissions/nope/u", {"configure": "", "write": "", "read": ""}),
    ("DELETE", "permissions/%2F/u", None),
    ("DELETE", "permissions/%2F/u", None),
    ("PUT", "topic-permissions/%2F/u", {"write": "", "read": ""}),
    ("PUT", "topic-permissions/%2F/u", {"exchange": "x", "write": "", "read": ""}),
    ("GET", "topic-permissions/%2F/u", None),
    ("DELETE", "topic-permissions/%2F/u/x", None),
    ("DELETE", "topic-permissions/%2F/u/x", None),
    ("DELETE", "users/u", None),
    ("DELETE", "users/u", None),
    ("PUT", "policies/%2F/p", {"pattern": "^z", "definition": {"max-length": 1}}),
    ("PUT", "policies/%2F/p", {"pattern": "^z", "definition": {"max-length": 2}, "priority": 1}),
    ("GET", "policies/%2F/p", None),
    ("PUT", "policies/%2F/p", {"pattern": "^z"}),
    ("PUT", "policies/%2F/p", None),
    ("PUT", "policies/nope/p", {"pattern": "^z", "definition": {"max-length": 1}}),
    ("DELETE", "policies/nope/p", None),
    ("DELETE", "policies/%2F/p", None),
    ("DELETE", "policies/%2F/p", None),
    ("PUT", "operator-policies/%2F/p", {"pattern": "^z", "definition": {"max-length": 1}}),
    ("DELETE", "operator-policies/%2F/p", None),
    ("PUT", "parameters/policy/%2F/x", {"value": {}}),
    ("PUT", "parameters/nope/%2F/x", {}),
    ("PUT", "parameters/nope/nope/x", {"value": 1}),
    ("GET", "parameters/nope", None),
    ("GET", "parameters/nope/nope", None),
    ("PUT", "global-parameters/h", {"value": {"a": 1}}),
    ("PUT", "global-parameters/h", {"value": {"a": 2}}),
    ("PUT", "global-parameters/h", {}),
    ("DELETE", "global-parameters/h", None),
    ("DELETE", "global-parameters/h", None),
    ("PUT", "vhost-limits/a/max-queues", {"value": 100}),
    ("PUT", "vhost-limits/a/max-queues", {}),
    ("PUT", "vhost-limits/nope/max-queues", {"value": 100}),
    ("DELETE", "vhost-limits/a/max-queues", None),
    ("DELETE", "vhost-limits/a/max-queues", None),
    ("DELETE", "vhost-limits/a/nope", None),
    ("GET", "vhost-limits/nope", None),
    ("PUT", "user-limits/guest/max-channels", {}),
    ("DELETE", "user-limits/guest/nope", None),
    ("PUT", "cluster-name", {}),
    ("PUT", "feature-flags/nope/enable", {}),
    ("PUT", "feature-flags/quorum_queue/enable", {}),
    ("DELETE", "reset", None),
    ("DELETE", "reset/nope", None),
    ("DELETE", "auth/attempts/N", None),
    ("GET", "definitions/nope", None),
    ("POST", "definitions/nope", {"queues": []}),
    ("POST", "definitions", {"queues": []}),
    ("GET", "health/checks/port-listener/x", None),
    ("GET", "health/checks/certificate-expiration/1/x", None),
    ("GET", "health/checks/certificate-expiration/x/days", None),
    ("GET", "aliveness-test/nope", None),
    ("GET", "healthchecks/node/nope", None),
    ("GET", "nodes/nope", None),
    ("GET", "nothing", None),
    ("PATCH", "overview", None),
    ("POST", "users", {}),
    ("DELETE", "vhosts/a", None),
)
"""Answered by both in the same way, to the letter."""

ALIKE: tuple[tuple[str, str, object], ...] = (
    ("PUT", "vhosts/c", {"tracing": "yes"}),
    ("PUT", "users/v", {"password_hash": "!!!", "tags": ""}),
    ("PUT", "permissions/%2F/guest", {"configure": "(", "write": "", "read": ""}),
    ("PUT", "policies/%2F/p", {"pattern": "(", "definition": {"max-length": 1}}),
    ("PUT", "policies/%2F/p", {"pattern": "x", "definition": {}}),
    ("PUT", "policies/%2F/p", {"pattern": "x", "definition": {"nope": 1}}),
    ("PUT", "policies/%2F/p", {"pattern": 5, "definition": {"max-length": 1}}),
    ("PUT", "parameters/nope/%2F/x", {"value": 1}),
    ("PUT", "vhost-limits/%2F/nope", {"value": 1}),
    ("PUT", "vhost-limits/%2F/max-queues", {"value": "x"}),
    ("PUT", "user-limits/guest/nope", {"value": 1}),
    ("PUT", "user-limits/nope/max-channels", {"value": 1}),
    ("POST", "definitions", "{"),
    ("POST", "definitions", {"queues": [{"name": "q", "vhost": "nope"}]}),
    ("POST", "definitions", {"users": [{"name": "k", "tags": "", "password_hash": "!"}]}),
    ("GET", "health/checks/port-listener/1", None),
    ("GET", "health/checks/protocol-listener/stomp", None),
)
"""Refused by both, with a reason that is written otherwise: RabbitMQ prints terms of Erlang."""


BREAKING: tuple[tuple[str, str, object], ...] = (
    ("PUT", "vhosts/c", {"default_queue_type": 5}),
    ("PUT", "vhosts/c", {"tags": 5}),
    ("PUT", "users/v", {"password": 5, "tags": ""}),
    ("PUT", "permissions/%2F/guest", {"configure": 5, "write": "", "read": ""}),
    ("PUT", "cluster-name", {"name": 5}),
    ("POST", "definitions", {"queues": 5}),
)
"""Requests that RabbitMQ does not answer."""


def answered(api: Api, requests: Iterable[tuple[str, str, object]]) -> Transcript:
    """Status and body of each answer."""
    found: Transcript = {}
    for number, (method, path, body) in enumerate(requests):
        status, text = api.ask(method, path, body)
        said = json.dumps(json.loads(text), sort_keys=True) if text else ""
        found[f"{number:03} {method} {path} {json.dumps(body)}"] = [f"{status} {said}"]
    return found


def keys_answered(api: Api, requests: Iterable[tuple[str, str, object]]) -> Transcript:
    """Status and keys of each answer."""
    found = answered(api, requests)
    for lines in found.values():
        status, _, body = lines[0].partition(" ")
        lines[:] = [status, *sorted(json.loads(body))]
    return found


def answered_same(api: Api) -> Transcript:
    return answered(api, SAME)


def answered_alike(api: Api) -> Transcript:
    return keys_answered(api, ALIKE)


def broken(api: Api) -> Transcript:
    """The statuses of what is refused, at least."""
    return {name: [line[:3] for line in lines] for name, lines in answered(api, BREAKING).items()}


CHANGES = [
    (asks("management_admin.same", answered_same, Api.ask, said=CONFIG), answered_same),
    (asks("management_admin.alike", answered_alike, Api.ask, said=CONFIG), answered_alike),
]


@pytest.mark.parametrize(("asked", "ask"), CHANGES, ids=["to the letter", "in other words"])
def test_what_is_changed_or_refused_is_answered_in_the_same_way(
    asked: Asked,
    ask: Callable[[Api], Transcript],
    answers: Answers,
    theirs: Callable[[], Api],
    ours: Api,
) -> None:
    wanted, found = answers.both(asked, lambda: ask(theirs()), lambda: ask(ours))
    assert found == wanted, difference_of(wanted, found)


OFFERED = """
    overview queues queues/%2F queues/%2F/q queues/%2F/q/get queues/%2F/q/contents exchanges
    exchanges/%2F/amq.topic exchanges/%2F/amq.topic/publish bindings bindings/%2F/e/amq.topic/q/q
    bindings/%2F/e/amq.topic/q/q/k users users/guest users/bulk-delete users/guest/queues vhosts
    vhosts/%2F vhosts/%2F/start/N permissions permissions/%2F/guest topic-permissions definitions
    definitions/%2F nodes nodes/N nodes/N/memory connections connections/x channels consumers
    parameters policies policies/%2F/p operator-policies global-parameters global-parameters/g
    vhost-limits/%2F/max-queues cluster-name feature-flags reset rebalance/queues auth whoami
    version aliveness-test/%2F health/checks/alarms healthchecks/node auth/attempts/N nothing
    queues/quorum/replicas/on/N/grow deprecated-features extensions
"""
"""Paths with the same methods."""


METHODS = ("OPTIONS", "PATCH")


def offered(api: Api) -> Transcript:
    """Methods allowed, by path."""
    return {
        path: [f"{method}: {api.allow(method, path)}" for method in METHODS]
        for path in OFFERED.split()
    }


ASKED_FOR_METHODS = asks("management_admin.methods", offered, Api.allow, said=CONFIG)


def test_options_and_refused_methods_name_the_same_methods(
    answers: Answers, theirs: Callable[[], Api], ours: Api
) -> None:
    wanted, found = answers.both(
        ASKED_FOR_METHODS, lambda: offered(theirs()), lambda: offered(ours)
    )
    assert found == wanted, difference_of(wanted, found)


ASKED_TO_BREAK = asks("management_admin.breaking", broken, Api.ask, said=CONFIG)


def test_what_breaks_rabbitmq_is_refused(
    answers: Answers, theirs: Callable[[], Api], ours: Api
) -> None:
    wanted, found = answers.both(ASKED_TO_BREAK, lambda: broken(theirs()), lambda: broken(ours))
    assert [*wanted.values()] == [["500"]] * len(BREAKING)
    assert [*found.values()] == [["400"]] * len(BREAKING)


ADMIN = """
declare vhost name=av
declare user name=au password=x tags=management
declare permission vhost=av user=au configure=.* write=.* read=.*
-V av declare queue name=aq durable=true
-V av declare exchange name=ax type=topic
-V av declare binding source=ax destination=aq routing_key=k
-V av declare policy name=ap pattern=^a definition={"max-length":10}
-V av declare operator_policy name=ap pattern=^a definition={"max-length":10}
declare vhost_limit vhost=av name=max-connections value=10
declare user_limit user=au name=max-channels value=10
declare parameter component=vhost-limits vhost=av name=limits value={"max-queues":10}
-V av publish exchange=ax routing_key=k payload=hello
-V av publish routing_key=aq payload=hello2
-V av publish routing_key=nowhere payload=lost
-V av get queue=aq
-V av get queue=aq ackmode=ack_requeue_false
-V av list queues name durable
-V av list exchanges
-V av list bindings
-V av list policies
-V av list operator_policies
list vhosts name
list users name tags
list permissions
list connections
list channels
list consumers
list nodes name type
list vhost_limits
list user_limits
list global_parameters
list parameters vhost component name
show overview rabbitmq_version
-V av export {folder}/one.json
export {folder}/all.json
-V av import {folder}/one.json
import {folder}/all.json
-V av purge queue name=aq
close connection name=nope
-V av delete binding source=ax destination_type=queue destination=aq properties_key=k
-V av delete queue name=aq
-V av delete exchange name=ax
-V av delete policy name=ap
-V av delete operator_policy name=ap
delete vhost_limit vhost=av name=max-connections
delete user_limit user=au name=max-channels
delete permission vhost=av user=au
delete user name=au
delete vhost name=av
delete vhost name=av
list nothing
show nothing
"""
"""All verbs, and most of what they are about."""

UNLIKE = ("properties",)
"""Columns that differ: RabbitMQ has an empty list where a message has none, and we an object."""


def administered(api: Api) -> Transcript:
    """How each command ends, and the words that it writes."""
    script = require("rabbitmqadmin")
    with TemporaryDirectory() as folder:
        return {
            f"{number:03} {line}": run(script, api, line, Path(folder))
            for number, line in enumerate(ADMIN.strip().splitlines())
        }


def run(script: str, api: Api, line: str, folder: Path) -> list[str]:
    """Without the frames of its tables."""
    words = [word.replace("{folder}", str(folder)) for word in line.split()]
    command = [sys.executable, script, "-H", "127.0.0.1", "-P", str(api.port), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    code = f"exit {done.returncode}"
    if "show overview" in line:
        return [code]  # each has its version
    text = done.stdout.replace(api.node, NAME).replace(str(folder), "")
    words = [word for word in text.split() if word.strip("+-|") and word not in UNLIKE]
    return [code, " ".join(sorted(set(words)))]


ASKED_TO_ADMINISTER = asks("management_admin.rabbitmqadmin", administered, Api.ask, said=CONFIG)


@pytest.mark.compat
@pytest.mark.usefixtures("shapes")
def test_rabbitmqadmin_runs_all_its_verbs(
    answers: Answers, theirs: Callable[[], Api], ours: Api
) -> None:
    wanted, found = answers.both(
        ASKED_TO_ADMINISTER, lambda: administered(theirs()), lambda: administered(ours)
    )
    assert found == wanted, difference_of(wanted, found)
