"""From text to entries: both forms, and what is said of a file that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from fluffle.broker.definitions.file_format import (
    CATEGORIES,
    DefinitionsError,
    mapping_of,
    read,
    read_file,
)

QUEUE = {"name": "q", "durable": True, "auto_delete": False, "arguments": {}}


def refusal(content: Any) -> str:
    with pytest.raises(DefinitionsError) as refused:
        read(content if isinstance(content, str) else json.dumps(content))
    return str(refused.value)


def test_every_category_is_there_even_of_an_empty_file() -> None:
    assert read("{}") == {name: [] for name in CATEGORIES}


def test_fields_that_nobody_knows_stay() -> None:
    entry = {"name": "v", "default_queue_type": "classic", "metadata": {}}
    assert read(json.dumps({"vhosts": [entry], "of the future": 1}))["vhosts"] == [entry]


@pytest.mark.parametrize(
    "content",
    [
        {"rabbitmq_definition_format": "single_virtual_host", "queues": [QUEUE]},
        {"queues": [QUEUE]},
    ],
)
def test_the_form_of_one_virtual_host(content: dict[str, Any]) -> None:
    assert read(json.dumps(content))["queues"] == [{"vhost": "/"} | QUEUE]
    assert read(json.dumps(content), vhost="v")["queues"] == [{"vhost": "v"} | QUEUE]


def test_an_entry_of_the_other_form_must_name_its_virtual_host() -> None:
    content = {"rabbitmq_definition_format": "cluster", "queues": [QUEUE]}
    assert refusal(content) == "queues, entry 1: there is no 'vhost'"
    assert refusal({"vhosts": [{"name": "v"}], "queues": [QUEUE]}).endswith("there is no 'vhost'")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "this is no JSON"),
        ("{", "this is no JSON"),
        ("[" * 100_000, "this is no JSON"),
        (r'{"users": [{"name": "\ud800"}]}', "this is no JSON"),
        ([], "there is no object at the top"),
        ({"users": {}}, "users is no list"),
        ({"queues": 5}, "queues is no list"),
        ({"exchanges": True}, "exchanges is no list"),
        ({"bindings": None}, "bindings is no list"),
        ({"users": ["guest"]}, "users, entry 1: this is no object"),
        ({"users": [{"name": "u"}, {"tags": []}]}, "users, entry 2: there is no 'name'"),
        ({"users": [{"name": 5}]}, "users, entry 1: 'name' cannot be 5"),
        (
            {"vhosts": [{"name": "v"}], "exchanges": [{"vhost": "v", "name": "x", "type": None}]},
            "exchanges, entry 1: 'type' cannot be null",
        ),
    ],
)
def test_what_cannot_be_used(content: Any, text: str) -> None:
    assert text in refusal(content)


@pytest.mark.parametrize("key", ["password", "password_hash"])
def test_a_password_is_not_shown(key: str) -> None:
    text = refusal({"users": [{"name": "u", key: 12345}]})
    assert text == f"users, entry 1: '{key}' cannot be what it is"


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "definitions.json"
    with pytest.raises(DefinitionsError, match=r"cannot read definitions .*: No such file"):
        read_file(file)
    file.write_bytes(b"\xff")
    with pytest.raises(DefinitionsError, match="are not UTF-8"):
        read_file(file)
    file.write_text("[]")
    with pytest.raises(DefinitionsError, match=r"definitions\.json: there is no object"):
        read_file(file)
    file.write_text('{"vhosts": [{"name": "v"}]}')
    assert read_file(file)["vhosts"] == [{"name": "v"}]


def test_objects_that_rabbitmq_writes_as_lists() -> None:
    assert mapping_of([]) == {}
    assert mapping_of([["max-queues", 5]]) == {"max-queues": 5}
    assert mapping_of({"max-queues": 5}) == {"max-queues": 5}


@pytest.mark.parametrize("value", [5, None, "x", [5], [["x"]], [[["x"], 1]]])
def test_what_is_no_object(value: Any) -> None:
    with pytest.raises(DefinitionsError, match="is no object"):
        mapping_of(value)
