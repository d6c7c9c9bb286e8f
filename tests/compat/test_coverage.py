"""docs/compatibility.md and the scenarios say the same: rows that are covered, differences."""

import re
from pathlib import Path

from tests.compat.differences import DIFFERENCES
from tests.compat.scenario import ALARMS, CROSSINGS, SCENARIOS, load_scenarios

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
ROW = re.compile(r"^\| (\d+(?:\.\d+)?) \| .+ \| (covered|later\b.*) \|$", re.MULTILINE)

load_scenarios()
ROWS = {
    **{name: each.rows for name, each in SCENARIOS.items()},
    **{name: each.rows for name, each in CROSSINGS.items()},
    **{name: each.rows for name, each in ALARMS.items()},
}


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
