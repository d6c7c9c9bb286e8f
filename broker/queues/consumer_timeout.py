"""Messages that somebody has had in hands for too long: consumer timeouts.

The time of a run begins when it is handed out, and nothing is kept of it here but one entry, until
its last message is settled.  Nobody is looked at before the first run may be due.
"""

from __future__ import annotations

from collections import deque
from operator import attrgetter

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.queues.delivery import DeliveryBatch, DeliverySource, Holder, OverdueDeliveries
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.timer_port import QueueClock

GAP_MS = 50
"""Between two looks at all who hold something."""

SWEEP_MIN = 64
"""Deliveries of one holder beyond which the ended ones before the first open one are removed."""


class HeldDeliveries:
    """Delivery batches of one holder in the order of their deliveries, as far as that is on
    record."""

    __slots__ = ("_sweep_at", "runs")

    def __init__(self) -> None:
        self.runs: deque[DeliveryBatch] = deque()
        self._sweep_at = SWEEP_MIN

    def add(self, delivery_batch: DeliveryBatch) -> None:
        is_in_order = (
            not self.runs or self.runs[-1].delivered_at_ms <= delivery_batch.delivered_at_ms
        )
        self.runs.append(delivery_batch)
        if not is_in_order:  # mutant: WA9
            self.runs = deque(sorted(self.runs, key=attrgetter("delivered_at_ms")))
        if len(self.runs) >= self._sweep_at:
            self.runs = deque(run for run in self.runs if run.left)  # mutant: WA10
            self._sweep_at = max(SWEEP_MIN, 2 * len(self.runs))

    def drop_ended(self) -> None:
        """Those in front of which nothing is held any more."""
        while self.runs and not self.runs[0].left:
            self.runs.popleft()

    def take_until(self, delivered_at_ms: int) -> list[DeliveryBatch]:
        """Those handed out by then, of which something is held; they are kept here no more."""
        late = []
        while self.runs and self.runs[0].delivered_at_ms <= delivered_at_ms:  # mutant: WA11 WA12
            late.append(self.runs.popleft())
        return [run for run in late if run.left]  # mutant: WA13


class ConsumerTimeouts:
    """Timeouts of the consumers of one queue, which each call names: neither keeps the other
    alive."""

    __slots__ = ("_default_ms", "_held", "_time", "_timeout_ms", "due_ms")

    def __init__(self, time: QueueClock, default_ms: int | None) -> None:
        """`default_ms`: how long anything may be held if nobody says so; None: for ever."""
        self._timeout_ms = self._default_ms = default_ms
        """Of holders that have none of their own."""
        self._time = time
        self._held: dict[Holder, HeldDeliveries] = EMPTY_DICT
        """Invariant: nobody without runs."""
        self.due_ms = NEVER_MS
        """When something may have been held for too long: its queue is woken then."""

    def _timeout_of(self, holder: Holder) -> int:
        own = holder.timeout_ms
        timeout_ms = own if own is not None else self._timeout_ms  # mutant: WA14
        return NEVER_MS if timeout_ms is None else timeout_ms

    def handed(self, queue: DeliverySource, delivery_batch: DeliveryBatch) -> None:
        """Somebody who acknowledges has been handed messages: now, if the run does not say."""
        holder = delivery_batch.holder
        timeout_ms = self._timeout_of(holder)
        if timeout_ms == NEVER_MS:
            delivery_batch.delivered_at_ms = 0
            return
        delivery_batch.delivered_at_ms = (
            delivery_batch.delivered_at_ms or self._time.now_ms()
        )  # mutant: WA15
        if (held := self._held.get(holder)) is None:
            if self._held is EMPTY_DICT:
                self._held = {}
            held = self._held[holder] = HeldDeliveries()
        held.add(delivery_batch)
        self._ask(queue, delivery_batch.delivered_at_ms + timeout_ms)  # mutant: WA16

    def settled(self, delivery_batch: DeliveryBatch, count: int) -> bool:
        """Some of a run is in hands no more; False if none of it was, for it had been there too
        long."""
        if not delivery_batch.left:
            return False
        delivery_batch.left -= count  # mutant: WA17
        held = None if delivery_batch.left else self._held.get(delivery_batch.holder)
        if held is not None:
            held.drop_ended()
            if not held.runs:  # mutant: WA18
                del self._held[delivery_batch.holder]
        return True

    def go_by(self, queue: DeliverySource, timeout_ms: int | None) -> None:
        """Whoever has none of his own has another; None: the one that he had at first."""
        timeout_ms = timeout_ms if timeout_ms is not None else self._default_ms  # mutant: WA19
        if timeout_ms == self._timeout_ms:
            return
        self._timeout_ms, self.due_ms = timeout_ms, NEVER_MS
        self._ask_again(queue, 0)  # mutant: WA20

    def look(self, queue: DeliverySource) -> None:
        """Tell those who have had something for too long; of each run once.

        Who looks too soon asks again: it was woken for something else, or by another clock.
        """
        if self.due_ms == NEVER_MS:
            return
        if (now_ms := self._time.now_ms()) < self.due_ms:
            self._time.wake(queue, self.due_ms)
            return
        for holder, late in self._take(queue, now_ms):
            holder.overdue(late)

    def _take(self, queue: DeliverySource, now_ms: int) -> list[tuple[Holder, OverdueDeliveries]]:
        self.due_ms, taken = NEVER_MS, []
        for holder, held in list(self._held.items()):
            timeout_ms = self._timeout_of(holder)
            late = held.take_until(now_ms - timeout_ms)  # mutant: H2 WA21
            held.drop_ended()
            if not held.runs:
                del self._held[holder]
            if late:
                # mutant: WA22
                taken.append(
                    (holder, OverdueDeliveries(late, now_ms - late[0].delivered_at_ms, timeout_ms))
                )
        self._ask_again(queue, now_ms + GAP_MS)  # mutant: WA23 WA24
        return taken

    def _ask_again(self, queue: DeliverySource, at_least_ms: int) -> None:
        for holder, held in self._held.items():
            due_ms = held.runs[0].delivered_at_ms + self._timeout_of(holder)  # mutant: WA25
            self._ask(queue, max(at_least_ms, due_ms))

    def _ask(self, queue: DeliverySource, due_ms: int) -> None:
        if due_ms < self.due_ms:
            self.due_ms = due_ms
            self._time.wake(queue, due_ms)
