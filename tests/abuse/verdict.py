"""From what was seen to a verdict: bounds, each with its reason, and a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import quantiles

from tests.abuse.good_client import QueueProbe
from tests.abuse.process_samples import LogCount, Sample
from tests.abuse.storm import Report

GROWTH_MIB_MAX = 64.0
"""Most growth of resident memory from the second third to the last: so much free memory may stay
with the allocator before the node asks for it."""

RESIDENT_MIB_MAX = 1024.0
"""In the worst moment: some dozens of those who never read, with 32 MiB of answers each."""

FILES_SLACK = 4
THREADS_MAX = 8
P99_MS_MAX = 250.0
WORST_MS_MAX = 2_000.0
"""Limits for all messages of a run, on a machine that does nothing else."""

FLOODED_P99_MS_MAX = 50.0
"""Beside one flooder alone, on a machine that does nothing else: see `slowness`."""

BUSY_FACTOR = 4
"""On one that does, so many times as slow as a node beside it that nobody abuses."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the messages of the good client may take."""

    p99_ms: float = P99_MS_MAX
    worst_ms: float = WORST_MS_MAX


@dataclass(frozen=True, slots=True)
class Round:
    """A storm and the calm after it."""

    seconds: float
    worst: Sample
    """The largest of each that was seen in the storm."""
    calm: Sample
    confirm_ms: Sequence[float]
    deliver_ms: Sequence[float]
    control_ms: Sequence[float]
    """Confirms of the node that nobody abuses."""
    slowness: float = 1.0
    """The factor by which other processes have made the loop of the node slower: see `slowness`."""
    flooder: str = ""
    """The kind, where there was one flooder and no other client."""


def percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def slowness(start: Sample, end: Sample) -> float:
    """How many times as long the node took as it would have alone: of each second in which it had
    something to do, it spent some waiting for a processor.

    A node that nobody abuses has little to do, and is served sooner where many processes wait.
    """
    run_s, queued_s = end.run_s - start.run_s, end.queued_s - start.queued_s
    return (run_s + queued_s) / run_s if run_s > 0 else 1.0


def growth_mib(rounds: Sequence[Round]) -> float:
    """Between the middle third and the last, at its least; the first third is warming up.

    The least, since the allocator is asked for what it does not need only now and then.
    """
    resident = [one.calm.resident_mib for one in rounds]
    third = len(resident) // 3
    if not third:
        return 0.0
    return min(resident[-third:]) - min(resident[third:-third] or resident[:third])


@dataclass(frozen=True, slots=True)
class Seen:
    """Observations of a run."""

    rounds: Sequence[Round]
    before: Sample
    lanes: Sequence[QueueProbe]
    log: LogCount
    report: Report


def violations(seen: Seen, patience: Patience) -> Iterator[str]:
    """Texts about everything that was not as it must be."""
    yield from resources(seen.rounds, seen.before)
    yield from latencies(seen.rounds, patience)
    yield from flooded(seen.rounds)
    for lane in seen.lanes:
        yield from lane.faults
        if lane.confirmed != lane.delivered or not lane.confirmed:
            yield f"{lane.queue}: {lane.confirmed} confirmed, {lane.delivered} delivered"
    events = sum(tally.events for tally in seen.report.values())
    if seen.log.complaints > events:
        yield f"{seen.log.complaints} lines of complaint for {events} events"
    yield from (f"traceback: {line[:200]}" for line in seen.log.tracebacks)
    for kind, tally in seen.report.items():
        yield from (f"{kind}: {text}" for text in tally.surprises)


def resources(rounds: Sequence[Round], before: Sample) -> Iterator[str]:
    """Memory, descriptors and threads."""
    grown = growth_mib(rounds)
    if grown > GROWTH_MIB_MAX:
        yield f"memory grew by {grown:.1f} MiB, more than {GROWTH_MIB_MAX}"
    worst_mib = max(one.worst.resident_mib for one in rounds)
    if worst_mib > RESIDENT_MIB_MAX:
        yield f"memory was {worst_mib:.0f} MiB at worst"
    files = rounds[-1].calm.files
    if files > before.files + FILES_SLACK:
        yield f"{files} descriptors are open, {before.files} before"
    threads = max(one.worst.threads for one in rounds)
    if threads > THREADS_MAX:
        yield f"{threads} threads"


