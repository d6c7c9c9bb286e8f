"""The command: which mutants it takes, what it says of them, and the tables that it writes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import tables
from tests.mutants.__main__ import main, parser, wanted_of
from tests.mutants.hunt import by_tests
from tests.mutants.registry import ALL, FAMILIES, mutant
from tests.mutants.verdict import Verdict


def wanted(line: str) -> list[str]:
    return [
        f"{family} {one.number}" for family, one in wanted_of(parser().parse_args(line.split()))
    ]


def test_all_are_wanted_if_none_is_named_and_some_by_more_than_one_family() -> None:
    assert len(wanted("")) == sum(len(family.mutants) for family in FAMILIES.values())
    assert wanted("R20 OR1") == ["queues R20", "order OR1", "links R20"]
    assert wanted("--family order") == ["order OR1", "order OR2", "order OR3"]
    assert wanted("--family links R20") == ["links R20"]


def test_a_number_that_nothing_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["M99"])
    assert ended.value.code == 2
    assert "there is no mutant M99; --list prints all" in capsys.readouterr().err


def test_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "M3"]) == 0
    words = capsys.readouterr().out.split()
    assert words[:3] == ["M3", "groups", "raft.election:flush"]


def test_one_is_looked_for_by_the_tests_of_its_family() -> None:
    [verdict] = by_tests("links", [mutant("LI4")])
    assert (verdict.mutant, verdict.failure) == (mutant("LI4"), "test_it_is_found")


def verdicts(name: str, failure: str | None, runs: int = 0) -> list[Verdict]:
    return [Verdict(name, one, failure, 1.26, runs) for one in FAMILIES[name].mutants]


def test_a_table_has_all_of_a_family_and_keeps_what_was_written_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "MUTANTS.md"
    path.write_text("# Old\n\nrows\n\n## How\n\nBy hand.\n", encoding="utf-8")
    monkeypatch.setattr(tables, "TABLES", {"groups": path})
    assert tables.write(verdicts("groups", "inv 9: x", 3)[1:]) == [], "one is missing"
    assert tables.write(verdicts("groups", "inv 9: of node a", 3)) == [path]
    text = path.read_text(encoding="utf-8")
    assert (
        "| M3 | a vote leaves before the disk has it | `raft.election:flush` | 3 | 1 | inv 9 |\n"
        in text
    )
    assert text.endswith("|\n\n## How\n\nBy hand.\n")


ROW = re.compile(r"^\| ([A-Z]+\d+[a-z]?) \|", re.MULTILINE)


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_mutant_that_is_simulated_was_looked_for(name: str) -> None:
    """`python -m tests.mutants` writes the tables."""
    rows = tables.TABLES[name].read_text(encoding="utf-8").partition("\n## ")[0]
    assert ROW.findall(rows) == [mutant.number for mutant in FAMILIES[name].mutants]


def test_all_others_were_looked_for() -> None:
    rows = ROW.findall(tables.REST.read_text(encoding="utf-8"))
    others = [family for name, family in FAMILIES.items() if name not in tables.TABLES]
    assert rows == [mutant.number for family in others for mutant in family.mutants]


CELLS = re.compile(r"^\| ([A-Z]+\d+[a-z]?) \| (.*?) \| `([^`]+)` \|", re.MULTILINE)


@pytest.mark.parametrize(
    "path", [*tables.TABLES.values(), tables.REST], ids=[*tables.TABLES, "others"]
)
def test_rows_say_what_is_changed_and_where_as_the_sources_do(path: Path) -> None:
    """A mutant that has moved is to be looked for again, and its row written."""
    found = CELLS.findall(path.read_text(encoding="utf-8"))
    assert found
    rows = {(number, mistake, where) for number, mistake, where in found}
    assert {row for row in rows if row != registered(row[0])} == set()


def registered(number: str) -> tuple[str, str, str]:
    """The number, the mistake and the place of a mutant."""
    return number, ALL[number].mistake, ALL[number].where


def test_the_others_are_in_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "REST", tmp_path / "MUTANTS.md")
    others = [name for name in FAMILIES if name not in tables.TABLES]
    found = [each for name in others for each in verdicts(name, "test_x")]
    assert tables.write([found[0], *found[1:]]) == [tables.REST]
    text = tables.REST.read_text(encoding="utf-8")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == others
    assert "| LI1 | a frame goes as a whole |" in text
    assert "| 1.3 | test_x |" in text
    again = [replace(verdict, failure="test_y") for verdict in found[1:]]
    assert tables.write(again) == [tables.REST]
    text = tables.REST.read_text(encoding="utf-8")
    of_first = text.partition(f"## {others[1]}")[0]
    assert "test_y" not in of_first, "one of its mutants is missing"
    assert of_first.count("| test_x |") == len(FAMILIES[others[0]].mutants)
    assert "| test_x |" not in text.removeprefix(of_first)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == others
