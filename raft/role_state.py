"""States of the roles of a group: of a candidate, of a leader, of a follower that is mended.

Each goes with its role.  An idle follower has none of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from fluffle.raft.config import Member, NodeId
from fluffle.raft.progress import Progress
from fluffle.raft.records import Quarantine, SnapshotMeta


class Campaign:
    """Votes and pre-votes that a candidate, or a member about to be one, has received."""

    __slots__ = ("granted", "is_first_term", "is_transfer", "requests_sent")

    def __init__(self, *, is_transfer: bool) -> None:
        self.granted: set[Member] = set()
        """A set of voters: an answer that comes twice counts once."""
        self.requests_sent = False
        """Whether the requests for votes have left."""
        self.is_transfer = is_transfer
        """Whether the leader asked for this."""
        self.is_first_term = False
        """Whether it is to lead the first term of a new group: see `start_first_term`."""


class Transfer:
    """Leadership transfer that is under way."""

    __slots__ = ("ends_at_ms", "is_resignation", "target", "timeout_now_sent", "tries")

    def __init__(self, target: NodeId | None, ends_at_ms: int) -> None:
        self.target = target
        """None while a leader that resigns has found nobody."""
        self.ends_at_ms = ends_at_ms
        self.is_resignation = False
        self.tries = 0
        self.timeout_now_sent = False
        """Whether the target was asked to stand."""


class PendingReads:
    """Reads that have no answer yet, oldest first.  There is no object while there are none."""

    __slots__ = ("confirmed", "fresh", "unconfirmed")

    def __init__(self) -> None:
        self.fresh: list[int] = []
        """Contexts for which no round has begun."""
        self.unconfirmed: list[tuple[int, int, int]] = []
        """Round that must be confirmed, index, context."""
        self.confirmed: list[tuple[int, int]] = []
        """Index that must be applied, context."""

    def contexts(self) -> Iterator[int]:
        yield from (context for _, context in self.confirmed)
        yield from (context for *_, context in self.unconfirmed)
        yield from self.fresh


class LeaderState:
    """State that only a leader has; it goes when the leadership does."""

    __slots__ = (
        "commit_due",
        "first_index",
        "is_led_reported",
        "peers",
        "quorum_lost_at_ms",
        "reads",
        "round",
        "send_commit_at_ms",
        "transfer",
        "uncommitted_bytes",
    )

    def __init__(self, first_index: int) -> None:
        self.peers: dict[NodeId, Progress] = {}
        """All members but itself: of the active configuration, and of the last committed one."""
        self.first_index = first_index
        """Of the first entry of its own term.  Until that is committed nothing else counts as.  0:
        there is nothing of earlier terms."""
        self.round = 1
        """Of the requests of this turn; one more each turn in which any was sent."""
        self.uncommitted_bytes = 0
        """Of entries behind the commit index that are in memory, as `size_of` counts."""
        self.commit_due = False
        """A majority may have more on disk than is committed."""
        self.send_commit_at_ms: int | None = None
        """When followers are to hear of the commit index, if no append has told them."""
        self.quorum_lost_at_ms: int | None = None
        self.is_led_reported = False
        self.reads: PendingReads | None = None
        self.transfer: Transfer | None = None
        """While there is one, proposals are refused."""

    @property
    def needs_answers(self) -> bool:
        """Whether each answer of a follower may be one that something waits for."""
        return self.reads is not None or self.transfer is not None

    def waiting_contexts(self) -> Iterator[int]:
        """Return the contexts of reads that have no answer."""
        return iter(()) if self.reads is None else self.reads.contexts()


class SnapshotReceiver:
    """Parts of one snapshot that have arrived from the leader."""

    __slots__ = (
        "crc",
        "leader_round",
        "meta",
        "offset",
        "position_due",
        "progress_due",
        "stored",
        "through",
        "writes",
    )  # fmt: skip

    def __init__(self, meta: SnapshotMeta, through: int) -> None:
        self.meta = meta
        self.through = through
        """All live entries up to here are staged, or are in the log."""
        self.offset = 0
        """So many bytes of the state are staged."""
        self.crc = 0
        """zlib.crc32 of those."""
        self.stored = (through, 0)
        """The two as they are on disk."""
        self.writes: list[tuple[int, tuple[int, int]]] = []
        """Token, and the two with it, of each write under way; token 0: of this turn."""
        self.leader_round = 0
        self.progress_due = False
        """The leader is to hear how far we are."""
        self.position_due = False
        """It wants to know where to go on: told once nothing is under way to the disk."""

    @property
    def is_complete(self) -> bool:
        return self.through >= self.meta.index and self.offset == self.meta.state_bytes


class RepairState:
    """Progress of the repair of a quarantined member."""

    __slots__ = ("ask_at_ms", "cut_at", "repairing", "requested_round")

    def __init__(self) -> None:
        self.cut_at = 0
        """The quarantine's first index, once everything from there on is to be received anew."""
        self.ask_at_ms: int | None = None
        """When to ask the leader again."""
        self.requested_round = 0
        """The greatest of its requests seen, when it was asked last."""
        self.repairing: Quarantine | None = None
        """What is damaged and will not be, once the snapshot under way to the disk is there."""
