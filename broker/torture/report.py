"""What a run came to: a table for people, and a last line for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fluffle.broker.torture.diary import Diary
from fluffle.broker.torture.findings import Breach, Report
from fluffle.broker.torture.gaps import Gap, Gaps
from fluffle.broker.torture.run import Outcome

COMPLAINTS_MAX = 12
FAULTS_SHOWN_MAX = 3


def is_good(outcome: Outcome, report: Report) -> bool:
    """Nothing was broken that is promised, and everything came back."""
    promised = (breach for breach in Breach if breach is not Breach.SHARED)
    return not outcome.failures and not any(report.breaches[breach] for breach in promised)


def lines(outcome: Outcome, diary: Diary) -> Iterator[str]:
    """For people; then the last line."""
    report, gaps = diary.judge.report, diary.gaps
    yield from counted("faults", Counter(fault.kind for fault in outcome.faults))
    yield from counted("the broker said", report.complaints)
    yield from unavailability(gaps)
    yield ""
    for name, number in report.numbers().items():
        yield f"{name:24}{number:12,}"
    yield ""
    yield from report.sentences()
    yield from outcome.failures
    yield last_line(outcome, diary)


def counted(title: str, counter: Counter[str]) -> Iterator[str]:
    """The most frequent first."""
    if not counter:
        return
    yield f"{title}:"
    for what, number in counter.most_common(COMPLAINTS_MAX):
        yield f"{number:8,}  {what}"
    yield ""


def unavailability(gaps: Gaps) -> Iterator[str]:
    """The longest of each queue, and what was wrong meanwhile."""
    yield "longest unavailability"
    rows = [("any queue, to publishers", gaps.overall.longest)]
    for name, queue in sorted(gaps.queues.items()):
        rows.append((f"{name}, to publishers", queue.to_publishers.longest))
        rows.append((f"{name}, to consumers", queue.to_consumers.longest))
    for what, gap in rows:
        yield f"{what:32}{seconds(gap):8.2f} s  {during(gaps, gap)}"


def during(gaps: Gaps, gap: Gap) -> str:
    faults = [*gaps.faults_during(gap)]
    more = f" and {len(faults) - FAULTS_SHOWN_MAX} more" if len(faults) > FAULTS_SHOWN_MAX else ""
    return "; ".join(faults[:FAULTS_SHOWN_MAX]) + more


def seconds(gap: Gap) -> float:
    return gap.length_ns / 1e9


def last_line(outcome: Outcome, diary: Diary) -> str:
    """`torture seed=7 attempted=… lost=0 … unavailable_s=1.25 verdict=good`."""
    report = diary.judge.report
    numbers = {name.replace(" ", "_"): number for name, number in report.numbers().items()}
    pairs = {
        "seed": outcome.order.seed,
        **numbers,
        "unavailable_s": f"{seconds(diary.gaps.overall.longest):.2f}",
        "verdict": "good" if is_good(outcome, report) else "bad",
    }
    return "torture " + " ".join(f"{name}={value}" for name, value in pairs.items())
