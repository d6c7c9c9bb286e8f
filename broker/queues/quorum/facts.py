"""Facts about a quorum queue, as its leader appends them to its log.

A fact names results, never rules: which messages, by their sequence numbers, what became of them,
and with which counts.  A member that applies it decides nothing, so it means the same on each
member.  It is true because the leader had applied, or had itself put in front of it, all that comes
before.

Messages are named in runs (see `runs`).  Those of one run were in one place.  A hand-out has a
**token**: the message, its holder, and the **ordinal**, how often it had been handed out and come
back before; an end with another ordinal means a hand-out that has ended before.

Who uses a queue has a **key**: sessions, consumers and getters, from one counter, never twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from fluffle.protocol.headers import DeathReason

Key: TypeAlias = int

NO_HOLDER = 0
"""Key that no holder has."""


class InvalidEntry(ValueError):
    """An entry or a snapshot that cannot be taken for true here; says why.

    Its kind or version is not known, it is damaged, or a fact in it contradicts what all facts
    before it amount to.  Whoever is given such a thing must not go on as if it had not been: the
    member is quarantined, and its image thrown away, for it may have been changed in part.

    It is a `ValueError` because the host of a group takes that, from its image, for damage.
    """


class RemovalReason(IntEnum):
    """Why a message is not in the queue any more."""

    ACKED = 0
    HANDED_OVER = 1
    """The message went to a consumer that does not acknowledge."""
    PURGED = 2
    DEAD_LETTERED = 3
    """All that it was republished to have it."""
    REJECTED = 4
    EXPIRED = 5
    MAXLEN = 6
    DELIVERY_LIMIT = 7


DEATHS = frozenset(
    {
        RemovalReason.REJECTED,
        RemovalReason.EXPIRED,
        RemovalReason.MAXLEN,
        RemovalReason.DELIVERY_LIMIT,
    }
)
"""Reasons for which a message is dead-lettered, where an exchange is configured."""


class RequeueReason(IntEnum):
    """Why a message came back."""

    NACKED = 0
    """basic.nack or basic.recover."""
    REJECTED = 1
    """basic.reject."""
    LOST = 2
    """The channel, the connection or the node of its holder ended."""
    TIMED_OUT = 3
    """The message was held beyond the consumer timeout."""
    SUSPECTED = 4
    """The node of its holder could not be reached for too long."""
    UNKNOWN = 5
    """The message came after its holder had ended."""


class SessionId(NamedTuple):
    """A numbered stream from one life of one node to the queue."""

    node: str
    boot: int
    nonce: int
    """Drawn at each boot: a node that was put back to an old disk is not taken for itself."""
    counter: int


@dataclass(slots=True)
class Published:
    """Operations `first` to `first + count - 1` of a session were publishes, and are enqueued.

    All of them in an entry together are as many as the messages that it enqueues.
    """

    session: Key
    first: int
    count: int


@dataclass(slots=True)
class OperationsRejected:
    """Operations of a session came to nothing: publishes that the queue did not take, settlements
    for good of what had come back before."""

    session: Key
    first: int
    count: int


@dataclass(slots=True)
class OperationsDone:
    """Other operations of a session are done: their answer follows from what is so now.  Publishes
    are among them if the queue has had their messages before."""

    session: Key
    first: int
    count: int


@dataclass(slots=True)
class OperationDoneWithAnswer:
    """An operation of a session is done, with an answer that must be kept for it."""

    session: Key
    number: int
    answer: int


@dataclass(slots=True)
class Acknowledged:
    """The session knows the outcome of all operations below `below`; they need not be kept."""

    session: Key
    below: int


@dataclass(slots=True)
class SessionOpened:
    """The first operation of a session will have the number 1."""

    key: Key
    boot: int
    nonce: int
    counter: int
    node: str

    @property
    def id(self) -> SessionId:
        return SessionId(self.node, self.boot, self.nonce, self.counter)


@dataclass(slots=True)
class SessionClosed:
    """Nothing will come of it any more, and none of its consumers and getters is left."""

    key: Key


@dataclass(slots=True)
class ConsumerAttached:
    """A consumer takes part, behind those that were there before."""

    key: Key
    session: Key
    channel: int
    """Channel on its node, by which consumers are found that end with a channel."""
    priority: int
    prefetch: int
    no_ack: bool
    is_exclusive: bool
    tag: str
    arguments: bytes
    """A field table, as on the wire."""


@dataclass(slots=True)
class GetterAttached:
    """A channel may hold what basic.get gives it."""

    key: Key
    session: Key
    channel: int


@dataclass(slots=True)
class Detached:
    """A consumer or a getter gets nothing more; it is there until what it holds has left it."""

    key: Key


@dataclass(slots=True)
class SacActive:
    """Change of the single active consumer; `NO_HOLDER`: all attached consumers get messages."""

    key: Key


@dataclass(slots=True)
class Delivered:
    """Messages were dealt out: the first to the first holder, the second to the second, in turn.

    Each is in its holder's hands until a fact says otherwise.
    """

    ordinal: int
    holders: list[Key]
    runs: list[range]


@dataclass(slots=True)
class DeliveredWithoutAck:
    """The same, to those that do not acknowledge: hand-out and settlement in one."""

    ordinal: int
    holders: list[Key]
    runs: list[range]


@dataclass(slots=True)
class Settled:
    """A holder has acknowledged messages."""

    holder: Key
    ordinal: int
    runs: list[range]


@dataclass(slots=True)
class Requeued:
    """Messages have left their holder's hands and wait again, in this order, behind those that
    came back before.

    From now on they have `ordinal + 1` ended hand-outs.
    """

    holder: Key
    ordinal: int
    delivery_count: int
    """Deliveries of each message that have failed, this one included if it has."""
    how: RequeueReason
    ready_at_ms: int
    """Time before which the messages are not delivered; they wait for a `DelayElapsed` that names
    them; 0: no delay."""
    runs: list[range]


@dataclass(slots=True)
class DelayElapsed:
    """Messages that came back have waited for long enough."""

    runs: list[range]


@dataclass(slots=True)
class Dropped:
    """Messages are gone, for one of `DEATHS`.

    Rejected ones were in a holder's hands, all others were ready.
    """

    reason: RemovalReason
    holder: Key
    ordinal: int
    runs: list[range]


@dataclass(slots=True)
class DeadLettering:
    """Messages are dead, and kept until they have been republished: see `Dropped`."""

    reason: RemovalReason
    time_ms: int
    """When they died, in queue time."""
    holder: Key
    ordinal: int
    runs: list[range]


@dataclass(slots=True)
class DeadLettered:
    """All that dead messages were republished to has them, or nothing wants them."""

    runs: list[range]


@dataclass(slots=True)
class Purged:
    """Removal of messages that no client held."""

    runs: list[range]


@dataclass(slots=True)
class SpecChanged:
    """The queue goes by these settings, because it falls under other policies."""

    revision: int
    """Revision of the metadata that the specification comes from; higher than before."""
    spec: bytes
    """See `specification`."""


@dataclass(slots=True)
class VersionAnnounced:
    """A member can read entries up to this version of their form."""

    version: int
    member: str


@dataclass(slots=True)
class Arrived:
    """Dead letters of another queue are among the messages that this entry enqueues."""

    source: int
    """The group of that queue."""
    term: int
    """Raft term in which the source was led by the sender; never less than before."""
    runs: list[range]
    """Source's numbers of them: none that has arrived before, as far as is remembered."""


