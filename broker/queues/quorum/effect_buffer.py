"""Effects that wait for the entries they rest on.

    decided --> kept with the entry that is being drafted --> under way --> applied: they leave

Effects leave in the order in which they were decided.  An entry is known by the order of proposals
here: who proposes hears of each, in that order, whether it was applied at its own index and term.
So an index that another leader's entry takes releases nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from fluffle.broker.queues.quorum.effects import Dead, Effect
from fluffle.broker.queues.quorum.entry_builder import EntryBuilder

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
        """What rests on the entry that is being drafted."""
        self._under_way: list[list[EffectSource]] = []
        """The same of each entry that is proposed and not applied."""
        self._known: list[EffectSource] = []
        """What rests on nothing that is not applied."""

    def keep(self, later: EffectSource) -> None:
        """Until the entry that is being drafted is applied."""
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
        """The entry is drafted, and under way."""
        self._under_way.append(self._waiting)
        self._waiting = []

    def apply(self) -> list[BufferedEffect]:
        """The first entry under way is applied: what leaves now."""
        return _all(self._under_way.pop(0))

    def take_known(self) -> list[BufferedEffect]:
        """What leaves without an entry."""
        known, self._known = self._known, []
        return _all(known)


def _all(kept: list[EffectSource]) -> list[BufferedEffect]:
    return [effect for later in kept for effect in later()]
