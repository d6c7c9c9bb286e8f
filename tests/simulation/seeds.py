"""Runs of many seeds, on several processors, and what is said of them."""

import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import ClassVar

from tests.simulation.facts import Violation
from tests.simulation.run import Account, Run, Subject
from tests.simulation.toy_client import ToyClient


@dataclass(slots=True, frozen=True)
class Job:
    """Parameters of one run."""

    SECONDS: ClassVar = 60

    seed: int
    nodes: int
    seconds: int = SECONDS
    without: tuple[int, ...] = ()
    """Faults to leave out, by number."""
    subject: Subject = ToyClient

    def run(self) -> Run:
        """Everything is drawn, and nothing has happened."""
        return Run(
            self.seed,
            self.nodes,
            seconds=self.seconds,
            without=self.without,
            subject=self.subject,
        )


@dataclass(slots=True)
class Failure:
    """A run that found something."""

    job: Job
    text: str
    """Text of one line."""
    detail: str
    """Where it was found."""
    events: int
    cpu_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)


def attempt(job: Job, *, trace: int = 0) -> tuple[Account | Failure, Run]:
    """Result of a run with its processor time, and its last turns to be looked at."""
    began = time.process_time()
    run = job.run()
    if trace:
        run.keep_trace(trace)
    found = _account_of(job, run)
    found.cpu_s = time.process_time() - began
    found.faults = Counter(fault.kind for fault in run.plan)
    return found, run


def _account_of(job: Job, run: Run) -> Account | Failure:
    """Whatever the run raises is what it found."""
    try:
        return run.go()
    except Violation as violation:
        text = str(violation)
        return Failure(job, text, text, run.clockwork.events)
    except Exception as error:  # noqa: BLE001 - any error of the code under test is a finding
        text = f"{type(error).__name__}: {error}"
        return Failure(job, text, traceback.format_exc(), run.clockwork.events)


def outcome(job: Job) -> Account | Failure:
    return attempt(job)[0]


def outcomes(
    jobs: Iterable[Job],
    processors: int,
    do: Callable[[Job], Account | Failure] = outcome,
) -> Iterator[Account | Failure]:
    """Results as they come; `jobs` may be endless, the caller stops when it has seen enough."""
    if processors <= 1:
        yield from map(do, jobs)
        return
    source = iter(jobs)
    with ProcessPoolExecutor(processors) as pool:
        running: set[Future[Account | Failure]] = {
            pool.submit(do, job) for job in islice(source, 2 * processors)
        }
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(do, job) for job in islice(source, len(done))}
                for future in done:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()


@dataclass(slots=True)
class Summary:
    """Totals of many runs."""

    runs: int = 0
    events: int = 0
    simulated_s: float = 0.0
    commits: int = 0
    elections: int = 0
    failures: int = 0
    cpu_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, found: Account | Failure) -> None:
        self.runs += 1
        self.events += found.events
        self.cpu_s += found.cpu_s
        self.faults += found.faults
        if isinstance(found, Failure):
            self.failures += 1
            return
        self.simulated_s += found.simulated_s
        self.commits += found.commits
        self.elections += found.elections

    def faults_line(self) -> str:
        """How many of each kind were planned, the most frequent first."""
        kinds = (f"{kind}:{number}" for kind, number in self.faults.most_common())
        return f"faults: {', '.join(kinds) or 'none'}"

    def line(self, wall_s: float, processors: int) -> str:
        cpu_s = max(self.cpu_s, 0.001)
        return (
            f"{self.runs} runs, {self.failures} failed; {self.events} events, {self.commits} "
            f"commits, {self.elections} elections, {self.simulated_s:.0f} simulated s in "
            f"{wall_s:.1f} s, {processors} at once; per second of processor time "
            f"{self.events / cpu_s:.0f} events and {self.simulated_s / cpu_s:.0f} simulated seconds"
        )


def shrink(job: Job, say: Callable[[str], None]) -> Job:
    """Leave out faults, half of them, a quarter ..., one by one, as long as the run still fails."""
    numbers = [fault.number for fault in replace(job, without=()).run().plan]
    needed = [number for number in numbers if number not in job.without]
    size = max(1, len(needed) // 2)
    while True:
        kept = _without_chunks(job, numbers, needed, size)
        say(f"{len(kept)} of {len(numbers)} faults are needed, in steps of {size}")
        if size == 1 and len(kept) == len(needed):
            return _only(job, numbers, kept)
        needed, size = kept, max(1, size // 2)


def _without_chunks(
    job: Job, numbers: Sequence[int], needed: Sequence[int], size: int
) -> list[int]:
    kept = list(needed)
    for at in range(0, len(needed), size):
        fewer = [number for number in kept if number not in needed[at : at + size]]
        if isinstance(outcome(_only(job, numbers, fewer)), Failure):
            kept = fewer
    return kept


def _only(job: Job, numbers: Sequence[int], kept: Collection[int]) -> Job:
    without = tuple(number for number in numbers if number not in kept)
    return replace(job, without=without)
