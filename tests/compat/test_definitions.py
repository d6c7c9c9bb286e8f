"""Definitions move both ways: RabbitMQ's into fluffle and out again, fluffle's into RabbitMQ."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fluffle.broker.definitions.file_format import CATEGORIES, read
from tests.broker.definitions.test_importer import empty, import_all
from tests.compat.embedded import serving
from tests.compat.estate import PASSWORD, VHOST, with_estate
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript
from tests.support.client import Client
from tests.support.exports import export_all

OF_ITS_OWN = {"default_queue_type"}
"""Fields that RabbitMQ adds to a virtual host and that say nothing."""


def comparable(definitions: dict[str, Any]) -> dict[str, set[str]]:
    """The entries of each category as texts; their order says nothing."""
    return {
        name: {
            json.dumps({key: entry[key] for key in entry.keys() - OF_ITS_OWN}, sort_keys=True)
            for entry in definitions[name]
        }
        for name in CATEGORIES
    }


MORE: dict[str, Any] = {
    "policies": [
        {
            "vhost": "estate",
            "name": "policy",
            "pattern": "^none$",
            "apply-to": "queues",
            "definition": {"max-length": 5},
            "priority": 1,
        }
    ],
    "queues": [
        {
            "vhost": "estate",
            "name": "with arguments",
            "durable": True,
            "auto_delete": False,
            "arguments": {"x-max-length": 5, "x-a": [1, "é", 1.5], "x-b": {"c": True}},
        }
    ],
}
HASH = "aGFzaGVk"


def exported_by_rabbitmq(folder: Path) -> Transcript:
    """The estate and more, with one hash in the place of all, which are others each time."""
    with with_estate(folder) as rabbitmq:
        rabbitmq.import_definitions(MORE)
        exported = json.loads(rabbitmq.export_definitions().read_text())
    for user in exported["users"]:
        user["password_hash"] = user["password_hash"] and HASH
    return {
        name: sorted(json.dumps(entry, sort_keys=True) for entry in exported[name])
        for name in CATEGORIES
    }


ASKED_FOR_ESTATE = asks("definitions.estate", exported_by_rabbitmq)


def test_rabbitmqs_definitions_come_out_as_they_went_in(answers: Answers, tmp_path: Path) -> None:
    said = answers.of(ASKED_FOR_ESTATE, lambda: exported_by_rabbitmq(tmp_path / "rabbitmq"))
    exported = {name: [*map(json.loads, entries)] for name, entries in said.items()}
    catalogue = empty()
    assert import_all(read(json.dumps(exported)), catalogue) == []
    theirs = comparable(exported)
    ours = comparable(json.loads(json.dumps(export_all(catalogue, "4.3.5"))))
    for name in CATEGORIES:
        assert ours[name] == theirs[name], name


OF_QUORUM_QUEUES = "of quorum queues"
WITHOUT_A_TYPE: Mapping[str, dict[str, Any]] = {
    "lasting": {},
    "auto-delete": {"auto_delete": True},
    "transient": {"durable": False},
    "named": {"arguments": {"x-queue-type": "classic"}},
}
SAID = {"durable": True, "auto_delete": False, "arguments": {}, "vhost": OF_QUORUM_QUEUES}
QUEUES: dict[str, Any] = {
    "rabbitmq_definition_format": "cluster",
    "vhosts": [{"name": OF_QUORUM_QUEUES, "metadata": {"default_queue_type": "quorum"}}],
    "queues": [{**SAID, "name": name, **each} for name, each in WITHOUT_A_TYPE.items()],
}


def typed_by_rabbitmq(rabbitmq: RabbitMQ) -> Transcript:
    rabbitmq.import_definitions(QUEUES)
    queues = json.loads(rabbitmq.export_definitions().read_text())["queues"]
    return as_texts(each for each in queues if each["vhost"] == OF_QUORUM_QUEUES)


def as_texts(queues: Iterable[Mapping[str, Any]]) -> Transcript:
    return {each["name"]: [json.dumps(each, sort_keys=True)] for each in queues}


ASKED_FOR_TYPES = asks("definitions.types", typed_by_rabbitmq)


def test_queues_without_a_type_are_of_the_default_type_of_their_virtual_host(
    answers: Answers, oracle: Callable[[], RabbitMQ]
) -> None:
    theirs = answers.of(ASKED_FOR_TYPES, lambda: typed_by_rabbitmq(oracle()))
    catalogue = empty()
    assert import_all(read(json.dumps(QUEUES)), catalogue) == []
    assert as_texts(export_all(catalogue, "4.0.5")["queues"]) == theirs
    types = ["quorum", "classic", "classic", "classic"]
    queues = (json.loads(*theirs[name]) for name in WITHOUT_A_TYPE)
    assert [queue["arguments"]["x-queue-type"] for queue in queues] == types


@pytest.mark.parametrize("name", ["owner", "of sha512", "of md5"])
def test_rabbitmqs_users_log_in_here_also_when_the_file_is_gone(
    imported: Path, answers: Answers, name: str
) -> None:
    with serving(imported, answers) as broker, Client("127.0.0.1", broker.port) as client:
        client.open(user=name, password=PASSWORD.format(name), vhost=VHOST)
        assert client.heard[-1].name == "Connection.OpenOk"


@pytest.fixture(scope="module")
def imported(answers: Answers, definitions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a node that has once read what RabbitMQ exports."""
    data_dir = tmp_path_factory.mktemp("imported")
    with serving(data_dir, answers, f"--definitions={definitions}"):
        pass
    return data_dir
