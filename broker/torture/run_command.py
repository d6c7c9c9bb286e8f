"""A run with everything around it: clock, file, progress, table."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import BinaryIO, TextIO

from fluffle.broker.torture.history import from_line
from fluffle.broker.torture.history_writer import HistoryWriter
from fluffle.broker.torture.online_checker import OnlineChecker
from fluffle.broker.torture.report import lines
from fluffle.broker.torture.run import Run, RunOptions
from fluffle.broker.torture.system import NodeActionFailed, System

PROGRESS_S = 10.0
TICK_S = 0.05
LATE_S = 0.25
"""So late is the tester itself that it is reported: proxies between nodes stand still with it."""

Tell = Callable[[str], None]


def run_and_report(
    system: System, order: RunOptions, tell: Tell, file: TextIO | None = None
) -> int:
    """The exit code."""
    history_writer = HistoryWriter(time.monotonic_ns, file)
    try:
        return asyncio.run(run_in_loop(system, order, history_writer, tell))
    except NodeActionFailed as error:
        tell(f"this system cannot be tortured: {error}")
        return 2


async def run_in_loop(
    system: System, order: RunOptions, history_writer: HistoryWriter, tell: Tell
) -> int:
    """The same in a loop that is running; `NodeActionFailed` where the system does not serve."""
    tell(f"seed {order.seed}; faults: {', '.join(order.kinds) or 'none'}")
    beside = [
        asyncio.create_task(report_progress(history_writer, tell)),
        asyncio.create_task(watch(history_writer)),
    ]
    try:
        outcome = await Run(system, order, history_writer, tell).run()
    finally:
        for task in beside:
            task.cancel()
    for line in lines(outcome, history_writer):
        tell(line)
    return 0 if outcome.is_good(history_writer.checker.report) else 1


async def report_progress(history_writer: HistoryWriter, tell: Tell) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        forget_garbage()
        report = history_writer.checker.report
        tell(
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


def check_file(history: BinaryIO, tell: Tell) -> int:
    """Judge a history that was written down; the exit code."""
    checker = OnlineChecker()
    for number, line in enumerate(history, start=1):
        try:
            _at_ns, event = from_line(line)
        except (ValueError, KeyError, TypeError):
            tell(f"line {number} is no event")
            return 2
        checker.read((event,))
    report = checker.finish()
    for name, count in report.numbers().items():
        tell(f"{name:24}{count:12,}")
    for sentence in report.sentences():
        tell(sentence)
    return 0 if report.is_good else 1