@dataclass(slots=True)
class ArrivalsKnown:
    """Another queue, led in that term, has on record which of its dead have arrived: they need not
    be remembered."""

    source: int
    term: int
    below: int
    """All below that."""
    runs: list[range]
    """And these, which are remembered."""


@dataclass(slots=True)
class SourceGone:
    """The source queue is deleted: nothing of it is remembered."""

    source: int


@dataclass(slots=True)
class Remembered:
    """Messages with these keys are in the queue, or were; should they come again, they are
    dropped."""

    packed: bytes
    """The newest keys from now on: see `DeduplicationWindow`."""
    kept: int
    """Number of keys known from now on, the newest of all."""


Fact: TypeAlias = (
    Published
    | OperationsRejected
    | OperationsDone
    | OperationDoneWithAnswer
    | Acknowledged
    | SessionOpened
    | SessionClosed
    | ConsumerAttached
    | GetterAttached
    | Detached
    | SacActive
    | Delivered
    | DeliveredWithoutAck
    | Settled
    | Requeued
    | DelayElapsed
    | Dropped
    | DeadLettering
    | DeadLettered
    | Purged
    | SpecChanged
    | VersionAnnounced
    | Arrived
    | ArrivalsKnown
    | SourceGone
    | Remembered
)

KINDS: Mapping[int, type[Fact]] = {
    1: Published,
    2: OperationsRejected,
    3: OperationsDone,
    4: OperationDoneWithAnswer,
    5: Acknowledged,
    6: SessionOpened,
    7: SessionClosed,
    8: ConsumerAttached,
    9: GetterAttached,
    10: Detached,
    11: SacActive,
    12: Delivered,
    13: DeliveredWithoutAck,
    14: Settled,
    15: Requeued,
    16: DelayElapsed,
    17: Dropped,
    18: DeadLettering,
    19: DeadLettered,
    20: Purged,
    21: SpecChanged,
    22: VersionAnnounced,
    23: Arrived,
    24: ArrivalsKnown,
    25: SourceGone,
    26: Remembered,
}
"""Fact by its number on disk.  Numbers are never used again; a new one needs a new version."""

DEATH_REASONS = {
    RemovalReason.REJECTED: DeathReason.REJECTED,
    RemovalReason.EXPIRED: DeathReason.EXPIRED,
    RemovalReason.MAXLEN: DeathReason.MAXLEN,
    RemovalReason.DELIVERY_LIMIT: DeathReason.DELIVERY_LIMIT,
}

REASONS = {death: reason for reason, death in DEATH_REASONS.items()}
