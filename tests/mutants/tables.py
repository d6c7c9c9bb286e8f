"""The tables that say who kills whom: one of groups, one of queues, one of all others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.mutants.registry import FAMILIES
from tests.mutants.tags import ROOT
from tests.mutants.verdict import Verdict
from tests.simulation.mutation import SECONDS, SEEDS_MAX

TABLES = {
    "groups": ROOT / "tests/simulation/MUTANTS.md",
    "queues": ROOT / "tests/simulation/queues/MUTANTS.md",
}
REST = Path(__file__).parent / "MUTANTS.md"
"""All that tests look for."""
SIMULATED = "| | mistake | where | runs | s | found by |\n|---|---|---|--:|--:|---|\n"
TESTED = "| | mistake | where | s | found by |\n|---|---|---|--:|---|\n"


def write(verdicts: Sequence[Verdict]) -> list[Path]:
    """Write the tables of all families whose every mutant was looked for; those of others stay.

    What is below the first `## ` of a table of the simulator was written by hand, and stays.
    """
    found = {(verdict.family, verdict.mutant.number): verdict for verdict in verdicts}
    rows = {
        name: [found[name, mutant.number] for mutant in family.mutants]
        for name, family in FAMILIES.items()
        if all((name, mutant.number) in found for mutant in family.mutants)
    }
    written = []
    for name, path in TABLES.items():
        if name in rows:
            _, *by_hand = path.read_text(encoding="utf-8").partition("\n## ")
            path.write_text(simulated(name, rows[name]) + "".join(by_hand), encoding="utf-8")
            written.append(path)
    others = {name: found for name, found in rows.items() if name not in TABLES}
    if others:
        REST.write_text(tested(sections(REST) | sections_of(others)), encoding="utf-8")
        written.append(REST)
    return written


def sections(path: Path) -> dict[str, str]:
    """Return the sections of a page by their names; none if there is no page."""
    if not path.exists():
        return {}
    _, *parts = path.read_text(encoding="utf-8").split("\n## ")
    return {part.partition("\n")[0]: part.rstrip("\n") for part in parts}


def sections_of(families: dict[str, list[Verdict]]) -> dict[str, str]:
    return {
        name: f"{name}\n\n`{FAMILIES[name].tests}`: {sum_of(verdicts)}\n\n{TESTED}"
        + lines_of(verdicts).rstrip("\n")
        for name, verdicts in families.items()
    }


def simulated(family: str, verdicts: Sequence[Verdict]) -> str:
    """Runs to kill are how sensitive the simulator is: a jump is a step back of the tester."""
    passed = f"the original has passed all {2 * SEEDS_MAX}"
    seconds = f"{SECONDS[family]} simulated seconds each"
    lines = [
        "# Mutants",
        "",
        f"Written by `python -m tests.mutants --family {family}`. Runs until the first that fails,",
        f"3 and 5 nodes in turn, {seconds}; {passed}.",
        sum_of(verdicts),
        "",
        SIMULATED,
    ]
    return "\n".join(lines) + lines_of(verdicts)


def tested(by_name: dict[str, str]) -> str:
    """The page of all families that are not simulated, in their order."""
    parts = [
        "# Mutants that tests look for\n\nWritten by `python -m tests.mutants`. A number may be in"
        " more than one family:\neach has tests of its own, which must find it.\n"
    ]
    parts += [f"\n## {by_name[name]}\n" for name in FAMILIES if name in by_name]
    return "".join(parts)


def sum_of(verdicts: Sequence[Verdict]) -> str:
    died = sum(verdict.failure is not None for verdict in verdicts)
    cpu_s = sum(verdict.cpu_s for verdict in verdicts)
    return f"{died} of {len(verdicts)} were found, in {cpu_s:.0f} s of processor time."


def lines_of(verdicts: Sequence[Verdict]) -> str:
    return "".join(verdict.row() + "\n" for verdict in verdicts)
