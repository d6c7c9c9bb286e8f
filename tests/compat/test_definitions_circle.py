"""Definitions in a full circle: out of RabbitMQ, through fluffle, and into RabbitMQ again."""

import json
from collections.abc import Callable
from typing import Any

from fluffle.broker.definitions.file_format import CATEGORIES, read
from tests.broker.definitions.test_importer import empty, import_all
from tests.compat.comparison import difference_of
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript
from tests.support.exports import export_all

VHOST, USER = "full circle", "circle"
COMMON: dict[str, Any] = {"vhost": VHOST, "durable": True, "auto_delete": False, "arguments": {}}

EXCHANGES: dict[str, dict[str, Any]] = {
    "x-consistent-hash": {"hash-header": "h"},
    "x-random": {},
    "x-recent-history": {"x-recent-history-length": 5},
    "x-modulus-hash": {},
    "x-local-random": {},
    "x-jms-topic": {"rjms_version": "3.4.0"},
    "topic": {"alternate-exchange": "x-random"},
    "headers": {},
    "fanout": {},
    "direct": {},
}
"""Arguments by type; each is called as its type."""

QUEUES: list[dict[str, Any]] = [
    {"name": "plain"},
    {"name": "quorum by type", "type": "quorum"},
    {"name": "classic by type", "type": "classic"},
    {"name": "quorum", "type": "classic", "arguments": {"x-queue-type": "quorum"}},
    {"name": "classic", "type": "quorum", "arguments": {"x-queue-type": "classic"}},
    {
        "name": "q",
        "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 5, "x-max-length": 9},
    },
    {
        "name": "fleeting",
        "durable": False,
        "auto_delete": True,
        "arguments": {"x-expires": 1 << 30},
    },
]
"""Some say a type beside their arguments."""

DEFINITIONS: dict[str, Any] = {
    "rabbitmq_definition_format": "cluster",
    "users": [
        {
            "name": USER,
            "password": "pässword",
            "tags": ["monitoring", "own"],
            "limits": {"max-connections": 5},
        }
    ],
    "vhosts": [
        {
            "name": VHOST,
            "metadata": {"description": "d", "tags": ["a"], "default_queue_type": "classic"},
        }
    ],
    "permissions": [{"user": USER, "vhost": VHOST, "configure": "", "write": "^a", "read": ".*"}],
    "topic_permissions": [
        {"user": USER, "vhost": VHOST, "exchange": "topic", "write": "^a", "read": "{username}"}
    ],
    "exchanges": [
        {**COMMON, "name": kind, "type": kind, "internal": False, "arguments": arguments}
        for kind, arguments in EXCHANGES.items()
    ],
    "queues": [{**COMMON, **queue} for queue in QUEUES],
    "bindings": [
        {
            "vhost": VHOST,
            "source": "x-consistent-hash",
            "destination": "q",
            "destination_type": "queue",
            "routing_key": "10",
            "arguments": {},
        },
        {
            "vhost": VHOST,
            "source": "headers",
            "destination": "topic",
            "destination_type": "exchange",
            "routing_key": "é",
            "arguments": {"x-match": "any", "n": 1, "f": 1.5, "b": True, "l": ["a", {"k": "v"}]},
        },
        {
            "vhost": VHOST,
            "source": "x-jms-topic",
            "destination": "q",
            "destination_type": "queue",
            "routing_key": "q",
            "arguments": {"rjms_erlang_selector": "{'>',{'ident',<<\"n\">>},5}."},
        },
    ],
    "policies": [
        {
            "vhost": VHOST,
            "name": "p",
            "pattern": "^x",
            "apply-to": "classic_queues",
            "definition": {"max-length": 5, "dead-letter-exchange": "d"},
            "priority": 3,
        }
    ],
    "parameters": [
        {
            "vhost": VHOST,
            "component": "operator_policy",
            "name": "op",
            "value": {
                "pattern": "^x",
                "apply-to": "queues",
                "definition": {"max-length": 7},
                "priority": 1,
            },
        },
        {
            "vhost": VHOST,
            "component": "vhost-limits",
            "name": "limits",
            "value": {"max-queues": 100, "max-connections": 50},
        },
    ],
    "global_parameters": [{"name": "cluster_name", "value": "named"}],
}

SAYS_NOTHING = {"default_queue_type"}
"""Beside its metadata, where RabbitMQ 4.0.5 has it twice."""


def ours(definitions: dict[str, Any]) -> dict[str, list[Any]]:
    """Definitions of this test, sorted."""

    def is_ours(name: str, entry: dict[str, Any]) -> bool:
        names = {"users": USER, "vhosts": VHOST, "global_parameters": "cluster_name"}
        return bool(entry.get("vhost", entry.get("name")) == names.get(name, VHOST))

    return {
        name: sorted(
            (
                {key: value for key, value in entry.items() if key not in SAYS_NOTHING}
                for entry in definitions[name]
                if is_ours(name, entry)
            ),
            key=lambda entry: json.dumps(entry, sort_keys=True),
        )
        for name in CATEGORIES
    }


def exported(rabbitmq: RabbitMQ) -> dict[str, list[Any]]:
    return ours(json.loads(rabbitmq.export_definitions().read_text(encoding="utf-8")))


def read_by_rabbitmq(rabbitmq: RabbitMQ) -> Transcript:
    """Definitions that RabbitMQ exports after it has imported the file; users apart, whose salts
    differ."""
    rabbitmq.import_definitions(DEFINITIONS)
    found = as_texts(exported(rabbitmq))
    rabbitmq.ctl("delete_vhost", VHOST)
    rabbitmq.ctl("delete_user", USER)
    return found


def as_texts(definitions: dict[str, list[Any]]) -> Transcript:
    return {
        name: [json.dumps(entry, sort_keys=True) for entry in entries]
        for name, entries in definitions.items()
        if name != "users"
    }


ASKED = asks("definitions.by_hand", read_by_rabbitmq)


def test_a_file_by_hand_means_the_same_to_both(
    answers: Answers, oracle: Callable[[], RabbitMQ]
) -> None:
    """A type beside the arguments of a queue among it."""
    theirs = answers.of(ASKED, lambda: read_by_rabbitmq(oracle()))
    catalogue = empty()
    assert import_all(read(json.dumps(DEFINITIONS)), catalogue) == []
    here = as_texts(ours(json.loads(json.dumps(export_all(catalogue, "4.0.5")))))
    assert here == theirs, difference_of(theirs, here)
