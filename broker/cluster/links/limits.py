"""Limits and times of links, each with its unit in its name and its reason beside it."""

from collections.abc import Mapping
from dataclasses import dataclass

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
    """What keeps the network busy for as long as it takes to fetch more."""

    beat_ms: int = 500
    """A connection on which nothing is sent for so long carries a sign of life."""
    silent_after_ms: int = 10_000
    """Nothing received, or nothing written that waits: the connection is reset.  Twice the longest
    silence that makes no node suspected, so that it costs nothing more: who has lost its link is
    suspected at once."""
    stall_ms: int = 1_000
    """If our own loop was away for longer, that time is not held against the others."""

    handshake_ms: int = 5_000
    """From accept to the proof; likewise from dialling to it when there is no hurry."""
    reopen_ms: int = 250
    """What "at once" means for a link that was reset: later than this, its node is suspected."""
    settled_ms: int = 1_000
    """A link that did not last so long is not dialled again at once: something is wrong with it."""
    redial_ms: int = 50
    """Before the second try; doubled by each that fails."""
    redial_ms_max: int = 2_000
    """A node that comes back dials us as well, so this is for those that cannot reach us."""
    strangers_max: int = 64
    """Connections that have not proved who they are; one more costs the oldest its place."""

    @property
    def lane_bytes_max(self) -> Mapping[TrafficClass, int]:
        return {
            TrafficClass.URGENT: self.urgent_bytes_max,
            TrafficClass.NORMAL: self.normal_bytes_max,
            TrafficClass.BULK: self.bulk_bytes_max,
        }
