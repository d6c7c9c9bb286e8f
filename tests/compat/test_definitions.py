"""Definitions move both ways: RabbitMQ's into fluffle and out again, fluffle's into RabbitMQ."""

import json
from pathlib import Path
from typing import Any

import pytest

from fluffle.broker.access.passwords import SHA256, SHA512, hashed
from fluffle.broker.access.permissions import EVERYTHING
from fluffle.broker.access.users import User
from fluffle.broker.definitions.exporting import export_all
from fluffle.broker.definitions.reading import CATEGORIES, read, read_file
from tests.broker.definitions.test_importing import empty, import_all
from tests.compat.estate import PASSWORD, VHOST
from tests.compat.oracle import RabbitMQ
from tests.support.client import Client
from tests.support.daemon import Daemon
from tests.support.definitions import Editor

pytestmark = pytest.mark.compat

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


def test_rabbitmqs_definitions_come_out_as_they_went_in(rabbitmq: RabbitMQ) -> None:
    rabbitmq.import_definitions(
        {
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
    )
    file = rabbitmq.export_definitions()
    catalogue = empty()
    assert import_all(read_file(file), catalogue) == []
    theirs = comparable(json.loads(file.read_text()))
    ours = comparable(json.loads(json.dumps(export_all(catalogue, "4.3.5"))))
    for name in CATEGORIES:
        assert ours[name] == theirs[name], name


def test_queues_without_a_type_are_of_the_default_type_of_their_virtual_host(
    rabbitmq: RabbitMQ,
) -> None:
    names = ("lasting", "auto-delete", "transient", "named")
    more: tuple[dict[str, Any], ...] = (
        {},
        {"auto_delete": True},
        {"durable": False},
        {"arguments": {"x-queue-type": "classic"}},
    )
    vhost = "of quorum queues"
    said = {"durable": True, "auto_delete": False, "arguments": {}, "vhost": vhost}
    definitions: dict[str, Any] = {
        "rabbitmq_definition_format": "cluster",
        "vhosts": [{"name": vhost, "metadata": {"default_queue_type": "quorum"}}],
        "queues": [{**said, "name": n, **each} for n, each in zip(names, more, strict=True)],
    }
    rabbitmq.import_definitions(definitions)
    catalogue = empty()
    assert import_all(read(json.dumps(definitions)), catalogue) == []
    ours = export_all(catalogue, "4.0.5")["queues"]
    theirs = json.loads(rabbitmq.export_definitions().read_text())["queues"]
    there = {each["name"]: each for each in theirs if each["vhost"] == vhost}
    assert {each["name"]: each for each in ours} == there
    types = ["quorum", "classic", "classic", "classic"]
    assert [there[name]["arguments"]["x-queue-type"] for name in names] == types


@pytest.mark.parametrize("algorithm", [SHA256, SHA512])
def test_fluffles_users_log_in_to_rabbitmq(rabbitmq: RabbitMQ, algorithm: str) -> None:
    catalogue = empty()
    name = f"made here, {algorithm}"
    editor = Editor(catalogue)
    editor.vhost("/")
    editor.put_user(User(name, hashed("pässword".encode(), algorithm), ("management",)))
    editor.put_permission(name, "/", EVERYTHING)
    rabbitmq.import_definitions(export_all(catalogue, "4.0.5"))
    with Client("127.0.0.1", rabbitmq.port) as client:
        client.open(user=name, password="pässword")
        assert client.heard[-1].name == "Connection.OpenOk"


@pytest.mark.parametrize("name", ["owner", "of sha512", "of md5"])
def test_rabbitmqs_users_log_in_here_also_when_the_file_is_gone(imported: Path, name: str) -> None:
    with Daemon(imported) as daemon, Client("127.0.0.1", daemon.port) as client:
        client.open(user=name, password=PASSWORD.format(name), vhost=VHOST)
        assert client.heard[-1].name == "Connection.OpenOk"


@pytest.fixture(scope="module")
def imported(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a node that has once read what RabbitMQ exports."""
    data_dir = tmp_path_factory.mktemp("imported")
    with Daemon(data_dir, "--definitions", str(rabbitmq.export_definitions())):
        pass
    return data_dir
