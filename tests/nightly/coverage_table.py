"""Coverage of lines and branches by package, and what nothing touches."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from tests.nightly.parts import INTERPRETER
from tests.suite.selection import ROOT

UNTOUCHED_MAX = 30
"""Functions named of each package; more are counted."""


@dataclass(slots=True)
class Counts:
    """The counts of lines of a package."""

    lines: int = 0
    lines_run: int = 0
    branches: int = 0
    branches_run: int = 0

    def add(self, summary: Mapping[str, int]) -> None:
        self.lines += summary["num_statements"]
        self.lines_run += summary["covered_lines"]
        self.branches += summary["num_branches"]
        self.branches_run += summary["covered_branches"]

    def row(self, name: str) -> str:
        lines, branches = share(self.lines_run, self.lines), share(self.branches_run, self.branches)
        return f"| `{name}` | {self.lines} | {lines} | {self.branches} | {branches} |"


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def measured(folder: Path) -> dict[str, Any]:
    """Measurements of all processes, by file; nothing if there are none to be read."""
    result = folder / "coverage.json"
    for words in (["combine", "--quiet"], ["json", "--quiet", "-o", str(result)]):
        done = subprocess.run([INTERPRETER, "-m", "coverage", *words], cwd=ROOT, check=False)
        if done.returncode != 0:
            return {}
    files: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))["files"]
    return files


def table(files: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a page: a row for each package, and functions that nothing has called."""
    packages: dict[str, Counts] = defaultdict(Counts)
    untouched: dict[str, list[str]] = defaultdict(list)
    whole = Counts()
    for path, found in sorted(files.items()):
        package = str(PurePath(path).parent)
        for counts in (packages[package], whole):
            counts.add(found["summary"])
        untouched[package] += [f"{path}: {name}" for name in untouched_in(found["functions"])]
    yield from ("| package | lines | run | branches | taken |", "|---|--:|--:|--:|--:|")
    yield from (counts.row(package) for package, counts in sorted(packages.items()))
    yield whole.row("all")
    yield from ("", "### What nothing touches", "")
    for package, names in sorted(untouched.items()):
        yield from (f"- {name}" for name in names[:UNTOUCHED_MAX])
        if len(names) > UNTOUCHED_MAX:
            yield f"- and {len(names) - UNTOUCHED_MAX} more of {package}"


def untouched_in(functions: Mapping[str, Any]) -> Iterator[str]:
    """Functions none of whose lines has run."""
    for name, found in functions.items():
        if name and found["summary"]["num_statements"] and not found["summary"]["covered_lines"]:
            yield name
