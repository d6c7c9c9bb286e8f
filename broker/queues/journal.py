"""Journal of a durable queue: the port to what remembers its messages when the process does not.

The engine writes what happened, in batches, and asks for what it no longer holds in memory.
Nothing is durable when a method returns: it is once the commit with the number `ticket`, as it was
then, has been done.  Sequence numbers are the queue's; a stretch is from `first` up to, not
including, `stop`.  Here is also what all nodes know of a queue: its `QueueDefinition`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.deduplication_window import DeduplicationWindow
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.expiry_times import NEVER_MS, Deadlines, Expiries, part_of


def comb(count: int, step: int) -> int:
    """A number with `count` bits, `step` apart, from bit 0 on."""
    if step == 1:
        return (1 << count) - 1
    if count == 1:  # of a step that may be as long as a queue
        return 1
    return ((1 << count * step) - 1) // ((1 << step) - 1)


class Owner(NamedTuple):
    """The connection that alone may use an exclusive queue, as all nodes know it."""

    node: str
    boot: int
    number: int
    """Connections of a node are counted, in each boot anew."""
    name: str
    """Name of the connection, as listings show it."""


class QueueDefinition(NamedTuple):
    """All there is to know of a queue, its messages apart.

    What follows `owner` says where in a cluster it lives, and is empty on a lone node.
    """

    spec: QueueSpec
    groups: tuple[int, ...] = ()
    """The logs of its journal on its home, if it is durable."""
    owner: Owner | None = None
    """Connection that owns an exclusive queue."""
    id: int = 0
    """Never used again, for another queue of the same name neither.  Of a quorum queue it is the id
    of its Raft group."""
    home: str = ""
    """The node that a classic queue lives on."""
    founders: tuple[str, ...] = ()
    """The nodes that a quorum queue began on, by name."""
    members: tuple[tuple[str, int], ...] = ()
    """The nodes that it is on, each with its incarnation in the group, by name."""
    lives: tuple[tuple[str, int], ...] = ()
    """The members again, each with the incarnation of its node in the cluster: one that lost its
    disk, and joined anew, is not the member that it was."""
    wanted: tuple[str, ...] = ()
    """The nodes that it is to be on, by name; members come and go until it is so."""
    leader: str = ""
    """Member that is to lead: at first, and after a change of the definition."""
    boot: int = 0
    """The life of its home with which it ends; 0 if it outlives that."""
    successor: QueueDefinition | None = None
    """Queue that takes this one's place once it has the messages, or None.  Its `boot` is the boot
    of the home node in which it is filled: filling does not go on in another."""


def is_same(queue: QueueDefinition, other: QueueDefinition) -> bool:
    """True if two definitions are of one queue of a cluster, with its messages."""
    return queue.id == other.id != 0


def is_same_or_changing(queue: QueueDefinition, other: QueueDefinition) -> bool:
    """The same where a node is alone, too: what is durable keeps its journal, and of all else
    nothing but the successor differs."""
    if is_same(queue, other) or queue.groups == other.groups != ():
        return True
    is_other = queue.successor is None and other.successor is None
    return not is_other and queue._replace(successor=None) == other._replace(successor=None)


@dataclass(slots=True)
class Stored:
    """Messages that lie on disk together, some of them perhaps settled."""

    first: int
    stop: int
    count: int
    """How many are not settled."""
    content_bytes: int
    earliest_ms: int = NEVER_MS
    """None of them expires before this."""
    latest_ms: int = NEVER_MS
    """All of them have expired with this, if it is known."""


@dataclass(slots=True)
class LoadedMessages:
    """Messages read back from disk."""

    sequences: Sequence[int]
    """Rising; those between any two of them are of other ready lists."""
    origins: list[Origin]
    contents: list[bytes]
    expiries: Expiries | None = None
    """Expiry time of each message, or None if none ever expires."""


def part_of_loaded(loaded: LoadedMessages, start: int, stop: int) -> LoadedMessages:
    """The messages from the one at `start` up to the one at `stop`."""
    part = slice(start, stop)
    return LoadedMessages(
        loaded.sequences[part],
        loaded.origins[part],
        loaded.contents[part],
        part_of(loaded.expiries, part),
    )


@dataclass(slots=True)
class RecoveredContent:
    """Content of a journal when its queue is opened again."""

    stored: list[Stored] = field(default_factory=list)
    """In order."""
    next_sequence: int = 1
    redelivered_below: int = 1
    """Messages with lower numbers may have been handed out before."""
    requeued: list[tuple[Sequence[int], Counts, Expiries | None]] = field(default_factory=list)
    """Messages that had come back, in the order in which they did; all on disk."""
    damage: Damage | None = None
    """Why nothing may be handed out: some of what is settled is not known to be."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Messages that were written together and cannot be read, or what was settled of some."""

    place: str
    """Where on disk, for people."""
    what: str
    """How it is known."""
    first: int = 0
    """Sequence number of the first damaged message."""
    stop: int = 0
    """Behind the last one."""
    count: int = 0
    """Number of unsettled ones among them; 0 if the extent of the damage is unknown."""
    is_of_settled: bool = False
    """True if the messages can be read, but not which of them are settled."""


