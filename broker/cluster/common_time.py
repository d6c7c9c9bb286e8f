"""The time of day that the nodes of a cluster go by, though their clocks may be hours apart.

    pings --> how far each clock is ahead --> median of all --> common time --> timestamps in logs

Each node counts it by itself, from what its machine counts and never sets, so that it is not moved
when a clock is set.  A node that starts takes over what another one counts; where none does
yet, they begin with the median of their clocks: of all, or of a majority if others do not come.
Queues are not led before.  It follows that median on, but as slowly as a bad clock runs: for a
message that is to live for an hour an hour passes, whichever node leads its queue.

How far another clock is ahead is known from the fastest of the last round trips, and at most half
of that wrong, however differently long the two ways are.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from fluffle.broker.base.clock import Clock
from fluffle.broker.base.logs import event
from fluffle.raft.config import NodeId, majority_of
from fluffle.raft.output import Echo

SKEW_MS_MAX = 1_000
"""Beyond this a clock is said to be wrong, and a count of common time is put right at once."""

SLEW = 1_000
"""Common time gains or loses a millisecond in so many, at most."""

CLOCKS_TIMEOUT_MS = 2_000
"""Time in ms after a start for which clocks are awaited that a majority can do without."""

ROUND_TRIPS = 64
"""Number of round trips kept for each node: those of 16 seconds, in which no clock drifts far."""

DRIFT_MS = 10
"""Two round trips may differ by so much beyond what either is wrong by: machines do not count
alike."""

ADVICE = (
    "quorum queues go by the median of all clocks, so that nothing is lost; times in logs and "
    "headers are wrong, and certificates may seem to have expired: have that clock set, as by NTP"
)

logger = logging.getLogger(__name__)


class RoundTrip(NamedTuple):
    """The offset that a ping and its echo show; the shortest round trip errs least."""

    round_trip_ms: int
    ahead_ms: int
    """How far what the other machine counts is ahead of what this one does."""

    def agrees_with(self, other: RoundTrip) -> bool:
        """True if both can be true."""
        apart_ms = abs(self.ahead_ms - other.ahead_ms)
        return apart_ms <= (self.round_trip_ms + other.round_trip_ms) / 2 + DRIFT_MS


class PeerClock:
    """Another node, in one life: its clocks, in terms of what this machine counts.

    An *epoch* is the time of day, by some clock, at which the count of this machine was 0.
    """

    def __init__(self, boot: int) -> None:
        self.boot = boot
        self._round_trips: deque[RoundTrip] = deque(maxlen=ROUND_TRIPS)
        self.wall_epoch_ms = 0
        """Epoch of its wall clock."""
        self.common_epoch_ms: int | None = None
        """Epoch of its common time; None while it knows none."""

    def heard(self, echo: Echo) -> None:
        ping = echo.ping
        ahead_ms = ping.sent_ms + echo.round_trip_ms // 2 - echo.now_ms
        found = RoundTrip(echo.round_trip_ms, ahead_ms)
        if self._round_trips and not found.agrees_with(min(self._round_trips)):
            self._round_trips.clear()  # one of the machines was asleep
        self._round_trips.append(found)
        count_ms = ping.sent_ms - min(self._round_trips).ahead_ms
        self.wall_epoch_ms = ping.wall_ms - count_ms
        self.common_epoch_ms = ping.common_ms - count_ms if ping.common_ms else None


class CommonTime:
    """Time common to the cluster: a `ClockExchange`, and a `Clock` whose wall shows common time,
    for leaders of queues."""

    def __init__(
        self, name: NodeId, clock: Clock, deciding: Callable[[], Collection[NodeId]]
    ) -> None:
        """`clock` is that of this machine.  `deciding`: the nodes of which a majority is waited
        for, as it has to be there for anything to be agreed on."""
        self._name = name
        self._clock = clock
        self.now_ms = clock.now_ms
        self._deciding = deciding
        self._others: dict[NodeId, PeerClock] = {}
        """All that were ever heard in this life: clocks go on when a node is away."""
        self._epoch_ms: int | None = None
        """Epoch of common time; None while it is not known."""
        self._began_ms = clock.now_ms()
        self._waiting: list[Callable[[], None]] = []
        """Called once it is."""
        self._slewed_ms = 0
        """Time up to which it has followed the median."""
        self._skewed: set[NodeId] = set()
        """Nodes whose skewed clock has been logged."""

    @property
    def is_known(self) -> bool:
        self._agree(self._clock.now_ms())
        return self._epoch_ms is not None

    def when_known(self, done: Callable[[], None]) -> None:
        """Call `done` once it is known: at once, or from within a turn."""
        if self.is_known:
            done()
        else:
            self._waiting.append(done)

    # As a clock

    def wall_ms(self) -> int:
        """The common time of day; that of this node alone until that is known."""
        now_ms = self._clock.now_ms()
        if self._epoch_ms is None:
            return self._clock.wall_ms()
        if now_ms - self._slewed_ms >= SLEW:
            self._slew(now_ms, self._epoch_ms)
        return now_ms + self._epoch_ms

    # As a `ClockExchange`

    def ping_times_ms(self, now_ms: int) -> tuple[int, int]:
        late_ms = self._clock.now_ms() - now_ms
        common_ms = self.wall_ms() - late_ms if self.is_known else 0
        return max(0, self._clock.wall_ms() - late_ms), max(0, common_ms)

    def heard(self, echo: Echo) -> None:
        other = self._others.get(echo.node)
        if other is None or other.boot != echo.ping.boot:
            other = self._others[echo.node] = PeerClock(echo.ping.boot)
        other.heard(echo)
        self._agree(self._clock.now_ms())
        self._look()

    def forget(self, node: NodeId) -> None:
        """Forget the clock of a node that left the cluster."""
        self._others.pop(node, None)
        self._skewed.discard(node)

    # For operators

    def ahead_ms(self) -> Mapping[NodeId, int]:
        """How far each clock that is known is ahead of their median, which a majority must have."""
        if not self._is_majority_known:
            return {}
        epochs = self._epochs()
        median_ms = lower_median(epochs.values())
        return {node: epoch_ms - median_ms for node, epoch_ms in epochs.items()}

    def _look(self) -> None:
        """Say whose clock is wrong, and whose is not any more."""
        for node, ahead_ms in self.ahead_ms().items():
            if node not in self._skewed and abs(ahead_ms) > SKEW_MS_MAX:
                self._skewed.add(node)
                fields = {"node": node, "ahead_ms": ahead_ms, "advice": ADVICE}
                event(logger, logging.WARNING, "clock_skewed", **fields)
            elif node in self._skewed and abs(ahead_ms) <= SKEW_MS_MAX // 2:
                self._skewed.discard(node)
                event(logger, logging.INFO, "clock_in_sync", node=node, ahead_ms=ahead_ms)

    # What is common

    def _own_epoch_ms(self) -> int:
        return self._clock.wall_ms() - self._clock.now_ms()

    def _epochs(self) -> dict[NodeId, int]:
        """Epochs of all known wall clocks, by node."""
        others = {node: other.wall_epoch_ms for node, other in self._others.items()}
        return {self._name: self._own_epoch_ms(), **others}

    @property
    def _is_majority_known(self) -> bool:
        deciding = self._deciding()
        return len(deciding) - len(self._unheard(deciding)) >= majority_of(len(deciding))

    def _unheard(self, deciding: Collection[NodeId]) -> set[NodeId]:
        """Nodes among `deciding` whose clocks are not known."""
        return {*deciding} - self._others.keys() - {self._name}

    def _agree(self, now_ms: int) -> None:
        """Take over the time that others count, or that of the clocks if there is none.

        Of two counts that differ the later one is right: some machines count nothing while they
        sleep.
        """
        others = self._others.values()
        known = [each.common_epoch_ms for each in others if each.common_epoch_ms is not None]
        if self._epoch_ms is not None:
            known.append(self._epoch_ms)
        if known:
            epoch_ms = sorted(known)[len(known) // 2]
        elif self._is_time_to_begin(now_ms):
            epoch_ms = lower_median(self._epochs().values())
        else:
            return
        before_ms = self._epoch_ms
        if before_ms is None:
            self._epoch_ms, self._slewed_ms = epoch_ms, now_ms
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done()
        elif abs(epoch_ms - before_ms) > SKEW_MS_MAX:
            self._epoch_ms, self._slewed_ms = epoch_ms, now_ms
            event(logger, logging.WARNING, "common_time_set", by_ms=epoch_ms - before_ms)

    def _is_time_to_begin(self, now_ms: int) -> bool:
        is_all = not self._unheard(self._deciding())
        return is_all or (self._is_majority_known and now_ms - self._began_ms >= CLOCKS_TIMEOUT_MS)

    def _slew(self, now_ms: int, epoch_ms: int) -> None:
        """Follow the median, in whole milliseconds."""
        steps = (now_ms - self._slewed_ms) // SLEW
        self._slewed_ms += steps * SLEW
        if self._is_majority_known:
            behind_ms = lower_median(self._epochs().values()) - epoch_ms
            self._epoch_ms = epoch_ms + max(-steps, min(steps, behind_ms))  # mutant: T1


def lower_median(epochs: Iterable[int]) -> int:
    """Median of epochs; of two in the middle the earlier one: rather late than early."""
    ordered = sorted(epochs)
    return ordered[(len(ordered) - 1) // 2]
