"""Heartbeats of one connection, decided without a clock: somebody calls `beat` every T/2.

As RabbitMQ does it: a heartbeat leaves when nothing else was sent for half the interval, and a
peer that is silent for two whole intervals is given up.
"""

from enum import Enum, auto

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
