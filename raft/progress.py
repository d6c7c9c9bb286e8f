"""Progress of a follower, as its leader knows it: a small machine.

PROBE ----- an answer -----> REPLICATE       one request at a time; then pipelined, in a window
  ^  \\                       /   |
  |   +---<-- rejected, lost-+    | behind the floor
  +--------------- SNAPSHOT <-----+
"""

from __future__ import annotations

from enum import Enum

from fluffle.raft.config import Member
from fluffle.raft.log import SnapshotMeta


class ProgressState(Enum):
    """State of the replication to a follower."""

    PROBE = "probe"
    """Where its log and the leader's meet is not known: one request, then its answer."""
    REPLICATE = "replicate"
    """Replicating: it has everything below `next`, as far as is known; requests are pipelined."""
    SNAPSHOT = "snapshot"
    """Lagging: the entries it needs are below the floor of the leader's log."""


UNHEARD = -1
"""In place of a commit index, of which 0 is one: the follower has heard nothing of this leader."""


class SnapshotSender:
    """Transfer of one snapshot to one follower.  Invariant: what was stored is no more than what
    was sent."""

    __slots__ = (
        "has_answer", "meta", "offer_round", "sent_offset", "sent_through", "state_since_ms",
        "stored", "under_way",
    )  # fmt: skip

    def __init__(self, meta: SnapshotMeta, offer_round: int) -> None:
        self.meta = meta
        self.offer_round = offer_round
        self.has_answer = False
        """True if the follower has said where to begin."""
        self.sent_through = 0
        """Live entries up to here were sent."""
        self.sent_offset = 0
        """Bytes of the state that were sent."""
        self.stored = (0, 0)
        """The same two as the follower has them on disk."""
        self.under_way: list[tuple[int, int]] = []
        """The two after each chunk that has no answer."""
        self.state_since_ms: int | None = None
        """When the first of the state was sent."""

    @property
    def is_sent(self) -> bool:
        return self.sent_through == self.meta.index and self.sent_offset == self.meta.state_bytes

    def resume_from(self, through: int, offset: int) -> None:
        """Go on from what the follower has; what was sent beyond it is lost."""
        self.has_answer = True
        self.stored = self.sent_through, self.sent_offset = through, offset
        self.under_way.clear()

    def arrived(self, through: int, offset: int) -> None:
        """The follower has this much, by an earlier way maybe more than was sent on this one."""
        if (through, offset) > self.stored:
            self.stored = through, offset
            self.under_way = [chunk for chunk in self.under_way if chunk > self.stored]

    @property
    def is_overtaken(self) -> bool:
        return self.stored > (self.sent_through, self.sent_offset)


class Progress:
    """Invariant: match < next; in flight are only entries below `next` and above `match`."""

    __slots__ = (
        "_in_flight",
        "commit",
        "confirmed_round",
        "first_valid_round",
        "flow",
        "in_flight_bytes",
        "is_alive",
        "is_waiting",
        "match",
        "member",
        "next",
        "probe_round",
        "read_number",
        "repaired_at",
        "retry_at_ms",
        "retry_ms",
        "sender",
        "sent_commit",
        "snapshot_from",
    )  # fmt: skip

    def __init__(self, member: Member, next_index: int, *, is_alive: bool, retry_ms: int) -> None:
        self.member = member
        self.flow = ProgressState.PROBE
        self.match = 0
        """Greatest index known to be on the follower's disk, equal to the leader's log."""
        self.next = next_index
        """First index not yet sent."""
        self.commit = 0
        """Commit index that the follower is known to have; or `UNHEARD`."""
        self.sent_commit = 0
        """Commit index of the last request sent; or `UNHEARD`."""
        self.is_alive = is_alive
        """True if its node is; nothing is sent otherwise."""
        self.is_waiting = False
        """While PROBE: a request is under way."""
        self.probe_round = 0
        """Rejections of earlier rounds are out of date."""
        self.first_valid_round = 0
        """Whatever follows only earlier rounds is void: the follower has lost what it said."""
        self.confirmed_round = 0
        """The greatest round that it has answered."""
        self.in_flight_bytes = 0
        """Bytes of entries sent and not known to be durable."""
        self._in_flight: list[tuple[int, int]] = []
        """Last index and bytes of each such request, in order."""
        self.retry_at_ms: int | None = None
        """When to ask again, while it owes something."""
        self.retry_ms = retry_ms
        self.read_number: int | None = None
        """Number of the read of the log that is under way for it."""
        self.snapshot_from = 0
        """A snapshot of this index or later is needed, whatever else it has."""
        self.repaired_at = 0
        """Index up to which everything must be on its disk before the repair that it asked for is
        done."""
        self.sender: SnapshotSender | None = None
        """While SNAPSHOT, once there is one."""

    @property
    def in_flight_messages(self) -> int:
        return len(self._in_flight)

    def sent(self, last: int, size_bytes: int) -> None:
        """Note that a request with entries up to `last` was sent."""
        self._in_flight.append((last, size_bytes))
        self.in_flight_bytes += size_bytes
        self.next = last + 1

    def advance(self, durable: int) -> None:
        """Note that the follower has everything up to `durable` on disk: make room in the
        window."""
        self.match = durable
        self.next = max(self.next, durable + 1)
        arrived = 0
        for last, size_bytes in self._in_flight:
            if last > durable:
                break
            arrived += 1
            self.in_flight_bytes -= size_bytes
        del self._in_flight[:arrived]

    def probe(self, next_index: int) -> None:
        """Find out anew where the logs meet; what is in flight counts as lost."""
        self.flow = ProgressState.PROBE
        self.next = max(self.match + 1, next_index)
        self.is_waiting = False
        self.sender = None
        self.read_number = None
        self._forget_in_flight()  # mutant: M36

    def replicate(self, next_index: int) -> None:
        """Pipeline from `next_index` on, as the follower's log equals the leader's below."""
        self.flow = ProgressState.REPLICATE
        self.next = max(self.match + 1, next_index)
        self.is_waiting = False
        self.sender = None
        # What the probe carried beyond that is sent again: it must not fill the window meanwhile.
        self._in_flight = [sent for sent in self._in_flight if sent[0] < self.next]
        self.in_flight_bytes = sum(size_bytes for _, size_bytes in self._in_flight)

    def confirm_round(self, answered_round: int) -> None:
        """Note an answer of this term: the follower followed us after that round had begun."""
        self.confirmed_round = max(self.confirmed_round, answered_round)

    def need_snapshot(self) -> None:
        self.flow = ProgressState.SNAPSHOT
        self.is_waiting = False
        self.sender = None
        self.read_number = None
        self._forget_in_flight()

    def retract(self, first: int) -> None:
        """Note that the follower has lost what it had from `first` on."""
        self.match = min(self.match, first - 1)

    def _forget_in_flight(self) -> None:
        self._in_flight.clear()
        self.in_flight_bytes = 0
