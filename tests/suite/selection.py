"""The tests that a run by day leaves out: mutants and simulations of packages that are untouched,
and what tests in folders that are untouched expect of RabbitMQ.

Touched is what differs from the commit in `FLUFFLE_BASE`.  Where that is not given, a few mutants
and simulations of each kind run.  At night all do, and by hand whatever is asked for.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path, PurePath

import pytest

from tests.mutants.mutant import Mutant
from tests.suite.seeds import SUITE

ROOT = Path(__file__).parent.parent.parent
BASE = "FLUFFLE_BASE"
"""Environment variable: a commit that was tested."""
SAMPLE = 2
"""Cases of each test, where it is not known what was touched: the first ones."""


def is_day() -> bool:
    return os.environ.get(SUITE) == "day"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A test that was collected."""

    test: str
    """File and name of the test, whatever its parameters."""
    folders: frozenset[str]
    """The folders that it is about, if it is not run each day; else none."""
    has_sample: bool = True
    """True if a few such run where it is not known what was touched."""


def select(candidates: Sequence[Candidate], touched: frozenset[str] | None) -> list[bool]:
    """Flags of the candidates that run by day."""
    seen = Counter[str]()
    kept = []
    for candidate in candidates:
        if candidate.folders and touched is None:
            seen[candidate.test] += 1
            kept.append(candidate.has_sample and seen[candidate.test] <= SAMPLE)
        else:
            kept.append(not candidate.folders or is_touched(candidate.folders, touched or ()))
    return kept


def is_touched(folders: Iterable[str], touched: Iterable[str]) -> bool:
    return any(is_below(path, folder) for path in touched for folder in folders)


def candidate_of(item: pytest.Item) -> Candidate:
    test = item.nodeid.partition("[")[0]
    if (oracle := item.get_closest_marker("oracle")) is not None:
        here = f"{item.path.parent.relative_to(ROOT)}/*"
        return Candidate(test, frozenset({here, *oracle.args}), False)
    return Candidate(test, frozenset(folders_of(item)))


def folders_of(item: pytest.Item) -> set[str]:
    """The folders of a test that is not run each day; of a mutant, its own and its tests'."""
    simulation = item.get_closest_marker("simulation")
    found = set(simulation.args) if simulation is not None else set()
    if item.get_closest_marker("mutant") is not None:
        assert isinstance(item, pytest.Function)
        mutant = item.callspec.params["mutant"]
        assert isinstance(mutant, Mutant)
        here = item.path.parent.relative_to(ROOT)
        found |= {f"{mutant.place().tag.path.parent}/*", f"{here}/*", "tests/mutants"}
    return found


def is_below(path: str, folder: str) -> bool:
    """`raft` is the folder with all below it, `raft/*` the files that lie there."""
    if folder.endswith("/*"):
        return str(PurePath(path).parent) == folder.removesuffix("/*")
    return PurePath(folder) in PurePath(path).parents


def touched_since(base: str) -> frozenset[str]:
    """Files that differ from a commit, or are new.

    Raises UsageError if there is no such commit.
    """
    found: list[str] = []
    for words in (["diff", "--name-only", base, "--"], ["ls-files", "-o", "--exclude-standard"]):
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise pytest.UsageError(f"{BASE}={base}: {done.stderr.strip()}")
        found += done.stdout.splitlines()
    return frozenset(found)


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests out by day, of those that were collected."""
    if not is_day():
        return
    base = os.environ.get(BASE)
    kept = select([*map(candidate_of, items)], touched_since(base) if base else None)
    left = [item for item, is_kept in zip(items, kept, strict=True) if not is_kept]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = compress(items, kept)
