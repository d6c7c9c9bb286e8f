"""A node's `Runtime` for tests: on a scheduler moved by hand, or in the running loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fluffle.broker.base.clock import Clock, SystemClock
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.runtime.background import BackgroundTasks
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.runtime.timers import Timers
from fluffle.broker.runtime.turn import Turn, raise_it
from tests.support.fakes import FakeMeasures, ScheduledClock, Scheduler
from tests.support.store import commits_in_memory


def fake_runtime(
    loop: Scheduler | asyncio.AbstractEventLoop | None = None,
    *,
    clock: Clock | None = None,
    turn: Turn | None = None,
    commits: Commits | None = None,
    on_fatal: Callable[[Exception], None] = raise_it,
) -> Runtime:
    """The runtime of a node whose timers run and whose commits are done at once, in memory.

    `loop`: a new `Scheduler` if none is given; `clock`: that of `loop`.
    """
    loop = loop or Scheduler()
    if clock is None:
        clock = ScheduledClock(loop) if isinstance(loop, Scheduler) else SystemClock()
    turn = turn or Turn(loop.call_soon, on_fatal)
    commits = commits or commits_in_memory(turn)
    timers = Timers(clock, loop.call_later, on_fatal)
    timers.start()
    return Runtime(
        clock=clock,
        call_later=loop.call_later,
        clients_call_later=loop.call_later,
        timers=timers,
        turn=turn,
        commits=commits,
        background_tasks=BackgroundTasks(turn, commits, on_fatal),
        traffic=Traffic(),
        measures=FakeMeasures(),
        on_fatal=on_fatal,
    )
