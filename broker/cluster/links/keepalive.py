"""Keepalive of a connection: whether its other end is there, from bytes and time alone.

Any byte received is life.  A connection that has nothing to send sends a beat, and the end of a
link that receives only beats too: else an end that is gone without a word (a cable, a firewall that
forgot) would be noticed by nobody who has nothing to say.  Time in which our own loop stood still
is not held against the other end.
"""

from enum import Enum

from fluffle.broker.cluster.links.limits import LinkLimits


class KeepaliveResult(Enum):
    """The result of a keepalive tick."""

    WELL = "well"
    BEAT_DUE = "beat_due"
    """Nothing was sent for a while."""
    SILENT = "silent"
    """Nothing was received for too long."""
    STUCK = "stuck"
    """What waits has not moved for too long."""


class Keepalive:
    """Keepalive state of one connection.  Set the marks as they happen; `tick` several times a
    beat.
    """

    __slots__ = (
        "_heard_ms", "_moved_ms", "_now_ms", "_sent_ms", "_tuning", "has_heard", "has_moved",
        "has_sent",
    )  # fmt: skip

    def __init__(self, now_ms: int, tuning: LinkLimits) -> None:
        self._tuning = tuning
        self._now_ms = self._heard_ms = self._sent_ms = self._moved_ms = now_ms
        self.has_heard = False
        """Bytes came since the last tick."""
        self.has_sent = False
        """Bytes were given to the network since."""
        self.has_moved = False
        """The network took all that it had been given, or the other end acknowledged something."""

    def tick(self, now_ms: int, *, is_waiting: bool) -> KeepaliveResult:
        """`is_waiting`: something cannot be sent now."""
        away_ms = now_ms - self._now_ms
        if away_ms > self._tuning.stall_ms:
            self._heard_ms += away_ms
            self._moved_ms += away_ms
        if self.has_heard:  # mutant: LI4
            self._heard_ms = now_ms
        if self.has_sent:
            self._sent_ms = self._now_ms  # or later, but a beat too many does no harm
        self._now_ms = now_ms
        if self.has_moved or not is_waiting:
            self._moved_ms = now_ms
        self.has_heard = self.has_sent = self.has_moved = False
        if now_ms - self._heard_ms >= self._tuning.silent_after_ms:
            return KeepaliveResult.SILENT
        if now_ms - self._moved_ms >= self._tuning.silent_after_ms:
            return KeepaliveResult.STUCK
        if now_ms - self._sent_ms >= self._tuning.beat_ms:  # mutant: LI5
            self._sent_ms = now_ms
            return KeepaliveResult.BEAT_DUE
        return KeepaliveResult.WELL
