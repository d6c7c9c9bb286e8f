"""A run with everything around it: clock, file, progress, table."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO, TextIO

from fluffle.broker.torture.history import from_line
from fluffle.broker.torture.online_checker import HistoryWriter, OnlineChecker
from fluffle.broker.torture.run import Run, RunOptions, RunResult
from fluffle.broker.torture.stalls import NOTABLE_NS, TESTER_LATE, Stall, StallChecker
from fluffle.broker.torture.system import NodeActionFailed, System

COMPLAINTS_MAX = 12
FAULTS_SHOWN_MAX = 3
ALONE = (
    f"(longest gap: of those of {NOTABLE_NS / 1e9:g} s or more, with no other fault at work and "
    "the tester in time)"
)


def lines(outcome: RunResult, history_writer: HistoryWriter) -> Iterator[str]:
    """Yield the report for people; then the last line."""
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
    """Yield the most frequent first."""
    if not counter:
        return
    yield f"{title}:"
    for what, number in counter.most_common(COMPLAINTS_MAX):
        yield f"{number:8,}  {what}"
    yield ""


def unavailability(stalls: StallChecker) -> Iterator[str]:
    """Yield the longest of each queue, and what was wrong meanwhile."""
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


PROGRESS_S = 10.0
TICK_S = 0.05
LATE_S = 0.25
"""So late is the tester itself that it is reported: proxies between nodes stand still with it."""

Echo = Callable[[str], None]


def run_and_report(
    system: System, order: RunOptions, echo: Echo, file: TextIO | None = None
) -> int:
    """Return the exit code."""
    history_writer = HistoryWriter(time.monotonic_ns, file)
    try:
        return asyncio.run(run_in_loop(system, order, history_writer, echo))
    except NodeActionFailed as error:
        echo(f"this system cannot be tortured: {error}")
        return 2


async def run_in_loop(
    system: System, order: RunOptions, history_writer: HistoryWriter, echo: Echo
) -> int:
    """Run and report in a loop that is running; `NodeActionFailed` where the system does not
    serve."""
    echo(f"seed {order.seed}; faults: {', '.join(order.kinds) or 'none'}")
    beside = [
        asyncio.create_task(report_progress(history_writer, echo)),
        asyncio.create_task(watch(history_writer)),
    ]
    try:
        outcome = await Run(system, order, history_writer, echo).run()
    finally:
        for task in beside:
            task.cancel()
    for line in lines(outcome, history_writer):
        echo(line)
    return 0 if outcome.is_good(history_writer.checker.report) else 1


async def report_progress(history_writer: HistoryWriter, echo: Echo) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        forget_garbage()
        report = history_writer.checker.report
        echo(
            f"{history_writer.seconds:6.0f} s: confirmed {report.confirmed:,}, "
            f"received {report.received:,},"
            f" {report.broken} breaches"
        )


def forget_garbage() -> None:
    """Do not look again for garbage among what is known of messages, nearly all of which stays.

    That took a busy machine three seconds, in which no node heard another through the proxies.
    The heap stays frozen at the end: the process may have frozen other objects before the run.
    """
    gc.collect(1)
    gc.freeze()


async def watch(history_writer: HistoryWriter) -> None:
    """Note when this very loop is late."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + TICK_S
        await asyncio.sleep(TICK_S)
        if (late_s := loop.time() - due_s) >= LATE_S:
            history_writer.tester_was_late(late_s)


def check_file(history: BinaryIO, echo: Echo) -> int:
    """Judge a history that was written down; the exit code."""
    checker = OnlineChecker()
    for number, line in enumerate(history, start=1):
        try:
            _at_ns, event = from_line(line)
        except (ValueError, KeyError, TypeError):
            echo(f"line {number} is no event")
            return 2
        checker.read((event,))
    report = checker.finish()
    for name, count in report.numbers().items():
        echo(f"{name:24}{count:12,}")
    for sentence in report.sentences():
        echo(sentence)
    return 0 if report.is_good else 1
