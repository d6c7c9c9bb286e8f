"""What a run came to: a table for people, and a last line for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fluffle.broker.torture.history_writer import Diary
from fluffle.broker.torture.run import Outcome
from fluffle.broker.torture.stalls import NOTABLE_NS, TESTER_LATE, Gap, Gaps

COMPLAINTS_MAX = 12
FAULTS_SHOWN_MAX = 3
ALONE = (
    f"(longest gap: of those of {NOTABLE_NS / 1e9:g} s or more, with no other fault at work and "
    "the tester in time)"
)


def lines(outcome: Outcome, diary: Diary) -> Iterator[str]:
    """For people; then the last line."""
    report, gaps = diary.judge.report, diary.gaps
    yield from faults(outcome, gaps)
    yield from counted("the broker said", report.complaints)
    yield from unavailability(gaps)
    yield ""
    for name, number in report.numbers().items():
        yield f"{name:24}{number:12,}"
    yield ""
    yield from report.sentences()
    yield from outcome.failures
    yield last_line(outcome, diary)


def faults(outcome: Outcome, gaps: Gaps) -> Iterator[str]:
    """Lines with how many of each kind there were, and the longest that a queue took no publish
    under that alone."""
    if not outcome.faults:
        return
    yield f"{'faults':24}{'number':>8}{'longest gap':>14}"
    for kind, number in Counter(fault.kind for fault in outcome.faults).most_common():
        gap = longest_under(gaps, kind)
        yield f"{kind:24}{number:8}" + (
            f"{seconds(gap):12.2f} s" if gap.length_ns else f"{'–':>14}"
        )
    yield ALONE
    yield ""


def longest_under(gaps: Gaps, kind: str) -> Gap:
    under = (
        gap
        for queue in gaps.queues.values()
        for gap in queue.to_publishers.notable
        if {what.partition(" ")[0] for what in gaps.faults_during(gap)} == {kind}
    )
    return max(under, default=Gap())


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
    faults = sorted(gaps.faults_during(gap), key=lambda what: what.startswith(TESTER_LATE))
    more = f" and {len(faults) - FAULTS_SHOWN_MAX} more" if len(faults) > FAULTS_SHOWN_MAX else ""
    return "; ".join(faults[:FAULTS_SHOWN_MAX]) + more


def seconds(gap: Gap) -> float:
    return gap.length_ns / 1e9


def last_line(outcome: Outcome, diary: Diary) -> str:
    """`torture seed=7 attempted=… lost=0 … unavailable_s=1.25 verdict=good`."""
    report = diary.judge.report
    numbers = {name.replace(" ", "_"): number for name, number in report.numbers().items()}
    kinds = Counter(fault.kind for fault in outcome.faults).most_common()
    pairs = {
        "seed": outcome.order.seed,
        **numbers,
        "faults": ",".join(f"{kind}:{number}" for kind, number in kinds) or "none",
        "unavailable_s": f"{seconds(diary.gaps.overall.longest):.2f}",
        "verdict": "good" if outcome.is_good(report) else "bad",
    }
    return "torture " + " ".join(f"{name}={value}" for name, value in pairs.items())
