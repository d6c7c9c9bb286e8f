"""Whether a node knows all that has been defined anywhere, for who must not act on less.

    doubt --> mark: the next confirmation --> it begins, once for all --> it is there --> try again

What this node shows may be old: it may have lost sight of who orders the definitions, and what a
client was told that is so elsewhere is not so here yet.  A confirmation that has begun after a
doubt settles it: all that was so when it began is known here when it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Confirm: TypeAlias = Callable[[Callable[[], None]], None]
"""Calls what it is given once all is known here that was defined anywhere before this call: before
it returns, where a node is alone."""


def at_once(act: Callable[[], None]) -> None:
    """Where there is nothing to wait for: nobody else defines anything."""
    act()


class Certainty:
    """Of one node."""

    __slots__ = ("_begun", "_confirm", "_confirmed", "_waiting")

    def __init__(self, confirm: Confirm) -> None:
        self._confirm = confirm
        self._begun = 0
        """How many confirmations have begun; invariant: one at most is under way."""
        self._confirmed = 0
        self._waiting: dict[Callable[[], None], int] = {}
        """Who is to try again once such a confirmation is there."""

    def mark(self) -> int:
        """The number, from 1 on, of the first confirmation that begins after now."""
        return self._begun + 1

    def has(self, mark: int, again: Callable[[], None]) -> bool:
        """Whether it is there; else `again` is called once it is, and only once for many asks."""
        if self._confirmed < mark and self._confirmed == self._begun:
            self._begin()
        if self._confirmed >= mark:
            return True
        self._waiting[again] = max(mark, self._waiting.get(again, 0))
        return False

    def _begin(self) -> None:
        self._begun += 1
        self._confirm(self._end)

    def _end(self) -> None:
        self._confirmed = self._begun
        ready = [again for again, mark in self._waiting.items() if mark <= self._confirmed]
        for again in ready:
            del self._waiting[again]
        if self._waiting:
            self._begin()
        for again in ready:
            again()
