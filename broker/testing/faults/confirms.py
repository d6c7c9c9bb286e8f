"""Confirms of a broker that come late, or not while a test has it so.

What the broker has done is done: messages are in their queues.  Only what it says of that waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

from fluffle.broker.admin.context import Row
from fluffle.broker.testing.faults.fault_scope import FaultScope
from fluffle.broker.testing.faults.frames import (
    ACK,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    NACK,
    Frame,
    frames_of,
)
from fluffle.broker.testing.faults.tapped_transport import TappedConnection

HELD = "confirms are held back"


class HeldConfirms:
    """A `ByteFilter` of one connection."""

    __slots__ = ("_delay", "_held", "_is_meant", "_numbers", "_tap")

    def __init__(
        self,
        tap: TappedConnection,
        is_meant: Callable[[TappedConnection], bool],
        delay: Callable[[Callable[[], None]], object],
    ) -> None:
        """`is_meant`: whether the tap is concerned; `delay` calls something when it is time."""
        self._tap = tap
        self._is_meant = is_meant
        self._delay = delay
        self._numbers = count()
        self._held: dict[int, Frame] = {}
        """Numbered: a later channel of the same number gets the same."""

    def from_client(self, data: bytes) -> Iterable[bytes]:
        return (data,)

    def to_client(self, data: bytes) -> bytes:
        if not self._is_meant(self._tap):
            return data
        go_on, stay = list[bytes](), dict[int, Frame]()
        for frame in frames_of(data):
            if frame.method in (ACK, NACK):  # of a server: confirms, and nothing else
                stay[next(self._numbers)] = frame
                continue
            if frame.method in (CHANNEL_CLOSE, CHANNEL_CLOSE_OK):
                self._held = besides(frame.channel, self._held)
                stay = besides(frame.channel, stay)
            go_on.append(frame.data)
        if stay:
            self._held |= stay
            self._delay(partial(self._release, list(stay)))
        return b"".join(go_on)

    def _release(self, numbers: list[int]) -> None:
        due = [self._held.pop(number) for number in numbers if number in self._held]
        if due:
            self._tap.pass_on(b"".join(frame.data for frame in due), behind=self)

    def end(self) -> None:
        """Say what has been held back, and hold back nothing more."""
        self._release(list(self._held))
        self._tap.filters.remove(self)


def besides(channel: int, frames: Mapping[int, Frame]) -> dict[int, Frame]:
    """Without those of a channel that has ended: what comes on it now belongs to another."""
    return {number: frame for number, frame in frames.items() if frame.channel != channel}


def hold(scope: FaultScope) -> Row:
    """Confirm nothing, neither with ack nor with nack, until that is over."""
    return begin(scope, HELD, lambda _act: None)


def delay(scope: FaultScope, *, ms: int) -> Row:
    """Say each confirm so much later, by the clock that can be moved."""
    what = f"{HELD} for {timedelta(milliseconds=ms)}"
    return begin(scope, what, partial(scope.call_later, ms / 1_000))


def begin(scope: FaultScope, what: str, wait: Callable[[Callable[[], None]], object]) -> Row:
    release(scope)
    filters: dict[TappedConnection, HeldConfirms] = {}

    def attach(tap: TappedConnection) -> None:
        filters[tap] = HeldConfirms(tap, scope.has, wait)
        tap.filters.append(filters[tap])
        tap.when_lost.append(partial(filters.pop, tap, None))

    def end() -> None:
        scope.acceptor.lasting_plans.pop((scope, HELD), None)
        for each in filters.values():
            each.end()
        filters.clear()

    for tap in scope.acceptor.taps():
        attach(tap)
    scope.acceptor.lasting_plans[scope, HELD] = attach
    scope.begin(HELD, what, end)
    return {}


def release(scope: FaultScope) -> Row:
    """Say all that has been held back, and hold back nothing more."""
    scope.end(HELD)
    return {}


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "confirms.hold": hold,
    "confirms.delay": delay,
    "confirms.release": release,
}
