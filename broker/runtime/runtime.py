"""Runtime of a node: its time, turns, commits, counters and measures, as one object.

`Node` makes it once, when the store is open, and hands it down.  Parts take from it what they need;
parts of the layers below, which do not import it, are given the one object of it that they use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fluffle.broker.alarms import Measures
from fluffle.broker.base.clock import CallLater, Clock
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.runtime.background import BackgroundTasks
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.timers import Timers
from fluffle.broker.runtime.turn import Turn


@dataclass(frozen=True, slots=True)
class Runtime:
    """Clock, timers, turn, commits, background tasks, counters and measures of one node."""

    clock: Clock
    """Clock for messages and queues, and for what is shown."""
    call_later: CallLater
    """Runs a function after so many seconds of `clock`, and never before."""
    clients_call_later: CallLater
    """Runs a function after so many seconds in the time of clients: for how long they may be
    silent, and the like.  Tests move it apart from `clock`."""
    timers: Timers
    """Timers of queues, by `clock`."""
    turn: Turn
    commits: Commits
    background_tasks: BackgroundTasks
    traffic: Traffic
    measures: Measures
    """Measures of memory and disk."""
    on_fatal: Callable[[Exception], None]
    """Ends the node: called when an assertion is broken."""
