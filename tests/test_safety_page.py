"""docs/safety.md names every fault that is made, and no other; the README leads to it.

The table of floods in docs/reliability.md has every kind that there is.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.floods import QUIET
from fluffle.broker.torture.faults import KINDS as TORTURE
from tests.abuse.flooders import FLOODERS
from tests.abuse.kinds import KINDS as ABUSE
from tests.simulation.faults import KINDS as SIMULATION

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
TABLES = {"By `make torture`": TORTURE, "By the simulator": SIMULATION, "By `make abuse`": ABUSE}
FIRST_SCREEN_LINES = 40


def kinds_below(heading: str) -> list[str]:
    """The text that stands in the first column of the table behind these words."""
    _before, _heading, after = PAGE.partition(f"\n{heading}")
    rows = re.search(r"\|---\|---\|\n((?:\|.*\n)+)", after)
    assert rows is not None, heading
    cells = (row.split("|")[1] for row in rows[1].splitlines())
    return [kind for cell in cells for kind in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize(("heading", "kinds"), TABLES.items())
def test_the_page_names_the_faults_that_are_made(heading: str, kinds: Iterable[str]) -> None:
    assert sorted(kinds_below(heading)) == sorted(kinds)


def test_faults_that_a_promise_names_are_made() -> None:
    for named in re.findall(r"--faults ([\w,-]+)", PAGE):
        assert {*named.split(",")} <= {*TORTURE}


def test_the_table_of_floods_has_every_kind() -> None:
    _before, _head, table = RELIABILITY.partition("\n| flooder |")
    rows = re.findall(r"^\| ([^|]+) \|", table.partition("\n\n")[0], re.MULTILINE)
    assert rows == [QUIET, *FLOODERS]


def test_the_first_screen_of_the_readme_says_what_a_confirm_means_and_leads_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first_screen = "\n".join(readme.splitlines()[:FIRST_SCREEN_LINES])
    assert "](docs/safety.md)" in first_screen
    assert "fsync" in first_screen
