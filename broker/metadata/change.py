"""Facts, and decided changes of definitions: the facts that begin and end, and what that rests on.

A change holds results, so that applying it needs no rules: the decision lists all that goes with
what goes.  See docs/decisions/0009.  The owner of a definition puts what outlives the process into
`Facts` at the moment of a change: a kind, a name that is unique within it, and a value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeAlias

Key: TypeAlias = tuple[str | bytes, ...]
"""A name: what it stands in, then its own; `Kind` says which parts."""

Entry: TypeAlias = dict[str, Any]
"""A fact that is kept as it is given in definitions: an object in JSON."""


class Kind(StrEnum):
    """Kind of a stored fact, with the parts of its names."""

    STARTED = "started"
    """(): what belongs to a first start has been made."""
    USER = "user"
    """(user)"""
    VHOST = "vhost"
    """(vhost)"""
    DOOMED = "doomed"
    """(vhost): it is being deleted; what is left of it goes at the next start."""
    PERMISSION = "permission"
    """(user, vhost)"""
    TOPIC_PERMISSION = "topic_permission"
    """(user, vhost, exchange)"""
    EXCHANGE = "exchange"
    """(vhost, exchange)"""
    QUEUE = "queue"
    """(vhost, queue)"""
    BINDING = "binding"
    """(vhost, source, kind of destination, destination, routing key, arguments)"""
    POLICY = "policy"
    """(vhost, policy)"""
    PARAMETER = "parameter"
    """(vhost, component, parameter)"""
    GLOBAL_PARAMETER = "global_parameter"
    """(parameter)"""
    RETAINED = "retained"
    """(vhost, topic)"""
    CLIENT_SESSION = "client_session"
    """(vhost, client)"""
    CLIENT_PACKETS = "client_packets"
    """(vhost, client, stage, page)"""
    CLIENT_WILL = "client_will"
    """(vhost, client, will): it is due, and may not be in its queues yet."""
    NODE = "node"
    """(node): it is one of the cluster; there are none of these where a node is alone."""


Name: TypeAlias = tuple[Kind, Key]


class Fact(NamedTuple):
    """Statement that holds, or held until now."""

    kind: Kind
    key: Key
    value: object = None
    outlives: bool = True
    """True if it is to be there when a lone node starts again."""

    @property
    def name(self) -> Name:
        return self.kind, self.key


class CountLimit(NamedTuple):
    """Condition that a virtual host has fewer than `limit` objects of a kind."""

    kind: Kind
    vhost: str
    limit: int


@dataclass(frozen=True, slots=True)
class FactGroup:
    """Facts of one kind in one virtual host, by their values: each is named when it is asked for.

    To name ten thousand together takes milliseconds, and then the garbage collector looks at them.
    """

    kind: Kind
    vhost: str
    values: Sequence[Any]
    key_of: Callable[[str, Any], Key]
    """(virtual host, value) -> the key of its fact."""
    outlives: bool

    def __iter__(self) -> Iterator[Fact]:
        kind, vhost, key_of, outlives = self.kind, self.vhost, self.key_of, self.outlives
        return (Fact(kind, key_of(vhost, value), value, outlives) for value in self.values)


class RemovedFacts(Collection[Fact]):
    """Facts that end, very many of them in groups."""

    def __init__(self, groups: tuple[FactGroup, ...], others: tuple[Fact, ...]) -> None:
        self.groups = groups
        self.others = others

    def __len__(self) -> int:
        return sum(len(group.values) for group in self.groups) + len(self.others)

    def __iter__(self) -> Iterator[Fact]:
        return chain(chain.from_iterable(self.groups), self.others)

    def __contains__(self, fact: object) -> bool:
        return any(fact == each for each in self)

    def joined(self, other: RemovedFacts) -> RemovedFacts:
        return RemovedFacts(self.groups + other.groups, self.others + other.others)


def in_groups(removes: Collection[Fact]) -> RemovedFacts:
    """Yield groups of changes, where it does not matter how few there are."""
    return removes if isinstance(removes, RemovedFacts) else RemovedFacts((), tuple(removes))


class Change(NamedTuple):
    """Facts that end, and facts that begin or have another value: all of them, or none."""

    removes: tuple[Fact, ...] | RemovedFacts = ()
    """Facts to remove, which exist, with all facts inside them."""
    puts: tuple[Fact, ...] = ()
    """Behind whatever they stand in."""
    rests_on: tuple[Name, ...] = ()
    """Names that were looked at, those of nothing too: their facts are what they were."""
    room: tuple[CountLimit, ...] = ()

    def joined(self, other: Change) -> Change:
        """Return both changes as one."""
        if isinstance(self.removes, tuple) and isinstance(other.removes, tuple):
            removes: tuple[Fact, ...] | RemovedFacts = self.removes + other.removes
        else:
            removes = in_groups(self.removes).joined(in_groups(other.removes))
        return Change(
            removes,
            self.puts + other.puts,
            self.rests_on + other.rests_on,
            self.room + other.room,
        )

    @property
    def changes_nothing(self) -> bool:
        return not (self.removes or self.puts)


NOTHING = Change()
"""Change without effect, for requests that are fulfilled already."""


class Facts(Protocol):
    """Receiver of changed facts, which are durable later: see `Commits`."""

    def put(self, kind: Kind, key: Key, value: object) -> None:
        """Put a fact, in place of what was under that name."""

    def remove(self, kind: Kind, key: Key) -> None:
        """Remove a fact."""

    def remove_group(self, group: FactGroup) -> None:
        """Remove very many facts of one kind; their keys may be asked for later, by a thread."""

    def together(self) -> AbstractContextManager[None]:
        """Have what is put and removed meanwhile durable at once, or not at all."""
