"""Proposals of a leadership: entries on their way into the log, and effects that wait for them.

    decided --> kept with the entry that is being built --> under way --> applied: they leave

A publish is confirmed by an effect, too: the reply `DoneReply`, which leaves when the entry of the
publish is applied, so when a majority has it on disk.

Effects leave in the order in which they were decided.  An entry is known by the order of proposals
here: the leadership hears of each, in that order, whether it was applied at its own index and term.
So an index that another leader's entry takes releases nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder, EntryVersions
from fluffle.broker.queues.quorum.entry_codec import FactBatch, encode
from fluffle.broker.queues.quorum.facts import Purged, RemovalReason
from fluffle.broker.queues.quorum.leader_services import LeaderServices, Proposer
from fluffle.broker.queues.quorum.log_journal import PendingPurge
from fluffle.broker.queues.quorum.messages import Effect


@dataclass(slots=True)
class DeadLetterEffect:
    """Messages are on record as dead, and are to be republished.  For no client."""

    reason: RemovalReason
    time_ms: int
    counts: Counts
    """Delivery counts of each of them."""
    run: range
    origins: list[Origin]
    """None at all if the messages have to be read."""
    contents: list[bytes]
    must_arrive: bool = False
    """See `DeadLetterOutbox`."""


BufferedEffect: TypeAlias = Effect | DeadLetterEffect

EffectSource: TypeAlias = Callable[[], Sequence[BufferedEffect]]
"""Effects that are only known when they may leave."""


class EffectBuffer:
    """Effects of one leadership, held until the entry they rest on is applied, and dropped with the
    leadership."""

    __slots__ = ("_builder", "_known", "_under_way", "_waiting")

    def __init__(self, builder: EntryBuilder) -> None:
        self._builder = builder
        self._waiting: list[EffectSource] = []
        """Effects that depend on the entry being built."""
        self._under_way: list[list[EffectSource]] = []
        """The same of each entry that is proposed and not applied."""
        self._known: list[EffectSource] = []
        """Effects that depend on applied entries alone."""

    def keep(self, later: EffectSource) -> None:
        """Keep effects until the entry that is being built is applied."""
        self._waiting.append(later)  # mutant: R1

    def keep_known(self, later: EffectSource) -> None:
        """Keep effects until everything decided so far is applied, which it may be already."""
        if self._builder:  # mutant: LE1
            self._waiting.append(later)
        elif self._under_way:  # mutant: LE2
            self._under_way[-1].append(later)
        else:
            self._known.append(later)

    def entry_ended(self) -> None:
        """Have what is kept from now on wait for the next entry."""
        self._under_way.append(self._waiting)
        self._waiting = []

    def entry_applied(self) -> list[BufferedEffect]:
        """Remove and return the effects of the first entry under way, which is applied."""
        return _all(self._under_way.pop(0))

    def take_known(self) -> list[BufferedEffect]:
        """Remove and return the effects that need no entry."""
        known = self._known
        if not known:
            return []
        self._known = []
        return _all(known)


def _all(kept: list[EffectSource]) -> list[BufferedEffect]:
    return [effect for later in kept for effect in later()]


@dataclass(slots=True)
class ProposedEntry:
    """Entry that waits for the log to take it."""

    payload: bytes
    content_bytes: int
    """Content bytes of its messages."""


@dataclass(slots=True)
class ProposedPurge:
    """Entries that are only made when it is their turn."""

    pieces: PendingPurge
    batch: FactBatch
    """First facts of each of its entries: made when the purge was decided, like those of later
    proposals."""


class Proposals:
    """Proposals of one leadership, in order."""

    __slots__ = (
        "_log",
        "_on_outcome",
        "_on_piece",
        "_proposer",
        "_services",
        "_versions",
        "_waiting",
    )  # fmt: skip

    def __init__(
        self,
        versions: EntryVersions,
        services: LeaderServices,
        proposer: Proposer,
        *,
        on_outcome: Callable[[bool], None],
        on_piece: Callable[[bool], None],
    ) -> None:
        """`on_outcome` is called with whether each entry was applied, `on_piece` likewise for each
        piece of a purge."""
        self._versions = versions
        self._services = services
        self._log = services.log
        self._proposer = proposer
        self._on_outcome = on_outcome
        self._on_piece = on_piece
        self._waiting: deque[ProposedEntry | ProposedPurge] = deque()

    def __bool__(self) -> bool:
        """True if proposals wait."""
        return bool(self._waiting)

    def add(self, batch: FactBatch, content_bytes: int) -> None:
        """Add an entry that is built; `content_bytes` is the size of its messages."""
        payload = encode(batch, self._versions.version)
        self._waiting.append(ProposedEntry(payload, content_bytes))

    def add_purge(self, pieces: PendingPurge, batch: FactBatch) -> None:
        """Add a purge, which is recorded before all that is proposed later."""
        self._waiting.append(ProposedPurge(pieces, batch))

    def propose(self) -> None:
        """Propose as many entries as the log takes now, up to one piece of a purge; the rest waits
        for later turns."""
        while self._waiting:
            first = self._waiting[0]
            content_bytes = first.content_bytes if isinstance(first, ProposedEntry) else 0
            if not self._log.takes(content_bytes):
                return
            if isinstance(first, ProposedPurge):
                self._propose_piece(first)
                return
            self._waiting.popleft()
            self._proposer.propose(first.payload, self._on_outcome)

    def _propose_piece(self, purge: ProposedPurge) -> None:
        if runs := purge.pieces.next():
            piece = replace(purge.batch, facts=[Purged(runs)])
            self._proposer.propose(encode(piece, self._versions.version), self._on_piece)
        if not purge.pieces:
            self._waiting.popleft()
        self._services.touch()
