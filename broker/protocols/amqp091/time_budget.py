"""How long one connection may act before the others have their turn.

Loops read a socket again and again while there is more, so a share is not of a read: what a
connection has left of it counts until another has acted.
"""

from __future__ import annotations

from collections.abc import Callable

SHARE_S = 0.002
"""The time that all connections that have more to do than that may take of a turn, together."""

SHARE_S_MIN = 0.0002
"""The time that each of them may take, however many they are: less would be spent on the
changes."""


class Shares:
    """The time that connections of one node take of its loop.  `now_s` is any clock."""

    __slots__ = ("_holder", "_left_s", "now_s")

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.now_s = now_s
        self._holder: object = None
        """The connection that has acted last, if it is still there and something is left to it."""
        self._left_s = 0.0

    def begin(self, holder: object, busy: int) -> float:
        """Until when `holder` may act, where so many others have more to do than they may."""
        if holder is not self._holder:
            self._holder = holder
            self._left_s = max(SHARE_S_MIN, SHARE_S / (1 + busy))
        return self.now_s() + self._left_s

    def forget(self, holder: object) -> None:
        """The connection is there no more."""
        if self._holder is holder:
            self._holder = None

    def end(self, until_s: float) -> bool:
        """The connection has acted; whether its share is used up, so that it has to wait for the
        others."""
        self._left_s = until_s - self.now_s()
        if self._left_s > 0:
            return False
        self._holder = None
        return True
