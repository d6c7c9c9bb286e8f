"""docs/compatibility.md and the scenarios say the same: rows that are covered, differences."""

import inspect
import re
from pathlib import Path

from tests.compat import test_by_hand
from tests.compat.differences import DIFFERENCES
from tests.compat.quorum import NAMES
from tests.compat.scenario import ALARMS, CROSSINGS, SCENARIOS, load_scenarios

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
ROW = re.compile(r"^\| (\d+(?:\.\d+)?) \| .+ \| (covered|later\b.*) \|$", re.MULTILINE)

load_scenarios()
ROWS = {
    **{name: each.rows for name, each in SCENARIOS.items()},
    **{name: each.rows for name, each in CROSSINGS.items()},
    **{name: each.rows for name, each in ALARMS.items()},
}

ABOUT_QUEUES = re.compile(r"5\.[124]|6|6\.[12]|7\.[1-69]|8\.[123]|9")
"""Rows of which both types of queues have something to say."""


def test_rows_marked_covered_have_scenarios() -> None:
    covered = {number for number, state in ROW.findall(PAGE.read_text()) if state == "covered"}
    named = {row for rows in ROWS.values() for row in rows}
    assert covered - named == set(), "covered, says the page, but no scenario names them"


def test_scenarios_name_rows_of_the_page() -> None:
    states = dict(ROW.findall(PAGE.read_text()))
    strangers = {
        f"{name}: {row} ({states.get(row, 'unknown')})"
        for name, rows in ROWS.items()
        for row in rows
        if states.get(row) != "covered"
    }
    assert strangers == set(), "these rows are not marked covered"


def test_differences_stand_on_the_page() -> None:
    page = " ".join(PAGE.read_text().split())
    assert [each.reason for each in DIFFERENCES if each.reason not in page] == []


def test_rows_about_queues_are_covered_with_quorum_queues() -> None:
    """Rows are covered by scenarios with quorum queues in the place of classic ones, by those that
    name them, or by hand."""
    covered = {row for name in NAMES for row in SCENARIOS[name].rows}
    for each in SCENARIOS.values():
        if re.search(r"quorum|QUORUM|TYPES", inspect.getsource(each.drive)):
            covered.update(each.rows)
    by_hand = (name.split("_") for name in dir(test_by_hand) if name.startswith("test_"))
    covered.update(f"{section}.{row}" for _test, section, row, *_ in by_hand)
    about = {row for row in dict(ROW.findall(PAGE.read_text())) if ABOUT_QUEUES.fullmatch(row)}
    assert about - covered == set()


def test_each_row_about_queues_is_covered_with_classic_queues() -> None:
    """A scenario of section 15 is about quorum queues alone."""
    classic = {row for name, rows in ROWS.items() if "section_15" not in name for row in rows}
    about = {row for row in dict(ROW.findall(PAGE.read_text())) if ABOUT_QUEUES.fullmatch(row)}
    assert about - classic == set()