class UnreadableMessages(Exception):
    """The requested messages begin with damaged ones."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(f"{damage.place}: {damage.what}")
        self.damage = damage


class DiskProgress(Protocol):
    """How far the disk is."""

    ticket: int
    """The number of the commit that what is written now will be part of."""
    durable: int
    """The number of the last commit that has been done."""


class Journal(Protocol):
    """The log of one queue."""

    groups: tuple[int, ...]
    """Logs of the journal in the store: recorded with the queue, so that they are found again."""

    @property
    def commits(self) -> DiskProgress:
        """Commits to which writes go."""

    def recover(self) -> RecoveredContent:
        """Stored content of the queue; called before anything else."""

    def enqueued(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        first_sequence: int,
        *,
        apart: bool,
        expires_at_ms: Deadlines = 0,
    ) -> None:
        """Messages came in; `apart`: what is read or forgotten as a whole begins with them.  They
        never expire if that is 0."""

    def settled(self, sequences: Sequence[int]) -> None:
        """Messages are done with.  Rising numbers."""

    def unsettled(self, sequences: Sequence[int]) -> None:
        """`settled` was called of them since the last commit began, and is no longer true."""

    def evicted(self, first: int, stop: int) -> None:
        """A stretch that began apart, durable and with nothing settled, has left memory."""

    def load(self, first: int, stop: int) -> list[LoadedMessages]:
        """Read back a stretch that was evicted or recovered: what of it is not settled.

        As far as it can be read; raises `UnreadableMessages` if that is nothing.
        """

    def peek(self, first: int, stop: int) -> list[LoadedMessages]:
        """Messages with numbers from `first` up to `stop`, as `load` gives them, but left in
        place."""

    def discarded(self, first: int, stop: int) -> None:
        """A stretch that is not in memory, readable or not, is done with."""

    def forget_unreadable(self) -> None:
        """Count messages as unsettled whose settlement `recover` could not read."""

    def drop(self) -> None:
        """The queue is gone: so is all that was written of it."""

    @property
    def by_level(self) -> JournalByPriority:
        """The same, for a queue that keeps messages of each priority apart.

        That of a classic queue is a `Journal`, too: numbers say in which part messages are.
        """


class JournalByPriority(Protocol):
    """A journal of which each ready list has a part, all of which are recovered together."""

    @property
    def levels(self) -> Sequence[int]:
        """Priorities of the stored messages that were never delivered."""

    def recover_all(self) -> Mapping[int, RecoveredContent]:
        """Stored content of each ready list, by priority; called before anything else."""

    def at(self, level: int) -> Journal:
        """The part of one ready list."""


class PagedOutMessages(NamedTuple):
    """Messages, one origin a content."""

    origins: list[Origin]
    contents: list[bytes]
    expiries: Expiries | None


class PageStore(Protocol):
    """Where messages go that no journal holds, when memory is short."""

    is_wanted: bool
    """True if paging out makes sense now."""

    @property
    def is_behind(self) -> bool:
        """True if the disk should catch up before it is given more."""

    @property
    def commits(self) -> DiskProgress:
        """Commits to which writes go."""

    def write(self, origins: list[Origin], contents: list[bytes], expiries: Expiries | None) -> int:
        """Write messages; under which number they are found."""

    def read(self, index: int) -> PagedOutMessages:
        """Read back what is durable.  Raises `UnreadableMessages`."""

    def forget(self, index: int) -> None:
        """Forget the messages written as `index`, which are not wanted any more."""


class DeduplicationKeys(Protocol):
    """The keys of messages that a queue has taken: see `DeduplicationWindow`."""

    def remembered(self, packed: bytes, kept: int) -> None:
        """These are the newest keys from now on, in the commit that collects, and no more than so
        many of all are kept, the newest.  If none is kept, all is forgotten."""


class StoredDeduplicationKeys(DeduplicationKeys, Protocol):
    """The same, of a queue that may have been there before."""

    def recover(self) -> DeduplicationWindow:
        """Stored keys; called before anything is written.  Keys added to this window are stored
        from then on."""


class JournalFactory(Protocol):
    """Makes journals, for the queues of a node."""

    spill: PageStore
    """Page store for messages that no journal holds."""

    def new_groups(self) -> tuple[int, ...]:
        """Unused logs for a queue that is being declared."""

    def create(self, groups: tuple[int, ...]) -> Journal:
        """Journal of a queue that has just been declared."""

    def reopen(self, groups: tuple[int, ...]) -> Journal:
        """Journal of a queue that existed when the node last ended."""

    def keys(self, groups: tuple[int, ...]) -> StoredDeduplicationKeys:
        """Store of the deduplication keys of such a queue."""
