"""The passive image: what every member of a replicated queue makes of its log.

It decides nothing and costs per entry, not per message.  The engine of a leader is built from it,
snapshots are taken of it, and it alone says which entries of the log are still needed.  Where a
message's content is, it knows; the content itself stays in the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.quorum import apply_facts, snapshot
from fluffle.broker.queues.quorum.encoding import (
    FIRST_VERSION,
    VERSION,
    decode,
    version_of,
)
from fluffle.broker.queues.quorum.entries import Entry
from fluffle.broker.queues.quorum.runs import MarkedRuns
from fluffle.broker.queues.quorum.state import State
from fluffle.raft.ranges import Ranges

DIGEST_BYTES = 16

SLIM_BELOW = 4
"""An entry of which no more than one in so many messages is live is worth being made smaller."""


class Image:
    """The state of one queue after some entry of its log.

    After `InvalidEntry` it is worth nothing: throw it away, and quarantine the member.
    """

    __slots__ = ("_slimmed", "reads", "state", "version")

    def __init__(
        self, state: State | None = None, *, reads: int = VERSION, version: int = FIRST_VERSION
    ) -> None:
        """`reads`: the newest version of entries that is taken."""
        self.reads = reads
        self.version = version
        """The newest that has come."""
        self.state = state or State()
        """To be read by whoever builds on it, and changed by entries alone."""
        self._slimmed: dict[int, int] = EMPTY_DICT
        """By index: how many messages are left of an entry that this member has made smaller.  No
        part of the state, for each member does that when it likes."""

    @classmethod
    def restored(cls, taken: bytes, reads: int = VERSION) -> Image:
        """The image that a snapshot was taken of.  Raises `InvalidEntry`."""
        return cls(snapshot.restore(taken, reads), reads=reads, version=taken[0])

    def apply(self, index: int, payload: bytes) -> list[int]:
        """An entry, the next of the log: which entries no live message is in any more.

        Entries that have brought no messages are never needed again and not among them.
        Raises `InvalidEntry`.
        """
        apply_facts.apply(self.state, index, decode(payload, self.reads))
        self.version = max(self.version, version_of(payload))
        dead, self.state.dead = self.state.dead, []
        return dead

    def pass_over(self, index: int) -> None:
        """An entry of consensus itself, the next of the log.  Raises `InvalidEntry`."""
        apply_facts.pass_over(self.state, index)

    def snapshot(self) -> tuple[Ranges, bytes]:
        """Which entries up to here are live, and the state: all that is needed of the log."""
        # mutant: R8
        return self.state.entries.live_indexes(), snapshot.take(self.state, self.version)

    def digest(self) -> bytes:
        """Equal on all members that have applied the same entries."""
        return blake2b(snapshot.dump(self.state, self.version), digest_size=DIGEST_BYTES).digest()

    def live_of(self, entry: Entry) -> list[range]:
        """The messages of an entry that are live, wherever they are; in no order."""
        state, stop = self.state, entry.first + entry.count
        held = (holder.held for holder in state.holders.values())
        # mutant: IM43
        places: list[MarkedRuns[Any]] = [state.returned, state.delayed, state.pending, *held]
        runs = [run for place in places for run in place.within(entry.first, stop)]
        return state.entries.ready_of(entry) + runs

    def worth_slimming(self, dead_bytes_min: int = 0) -> Iterator[tuple[int, list[range]]]:
        """Entries most of which is dead: index, and what is live.  Looks at all entries."""
        entries = list(self.state.entries.mostly_dead(SLIM_BELOW))
        indexes = {entry.index for entry in entries}
        slimmed = {index: left for index, left in self._slimmed.items() if index in indexes}
        self._slimmed = slimmed or EMPTY_DICT
        for entry in entries:
            kept = self._slimmed.get(entry.index, entry.count)
            dead_bytes = (kept - entry.live) * entry.mean_bytes
            if entry.live * SLIM_BELOW <= kept and dead_bytes >= dead_bytes_min:
                yield entry.index, self.live_of(entry)

    def slimmed(self, index: int, left: int) -> None:
        """An entry has been made smaller here; `left` messages are in it."""
        if self._slimmed is EMPTY_DICT:
            self._slimmed = {}
        self._slimmed[index] = left
