"""`LeaderServices`: what the leader of a quorum queue needs of its node: log, clock, timers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.quorum.facts import Key
from fluffle.broker.queues.quorum.messages import Effect
from fluffle.broker.queues.settings import QueueSettings


class EntrySource(Protocol):
    """The log of the queue on this node, for its readers."""

    def read_entry(self, index: int) -> bytes:
        """The payload of an entry that is durable here.  Raises `UnreadableMessages`."""

    def damaged(self, index: int) -> None:
        """An entry cannot be read."""


class Proposer(Protocol):
    """Appends entries to the log of a queue."""

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        """Append an entry; `on_outcome` is called once with whether it was applied, in the order in
        which entries are proposed."""


class LeadershipReplica(Proposer, Protocol):
    """The replica that a leadership belongs to: it knows which of its entries have no outcome."""

    def ended(self) -> None:
        """End the leadership: an entry was refused, or its outcome is unknown."""


class QueueLog(EntrySource, Proposer, Protocol):
    """The log of a queue on the node that leads it.

    A node that cannot read an entry that it wrote must not lead.
    """

    def takes(self, content_bytes: int) -> bool:
        """True if the log takes so many content bytes now.

        A log that says no asks for `pump` later: until then what is decided waits, and none is
        refused for what could have been known.
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


class NodeClock(Protocol):
    """The clock of a node."""

    def now_ms(self) -> int:
        """Milliseconds of the machine's monotonic clock."""

    def wall_ms(self) -> int:
        """The time of day that all nodes go by."""


class LeaderServices(Protocol):
    """Services of a node to the leader of a quorum queue that it has a member of."""

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
