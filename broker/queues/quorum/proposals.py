"""Entries that are drafted, and purges that have more to say than one, until the log takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from fluffle.broker.queues.quorum.encoding import FactBatch, encode
from fluffle.broker.queues.quorum.entry_version import EntryVersions
from fluffle.broker.queues.quorum.facts import Purged
from fluffle.broker.queues.quorum.leader_context import Propose
from fluffle.broker.queues.quorum.purge import Purge


@dataclass(slots=True)
class ProposedEntry:
    """Entry that waits for the log to take it."""

    payload: bytes
    content_bytes: int
    """Of its messages."""


@dataclass(slots=True)
class ProposedPurge:
    """Entries that are only made when it is their turn."""

    sweep: Purge
    batch: FactBatch
    """As each of them begins: made when the purge was decided, like what comes behind it."""


class Proposals:
    """Proposals of one leadership, in order."""

    __slots__ = (
        "_announcing", "_on_fate", "_on_swept", "_propose", "_takes", "_touch", "_waiting",
    )  # fmt: skip

    def __init__(
        self,
        announcing: EntryVersions,
        takes: Callable[[int], bool],
        propose: Propose,
        touch: Callable[[], None],
        *,
        on_fate: Callable[[bool], None],
        on_swept: Callable[[bool], None],
    ) -> None:
        """`on_fate` hears what becomes of each entry that was drafted, `on_swept` of each piece of
        a purge.  `touch` asks for `propose` in the next turn."""
        self._announcing = announcing
        self._takes = takes
        self._propose = propose
        self._touch = touch
        self._on_fate = on_fate
        self._on_swept = on_swept
        self._waiting: deque[ProposedEntry | ProposedPurge] = deque()

    def __bool__(self) -> bool:
        """Whether any waits."""
        return bool(self._waiting)

    def add(self, batch: FactBatch, content_bytes: int) -> None:
        """An entry is drafted."""
        payload = encode(batch, self._announcing.version)
        self._waiting.append(ProposedEntry(payload, content_bytes))

    def sweep(self, sweep: Purge, batch: FactBatch) -> None:
        """A purge is to be said before all that comes."""
        self._waiting.append(ProposedPurge(sweep, batch))

    def propose(self) -> None:
        """As many as the log takes now, up to a piece of a purge: more is for other turns."""
        while self._waiting:
            first = self._waiting[0]
            if not self._takes(first.content_bytes if isinstance(first, ProposedEntry) else 0):
                return
            if isinstance(first, ProposedPurge):
                self._sweep(first)
                return
            self._waiting.popleft()
            self._propose(first.payload, self._on_fate)

    def _sweep(self, swept: ProposedPurge) -> None:
        if runs := swept.sweep.next():
            piece = replace(swept.batch, facts=[Purged(runs)])
            self._propose(encode(piece, self._announcing.version), self._on_swept)
        if not swept.sweep:
            self._waiting.popleft()
        self._touch()
