"""Tests of a module are found by their names, and by what they import."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house import unit_tests
from tests.house.source_tree import Module
from tests.house.unit_tests import ModuleTests, described


def module(name: str, text: str = "") -> Module:
    return Module(name, Path(f"{name.replace('.', '/')}.py"), text, ast.parse(text))


def test_tests_are_found() -> None:
    found = [
        module("raft.log", "from fluffle.raft.index import Index"),
        module("raft.log_store"),
        module("raft.index", "from fluffle.raft import index_codec"),
        module("raft.alone"),
        module("raft.inner"),
        module("raft.index_codec", "from fluffle.raft import inner"),
        module("raft.__main__"),
    ]
    written = [
        module("tests.raft.test_log"),
        module("tests.raft.test_log_store_damage", "from fluffle.raft import log"),
        module("tests.raft.test_log_ends"),
        module("tests.storage.test_index"),
    ]
    known = unit_tests.tests_of(found, written)
    damage = "tests/raft/test_log_store_damage.py"
    assert known == {
        "raft.alone": ModuleTests([], [], []),
        "raft.index": ModuleTests([], [], ["raft/log.py"]),
        "raft.index_codec": ModuleTests([], [], ["raft/log.py"]),
        "raft.inner": ModuleTests([], [], ["raft/log.py"]),
        "raft.log": ModuleTests(
            ["tests/raft/test_log.py", "tests/raft/test_log_ends.py"], [damage], []
        ),
        "raft.log_store": ModuleTests([damage], [], []),
    }
    assert [name for name, each in known.items() if each.are_none] == ["raft.alone"]
    assert described("raft/index.py", known) == ["through raft/log.py"]
    assert described("fluffle.raft.log", known)[-1] == f"{damage} imports it"
