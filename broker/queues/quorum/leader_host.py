"""Host of a leadership: the member of a queue on its node, as whoever leads the queue uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.quorum.effects import Effect
from fluffle.broker.queues.quorum.facts import Key
from fluffle.broker.queues.quorum.message_reader import EntrySource
from fluffle.broker.queues.quorum.queue_time import NodeClock
from fluffle.broker.queues.settings import QueueSettings


class Proposer(Protocol):
    """Way of the entries of a leadership into its log."""

    def propose(self, payload: bytes, on_fate: Callable[[bool], None]) -> None:
        """Append an entry; `on_fate` hears once whether it was applied, in the order in which
        entries are proposed."""

    def ended(self) -> None:
        """An entry was not taken, or nobody knows: the leadership is over."""


class QueueLog(EntrySource, Protocol):
    """The log of a queue on the node that leads it.

    Whoever cannot read an entry that it wrote must not lead.
    """

    def propose(self, payload: bytes, on_fate: Callable[[bool], None]) -> None:
        """See `Proposer`."""

    def takes(self, content_bytes: int) -> bool:
        """Whether it takes so many bytes of messages now.

        Whoever says no asks for `pump` later: until then what is decided waits, and none is refused
        for what could have been known.
        """

    def may_grow(self) -> bool:
        """Whether the disk has room for messages that publishers have under way: else they are
        refused, so that nothing which makes room has to wait behind them.  What has died in another
        queue never is: that one gives up as much."""

    def readers(self) -> Mapping[str, int]:
        """The version of entries that each member can read, by the name of its node."""


class KnownQueues(Protocol):
    """The queues of which dead letters may come, as far as a node knows them."""

    def is_there(self, group: int) -> bool:
        """Whether there is a queue of that group, as far as is known here."""

    def is_gone(self, group: int) -> bool:
        """Whether it is known that there was, and is no more: nothing comes from there again."""


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
    def dead_letter_patience_ms(self) -> int:
        """For how long a queue may say nothing of what has died and must arrive there."""

    @property
    def consumer_timeout_ms(self) -> int | None:
        """For how long messages may be in hands, where nobody says otherwise; None: for ever."""

    def room(self, holder: Key) -> int:
        """How many messages the edge of a consumer takes now; it wakes the consumer after a 0."""

    def touch(self) -> None:
        """Have `pump` called before this turn ends."""

    def wake(self, delay_ms: int) -> None:
        """Have it called after so many milliseconds."""

    def release(self, effects: list[Effect]) -> None:
        """Take what edges must be told."""

    def ended(self) -> None:
        """The leadership is over."""

    def disused(self) -> None:
        """Nobody has used the queue for as long as it is to be there without: it is to be deleted,
        if this still leads."""

    def dead_letter(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        """Republish what has died."""

    def dropped_duplicates(self, count: int) -> None:
        """So many messages were known, and are not taken again."""
