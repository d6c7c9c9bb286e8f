"""The table says what the last lines said, and what said nothing is bad."""

from __future__ import annotations

from collections import Counter

from fluffle.broker.torture.checker import Breach
from fluffle.broker.torture.faults import PlannedFault
from fluffle.broker.torture.online_checker import HistoryWriter
from fluffle.broker.torture.run import RunOptions, RunResult, lines
from tests.safety.table import TITLES, simulation_row, table, torture_row
from tests.simulation.seeds import Summary


def tortured(*breaches: Breach) -> list[str]:
    clock = iter(range(0, 100_000_000_000, 500_000_000))
    history_writer = HistoryWriter(lambda: next(clock))
    for breach in breaches:
        history_writer.checker.report.add(breach, "it was so")
    faults = [
        PlannedFault(1.0, "lag", ("a",), 2.0, 1.5),
        PlannedFault(4.0, "lag", ("b",), 2.0, 1.5),
    ]
    outcome = RunResult(
        RunOptions(10.0, 7, ("lag",)), [*faults, PlannedFault(7.0, "kill", ("a",), 1.0)]
    )
    return [*lines(outcome, history_writer)]


def simulated(failures: int) -> list[str]:
    summary = Summary(
        runs=40, simulated_s=2904.2, failures=failures, faults=Counter(crash=12, cut=3)
    )
    return [summary.faults_line(), summary.line(20.0, 2)]


def test_what_torture_has_found_is_in_its_row() -> None:
    row = torture_row("torture", tortured(), 60.0)
    assert row.is_good
    assert (row.faults, row.work) == ("lag:2, kill:1", "0 confirmed")
    assert (row.lost, row.unexpected, row.others, row.listed) == ("0", "0", "0", "0")
    bad = torture_row("torture", tortured(Breach.STALE, Breach.STALE, Breach.LOST), 60.0)
    assert not bad.is_good
    assert (bad.lost, bad.unexpected, bad.others) == ("1", "0", "2 stale answer")
    listed = torture_row("torture", tortured(Breach.SHARED), 60.0)
    assert (listed.is_good, listed.others, listed.listed) == (True, "0", "1 in two hands")


def test_what_the_simulator_has_found_is_in_its_row() -> None:
    row = simulation_row("simulation", simulated(0), 60.0)
    assert row.is_good
    assert (row.faults, row.work) == ("crash:12, cut:3", "40 runs, 2,904 simulated s")
    bad = simulation_row("simulation", simulated(2), 60.0)
    assert (bad.is_good, bad.unexpected) == (False, "2 runs failed")


def test_who_says_nothing_is_bad() -> None:
    for row in (torture_row("torture", ["Killed"], 1.0), simulation_row("simulation", [], 1.0)):
        assert not row.is_good
        assert {*row[2:-1]} == {"no verdict"}


def test_every_row_has_all_columns() -> None:
    rows = [torture_row("t", tortured(), 60.0), simulation_row("s", simulated(0), 7_200.0)]
    head, line, *body = table("abc", "2026-12-01", rows)
    assert {each.count("|") for each in (head, line, *body)} == {len(TITLES) + 1}
    assert body[0].startswith("| `python -m t` | abc, 2026-12-01 | 1 min | lag:2, kill:1 |")
