"""Tests that run by day, at night and by hand."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.registry import these
from tests.suite import failed
from tests.suite.seeds import (
    EXAMPLES_BY_DAY,
    SEED,
    SUITE,
    TESTS,
    drawn_for,
    machine_settings,
    night_seed,
    regressions,
    seeds,
)
from tests.suite.selection import Candidate, candidate_of, folders_of, select, touched_since
from tests.support.require import require


@pytest.fixture
def night(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SUITE, "night")
    monkeypatch.setenv(SEED, "7")


def some_test(seed: int) -> None:
    """Takes seeds."""


def rows_of(decorated: object) -> list[tuple[int, bool]]:
    """Seeds, and whether they are slow."""
    [mark] = decorated.pytestmark  # type: ignore[attr-defined]
    del decorated.pytestmark  # type: ignore[attr-defined]
    return [(row.values[0], bool(row.marks)) for row in mark.args[1]]


def test_by_day_seeds_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SUITE, "day")
    assert rows_of(seeds(2)(some_test)) == [(0, False), (1, False)]
    assert rows_of(seeds(range(100, 102), slow=True)(some_test)) == [(100, True), (101, True)]
    assert machine_settings(examples=300).max_examples == EXAMPLES_BY_DAY
    assert machine_settings(examples=5).max_examples == 5


@pytest.mark.usefixtures("night")
def test_at_night_they_follow_from_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    first = rows_of(seeds(2, at_night=30, slow=True)(some_test))
    assert len({seed for seed, _ in first}) == 30
    assert first == rows_of(seeds(2, at_night=30, slow=True)(some_test))
    assert len(rows_of(seeds(2)(some_test))) == 20
    assert machine_settings(examples=30).max_examples == 300
    assert drawn_for("a", 5) != drawn_for("b", 5)
    monkeypatch.setenv(SEED, "8")
    assert first != rows_of(seeds(2, at_night=30, slow=True)(some_test))


def test_a_night_draws_its_number_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEED, "")
    monkeypatch.delenv(SEED)
    assert night_seed() == night_seed()


@pytest.mark.parametrize("suite", ["day", "night"])
def test_what_failed_once_runs_always(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.broker.cluster.queue_sessions import test_random_steps

    monkeypatch.setenv(SUITE, suite)
    monkeypatch.setenv(SEED, "7")

    def test_much_of_whatever_happens(seed: int) -> None:
        del seed

    code = test_much_of_whatever_happens.__code__
    test_much_of_whatever_happens.__code__ = code.replace(co_filename=test_random_steps.__file__)
    rows = rows_of(seeds(1, slow=True)(test_much_of_whatever_happens))
    assert [row for row in rows if not row[1]] == [(13_519, False), (1_050, False)]


def test_every_regression_has_a_test_that_takes_it_and_a_reason() -> None:
    for regression in regressions():
        path, _, test = regression.test.partition("::")
        text = (TESTS / path).read_text(encoding="utf-8")
        before, found, _ = text.partition(f"\ndef {test}(")
        assert found, regression
        assert "@seeds(" in before.rpartition("\n\n\n")[2], regression
        assert len(regression.reason) > 20, regression


def by_day(folders: str, touched: set[str] | None) -> bool:
    """True if the third of such tests runs."""
    candidate = Candidate("tests/x.py::test_y", frozenset(folders.split()))
    return select([candidate] * 3, None if touched is None else frozenset(touched))[2]


@pytest.mark.parametrize(
    ("folders", "touched", "is_run"),
    [
        ("", None, True),
        ("", set(), True),
        ("raft", None, False),
        ("raft", set(), False),
        ("raft tests/raft", {"tests/raft/deep/test_log.py"}, True),
        ("broker/queues/*", {"broker/queues/ready_list.py"}, True),
        ("broker/queues/*", {"broker/queues/quorum/proposals.py"}, False),
        ("raft", {"raft_notes.md", "docs/raft.md"}, False),
    ],
)
def test_by_day_what_was_touched_runs(folders: str, touched: set[str] | None, is_run: bool) -> None:
    assert by_day(folders, touched) is is_run


def test_where_nobody_says_what_was_touched_a_few_of_each_run() -> None:
    first, other = (Candidate(name, frozenset({"raft"})) for name in "ab")
    assert select([first, first, other, first], None) == [True, True, True, False]


def test_what_rabbitmq_does_is_asked_at_night_and_where_the_test_is_another(
    request: pytest.FixtureRequest,
) -> None:
    request.node.add_marker(pytest.mark.oracle("broker/testing"))
    candidate = candidate_of(request.node)
    assert select([candidate], None) == [False]
    assert select([candidate], frozenset({"tests/suite/test_suite.py"})) == [True]
    assert select([candidate], frozenset({"broker/testing/faults/unkind.py"})) == [True]
    assert select([candidate], frozenset({"broker/node.py", "tests/suite/deep/x.py"})) == [False]


@these("M26")
def test_a_mutant_is_about_its_folder_and_that_of_its_tests(
    mutant: Mutant, request: pytest.FixtureRequest
) -> None:
    assert mutant.where == "raft.group:Group.compact"
    assert folders_of(request.node) == {"raft/*", "tests/suite/*", "tests/mutants"}


def test_what_git_does_not_know_is_no_base() -> None:
    require("git")
    with pytest.raises(pytest.UsageError, match="FLUFFLE_BASE=nothing-of-that-name"):
        touched_since("nothing-of-that-name")


def test_a_seed_that_fails_is_kept_to_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failed, "KEPT", tmp_path / "nightly" / "failed_seeds.toml")
    report = pytest.TestReport("x.py::t[9]", ("x.py", 1, "t"), {}, "failed", None, "call")
    failed.keep(report)
    assert not failed.KEPT.exists()
    report.user_properties.append(("seed", "broker/x.py::t 9"))
    failed.keep(report)
    failed.keep(report)
    read = tomllib.loads(failed.KEPT.read_text(encoding="utf-8"))["seed"]
    assert read == [{"test": "broker/x.py::t", "seed": 9, "reason": ""}] * 2


@pytest.mark.parametrize("seed", [4])
def test_a_report_says_which_seed_failed(seed: int, request: pytest.FixtureRequest) -> None:
    report = pytest.TestReport("x", ("x", 1, "t"), {}, "failed", None, "call")
    failed.note(request.node, report)
    name = "suite/test_suite.py::test_a_report_says_which_seed_failed"
    assert report.user_properties == [("seed", f"{name} {seed}")]


OWN_SEEDS = re.compile(r'parametrize\("seed", (range|\[\*range)')
RECORDED = "compat"
"""Scenarios are drawn there with seeds of their own, and asked of RabbitMQ."""


def test_seeds_and_state_machines_are_few_by_day() -> None:
    """Count the sources of seeds and state machines; the settings of one that is run by hand are
    none."""
    strays = []
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if RECORDED not in path.parts and re.search(
            r'parametrize\("seed", (range|\[\*range)', text
        ):
            strays.append(f"{path.name}: seeds")
        if "(RuleBasedStateMachine)" in text and "machine_settings(" not in text:
            strays.append(f"{path.name}: state machine")
    assert strays == []
