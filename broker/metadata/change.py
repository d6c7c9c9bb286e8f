"""Decided changes of definitions: the facts that begin and end, and what that rests on.

A change holds results, so that applying it needs no rules: whoever decides lists all that goes with
what goes.  See docs/decisions/0009.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

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


class Change(NamedTuple):
    """Facts that end, and facts that begin or have another value: all of them, or none."""

    removes: tuple[Fact, ...] = ()
    """They are there, and whatever stands in one of them is among them."""
    puts: tuple[Fact, ...] = ()
    """Behind whatever they stand in."""
    rests_on: tuple[Name, ...] = ()
    """Names that were looked at, those of nothing too: their facts are what they were."""
    room: tuple[CountLimit, ...] = ()

    def joined(self, other: Change) -> Change:
        """Both at once."""
        return Change(
            self.removes + other.removes,
            self.puts + other.puts,
            self.rests_on + other.rests_on,
            self.room + other.room,
        )

    @property
    def changes_nothing(self) -> bool:
        return not (self.removes or self.puts)


NOTHING = Change()
"""What was asked for is so already."""