def latencies(rounds: Sequence[Round], patience: Patience) -> Iterator[str]:
    """How long the good client waited."""
    control = joined(rounds, "control_ms")
    p99_ms = max(patience.p99_ms, BUSY_FACTOR * percentile(control, 99))
    worst_ms = max(patience.worst_ms, BUSY_FACTOR * max(control, default=0))
    for name in ("confirm_ms", "deliver_ms"):
        values = joined(rounds, name)
        if percentile(values, 99) > p99_ms:
            yield f"p99 of {name} is {percentile(values, 99):.1f}, more than {p99_ms:.1f}"
        if max(values, default=0) > worst_ms:
            yield f"the longest {name} is {max(values):.0f}, more than {worst_ms:.0f}"


def flooded(rounds: Sequence[Round]) -> Iterator[str]:
    """How long the good client waited beside one flooder."""
    for one in rounds:
        # waits for a processor come in bursts, of which the slowest messages see most
        busy_ms = FLOODED_P99_MS_MAX * (1 + BUSY_FACTOR * (one.slowness - 1))
        p99_ms = max(busy_ms, BUSY_FACTOR * percentile(one.control_ms, 99))
        if one.flooder and percentile(one.confirm_ms, 99) > p99_ms:
            found_ms = percentile(one.confirm_ms, 99)
            yield f"{one.flooder}: p99 of confirms is {found_ms:.1f}, more than {p99_ms:.1f}"


def joined(rounds: Sequence[Round], name: str) -> list[float]:
    """Latencies of all rounds under one name."""
    return [value for one in rounds for value in getattr(one, name)]


LATENCIES = {
    "confirm_ms": "until the confirm",
    "deliver_ms": "until the delivery",
    "control_ms": "confirm, nobody abusing",
}


def table(seen: Seen) -> Iterator[str]:
    """The last lines of a run."""
    rounds, before, log, report = seen.rounds, seen.before, seen.log, seen.report
    yield f"{'kind of abuse':28}{'attacks':>9}{'events':>9}{'surprises':>11}"
    for kind, tally in report.items():
        yield f"{kind:28}{tally.attacks:9}{tally.events:9}{len(tally.surprises):11}"
    yield ""
    yield f"{'':28}{'before':>9}{'worst':>9}{'calm':>9}"
    last = rounds[-1].calm
    for name, form in (("resident_mib", ".1f"), ("files", "d"), ("threads", "d")):
        worst = max(getattr(one.worst, name) for one in rounds)
        shown = (getattr(before, name), worst, getattr(last, name))
        yield f"{name:28}" + "".join(f"{value:9{form}}" for value in shown)
    yield f"{'growth after warm-up, MiB':28}{growth_mib(rounds):27.1f}"
    yield ""
    yield f"{'latency, ms':28}{'p50':>9}{'p99':>9}{'max':>9}{'count':>9}"
    for name, text in LATENCIES.items():
        values = joined(rounds, name)
        shown = (percentile(values, 50), percentile(values, 99), max(values, default=0.0))
        yield f"{text:28}" + "".join(f"{value:9.1f}" for value in shown) + f"{len(values):9}"
    yield ""
    seconds = sum(one.seconds for one in rounds)
    cpu_s = last.cpu_s - before.cpu_s
    yield f"{seconds:.0f} s of storm in {len(rounds)} rounds, {cpu_s:.1f} s of the node's CPU"
    lines = ", ".join(f"{count} {level}" for level, count in sorted(log.levels.items()))
    yield f"log: {lines}; {len(log.tracebacks)} tracebacks"
