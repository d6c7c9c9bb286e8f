"""RabbitMQ is given what fluffle has made, and must take it: nothing of this can be recorded."""

import json
from pathlib import Path

import pytest

from fluffle.broker.access.access import User
from fluffle.broker.access.passwords import SHA256, SHA512, hashed
from fluffle.broker.definitions.file_format import read_file
from tests.broker.definitions.test_importer import empty, import_all
from tests.compat.oracle import RabbitMQ
from tests.compat.test_commands import fluffle_says
from tests.compat.test_definitions_circle import DEFINITIONS, USER, VHOST, exported, ours
from tests.support.client import Client
from tests.support.daemon import Daemon
from tests.support.definitions import EVERYTHING, Editor
from tests.support.exports import export_all

pytestmark = [pytest.mark.compat, pytest.mark.oracle("broker/access", "broker/definitions")]


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


def test_nothing_is_lost_on_the_way_through_fluffle(rabbitmq: RabbitMQ) -> None:
    rabbitmq.import_definitions(DEFINITIONS)
    file = rabbitmq.export_definitions()
    first = ours(json.loads(file.read_text(encoding="utf-8")))
    catalogue = empty()
    assert import_all(read_file(file), catalogue) == []
    through = json.loads(json.dumps(export_all(catalogue, "4.0.5")))
    assert ours(through) == first
    rabbitmq.ctl("delete_vhost", VHOST)
    rabbitmq.ctl("delete_user", USER)
    rabbitmq.import_definitions(through)
    assert exported(rabbitmq) == first
    rabbitmq.ctl("delete_vhost", VHOST)
    rabbitmq.ctl("delete_user", USER)


def test_definitions_go_round_through_a_running_node(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    file = rabbitmq.export_definitions()
    with Daemon(tmp_path / "data") as daemon:
        fluffle_says(daemon, "definitions", "import", str(file))
        again = json.loads(fluffle_says(daemon, "definitions", "export"))
        names = {user["name"] for user in json.loads(file.read_text())["users"]}
        assert names <= {user["name"] for user in again["users"]}
        rabbitmq.import_definitions(again)
        assert "Traceback" not in daemon.log


def test_an_export_for_rabbitmq_is_imported_where_another_stops(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    with Daemon(tmp_path / "data") as daemon:
        fluffle_says(daemon, "users", "add", "modern", "secret", "--algorithm", "argon2")
        within = json.loads(fluffle_says(daemon, "definitions", "export"))
        without = json.loads(fluffle_says(daemon, "definitions", "export", "--for-rabbitmq"))
    with pytest.raises(RuntimeError, match="import_definitions"):
        rabbitmq.import_definitions(within)
    rabbitmq.import_definitions(without)
    assert "modern" in rabbitmq.ctl("-q", "list_users")
    rabbitmq.ctl("delete_user", "modern")
