"""Decided changes of definitions: the facts that begin and end, and what that rests on.

A change holds results, so that applying it needs no rules: the decision lists all that goes with
what goes.  See docs/decisions/0009.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from fluffle.broker.metadata.facts import Key, Kind

Name: TypeAlias = tuple[Kind, Key]


class Fact(NamedTuple):
    """Something that is so, or was until now."""

    kind: Kind
    key: Key
    value: object = None
    outlives: bool = True
    """Whether it is to be there when a lone node starts again."""

    @property
    def name(self) -> Name:
        return self.kind, self.key


class CountLimit(NamedTuple):
    """There are fewer than `limit` of a kind in a virtual host."""

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

    __slots__ = ("groups", "others")

    def __init__(self, groups: tuple[FactGroup, ...], others: tuple[Fact, ...]) -> None:
        self.groups = groups
        self.others = others

    def __len__(self) -> int:
        return sum(len(group.values) for group in self.groups) + len(self.others)

    def __iter__(self) -> Iterator[Fact]:
        return chain(chain.from_iterable(self.groups), self.others)

    def __contains__(self, fact: object) -> bool:
        return any(fact == each for each in self)

    @property
    def outliving(self) -> Iterator[Fact]:
        """Return the facts that were to be there after a restart, without naming the others."""
        groups = (group for group in self.groups if group.outlives)
        others = (fact for fact in self.others if fact.outlives)
        return chain(chain.from_iterable(groups), others)

    def joined(self, other: RemovedFacts) -> RemovedFacts:
        return RemovedFacts(self.groups + other.groups, self.others + other.others)


def in_groups(removes: Collection[Fact]) -> RemovedFacts:
    """Yield groups of changes, where it does not matter how few there are."""
    return removes if isinstance(removes, RemovedFacts) else RemovedFacts((), tuple(removes))


class Change(NamedTuple):
    """Facts that end, and facts that begin or have another value: all of them, or none."""

    removes: tuple[Fact, ...] | RemovedFacts = ()
    """They are there, and whatever stands in one of them is among them."""
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
"""What was asked for is so already."""
