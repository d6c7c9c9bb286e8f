"""Definitions of a new node."""

import asyncio
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fluffle.broker.access.access import Permission
from fluffle.broker.access.passwords import matches
from fluffle.broker.composition.definitions import (
    first_start,
    ignored_after_first_start,
    load_definitions,
)
from fluffle.broker.config.config import Config, UserRights
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import set_vhost
from fluffle.broker.definitions.file_format import FORMAT, DefinitionsError
from fluffle.broker.durability.fact_codec import FirstStart
from tests.broker.definitions.test_importer import HASH, empty
from tests.support.definitions import EVERYTHING, Editor


def loaded(catalogue: Catalogue, config: Config) -> list[str]:
    """Texts about skipped definitions."""
    return asyncio.run(load_definitions(catalogue, config, Editor(catalogue).metadata))


def start_first(catalogue: Catalogue, config: Config) -> None:
    Editor(catalogue).have(lambda: first_start(catalogue, config))


def test_without_definitions_there_is_guest() -> None:
    catalogue = empty()
    assert loaded(catalogue, Config()) == []
    start_first(catalogue, Config())
    assert list(catalogue.vhosts) == ["/"]
    guest = catalogue.access.users["guest"]
    assert guest.password is not None
    assert matches(guest.password, b"guest")
    assert catalogue.access.permissions == {("guest", "/"): EVERYTHING}


def test_definitions_come_first_and_are_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "definitions.json"
    definitions = {
        "users": [{"name": "u", "password_hash": HASH}],
        "vhosts": [{"name": "v"}],
        "queues": [{"vhost": "v", "name": "amq.q"}],
    }
    file.write_text(json.dumps(definitions))
    catalogue = empty()
    config = Config(users={"u": "other", "w": "p"}, vhosts=("x",), definitions=file)
    (skipped,) = loaded(catalogue, config)
    assert "amq.q" in skipped
    start_first(catalogue, config)
    user = catalogue.access.users["u"]
    assert user.password is not None
    assert matches(user.password, b"secret")
    assert catalogue.access.permissions == {("w", "v"): EVERYTHING, ("w", "x"): EVERYTHING}


def test_a_directory_is_read_by_name_and_as_a_whole(tmp_path: Path) -> None:
    texts = {
        "2.json": {"queues": [{"vhost": "v", "name": "q"}]},
        "1.json": {"vhosts": [{"name": "v"}]},
        "3.txt": {"vhosts": [{"name": "w"}]},
    }
    for name, definitions in texts.items():
        (tmp_path / name).write_text(json.dumps({FORMAT: "cluster", **definitions}))
    catalogue = empty()
    assert loaded(catalogue, Config(definitions=tmp_path)) == []
    assert [*catalogue.vhosts] == ["v"]
    assert [*catalogue.vhosts["v"].queues] == ["q"]
    (tmp_path / "4.json").write_text("{")
    catalogue = empty()
    with pytest.raises(DefinitionsError, match=r"4\.json"):
        loaded(catalogue, Config(definitions=tmp_path))
    assert not catalogue.vhosts, "nothing is imported of what cannot be read whole"


def test_a_directory_without_definitions_is_no_place_for_them(tmp_path: Path) -> None:
    with pytest.raises(DefinitionsError, match=r"there is no file in .* ends with \.json"):
        loaded(empty(), Config(definitions=tmp_path))


def test_what_has_not_changed_may_be_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "definitions.json"
    file.write_text(json.dumps({"vhosts": [{"name": "v"}]}))
    catalogue = empty()
    skipping = Config(definitions=file, definitions_skip_unchanged=True)
    for config, there in ((skipping, True), (skipping, False), (Config(definitions=file), True)):
        loaded(catalogue, config)
        assert ("v" in catalogue.vhosts) is there
        catalogue.vhosts.pop("v", None)
    file.write_text(json.dumps({"vhosts": [{"name": "v"}, {"name": "w"}]}))
    loaded(catalogue, skipping)
    assert sorted(catalogue.vhosts) == ["v", "w"]


def test_users_may_be_made_to_do_less() -> None:
    catalogue = empty()
    config = Config(
        users={"u": "p", "w": "p"},
        vhosts=("orders", "other"),
        user_tags={"u": ("monitoring",)},
        user_rights={"u": UserRights("", "^o", ".*", "^orders$")},
    )
    start_first(catalogue, config)
    assert catalogue.access.permissions == {
        ("u", "orders"): Permission("", "^o", ".*"),
        ("w", "orders"): EVERYTHING,
        ("w", "other"): EVERYTHING,
    }
    assert catalogue.access.users["u"].tags == ("monitoring",)
    assert catalogue.access.users["w"].tags == ("administrator",)


def test_new_virtual_hosts_have_the_default_type_of_queues() -> None:
    catalogue = replace(empty(), default_queue_type="quorum")
    start_first(catalogue, Config())
    editor = Editor(catalogue)
    for name, metadata in (
        ("silent", {"tags": ["t"]}),
        ("classic", {"default_queue_type": "classic"}),
    ):
        editor.have(partial(set_vhost, catalogue, name, metadata=metadata))
    editor.have(partial(set_vhost, catalogue, "silent", metadata={"tags": []}))
    assert {name: vhost.metadata for name, vhost in catalogue.vhosts.items()} == {
        "/": {"default_queue_type": "quorum"},
        "silent": {"default_queue_type": "quorum", "tags": []},
        "classic": {"default_queue_type": "classic"},
    }


def test_without_the_file_there_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(DefinitionsError, match="cannot read definitions"):
        loaded(empty(), Config(definitions=tmp_path / "nothing"))


def test_a_missing_user_gets_advice_after_the_first_start() -> None:
    catalogue = empty()
    config = Config(users={"guest": "guest", "al ice": "p"}, vhosts=("/", "orders"))
    nothing = FirstStart()
    assert ignored_after_first_start(catalogue, Config(), nothing) is None, "nobody asked for guest"
    assert ignored_after_first_start(catalogue, config, nothing) == (
        "fluffle vhosts add orders; fluffle users add 'al ice'; "
        "fluffle permissions set 'al ice' '.*' '.*' '.*'"
    )
    start_first(catalogue, config)
    assert ignored_after_first_start(catalogue, config, nothing) is None


def test_who_was_made_at_the_first_start_has_been_deleted_on_purpose() -> None:
    config = Config(users={"u": "p", "w": "p"}, vhosts=("/", "v"))
    made = FirstStart(("u",), ("v",))
    commands = ignored_after_first_start(empty(), config, made)
    assert commands == "fluffle users add w; fluffle permissions set w '.*' '.*' '.*'"
