"""Turn of the event loop: everything that came in has been taken, now everything goes out.

Queues that changed are pumped once, their runs delivered, the Raft groups of the node have their
turn, a commit of what must last begins, and each connection with something to say writes once.  No
timer makes a batch: while one turn writes, the next one's input grows.

What fails here is a bug: it is logged and left alone until it is touched again, and the others
have their turn.  A broken assertion is more: what the node believes is wrong, and it must end.  So
must one that cannot commit: it would go on taking messages and never answer for one.

Input shares the loop's time: each connection that has more to do than `Shares` gives it waits for
the others.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from fluffle.broker.queues.queue_api import DeliveryBatch, DeliverySource

logger = logging.getLogger(__name__)

LARGE_READ_BYTES = 128 << 10
"""Half of what loops read at once: the socket has more then, mostly, and is read again at once."""

SHARE_S = 0.002
"""The time that all connections that have more to do than that may take of a turn, together."""

SHARE_S_MIN = 0.0002
"""The time that each of them may take, however many they are: less would be spent on the
changes."""


class Flushable(Protocol):
    def flush(self) -> None:
        """Write what has been collected."""


def raise_it(error: Exception) -> None:
    """Raise a failed assertion again, by default."""
    raise error


class Turn:
    """Turn of the event loop, with what was touched since the last one.  Whoever touches first asks
    for the turn.

    Between `begin` and `end` nothing is asked for; `end` then sees what there is to do.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        on_fatal: Callable[[Exception], None] = raise_it,
    ) -> None:
        self.call_soon = call_soon
        """Calls a function in the next round of the loop."""
        self._on_fatal = on_fatal
        self._queues: dict[DeliverySource, None] = {}
        self._outputs: dict[Flushable, None] = {}
        self._is_commit_due = False
        """True if there may be changes to commit."""
        self._is_consensus_due = False
        self._scheduled = False
        self.watchers: set[Callable[[], None]] = set()
        """Functions called after each batch of input and each turn.  In a daemon there is one, the
        `YoungCollector`, ten times a second at most."""
        self.consensus: Callable[[], None] = do_nothing
        """Has the Raft groups take their turn: what queues have just proposed is in it, and what it
        writes goes with the commit that `begin_commit` begins."""
        self.begin_commit: Callable[[], None] = do_nothing
        """Function that begins to make this turn's changes to journals durable."""

    @property
    def is_scheduled(self) -> bool:
        """True if there is a turn to come."""
        return self._scheduled

    def touch_consensus(self) -> None:
        """The Raft groups have something to do."""
        self._is_consensus_due = True
        if not self._scheduled:
            self._schedule()

    def touch_commit(self) -> None:
        """Have a commit begin in this turn: there may be changes."""
        self._is_commit_due = True
        if not self._scheduled:
            self._schedule()

    def touch_queue(self, queue: DeliverySource) -> None:
        """`queue` may have something to deliver."""
        self._queues[queue] = None
        if not self._scheduled:
            self._schedule()

    def touch_queue_last(self, queue: DeliverySource) -> None:
        """The same, and others are to be pumped before it."""
        self._queues.pop(queue, None)
        self.touch_queue(queue)

    def touch_output_buffer(self, output: Flushable) -> None:
        """`output` has something to write."""
        self._outputs[output] = None
        if not self._scheduled:
            self._schedule()

    def begin(self) -> bool:
        """A batch of input is about to be acted on; whether `end` must be called after it."""
        is_first = not self._scheduled
        self._scheduled = True
        return is_first

    def end(self, read_bytes: int = 0) -> None:
        """End a batch that was read as so many bytes: have the turn now if it is short, else after
        all input.

        A turn with one queue and one publisher is what a lone request makes: answering it at
        once is faster (benchmarks/compare, c16) by a quarter than another round of the loop.  But
        what goes through a log waits for the rest if there probably is more to be read.
        """
        if not (self._queues or self._outputs or self._is_commit_due or self._is_consensus_due):
            self._scheduled = False
            if self.watchers:
                self._call_watchers()
        elif self._is_consensus_due and read_bytes >= LARGE_READ_BYTES:
            self.call_soon(self.run)
        elif len(self._queues) <= 1 and len(self._outputs) <= 1:
            self.run()
        else:
            self.call_soon(self.run)

    def act_later(self, act: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Go on with what takes long in a later turn; `failed` is called with an error of it."""
        self.call_soon(partial(self._act, act, failed))

    def _act(self, act: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        ends_turn = self.begin()
        try:
            act()
        except Exception as error:  # noqa: BLE001 - `failed` ends its connection, not the turn
            failed(error)
        finally:
            if ends_turn:
                self.end()

    def _schedule(self) -> None:
        self._scheduled = True
        self.call_soon(self.run)

    def run(self) -> None:
        """Pump, deliver, commit, write.  What is touched meanwhile waits for the next turn."""
        queues, self._queues = self._queues, {}
        for queue in queues:
            try:
                delivery_batches = queue.pump()
            except AssertionError as error:
                self._on_fatal(error)
            except Exception:
                logger.exception("queue '%s' failed to hand out its messages", queue.name)
            else:
                self._deliver(delivery_batches)
        try:
            if self._is_consensus_due:
                self._is_consensus_due = False
                self.consensus()
            if self._is_commit_due:
                self._is_commit_due = False
                self.begin_commit()
        except Exception as error:  # noqa: BLE001 - of whatever kind: others wait for its effect
            self._on_fatal(error)
        self._scheduled = False
        if self._queues or self._is_commit_due or self._is_consensus_due:
            self._schedule()
        if self._outputs:
            self._flush()
        if self.watchers:
            self._call_watchers()

    def _call_watchers(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()

    def _deliver(self, delivery_batches: list[DeliveryBatch]) -> None:
        """Pass runs on to their holders."""
        for delivery_batch in delivery_batches:
            try:
                delivery_batch.holder.deliver(delivery_batch)
            except AssertionError as error:
                self._on_fatal(error)
            except Exception:
                logger.exception(
                    "a delivery from queue '%s' failed", delivery_batch.holder.queue.name
                )

    def _flush(self) -> None:
        outputs, self._outputs = self._outputs, {}
        for output in outputs:
            try:
                output.flush()
            except AssertionError as error:
                self._on_fatal(error)
            except Exception:
                logger.exception("a connection failed to write")


def do_nothing() -> None:
    """Do nothing: a node without a store commits nothing."""


class Shares:
    """Time shares of the event loop, which limit how long one connection may act.

    Loops read a socket again and again while there is more, so a share is not of a read: what a
    connection has left of it counts until another has acted.  `now_s` is any clock.
    """

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
