"""The simulator is tested too: known mistakes are put into the code under test, one at a time.

A mutant is a named function and a piece of its text in other words; production knows nothing of it.
The changed function takes the place of the original wherever that is already referred to, in
tables too: only its code object is exchanged.  The first seed that fails *kills* a mutant.
"""

import inspect
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from tests.raft.scenario import Scenario
from tests.simulation.puts import Puts
from tests.simulation.run import Subject
from tests.simulation.seeds import Failure, Job, outcome, outcomes

SCENARIOS = Path(__file__).parent.parent / "raft" / "scenarios"
SEEDS_MAX = 25
"""A mutant that lives so long, with 3 and with 5 nodes, has escaped."""
SECONDS = {"Puts": 30, "Town": 15}
"""Simulated, of each run, by what it is about: mistakes show early, and many short runs have more
mixes of faults."""
TABLES = {
    "Puts": Path(__file__).parent / "MUTANTS.md",
    "Town": Path(__file__).parent / "queues" / "MUTANTS.md",
}
"""By what runs are about.  What is below the first `## ` was written by hand, and stays."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake."""

    name: str
    """As in the table of the README; a letter tells variants apart."""
    mistake: str
    where: str
    """module:function or module:Class.method, below `fluffle`."""
    old: str
    """Text of the function, there once."""
    new: str
    subject: Subject = Puts
    """What the runs are about that look for it."""

    def function(self) -> FunctionType:
        """The original; of a property, its getter."""
        module, _, path = self.where.partition(":")
        found: object = import_module(f"fluffle.{module}")
        for part in path.split("."):
            found = inspect.getattr_static(found, part)
        if isinstance(found, property):
            found = found.fget
        assert isinstance(found, FunctionType), self.where
        return found

    def changed(self) -> CodeType:
        """The code of the function with the mistake in it.  Raises if the text is not there."""
        function = self.function()
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.old) == 1, f"{self.name}: {self.old!r} in {self.where}"
        text = source.replace(self.old, self.new)
        # A getter stands alone here; annotations are of no interest.
        text = "from __future__ import annotations\n" + text.removeprefix("@property\n")
        spare: dict[str, object] = {}
        exec(compile(text, f"<mutant {self.name}>", "exec"), dict(function.__globals__), spare)
        made = spare[function.__name__]
        assert isinstance(made, FunctionType)
        return made.__code__

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The mistake is made as long as this lasts."""
        function = self.function()
        original = function.__code__
        function.__code__ = self.changed()
        try:
            yield
        finally:
            function.__code__ = original


@dataclass(slots=True)
class Verdict:
    """What became of a mutant."""

    mutant: Mutant
    runs: int
    """How many it took."""
    failure: str | None
    """What was found; None if it escaped."""
    cpu_s: float


def jobs_for(seeds: int, subject: Subject) -> Iterator[Job]:
    """3 and 5 nodes in turn, with every seed."""
    for seed in range(1, seeds + 1):
        for nodes in (3, 5):
            yield Job(seed, nodes, SECONDS[name_of(subject)], subject=subject)


def name_of(subject: Subject) -> str:
    assert isinstance(subject, type)
    return subject.__name__


def hunt(mutant: Mutant, seeds: int = SEEDS_MAX) -> Verdict:
    """Run seeds until one finds the mistake; what none finds, a scenario or an example may."""
    began = time.process_time()
    runs = 0
    with mutant.in_place():
        for runs, job in enumerate(jobs_for(seeds, mutant.subject), 1):
            found = outcome(job)
            if isinstance(found, Failure):
                return Verdict(mutant, runs, found.text, time.process_time() - began)
        failure = scenario_that_fails() if mutant.subject is Puts else example_that_fails()
    return Verdict(mutant, runs, failure, time.process_time() - began)


def scenario_that_fails() -> str | None:
    """The first of `tests/raft/scenarios`, if any."""
    for path in sorted(SCENARIOS.glob("*.txt")):
        try:
            Scenario(path.read_text(encoding="utf-8")).play()
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - as of a run
            return f"{path.name}: {error}"
    return None


def example_that_fails() -> str | None:
    """The first of those of streams, or of read indexes, if any."""
    from tests.broker.cluster.streams.test_stream_mutants import EXAMPLES
    from tests.broker.cluster.test_read_index import EXAMPLES as OF_READS

    for example in (*EXAMPLES, *OF_READS):
        try:
            example()
        except Exception as error:  # noqa: BLE001 - as of a run
            return f"{getattr(example, '__name__', example)}: {error}"
    return None


def report(wanted: list[Mutant], processors: int) -> int:
    """Hunt for mutants, and write the tables of all that is about groups, or about queues.

    What fails without any mistake would be taken for the death of each: it is looked at first.
    """
    verdicts: list[Verdict] = []
    began = time.perf_counter()
    for subject in dict.fromkeys(mutant.subject for mutant in wanted):
        say(f"the original first, {2 * SEEDS_MAX} runs")
        for original in outcomes(jobs_for(SEEDS_MAX, subject), processors):
            if isinstance(original, Failure):
                print(f"the original fails, so nothing is shown: {original.job}: {original.text}")
                return 1
    say(f"it passed; now mutants: {len(wanted)}, a line when one is found or has escaped")
    for verdict in hunts(wanted, processors):
        verdicts.append(verdict)
        found = verdict.failure or "ESCAPED"
        print(f"{verdict.mutant.name:6} {verdict.runs:4} runs  {found[:110]}", flush=True)
    escaped = [verdict.mutant.name for verdict in verdicts if verdict.failure is None]
    took_s = time.perf_counter() - began
    print(f"{len(verdicts)} mutants, {len(escaped)} escaped {escaped}, in {took_s:.0f} s")
    write_tables(verdicts)
    return 1 if escaped else 0


def write_tables(verdicts: list[Verdict]) -> None:
    """Those for which every mutant there is was hunted."""
    from tests.simulation.mutants import MUTANTS

    for subject in dict.fromkeys(mutant.subject for mutant in MUTANTS):
        about = [mutant for mutant in MUTANTS if mutant.subject is subject]
        found = {v.mutant.name: v for v in verdicts if v.mutant.subject is subject}
        if len(found) == len(about):
            path = TABLES[name_of(subject)]
            _, *by_hand = path.read_text(encoding="utf-8").partition("\n## ")
            rows = [found[mutant.name] for mutant in about]
            path.write_text(table(rows) + "".join(by_hand), encoding="utf-8")


def say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def hunts(mutants: list[Mutant], processors: int) -> Iterator[Verdict]:
    """As they come."""
    if processors <= 1:
        yield from map(hunt, mutants)
        return
    with ProcessPoolExecutor(processors) as pool:
        for future in as_completed([pool.submit(hunt, mutant) for mutant in mutants]):
            yield future.result()


def table(verdicts: list[Verdict]) -> str:
    """Seeds to kill are how sensitive the simulator is: a jump is a step back of the tester."""
    died = sum(verdict.failure is not None for verdict in verdicts)
    cpu_s = sum(verdict.cpu_s for verdict in verdicts)
    seconds = SECONDS[name_of(verdicts[0].mutant.subject)]
    about = "" if verdicts[0].mutant.subject is Puts else " --queues"
    lines = [
        "# Mutants",
        "",
        f"Written by `python -m tests.simulation{about} --mutants`. Runs until the first that",
        f"fails, 3 and 5 nodes in turn, {seconds} simulated seconds each; the original has passed",
        f"all {2 * SEEDS_MAX}. {died} of {len(verdicts)} were found, in {cpu_s:.0f} s of processor",
        "time.",
        "",
        "| | mistake | where | runs | s | found by |",
        "|---|---|---|--:|--:|---|",
    ]
    for verdict in verdicts:
        mutant = verdict.mutant
        found = (verdict.failure or "escaped").split(":")[0].split(" ")
        kind = " ".join(found[:2]) if found[0] in ("inv", "rule") else found[0]
        lines.append(
            f"| {mutant.name} | {mutant.mistake} | `{mutant.where}` | {verdict.runs} | "
            f"{verdict.cpu_s:.0f} | {kind} |"
        )
    return "\n".join(lines) + "\n"
