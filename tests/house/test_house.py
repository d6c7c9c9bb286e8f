"""Limits on what makes the sources hard to read.  They may be lowered, and not be raised."""

from __future__ import annotations

import re

import pytest

from tests.house import source_tree
from tests.house.source_tree import ROOT, Module

NOUNS_IN_ING = {
    "broker.queues.dead_lettering": "RabbitMQ's word",
    "broker.queues.quorum.encoding": "the form of an entry as bytes",
    "broker.routing": "AMQP's word",
    "broker.testing": "a released name: `fluffle.broker.testing`",
    "raft.tuning": "what an operator does to the limits in it",
}
"""Modules whose names end so, each with its reason."""

FOREIGN_NAMES = {"Allow", "Authorization"}
"""Headers of HTTP."""
LOOSE_COUNT_MAX = 37
LOOSE_LINES_MAX = 130
BUNDLE_COUNT_MAX = 48
CYCLE_SIZES_MAX = (25, 15, 9, 7, 7, 4, 2, 2, 2, 2, 2)
"""Imports for types count.  In the order of their sizes."""

PATH = re.compile(r"`([a-z_0-9]+(?:/[a-z_0-9]+)+)/?(?:\.py)?`")
FOLDERS = ("", "broker/")
"""From which paths in prose begin."""


@pytest.fixture(scope="module")
def found() -> list[Module]:
    return source_tree.modules()


def test_files_are_named_by_nouns(found: list[Module]) -> None:
    assert [name for name in source_tree.in_ing(found) if name not in NOUNS_IN_ING] == []


def test_every_reason_is_of_a_file(found: list[Module]) -> None:
    assert NOUNS_IN_ING.keys() - {module.name for module in found} == set()


def test_docstrings_begin_with_what_something_is(found: list[Module]) -> None:
    assert source_tree.riddles(found) == []


def test_organs_are_where_they_are_used(found: list[Module]) -> None:
    """`python -m tests.house --list loose` names small modules that one other imports."""
    by = source_tree.importers(found)
    assert len(source_tree.loose_modules(found, by, LOOSE_LINES_MAX)) <= LOOSE_COUNT_MAX


def test_callables_come_in_few_bundles(found: list[Module]) -> None:
    """`python -m tests.house --list bundles` names the classes that hold some."""
    assert len(source_tree.bundles(found)) <= BUNDLE_COUNT_MAX


def test_cycles_of_imports_do_not_grow(found: list[Module]) -> None:
    """`python -m tests.house --list cycles` names the modules of each."""
    sizes = [len(cycle) for cycle in source_tree.cycles(source_tree.importers(found))]
    assert len(sizes) <= len(CYCLE_SIZES_MAX)
    assert all(size <= most for size, most in zip(sizes, CYCLE_SIZES_MAX, strict=False))


def test_prose_names_what_there_is(found: list[Module]) -> None:
    """Classes in backquotes, and files; what is renamed is renamed there, too."""
    unknown = source_tree.unknown_names(found)
    assert [each for each in unknown if each.rpartition(" ")[2] not in FOREIGN_NAMES] == []


def test_paths_in_the_architecture_lead_somewhere() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lost = [
        path
        for path in PATH.findall(page)
        if not any(
            (ROOT / f"{folder}{path}{end}").exists() for folder in FOLDERS for end in ("", ".py")
        )
    ]
    assert lost == []
