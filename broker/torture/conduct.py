"""A run with everything around it: clock, file, progress, table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import BinaryIO, TextIO

from fluffle.broker.torture.diary import Diary
from fluffle.broker.torture.history import from_line
from fluffle.broker.torture.judge import Judge
from fluffle.broker.torture.report import lines
from fluffle.broker.torture.run import Order, Run
from fluffle.broker.torture.system import DeedFailed, System

PROGRESS_S = 10.0

Tell = Callable[[str], None]


def conduct(system: System, order: Order, tell: Tell, file: TextIO | None = None) -> int:
    """The exit code."""
    diary = Diary(time.monotonic_ns, file)
    try:
        return asyncio.run(conducted(system, order, diary, tell))
    except DeedFailed as error:
        tell(f"this system cannot be tortured: {error}")
        return 2


async def conducted(system: System, order: Order, diary: Diary, tell: Tell) -> int:
    """The same in a loop that is running; `DeedFailed` where the system does not serve."""
    tell(f"seed {order.seed}; faults: {', '.join(order.kinds) or 'none'}")
    progress = asyncio.create_task(say_how_it_goes(diary, tell))
    try:
        outcome = await Run(system, order, diary, tell).to_the_end()
    finally:
        progress.cancel()
    for line in lines(outcome, diary):
        tell(line)
    return 0 if outcome.is_good(diary.judge.report) else 1


async def say_how_it_goes(diary: Diary, tell: Tell) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        report = diary.judge.report
        tell(
            f"{diary.seconds:6.0f} s: confirmed {report.confirmed:,}, received {report.received:,},"
            f" {report.broken} breaches"
        )


def check_file(history: BinaryIO, tell: Tell) -> int:
    """Judge a history that was written down; the exit code."""
    judge = Judge()
    for number, line in enumerate(history, start=1):
        try:
            _at_ns, event = from_line(line)
        except (ValueError, KeyError, TypeError):
            tell(f"line {number} is no event")
            return 2
        judge.read((event,))
    report = judge.finish()
    for name, count in report.numbers().items():
        tell(f"{name:24}{count:12,}")
    for sentence in report.sentences():
        tell(sentence)
    return 0 if report.is_good else 1
