"""Deadlines of a client: to log in, to be heard, to read its answers, and to close.

Who does not is hung up on: he would not hear what was said to him.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fluffle.broker.base.clock import Timer


class Deadlines:
    """Those of one connection, until `end`."""

    __slots__ = ("_call_later", "_hang_up", "_is_over", "_timers")

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], Timer],
        hang_up: Callable[[str], None],
    ) -> None:
        """`hang_up` is called with what the client has not done."""
        self._call_later = call_later
        self._hang_up = hang_up
        self._timers: dict[str, Timer] = {}
        self._is_over = False

    def give(self, what: str, seconds: float, failure: str) -> None:
        """`what` has to be done in `seconds`, or it is a `failure`; what is under way goes on."""
        if what not in self._timers and not self._is_over:
            self._timers[what] = self._call_later(seconds, partial(self._hang_up, failure))

    def met(self, what: str) -> None:
        """The client has done this in time: its deadline ends."""
        if not self._is_over:
            self._timers.pop(what).cancel()

    def check_every(
        self, seconds: float, what: str, is_met: Callable[[], bool], failure: str
    ) -> None:
        """Ask so often whether the client still does `what`; a `failure` once it does not."""
        act = partial(self._check, seconds, what, is_met, failure)
        self._timers[what] = self._call_later(seconds, act)

    def _check(self, seconds: float, what: str, is_met: Callable[[], bool], failure: str) -> None:
        if is_met():
            self.check_every(seconds, what, is_met, failure)
        else:
            self._hang_up(failure)

    def end(self) -> None:
        """The connection is gone, and nothing here keeps it alive."""
        self._is_over = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._hang_up = no_connection


def no_connection(_failure: str) -> None:
    """Where the connection is gone."""
