"""Context of a leadership: the functions of its host that it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.queues.dead_letter_port import RepublishDeadLetters
from fluffle.broker.queues.deduplication import OnDuplicates, ignore_duplicates
from fluffle.broker.queues.quorum.dead_letter_outbox import PATIENCE_MS
from fluffle.broker.queues.quorum.effects import Effect
from fluffle.broker.queues.quorum.holders import Room
from fluffle.broker.queues.quorum.message_reader import ReadEntry

if TYPE_CHECKING:
    from fluffle.broker.queues.quorum.leadership import Leadership


class Propose(Protocol):
    """Appends an entry to the log that this leadership leads."""

    def __call__(self, payload: bytes, on_fate: Callable[[bool], None]) -> None:
        """`on_fate` hears once whether it was applied, in the order of the proposals."""


class ProposalPort(Protocol):
    """Where the entries of a leadership go."""

    @property
    def propose(self) -> Propose: ...

    @property
    def ended(self) -> Callable[[], None]:
        """An entry was not taken, or nobody knows: it is over."""


@dataclass(frozen=True, slots=True)
class LeaderContext:
    """The ports of one leadership."""

    propose: Propose
    read_entry: ReadEntry
    damaged: Callable[[int], None]
    """An entry cannot be read; whoever cannot read what it wrote must not lead."""
    takes: Callable[[int], bool]
    """Whether the log takes so many bytes of messages now.  Whoever says no asks for `pump` later:
    until then what is decided waits: none is refused for what could have been known."""
    may_grow: Callable[[], bool]
    """Whether the disk has room for messages that publishers have under way: else they are refused,
    so that nothing which makes room has to wait behind them.  What has died in another queue never
    is: that one gives up as much."""
    wall_ms: Callable[[], int]
    """The time of day that all nodes go by: see `QueueTime`."""
    count_ms: Callable[[], int]
    """What this machine counts, which nobody sets."""
    room: Room
    touch: Callable[[Leadership], None]
    """Asks for `pump` to be called before this turn ends."""
    wake: Callable[[int], None]
    """The same after so many milliseconds."""
    release: Callable[[list[Effect]], None]
    """Takes what edges must be told."""
    ended: Callable[[], None]
    """An entry was not taken, or nobody knows: it is over."""
    disused: Callable[[Leadership], None]
    """Nobody has used the queue for as long as it is to be there without: it is to be deleted, if
    this still leads."""
    dead_letter: RepublishDeadLetters | None = None
    """Republishes what has died.  None: nobody does, and it is gone."""
    source: tuple[int, int] = (0, 0)
    """The group of this queue and the term in which it is led, for those that get its dead."""
    is_there: Callable[[int], bool] = lambda _group: True
    """Whether there is a queue of that group, as far as is known here."""
    is_gone: Callable[[int], bool] = lambda _group: False
    """Whether it is known that there was, and is no more: nothing comes from there again."""
    dead_letter_patience_ms: int = PATIENCE_MS
    """For how long a queue may say nothing of what has died and must arrive there."""
    consumer_timeout_ms: int | None = None
    """For how long messages may be in hands, where nobody says otherwise; None: for ever."""
    on_duplicates: OnDuplicates = ignore_duplicates
    readers: Callable[[], Mapping[str, int]] = dict
    """The version of entries that each member can read, by the name of its node."""
