"""A fingerprint is another one when something else may be asked or written down, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat import fingerprint as module
from tests.compat.fingerprint import QualifiedName, fingerprint

SCENARIO = """
from tests.other import helper, Speaker

COUNT = 3

def scenario(peer):
    client = peer.client()
    client.send(COUNT, own)
    helper(client)
    Speaker(client).declare()

def own():
    unused = ["a" for unused in "a"]
    return "a"

def unused():
    return "b"
"""
OTHER = """
from fluffle.protocol.methods import HEADER, make

def helper(client):
    client.expect(make("Channel.Close"), HEADER)

class Speaker:
    name: str = "s"

    def declare(self):
        self.call("declare")

    def call(self, name):
        return name

    def delete(self):
        return "delete"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path / "tests"


def seen(folder: Path, one: str, other: str) -> str:
    module.module_of.cache_clear()
    (folder / "one.py").write_text(one)
    (folder / "other.py").write_text(other)
    try:
        return fingerprint(QualifiedName("tests.one", "scenario"))
    finally:
        module.module_of.cache_clear()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("COUNT = 3", "COUNT = 4"),
        ('return "a"', 'return "c"'),
        ("    unused =", "    unused()\n    used ="),
        ("client.send(COUNT, own)", "client.send(own, COUNT)"),
        ("    helper(client)\n", ""),
        ("    helper(client)\n", "    helper(client)\n    helper(client)\n"),
        ("    helper(client)\n", "    own(client)\n"),
        ("peer.client()", "peer.connect()"),
        ('make("Channel.Close")', 'make("Channel.CloseOk")'),
        ("HEADER", "OTHER"),
        ("client.expect(", "client.end("),
        ('self.call("declare")', 'self.call("delete")'),
        ("return name", "return [name]"),
        ('name: str = "s"', 'name: str = "t"'),
    ],
)
def test_it_is_another_one_if_anything_that_is_reached_is(folder: Path, old: str, new: str) -> None:
    changed = [text.replace(old, new) for text in (SCENARIO, OTHER)]
    assert changed != [SCENARIO, OTHER]
    assert seen(folder, *changed) != seen(folder, SCENARIO, OTHER)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('return "b"', 'return "c"'),
        ('return "delete"', 'return "deleted"'),
        ("def scenario(peer):", 'def scenario(peer: object) -> None:\n    "Doc."\n    # why'),
        ("def scenario", '@scenario("7.5", "8")\ndef scenario'),
        ("def scenario", '"""Doc."""\n\n\ndef scenario'),
        ("helper", "helps"),
        ("make", "made"),
        ("Speaker", "Channel"),
        ("COUNT", "NUMBER"),
        ("own", "mine"),
        ('name: str = "s"', 'name: "str | None" = "s"'),
        ("client.send(COUNT, own)", "client.send(\n        COUNT, own\n    )"),
    ],
)
def test_it_is_the_same_whatever_else_is_changed(folder: Path, old: str, new: str) -> None:
    changed = [text.replace(old, new) for text in (SCENARIO, OTHER)]
    assert changed != [SCENARIO, OTHER]
    assert seen(folder, *changed) == seen(folder, SCENARIO, OTHER)


def test_how_a_broker_is_started_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STARTING", frozenset({"tests.other"}))
    changed = OTHER.replace("client.expect(", "client.end(")
    assert seen(folder, SCENARIO, changed) == seen(folder, SCENARIO, OTHER)
    assert seen(folder, SCENARIO.replace('"a"', '"c"'), OTHER) != seen(folder, SCENARIO, OTHER)


def test_what_is_said_beside_it_counts(folder: Path) -> None:
    seen(folder, SCENARIO, OTHER)
    root = QualifiedName("tests.one", "scenario")
    assert fingerprint(root, said="kill") != fingerprint(root, said="stop")
