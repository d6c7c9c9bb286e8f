"""Deadlines of a client: to log in, to send heartbeats, to read its answers, and to close.

Who does not is hung up on: he would not hear what was said to him.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from fluffle.broker.base.clock import Timer
from fluffle.broker.core.heartbeat import HEARTBEAT_FRAME, Heartbeat, HeartbeatAction
from fluffle.broker.core.output_buffer import OutputBuffer


class HeartbeatTransport(Protocol):
    """The part of asyncio's transport that heartbeats need."""

    def is_reading(self) -> bool: ...

    def write(self, data: bytes) -> None: ...


class HeartbeatTimer:
    """The heartbeats of one connection, both ways."""

    __slots__ = ("_heard", "_heartbeat", "_line", "_output", "_reads", "_writes")

    def __init__(
        self,
        heartbeat: Heartbeat,
        line: HeartbeatTransport,
        output: OutputBuffer,
        heard: Callable[[], int],
    ) -> None:
        """`heard`: how often something has come from the client."""
        self._heartbeat = heartbeat
        self._line = line
        self._output = output
        self._heard = heard
        self._reads, self._writes = heard(), output.writes

    def beat(self) -> bool:
        """Half an interval has passed.  False if the client is silent for too long."""
        heartbeat, output, reads = self._heartbeat, self._output, self._heard()
        heartbeat.heard |= reads != self._reads
        heartbeat.spoke |= output.writes != self._writes
        self._reads = reads
        verdict = heartbeat.beat(listening=self._line.is_reading())
        if verdict is HeartbeatAction.SEND:
            self._line.write(HEARTBEAT_FRAME)
            output.writes += 1
            output.written_bytes += len(HEARTBEAT_FRAME)
        self._writes = output.writes
        return verdict is not HeartbeatAction.GIVE_UP


class Deadlines:
    """Those of one connection, until `end`."""

    __slots__ = ("_call_later", "_hang_up", "_is_over", "_timers")

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], Timer],
        hang_up: Callable[[str], None],
    ) -> None:
        """`hang_up` is called with what the client has not done."""
        self._call_later = call_later
        self._hang_up = hang_up
        self._timers: dict[str, Timer] = {}
        self._is_over = False

    def give(self, what: str, seconds: float, failure: str) -> None:
        """`what` has to be done in `seconds`, or it is a `failure`; what is under way goes on."""
        if what not in self._timers and not self._is_over:
            self._timers[what] = self._call_later(seconds, partial(self._hang_up, failure))

    def met(self, what: str) -> None:
        """The client has done this in time: its deadline ends."""
        if not self._is_over:
            self._timers.pop(what).cancel()

    def beat(self, beating: HeartbeatTimer, interval_s: float) -> None:
        """Have the client hear of us, and end it when it is silent too long."""
        act = partial(self._beat, beating, interval_s)
        self._timers["heartbeat"] = self._call_later(interval_s / 2, act)

    def _beat(self, beating: HeartbeatTimer, interval_s: float) -> None:
        if beating.beat():
            self.beat(beating, interval_s)
        else:
            self._hang_up("missed heartbeats from client")

    def end(self) -> None:
        """The connection is gone, and nothing here keeps it alive."""
        self._is_over = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._hang_up = no_connection


def no_connection(_failure: str) -> None:
    """Where the connection is gone."""
