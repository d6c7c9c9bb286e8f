"""Limits and times of links: keepalive of a connection, and delays before one is dialled again.

Any byte received is life.  A connection that has nothing to send sends a beat, and the end of a
link that receives only beats too: else an end that is gone without a word (a cable, a firewall that
forgot) would not be noticed by a node that has nothing to say.  Time in which our own loop stood
still is not held against the other end.

    up --lost--> dialled at once --> up
                       | failed
                       v
                     down --delay--> dialled --failed--> a longer delay ...

A link that was lost soon after it came up is not dialled at once: whatever ended it would end the
next one as well, a thousand times a second.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from fluffle.broker.cluster.ports import TrafficClass


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """Limits of all links of a node; nodes need not agree, except on `frame_bytes_max`."""

    frame_bytes_max: int = 128 << 20
    """A message is at most 16 MiB, unless an operator says more, and a frame may hold several."""
    urgent_bytes_max: int = 8 << 20
    """Waiting for one node; likewise the next two.  A link on which so much waits does not work."""
    normal_bytes_max: int = 64 << 20
    """Consensus has windows that are smaller; this is for when many groups fill theirs."""
    bulk_bytes_max: int = 8 << 20
    """Bytes of BULK that may wait: enough to keep the network busy while more is fetched."""

    beat_ms: int = 500
    """A connection on which nothing is sent for so long carries a sign of life."""
    silent_after_ms: int = 10_000
    """Nothing received, or nothing written that waits: the connection is reset.  Twice the longest
    silence that makes no node suspected, so that it costs nothing more: a node that has lost its
    link is suspected at once."""
    stall_ms: int = 1_000
    """If our own loop was away for longer, that time is not held against the others."""

    handshake_ms: int = 5_000
    """From accept to the proof; likewise from dialling to it when there is no hurry."""
    reopen_ms: int = 250
    """Time in ms within which a reset link must be open again, or its node is suspected."""
    settled_ms: int = 1_000
    """A link that did not last so long is not dialled again at once: something is wrong with it."""
    redial_ms: int = 50
    """Before the second try; doubled by each that fails."""
    redial_ms_max: int = 2_000
    """A node that comes back dials us as well, so this is for those that cannot reach us."""
    strangers_max: int = 64
    """Connections that have not proved an identity; one more costs the oldest its place."""

    @property
    def waiting_bytes_max(self) -> Mapping[TrafficClass, int]:
        return {
            TrafficClass.URGENT: self.urgent_bytes_max,
            TrafficClass.NORMAL: self.normal_bytes_max,
            TrafficClass.BULK: self.bulk_bytes_max,
        }


class KeepaliveResult(Enum):
    """The result of a keepalive tick."""

    WELL = "well"
    BEAT_DUE = "beat_due"
    """Nothing was sent for a while."""
    SILENT = "silent"
    """Nothing was received for too long."""
    STUCK = "stuck"
    """Waiting output has not moved for too long."""


class Keepalive:
    """Keepalive state of one connection.  Set the marks as they happen; `tick` several times a
    beat.
    """

    def __init__(self, now_ms: int, limits: LinkLimits) -> None:
        self._limits = limits
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
        if away_ms > self._limits.stall_ms:
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
        if now_ms - self._heard_ms >= self._limits.silent_after_ms:
            return KeepaliveResult.SILENT
        if now_ms - self._moved_ms >= self._limits.silent_after_ms:
            return KeepaliveResult.STUCK
        if now_ms - self._sent_ms >= self._limits.beat_ms:  # mutant: LI5
            self._sent_ms = now_ms
            return KeepaliveResult.BEAT_DUE
        return KeepaliveResult.WELL


class ReconnectBackoff:
    """Reconnect delays of one peer.  Both times return how many ms to wait."""

    def __init__(self, limits: LinkLimits, chance: Callable[[], float]) -> None:
        """`chance`: numbers from 0 to below 1."""
        self._limits = limits
        self._chance = chance
        self._failures = 0
        """Since a link last settled."""
        self._opened_ms = 0

    def opened(self, now_ms: int) -> None:
        """A link is up."""
        self._opened_ms = now_ms

    def lost(self, now_ms: int) -> int:
        """Delay in ms before dialling again after a link is lost; 0: dial at once."""
        if now_ms - self._opened_ms < self._limits.settled_ms:
            return self.failed()
        self._failures = 0
        return 0

    def failed(self) -> int:
        """Dialling led to no link; at least 1."""
        limits = self._limits
        doublings = min(self._failures, limits.redial_ms_max.bit_length())
        self._failures += 1
        longest_ms = min(limits.redial_ms << doublings, limits.redial_ms_max)
        return max(1, int(longest_ms * (0.5 + self._chance() / 2)))
