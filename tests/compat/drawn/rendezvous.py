"""Where two players meet after each step, and go on when both have seen the same.

What a broker does by itself, as carrying a dead letter on, takes it a moment that no answer tells
the end of.  So both look again and again until they have seen the same twice, or for `patience_s`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from threading import Barrier
from typing import Protocol, TypeAlias

DEADLINE_S = 60.0
"""After which a player is not waited for."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Observations of one player about a step so far."""

    lines: tuple[str, ...]
    is_waiting: bool
    """True if something that must come is still to come: the confirm of a publish."""


class Verdict(Enum):
    LOOK_AGAIN = auto()
    GO_ON = auto()
    DIFFER = auto()


Same: TypeAlias = Callable[[tuple[str, ...], tuple[str, ...]], bool]
"""Comparison of what RabbitMQ's player has seen with what fluffle's has."""


class Judge(Protocol):
    """Says whether a player goes on."""

    def judge(self, place: int, seen: Seen) -> Verdict:
        """Verdict on what the player at that place has seen."""

    def leave(self) -> None:
        """The player comes no more."""


class Score:
    """Recorded observations of RabbitMQ's player after each step, in its place."""

    __slots__ = ("_agreed", "_patience_s", "_same", "_since_s", "_step", "_steps")

    def __init__(self, steps: Sequence[tuple[str, ...]], same: Same, patience_s: float) -> None:
        self._steps = iter(steps)
        self._same = same
        self._patience_s = patience_s
        self._begin()

    def _begin(self) -> None:
        self._step = next(self._steps, ())
        self._agreed = False
        self._since_s = time.monotonic()

    def judge(self, _place: int, seen: Seen) -> Verdict:
        """Verdict on what fluffle's player has seen."""
        if not seen.is_waiting and self._same(self._step, seen.lines):
            if not self._agreed:
                self._agreed = True
                return Verdict.LOOK_AGAIN
            self._begin()
            return Verdict.GO_ON
        self._agreed = False
        is_over = time.monotonic() - self._since_s > self._patience_s
        return Verdict.DIFFER if is_over else Verdict.LOOK_AGAIN

    def leave(self) -> None:
        """Leave; there is no other player to wait for."""


class Rendezvous:
    """Rendezvous of two players; `place` is 0 for RabbitMQ's, 1 for fluffle's."""

    __slots__ = ("_agreed", "_barrier", "_patience_s", "_same", "_seen", "_since_s", "verdict")

    def __init__(self, same: Same, patience_s: float) -> None:
        self._same = same
        self._patience_s = patience_s
        self._seen: list[Seen] = [Seen((), is_waiting=True)] * 2
        self._agreed: Seen | None = None
        self._since_s: float | None = None
        self._barrier = Barrier(2, self._judge)
        self.verdict = Verdict.LOOK_AGAIN

    def judge(self, place: int, seen: Seen) -> Verdict:
        """Verdict on what both have seen; `BrokenBarrierError` if the other one has ended."""
        self._seen[place] = seen
        self._barrier.wait(DEADLINE_S)
        return self.verdict

    def leave(self) -> None:
        """The other one need not wait any more."""
        self._barrier.abort()

    def _judge(self) -> None:
        theirs, ours = self._seen
        now_s = time.monotonic()
        began_s = self._since_s = self._since_s or now_s
        if not (theirs.is_waiting or ours.is_waiting) and self._same(theirs.lines, ours.lines):
            self.verdict = Verdict.GO_ON if self._agreed == theirs else Verdict.LOOK_AGAIN
            self._agreed = theirs
        else:
            is_over = now_s - began_s > self._patience_s
            self.verdict = Verdict.DIFFER if is_over else Verdict.LOOK_AGAIN
            self._agreed = None
        if self.verdict is not Verdict.LOOK_AGAIN:
            self._agreed = self._since_s = None
