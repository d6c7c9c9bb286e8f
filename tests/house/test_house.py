"""Limits on what makes the sources hard to read.  They may be lowered, and not be raised."""

from __future__ import annotations

import re

import pytest

from tests.house import source_tree, unit_tests
from tests.house.source_tree import ROOT, Module
from tests.house.unit_tests import ModuleTests

NOUNS_IN_ING = {
    "broker.routing": "AMQP's word",
    "broker.testing": "a released name: `fluffle.broker.testing`",
    "raft.tuning": "what an operator does to the limits in it",
}
"""Modules whose names end so, each with its reason."""

NAMES_OF_PEOPLE = {
    "broker.testing.timeline who",  # released: `TraceStep.who`, a client
}
"""Names with a word that is of people only.  The list may shrink, and not grow."""


FOREIGN_NAMES = {"Allow", "Authorization"}
"""Headers of HTTP."""
LOOSE_COUNT_MAX = 2
LOOSE_LINES_MAX = 130
BUNDLE_COUNT_MAX = 12
TESTED_ELSEWHERE = {
    "broker.cli.": ("tests/broker/cli/test_commands.py", "commands, run as an operator does"),
    "broker.cli.rabbitmq.": ("tests/broker/cli/test_rabbitmq.py", "commands, run as scripts do"),
    "broker.daemon.": ("tests/broker/cli/test_end_to_end.py", "the process that is started"),
    "broker.testing.celery": ("tests/interop/test_celery.py", "a plugin that pytest loads"),
}
"""Modules that nothing with a test imports by a statement: where they are tested, and how."""
UNCLEAR_COUNT_MAX = 1
"""Docstrings that begin with a word of `NOT_A_SUBJECT`.  It may be lowered, and not be raised."""
UNNAMED_COUNT_MAX = 99
"""Modules without a test file of their name.  It may be lowered, and not be raised."""

PATH = re.compile(r"`([a-z_0-9]+(?:/[a-z_0-9]+)+)/?(?:\.py)?`")
FOLDERS = ("", "broker/")
"""From which paths in prose begin."""
PAGES_OF_TESTS = (
    "docs/reliability.md",
    "docs/safety.md",
    "tests/README.md",
    "tests/compat/README.md",
    "tests/simulation/README.md",
)
"""Pages that say by the names of files what is tested where."""
FILE = re.compile(r"`([a-z_0-9/]+\.py)\b")


@pytest.fixture(scope="module")
def found() -> list[Module]:
    return source_tree.modules()


def test_files_are_named_by_nouns(found: list[Module]) -> None:
    assert [name for name in source_tree.in_ing(found) if name not in NOUNS_IN_ING] == []


def test_every_reason_is_of_a_file(found: list[Module]) -> None:
    assert NOUNS_IN_ING.keys() - {module.name for module in found} == set()


def test_names_are_of_things(found: list[Module]) -> None:
    """`told` is of people: something is reported, sent, answered, known."""
    assert source_tree.names_of_people(found) == sorted(NAMES_OF_PEOPLE)


def test_names_of_tests_are_of_things() -> None:
    """Scenarios and what compares them are as they were asked: `tests/compat`."""
    paths = (path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
    files = [path for path in paths if "told" in path.read_text() and "compat" not in path.parts]
    names = source_tree.names_of_people([source_tree.module_of(path) for path in files])
    assert [name for name in names if "told" in name.rpartition(" ")[2].split("_")] == []


def test_docstrings_begin_with_what_something_is(found: list[Module]) -> None:
    assert source_tree.riddles(found) == []


def test_few_docstrings_leave_their_subject_to_be_guessed() -> None:
    """`python -m tests.house --list unclear` names them, of functions, attributes and tests too."""
    unclear = list(source_tree.unclear_docstrings())
    assert len(unclear) <= UNCLEAR_COUNT_MAX, unclear


def test_organs_are_where_they_are_used(found: list[Module]) -> None:
    """`python -m tests.house --list loose` names small modules that one other imports."""
    by = source_tree.importers(found)
    assert len(source_tree.loose_modules(found, by, LOOSE_LINES_MAX)) <= LOOSE_COUNT_MAX


def test_callables_come_in_few_bundles(found: list[Module]) -> None:
    """`python -m tests.house --list bundles` names the classes that hold some."""
    assert len(source_tree.bundles(found)) <= BUNDLE_COUNT_MAX


def test_no_modules_import_each_other_in_a_cycle(found: list[Module]) -> None:
    """Imports for types count; `python -m tests.house --list cycles` names the modules."""
    assert source_tree.cycles(source_tree.importers(found)) == []


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


@pytest.mark.parametrize("page", PAGES_OF_TESTS)
def test_files_that_a_page_names_are_there(page: str) -> None:
    """Files are compared by the end of their paths."""
    folders = (*source_tree.PACKAGES, "tests", "benchmarks")
    known = [f"/{path.as_posix()}" for folder in folders for path in (ROOT / folder).rglob("*.py")]
    named = FILE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert named
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in known)] == []


@pytest.fixture(scope="module")
def tests(found: list[Module]) -> dict[str, ModuleTests]:
    return unit_tests.tests_of(found, unit_tests.test_files())


def test_each_module_has_a_test(tests: dict[str, ModuleTests]) -> None:
    """`python -m tests.house --tests MODULE` names those of one."""
    without = [name for name, known in tests.items() if known.are_none]
    assert [name for name in without if not name.startswith((*TESTED_ELSEWHERE,))] == []


@pytest.mark.parametrize("package", TESTED_ELSEWHERE)
def test_what_is_tested_elsewhere_is_so_for_a_reason(
    package: str, tests: dict[str, ModuleTests]
) -> None:
    assert (ROOT / TESTED_ELSEWHERE[package][0]).exists()
    assert any(known.are_none for name, known in tests.items() if name.startswith(package))


def test_more_modules_have_a_test_of_their_name(tests: dict[str, ModuleTests]) -> None:
    """`python -m tests.house --list unnamed` names the others."""
    assert sum(not known.named for known in tests.values()) <= UNNAMED_COUNT_MAX
