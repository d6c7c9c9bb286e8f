"""One turn of the loop: everything that came in has been taken, now everything goes out.

Queues that changed are pumped once, their runs delivered, and each connection with something
to say writes once.  No timer makes a batch: while one turn writes, the next one's input grows.
"""

from collections.abc import Callable
from typing import Protocol

from fluffle.broker.queues.engine import Queue


class Flushable(Protocol):
    def flush(self) -> None:
        """Write what has been collected."""


class Turn:
    """What was touched since the last turn.  Whoever touches first asks for the turn.

    Between `begin` and `end` nothing is asked for; `end` then sees what there is to do.
    """

    __slots__ = ("_call_soon", "_outlets", "_queues", "_scheduled")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._queues: dict[Queue, None] = {}
        self._outlets: dict[Flushable, None] = {}
        self._scheduled = False

    def touch_queue(self, queue: Queue) -> None:
        """`queue` may have something to deliver."""
        self._queues[queue] = None
        self._schedule()

    def touch_outlet(self, outlet: Flushable) -> None:
        """`outlet` has something to write."""
        self._outlets[outlet] = None
        self._schedule()

    def begin(self) -> bool:
        """A batch of input is about to be acted on; whether `end` must be called after it."""
        is_first = not self._scheduled
        self._scheduled = True
        return is_first

    def end(self) -> None:
        """The batch is done: have the turn now if it is short, else after everybody's input.

        A turn with one queue and one publisher is what a lone request makes: answering it at
        once is faster (benchmarks/compare, c16) by a quarter than another round of the loop.
        """
        if not self._queues and not self._outlets:
            self._scheduled = False
        elif len(self._queues) <= 1 and len(self._outlets) <= 1:
            self.run()
        else:
            self._call_soon(self.run)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self.run)

    def run(self) -> None:
        """Pump, deliver, write.  A queue that is touched meanwhile waits for the next turn."""
        waiting, self._queues = [*reversed(self._queues)], {}
        try:
            while waiting:
                for handout in waiting[-1].pump():
                    handout.holder.deliver(handout)
                waiting.pop()
        finally:  # a delivery that fails is no reason for the others to wait
            self._scheduled = False
            self._queues.update(dict.fromkeys(waiting))
            if self._queues:
                self._schedule()
            self._flush()

    def _flush(self) -> None:
        outlets, self._outlets = self._outlets, {}
        for outlet in outlets:
            outlet.flush()
