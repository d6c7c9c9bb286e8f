"""What a client must do in time: log in, be heard, read its answers, and part.

Who does not is hung up on: he would not hear what was said to him.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from fluffle.broker.server.heartbeat import HEARTBEAT_FRAME, Heartbeat, Verdict
from fluffle.broker.server.intake import Timer
from fluffle.broker.server.outlet import Outlet


class Line(Protocol):
    """The part of asyncio's transport that heartbeats need."""

    def is_reading(self) -> bool: ...

    def write(self, data: bytes) -> None: ...


class Deadlines:
    """Those of one connection, until `end`."""

    __slots__ = ("_call_later", "_hang_up", "_timers")

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], Timer],
        hang_up: Callable[[str], None],
    ) -> None:
        """`hang_up` is called with what the client has not done."""
        self._call_later = call_later
        self._hang_up = hang_up
        self._timers: dict[str, Timer] = {}

    def give(self, what: str, seconds: float, failure: str) -> None:
        """`what` has to be done in `seconds`, or it is a `failure`; what is under way goes on."""
        if what not in self._timers:
            self._timers[what] = self._call_later(seconds, partial(self._hang_up, failure))

    def met(self, what: str) -> None:
        """It has been done."""
        self._timers.pop(what).cancel()

    def beat(
        self,
        heartbeat: Heartbeat,
        interval_s: float,
        line: Line,
        outlet: Outlet,
        heard: Callable[[], int],
    ) -> None:
        """Have the client hear of us, and end it when it is silent too long.

        `heard`: how often something has come from it.
        """
        reads, writes = heard(), outlet.writes

        def beat() -> None:
            nonlocal reads, writes
            heartbeat.heard |= reads != (reads := heard())
            heartbeat.spoke |= writes != outlet.writes
            verdict = heartbeat.beat(listening=line.is_reading())
            if verdict is Verdict.GIVE_UP:
                self._hang_up("missed heartbeats from client")
                return
            if verdict is Verdict.SEND:
                line.write(HEARTBEAT_FRAME)
                outlet.writes += 1
                outlet.written_bytes += len(HEARTBEAT_FRAME)
            writes = outlet.writes
            self._timers["heartbeat"] = self._call_later(interval_s / 2, beat)

        self._timers["heartbeat"] = self._call_later(interval_s / 2, beat)

    def end(self) -> None:
        """The connection is gone."""
        for timer in self._timers.values():
            timer.cancel()
