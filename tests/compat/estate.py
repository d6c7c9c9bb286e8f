"""Users, virtual hosts and permissions that both brokers have: RabbitMQ is told, fluffle loads what
RabbitMQ exports, hashes of its making included."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.compat.entries import Asked
from tests.compat.fingerprint import QualifiedName, fingerprint
from tests.compat.oracle import EXCHANGE_PLUGINS, RabbitMQ

if TYPE_CHECKING:
    from tests.compat.replay import Answers
    from tests.compat.scenario import Transcript

VHOST = "estate"
PASSWORD = "pässword of {}"
"""Password of every user, with his name in it."""

Entry = dict[str, Any]


def user(name: str, *tags: str, **limits: int) -> Entry:
    return {
        "name": name,
        "password": PASSWORD.format(name),
        "tags": list(tags),
        "limits": {key.replace("_", "-"): value for key, value in limits.items()},
    }


def user_with_hash(name: str, algorithm: str) -> Entry:
    """User with a hash as RabbitMQ stores it when another algorithm than its default is
    configured."""
    salt = b"salt"
    digest = hashlib.new(algorithm, salt + PASSWORD.format(name).encode()).digest()
    return {
        "name": name,
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": f"rabbit_password_hashing_{algorithm}",
        "tags": [],
    }


def permission(name: str, configure: str, write: str, read: str, vhost: str = VHOST) -> Entry:
    return {"user": name, "vhost": vhost, "configure": configure, "write": write, "read": read}


def everything(name: str, vhost: str = VHOST) -> Entry:
    return permission(name, ".*", ".*", ".*", vhost)


def vhost_limit(vhost: str, **limits: int) -> Entry:
    value = {key.replace("_", "-"): limit for key, limit in limits.items()}
    return {"vhost": vhost, "component": "vhost-limits", "name": "limits", "value": value}


def queue(name: str, vhost: str = VHOST) -> Entry:
    return {"vhost": vhost, "name": name, "durable": True, "auto_delete": False, "arguments": {}}


def exchange(name: str, kind: str, **arguments: str) -> Entry:
    return {
        "vhost": VHOST,
        "name": name,
        "type": kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {key.replace("_", "-"): value for key, value in arguments.items()},
    }


def binding(source: str, destination: str, routing_key: str) -> Entry:
    return {
        "vhost": VHOST,
        "source": source,
        "destination": destination,
        "destination_type": "queue",
        "routing_key": routing_key,
        "arguments": {},
    }


ESTATE: dict[str, list[Entry]] = {
    "users": [
        user("owner"),
        user("nobody"),
        user("searching"),
        user("stranger"),
        user("writer"),
        user("reporter"),
        user("impostor", "impersonator"),
        user("no connection", max_connections=0),
        user("one connection", max_connections=1),
        user("no channel", max_channels=0),
        user("two channels", max_channels=2),
        user_with_hash("of sha512", "sha512"),
        user_with_hash("of md5", "md5"),
        {"name": "blank", "password_hash": "", "tags": []},
    ],
    "vhosts": [
        {"name": name, "metadata": {"description": "", "tags": []}}
        for name in (VHOST, "no connections", "one connection", "one queue")
    ],
    "permissions": [
        permission("owner", "^mine", "^mine|^amq[.]default$", "^mine"),
        permission("nobody", "", "", ""),
        permission("searching", "in|[[:digit:]]$", "(?i)IN", "in"),
        permission("writer", "^new", "^theirs", "^theirs"),
        everything("reporter"),
        everything("guest"),
        everything("impostor"),
        everything("no connection"),
        everything("one connection"),
        everything("no channel"),
        everything("two channels"),
        everything("of sha512"),
        everything("of md5"),
        everything("blank"),
        everything("guest", "no connections"),
        everything("guest", "one connection"),
        everything("guest", "one queue"),
    ],
    "topic_permissions": [
        {
            "user": "reporter",
            "vhost": VHOST,
            "exchange": "news",
            "write": "^{username}[.]|^all$",
            "read": "^{vhost}[.]",
        }
    ],
    "parameters": [
        vhost_limit("no connections", max_connections=0),
        vhost_limit("one connection", max_connections=1),
        vhost_limit("one queue", max_queues=1),
    ],
    "exchanges": [
        exchange("mine.x", "direct"),
        exchange("theirs.x", "direct"),
        exchange("news", "topic", alternate_exchange="mine.x"),
    ],
    "queues": [queue("mine.q"), queue("theirs.q"), queue("inn"), queue("full", "one queue")],
    "bindings": [binding("news", "theirs.q", "of.#"), binding("mine.x", "mine.q", "unread")],
}
ESTATE_AT = QualifiedName(__name__, "ESTATE")
"""Name of the estate, which is part of the fingerprint of each question to a node that has it."""


@contextmanager
def with_estate(folder: Path) -> Iterator[RabbitMQ]:
    """RabbitMQ with its exchange types and with these."""
    with RabbitMQ(folder, plugins=EXCHANGE_PLUGINS) as node:
        node.import_definitions(ESTATE)
        yield node


def estate_of(answers: Answers, export: Callable[[], str]) -> str:
    """The estate as RabbitMQ exports it, with hashes of its making: as recorded in any case, for
    they would be others each time."""
    asked = asked_for_estate()
    known = answers.current(asked)
    exported = known.transcript if known else answers.of(asked, lambda: entries_of(export()))
    return json.dumps({name: [*map(json.loads, texts)] for name, texts in exported.items()})


def asked_for_estate() -> Asked:
    return Asked("estate", "estate", fingerprint(ESTATE_AT))


def entries_of(definitions: str) -> Transcript:
    """Lists of entries, each as a text, in an order of ours; what is no list says nothing here."""
    return {
        name: sorted(json.dumps(entry, sort_keys=True) for entry in entries)
        for name, entries in json.loads(definitions).items()
        if isinstance(entries, list)
    }
