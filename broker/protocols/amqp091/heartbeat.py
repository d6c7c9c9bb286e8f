"""Heartbeats of one connection, decided without a clock: `beat` is called every T/2.

As RabbitMQ does it: a heartbeat leaves when nothing else was sent for half the interval, and a
peer that is silent for two whole intervals is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from fluffle.broker.core.output_buffer import OutputBuffer

BEATS_PER_INTERVAL = 2
SILENT_INTERVALS_MAX = 2
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"


class HeartbeatAction(Enum):
    """Action due after a beat."""

    NOTHING = auto()
    SEND = auto()
    GIVE_UP = auto()


class Heartbeat:
    """Heartbeat state of one connection, in both directions."""

    __slots__ = ("_beats", "_silent_intervals", "heard", "spoke")

    def __init__(self) -> None:
        self.heard = False
        """Whether anything came in since it was last reset here."""
        self.spoke = False
        """Whether anything was written since the last beat."""
        self._beats = 0
        self._silent_intervals = 0

    def beat(self, *, listening: bool) -> HeartbeatAction:
        """Half an interval has passed.  Without `listening` silence does not count."""
        self._beats += 1
        if self._beats % BEATS_PER_INTERVAL == 0:
            silent = listening and not self.heard
            self._silent_intervals = self._silent_intervals + 1 if silent else 0
            self.heard = False
            if self._silent_intervals >= SILENT_INTERVALS_MAX:
                return HeartbeatAction.GIVE_UP
        spoke, self.spoke = self.spoke, False
        return HeartbeatAction.NOTHING if spoke else HeartbeatAction.SEND


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
