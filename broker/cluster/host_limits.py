"""How much a host does at once beside what is urgent, each with its unit in its name."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ScrubLimits:
    """How fast the disk is read for the sake of reading."""

    piece_bytes: int = 128 << 10
    pause_ms: int = 50
    """Between two pieces: together 2.5 MB a second, a tenth of what a slow disk can."""
    rest_ms: int = 6 * 3_600_000
    """After a round over everything."""


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Limits of one host, each with its unit in its name."""

    slice_bytes: int = 1 << 20
    """Read for followers, or written as snapshots, before everything else has its turn again."""
    snapshot_bytes_min: int = 4 << 20
    """Applied since its last snapshot, by one group, before it takes another: some entries of a
    busy queue, so that it costs little beside them."""
    snapshot_node_bytes_max: int = 16 << 20
    """By all groups together, beyond what their states have: half of the hot window of the log, so
    that most of what dies young is never moved."""
    scrub: ScrubLimits | None = field(default_factory=ScrubLimits)
    """None: nothing is read but for a reason."""
