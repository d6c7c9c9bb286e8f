"""The nightly run: its parts, what it keeps, and the report."""

from __future__ import annotations

import argparse
import importlib
import re
import tomllib
from pathlib import Path

import pytest

from tests.mutants import __main__ as mutants
from tests.nightly import __main__ as nightly
from tests.nightly.coverage_table import measured, table
from tests.nightly.parts import Order, Part, parts_of
from tests.simulation import options as simulation
from tests.suite.seeds import SEED, SUITE


def named(order: Order) -> dict[str, Part]:
    return {part.name: part for part in parts_of(order)}


def test_all_chance_follows_from_one_number() -> None:
    assert parts_of(Order(7)) == parts_of(Order(7))
    first, second = named(Order(7)), named(Order(8))
    fixed = {name for name in first if first[name].command == second[name].command}
    assert fixed == {"mutants", "coverage"}
    assert first["suite"].environment[SUITE] == "night"
    assert first["suite"].environment[SEED] == "7"
    assert "--hypothesis-seed=7" in first["suite"].words


def test_its_commands_are_taken() -> None:
    parts = named(Order(7, seeds=20, queue_seeds=3, processes=2))

    def words(name: str) -> list[str]:
        return list(parts[name].words[2:])

    assert simulation.parsed(words("groups")).seeds == 20
    assert simulation.parsed(words("queues")).seeds == 3
    assert mutants.parser().parse_args(words("mutants")).jobs == 2


class Taken(Exception):
    """The end of a command whose words were understood."""


NOT_BY_MAIN = {"suite", "clients", "rabbitmq", "coverage"}
"""Parts that pytest runs."""


@pytest.mark.parametrize("name", sorted({*named(Order(7))} - NOT_BY_MAIN))
def test_each_module_takes_its_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _flag, module, *words = named(Order(7))[name].words
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, *_words: object) -> None:
        parse(parser, words)
        raise Taken

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    with pytest.raises(Taken):
        importlib.import_module(f"{module}.__main__").main()


def test_rabbitmq_is_asked_for_all_that_is_recorded_of_it() -> None:
    """Whatever the marks of those tests, most of which run by day, too."""
    words = named(Order(7))["rabbitmq"].words
    assert {"--live", "tests/compat"} <= set(words)
    assert "compat" not in words[words.index("-m", 1) + 1]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "failed_seeds.toml"
    monkeypatch.setattr(nightly, "KEPT", path)
    monkeypatch.setattr(nightly, "MEASURED", tmp_path / "measured")
    return path


def printing(name: str, *lines: str, status: int = 0) -> Part:
    return Part(name, "", ("-c", f"print({chr(10).join(lines)!r}); raise SystemExit({status})"))


def test_a_part_leaves_a_log_and_the_seeds_that_failed(tmp_path: Path, kept: Path) -> None:
    line = "seed 12 with 5 nodes: inv 9: x"
    result = nightly.run(
        printing("queues", line, "  again", "2 runs, 1 failed", status=1), tmp_path
    )
    assert (result.status, result.last) == (1, "2 runs, 1 failed")
    assert line in (tmp_path / "queues.log").read_text(encoding="utf-8")
    [entry] = tomllib.loads(kept.read_text(encoding="utf-8"))["seed"]
    assert (entry["seed"], entry["nodes"]) == (12, [5])
    assert entry["test"].endswith("test_a_seed_about_queues_that_failed_once")


@pytest.mark.parametrize(("status", "verdict"), [(0, "good"), (1, "**failed**, 1")])
def test_all_parts_run_and_one_that_fails_is_reported(
    status: int, verdict: str, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(_order: Order) -> list[Part]:
        return [printing("groups", "bad", status=status), printing("abuse", "fine")]

    monkeypatch.setattr(nightly, "parts_of", made)
    kept.write_text("of the night before", encoding="utf-8")
    assert nightly.main(["--seed", "7", "--folder", str(tmp_path)]) == status
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert re.search(rf"\| groups \| {re.escape(verdict)} \| \d+ s \| bad \|", page)
    assert re.search(r"\| abuse \| good \| \d+ s \| fine \|", page)
    assert "make nightly SEED=7" in page
    assert "Seeds that failed" not in page


def test_a_part_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        nightly.main(["sleep"])
    assert "there is no part sleep; there are suite, clients, rabbitmq" in capsys.readouterr().err


def found(run: int, taken: int) -> dict[str, object]:
    summary = {
        "num_statements": 10,
        "covered_lines": run,
        "num_branches": 4,
        "covered_branches": taken,
    }
    functions = {"f": {"summary": summary}, "": {"summary": {"num_statements": 0}}}
    return {"summary": summary, "functions": functions}


def test_coverage_is_reported_by_package_and_what_nothing_touches_by_name() -> None:
    files = {"raft/log.py": found(10, 2), "raft/group.py": found(5, 1), "broker/x.py": found(0, 0)}
    lines = [*table(files)]
    assert "| `raft` | 20 | 75.0 % | 8 | 37.5 % |" in lines
    assert "| `all` | 30 | 50.0 % | 12 | 25.0 % |" in lines
    assert [line for line in lines if line.startswith("- ")] == ["- broker/x.py: f"]


def test_where_nothing_was_measured_there_is_a_report_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVERAGE_FILE", str(tmp_path / "nothing"))
    assert measured(tmp_path) == {}
    assert "| `all` | 0 | – | 0 | – |" in [*table({})]
