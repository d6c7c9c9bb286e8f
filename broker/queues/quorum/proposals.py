"""Proposals of a leadership: entries on their way into the log, and effects that wait for them.

    decided --> kept with the entry that is being built --> under way --> applied: they leave

Effects leave in the order in which they were decided.  An entry is known by the order of proposals
here: who proposes hears of each, in that order, whether it was applied at its own index and term.
So an index that another leader's entry takes releases nothing.

`LeaderHost` is the member of the queue on its node, as its leadership uses it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.quorum.dead_letter_outbox import Dead
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder, EntryVersions, NodeClock
from fluffle.broker.queues.quorum.entry_codec import FactBatch, encode
from fluffle.broker.queues.quorum.facts import Key, Purged
from fluffle.broker.queues.quorum.log_journal import EntrySource, PendingPurge
from fluffle.broker.queues.quorum.messages import Effect
from fluffle.broker.queues.settings import QueueSettings


class Proposer(Protocol):
    """Way of the entries of a leadership into its log."""

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        """Append an entry; `on_outcome` hears once whether it was applied, in the order in which
        entries are proposed."""

    def ended(self) -> None:
        """End the leadership: an entry was refused, or its outcome is unknown."""


class QueueLog(EntrySource, Protocol):
    """The log of a queue on the node that leads it.

    A node that cannot read an entry that it wrote must not lead.
    """

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        """See `Proposer`."""

    def takes(self, content_bytes: int) -> bool:
        """True if the log takes so many content bytes now.

        Whoever says no asks for `pump` later: until then what is decided waits, and none is refused
        for what could have been known.
        """

    def may_grow(self) -> bool:
        """True if the disk has room for more published messages; else they are refused, so that
        what frees room need not wait behind them.  Dead letters are never refused: their source
        queue frees as much."""

    def readers(self) -> Mapping[str, int]:
        """The version of entries that each member can read, by the name of its node."""


class KnownQueues(Protocol):
    """The queues of which dead letters may come, as far as a node knows them."""

    def is_there(self, group: int) -> bool:
        """True if a queue of that Raft group exists, as far as is known here."""

    def is_gone(self, group: int) -> bool:
        """True if the queue of that Raft group is known to be deleted."""


BufferedEffect: TypeAlias = Effect | Dead

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
        """Until the entry that is being built is applied."""
        self._waiting.append(later)  # mutant: R1

    def keep_known(self, later: EffectSource) -> None:
        """Until everything is applied that has been decided so far; maybe it is."""
        if self._builder:  # mutant: LE1
            self._waiting.append(later)
        elif self._under_way:  # mutant: LE2
            self._under_way[-1].append(later)
        else:
            self._known.append(later)

    def propose(self) -> None:
        """The entry is built, and under way."""
        self._under_way.append(self._waiting)
        self._waiting = []

    def apply(self) -> list[BufferedEffect]:
        """The first entry under way is applied: what leaves now."""
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

    sweep: PendingPurge
    batch: FactBatch
    """First facts of each of its entries: made when the purge was decided, like those of later
    proposals."""


class Proposals:
    """Proposals of one leadership, in order."""

    __slots__ = (
        "_host",
        "_log",
        "_on_outcome",
        "_on_swept",
        "_proposer",
        "_versions",
        "_waiting",
    )  # fmt: skip

    def __init__(
        self,
        versions: EntryVersions,
        host: LeaderHost,
        proposer: Proposer,
        *,
        on_outcome: Callable[[bool], None],
        on_swept: Callable[[bool], None],
    ) -> None:
        """`on_outcome` hears what becomes of each entry, `on_swept` of each piece of
        a purge."""
        self._versions = versions
        self._host = host
        self._log = host.log
        self._proposer = proposer
        self._on_outcome = on_outcome
        self._on_swept = on_swept
        self._waiting: deque[ProposedEntry | ProposedPurge] = deque()

    def __bool__(self) -> bool:
        """True if proposals wait."""
        return bool(self._waiting)

    def add(self, batch: FactBatch, content_bytes: int) -> None:
        """An entry is built."""
        payload = encode(batch, self._versions.version)
        self._waiting.append(ProposedEntry(payload, content_bytes))

    def sweep(self, sweep: PendingPurge, batch: FactBatch) -> None:
        """A purge is to be said before all that comes."""
        self._waiting.append(ProposedPurge(sweep, batch))

    def propose(self) -> None:
        """Propose as many entries as the log takes now, up to one piece of a purge; the rest waits
        for later turns."""
        while self._waiting:
            first = self._waiting[0]
            content_bytes = first.content_bytes if isinstance(first, ProposedEntry) else 0
            if not self._log.takes(content_bytes):
                return
            if isinstance(first, ProposedPurge):
                self._sweep(first)
                return
            self._waiting.popleft()
            self._proposer.propose(first.payload, self._on_outcome)

    def _sweep(self, swept: ProposedPurge) -> None:
        if runs := swept.sweep.next():
            piece = replace(swept.batch, facts=[Purged(runs)])
            self._proposer.propose(encode(piece, self._versions.version), self._on_swept)
        if not swept.sweep:
            self._waiting.popleft()
        self._host.touch()


class LeaderHost(Protocol):
    """The member of a queue on the node that leads it."""

    @property
    def group(self) -> int:
        """The Raft group of the queue."""

    @property
    def spec(self) -> QueueSpec:
        """Specification of the queue, which is known before it is led."""

    @property
    def log(self) -> QueueLog: ...

    @property
    def clock(self) -> NodeClock: ...

    @property
    def queues(self) -> KnownQueues: ...

    @property
    def dead_letter_confirm_timeout_ms(self) -> int:
        """Time in ms for which a target queue may leave a dead letter unconfirmed."""

    @property
    def consumer_timeout_ms(self) -> int | None:
        """Time in ms for which messages may be held by default; None: for ever."""

    def room(self, holder: Key) -> int:
        """How many messages the client of a consumer takes now; it wakes the consumer after a 0."""

    def touch(self) -> None:
        """Have `pump` called before this turn ends."""

    def wake(self, delay_ms: int) -> None:
        """Have it called after so many milliseconds."""

    def release(self, effects: list[Effect]) -> None:
        """Take what goes to clients."""

    def ended(self) -> None:
        """The leadership is over."""

    def queue_expired(self) -> None:
        """Delete the queue, which was unused for its whole x-expires time."""

    def dead_letter(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        """Republish what has died."""

    def dropped_duplicates(self, count: int) -> None:
        """Count messages that were known, and were dropped."""
