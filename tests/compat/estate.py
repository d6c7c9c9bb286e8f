"""Users, virtual hosts and permissions that both brokers have: RabbitMQ is told, fluffle loads what
RabbitMQ exports, hashes of its making included."""

import base64
import hashlib
from typing import Any

VHOST = "estate"
PASSWORD = "pässword of {}"
"""Of every user, with his name in it."""

Entry = dict[str, Any]


def user(name: str, *tags: str, **limits: int) -> Entry:
    return {
        "name": name,
        "password": PASSWORD.format(name),
        "tags": list(tags),
        "limits": {key.replace("_", "-"): value for key, value in limits.items()},
    }


def user_with_hash(name: str, algorithm: str) -> Entry:
    """As RabbitMQ keeps it when another algorithm than its default is configured."""
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
