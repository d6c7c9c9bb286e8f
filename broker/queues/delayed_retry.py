"""Messages that came back and wait for their time: delayed retry.

They are in nobody's hands and not ready.  What came back together waits together, so this costs per
run, not per message.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import NamedTuple, TypeAlias

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.argument_checks import DURATION_MS_MAX
from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.expiry_times import NEVER_MS, Expiries
from fluffle.broker.queues.requeue import RequeuedRun
from fluffle.broker.queues.settings import DelayedRetry, QueueSettings

Messages: TypeAlias = tuple[list[Origin], list[bytes]]


class DelayedRun(NamedTuple):
    """Those of one run."""

    ready_at_ms: int
    number: int
    """Those of the same moment go in the order in which they came back."""
    run: range
    """Which they are."""
    back: RequeuedRun
    """The same, as they go back; on disk only, unless they cannot be read yet."""


class DelayedRetries:
    """Requeued messages of one queue that wait for their delay to end."""

    __slots__ = ("_heap", "_next_number", "_on_matured", "count")

    def __init__(self, on_matured: Callable[[list[range]], None]) -> None:
        """`on_matured` is told which messages are ready, in the order in which they are so."""
        self._on_matured = on_matured
        self.count = 0
        """How many messages wait."""
        self._heap: list[DelayedRun] = []
        self._next_number = 0

    @property
    def due_ms(self) -> int:
        """When the first of them are ready."""
        return self._heap[0].ready_at_ms if self._heap else NEVER_MS

    def add(
        self,
        run: range,
        counts: Counts,
        ready_at_ms: int,
        expiries: Expiries | None,
        messages: Messages | None = None,
    ) -> None:
        """Messages are to wait; `messages`: with these contents, for they cannot be read yet."""
        kept = messages or ([], [])
        # mutant: WA1
        back = RequeuedRun(*kept, run, counts=counts, is_recorded=True, expiries=expiries)
        heappush(self._heap, DelayedRun(ready_at_ms, self._next_number, run, back))
        self._next_number += 1  # mutant: WA2
        self.count += len(run)  # mutant: WA3

    def mature(self, give_back: Callable[[RequeuedRun], None], now_ms: int) -> None:
        """Those whose time has come go back, and wait here no more."""
        runs = []
        while self.due_ms <= now_ms:  # mutant: WA4 WA5
            _at, _number, run, back = heappop(self._heap)
            self.count -= len(run)  # mutant: WA6
            runs.append(run)  # mutant: WA7
            give_back(back)
        if runs:
            self._on_matured(runs)  # mutant: C3

    def clear(self) -> list[range]:
        """Forget all; which those were."""
        runs = [delayed.run for delayed in self._heap]
        self._heap.clear()  # mutant: WA8
        self.count = 0
        return runs


NO_DELAYS = DelayedRetries(lambda _runs: None)
"""Of queues in which nothing is ever put there."""


def delay_ms(settings: QueueSettings, counts: Counts, *, is_failure: bool) -> int:
    """How long messages wait that come back with these counts; 0: they do not.

    RabbitMQ 4.3: as long again for each time that handing them out has failed, up to a maximum; and
    no longer than its timers can be set for, whatever is said.
    """
    least_ms = settings.delayed_retry_min_ms
    wanted = {
        DelayedRetry.DISABLED: False,
        DelayedRetry.ALL: True,
        DelayedRetry.FAILED: is_failure,
        DelayedRetry.RETURNED: not is_failure,
    }
    if least_ms is None or not wanted[settings.delayed_retry]:
        return 0
    most_ms = settings.delayed_retry_max_ms
    most_ms = min(least_ms if most_ms is None else most_ms, DURATION_MS_MAX)
    return min(least_ms * max(1, counts.failed), most_ms)
