"""Report of a run: a table for people, and a last line for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fluffle.broker.torture.history_writer import HistoryWriter
from fluffle.broker.torture.run import RunResult
from fluffle.broker.torture.stalls import NOTABLE_NS, TESTER_LATE, Stall, StallChecker

COMPLAINTS_MAX = 12
FAULTS_SHOWN_MAX = 3
ALONE = (
    f"(longest gap: of those of {NOTABLE_NS / 1e9:g} s or more, with no other fault at work and "
    "the tester in time)"
)


def lines(outcome: RunResult, history_writer: HistoryWriter) -> Iterator[str]:
    """For people; then the last line."""
    report, stalls = history_writer.checker.report, history_writer.stalls
    yield from faults(outcome, stalls)
    yield from counted("the broker said", report.complaints)
    yield from unavailability(stalls)
    yield ""
    for name, number in report.numbers().items():
        yield f"{name:24}{number:12,}"
    yield ""
    yield from report.sentences()
    yield from outcome.failures
    yield last_line(outcome, history_writer)


def faults(outcome: RunResult, stalls: StallChecker) -> Iterator[str]:
    """Lines with how many of each kind there were, and the longest that a queue took no publish
    under that alone."""
    if not outcome.faults:
        return
    yield f"{'faults':24}{'number':>8}{'longest stall':>14}"
    for kind, number in Counter(fault.kind for fault in outcome.faults).most_common():
        stall = longest_under(stalls, kind)
        yield f"{kind:24}{number:8}" + (
            f"{seconds(stall):12.2f} s" if stall.length_ns else f"{'–':>14}"
        )
    yield ALONE
    yield ""


def longest_under(stalls: StallChecker, kind: str) -> Stall:
    under = (
        stall
        for queue in stalls.queues.values()
        for stall in queue.to_publishers.notable
        if {what.partition(" ")[0] for what in stalls.faults_during(stall)} == {kind}
    )
    return max(under, default=Stall())


def counted(title: str, counter: Counter[str]) -> Iterator[str]:
    """The most frequent first."""
    if not counter:
        return
    yield f"{title}:"
    for what, number in counter.most_common(COMPLAINTS_MAX):
        yield f"{number:8,}  {what}"
    yield ""


def unavailability(stalls: StallChecker) -> Iterator[str]:
    """The longest of each queue, and what was wrong meanwhile."""
    yield "longest unavailability"
    rows = [("any queue, to publishers", stalls.overall.longest)]
    for name, queue in sorted(stalls.queues.items()):
        rows.append((f"{name}, to publishers", queue.to_publishers.longest))
        rows.append((f"{name}, to consumers", queue.to_consumers.longest))
    for what, stall in rows:
        yield f"{what:32}{seconds(stall):8.2f} s  {during(stalls, stall)}"


def during(stalls: StallChecker, stall: Stall) -> str:
    faults = sorted(stalls.faults_during(stall), key=lambda what: what.startswith(TESTER_LATE))
    more = f" and {len(faults) - FAULTS_SHOWN_MAX} more" if len(faults) > FAULTS_SHOWN_MAX else ""
    return "; ".join(faults[:FAULTS_SHOWN_MAX]) + more


def seconds(stall: Stall) -> float:
    return stall.length_ns / 1e9


def last_line(outcome: RunResult, history_writer: HistoryWriter) -> str:
    """`torture seed=7 attempted=… lost=0 … unavailable_s=1.25 verdict=good`."""
    report = history_writer.checker.report
    numbers = {name.replace(" ", "_"): number for name, number in report.numbers().items()}
    kinds = Counter(fault.kind for fault in outcome.faults).most_common()
    pairs = {
        "seed": outcome.order.seed,
        **numbers,
        "faults": ",".join(f"{kind}:{number}" for kind, number in kinds) or "none",
        "unavailable_s": f"{seconds(history_writer.stalls.overall.longest):.2f}",
        "verdict": "good" if outcome.is_good(report) else "bad",
    }
    return "torture " + " ".join(f"{name}={value}" for name, value in pairs.items())
