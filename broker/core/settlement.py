"""Settlement of messages that a client was given: the ledger of them, and what queues hear.

Delivery tags are consecutive, so that in the ledger (`Unacked`) a run of messages is one entry, and
an acknowledgement in order moves one number.  Out of order costs a set of holes in the run
concerned.  A queue that is led elsewhere hears of a settlement later, and what vouches for that has
to wait until then.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import BY_CLIENT, FINAL, DeliveryBatch, Outcome
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.base.traffic import ClientTraffic
    from fluffle.broker.queues.queue_api import QueueHandle, SettlementStatus
    from fluffle.broker.runtime.commits import Commits

RUN_COST = COST_WITH_HOLES = 4
"""The cost of a run, and of each of its messages if it has holes, beside a message of another run,
where many are settled: there it may be that no two follow one another."""

COMPACT_AT = 64
"""Runs settled in the middle are swept out when they are this many, and half of all."""

FRONT_RUNS_MAX = 512
"""Most settled runs at the front that are removed together: to free thousands takes long."""

PASSED_COST = 32
"""The cost of passing so many, where many messages are settled."""

SWEPT_AT_ONCE = 512
"""Most runs that are examined together once a transaction is over."""

SETTLED_AT_ONCE = 1024
"""Most messages that are settled together, which takes a millisecond or two if no two of them
follow one another."""


class SettlingSession(Protocol):
    """Session of a client, as far as settling needs it."""

    has_put: bool
    commits: Commits
    traffic: ClientTraffic


class SettlementObserver(Protocol):
    """Observer of what a client settles."""

    def settled(self, stretches: list[Stretch], outcome: Outcome) -> None:
        """Messages are in the client's hands no more, and their queues are about to act on it.  The
        end of a channel says so of what was left, even if that is nothing."""


def first_tag_of(delivery_batch: DeliveryBatch) -> int:
    return delivery_batch.first_tag


class Stretch(NamedTuple):
    """The messages `start` to `stop` of a run: consecutive, and settled together."""

    delivery_batch: DeliveryBatch
    start: int
    stop: int


class Unacked:
    """Runs of unsettled messages in the order of their tags."""

    __slots__ = ("_front", "_keeps", "_runs", "_settled_runs", "next_tag", "rest")

    def __init__(self) -> None:
        self._runs: list[DeliveryBatch] = []
        """Invariant: rising `first_tag`."""
        self._front = 0
        """Index of a run before which all are settled: of the first that is not, or the length,
        unless those in between are so many that it takes some steps to pass them."""
        self._settled_runs = 0
        """How many of `_runs` are settled and wait to be swept out, those in front included."""
        self._keeps = False
        """True if they wait until `sweep`."""
        self.next_tag = 1
        """Delivery tag of the next message."""
        self.rest = 0
        """Up to which tag `take_up_to` has left messages to `take_rest`; 0 if it has not."""

    def keep(self) -> None:
        """Have what is settled stay until `sweep`: it may be unsettled before."""
        self._keeps = True

    def __len__(self) -> int:
        """How many messages are not settled."""
        return sum(len(run.contents) - run.head - len(run.holes or ()) for run in self._runs)

    @property
    def oldest_tag(self) -> int | None:
        """Oldest tag that is not settled; None if all are."""
        while not self.pass_settled():
            pass
        if self._front == len(self._runs):
            return None
        run = self._runs[self._front]
        return run.first_tag + run.head

    def pass_settled(self) -> bool:
        """Pass settled runs in front, so many at once; whether all are: `oldest_tag` then finds the
        oldest at once."""
        runs, front = self._runs, self._front
        stop = min(front + FRONT_RUNS_MAX, len(runs))
        while front < stop and runs[front].is_settled:
            front += 1
        self._front = front
        return front == len(runs) or not runs[front].is_settled

    def open_runs(self) -> tuple[DeliveryBatch, ...]:
        """Return the runs in which a message is not settled; not to be changed."""
        return tuple(run for run in self._runs[self._front :] if not run.is_settled)

    def number(self, delivery_batch: DeliveryBatch) -> int:
        """Give the messages of a run their tags; the first of them."""
        first = delivery_batch.first_tag = self.next_tag
        self.next_tag = first + len(delivery_batch.contents)
        if not delivery_batch.holder.no_ack:
            self._runs.append(delivery_batch)
        return first

    def take(self, first: int, last: int) -> tuple[list[Stretch], int | None]:
        """Settle each of the tags `first` to `last`.

        Returns what was settled and the first tag that is unknown, if one is: everything
        before an unknown tag is settled, nothing behind it.
        """
        stretches: list[Stretch] = []
        tag = first
        while tag <= last:
            run = self._run_of(tag)
            if run is None:
                return stretches, tag
            start = tag - run.first_tag
            stop = min(last + 1 - run.first_tag, len(run.contents))
            known = stop if run.holes is None else self._known_until(run, start, stop)
            if start < known:
                stretches += [Stretch(run, *part) for part in run.settle(start, known)]
                self._sweep(run)
            if known < stop:
                return stretches, run.first_tag + known
            tag = run.first_tag + stop
        return stretches, None

    def take_up_to(
        self, last: int, messages_max: int = sys.maxsize
    ) -> tuple[list[Stretch], int | None]:
        """Settle every tag up to `last`, which must be unsettled; 0 means all there are.

        Returns what was settled, and `last` if it is unknown (then nothing is settled).  If they
        are more than `messages_max`, there is a `rest`.
        """
        if last and self._run_of(last) is None:
            return [], last
        self.rest = last or self.next_tag - 1
        return self.take_rest(messages_max), None

    def take_rest(self, messages_max: int) -> list[Stretch]:
        """Settle so many of what `take_up_to` has left, if it is still there; fewer of runs that
        are short or have holes."""
        stretches: list[Stretch] = []
        while self._front < len(self._runs):
            if not self.pass_settled():
                messages_max -= PASSED_COST
                if messages_max <= 0:
                    return stretches
                continue
            if self._front == len(self._runs):
                break
            run = self._runs[self._front]
            stop = min(len(run.contents), self.rest + 1 - run.first_tag)
            if stop <= run.head:
                break
            if messages_max <= 0:
                return stretches
            cost = 1 if run.holes is None else COST_WITH_HOLES
            stop = min(stop, run.head + -(-messages_max // cost))
            messages_max -= RUN_COST + cost * (stop - run.head)
            stretches += [Stretch(run, *part) for part in run.settle(run.head, stop)]
            self._sweep(run)
        self.rest = 0
        return stretches

    def unsettle(self, run: DeliveryBatch, start: int, stop: int) -> None:
        """Undo `take` for messages that were settled and are kept: they have the tags they had."""
        if run.is_settled:
            self._settled_runs -= 1
            self._front = bisect_left(self._runs, run.first_tag, hi=self._front, key=first_tag_of)
        run.unsettle(start, stop)

    def sweep(self) -> Steps[None]:
        """Let go of settled runs that were kept, where they are many; some at a time."""
        runs, at = self._runs, 0
        if self._settled_runs * 2 <= len(runs):
            return
        while True:
            some = runs[at : at + SWEPT_AT_ONCE]
            left = [run for run in some if not run.is_settled]
            self._settled_runs -= len(some) - len(left)
            self._front -= max(0, min(at + len(some), self._front) - at)
            runs[at : at + SWEPT_AT_ONCE] = left
            at += len(left)
            if at >= len(runs):
                break
            yield

    def _run_of(self, tag: int) -> DeliveryBatch | None:
        """The run that holds `tag` unsettled, if there is one."""
        runs, front = self._runs, self._front
        if front == len(runs) or tag < runs[front].first_tag:
            return None
        run = runs[front]
        if tag >= run.first_tag + len(run.contents):
            run = runs[bisect_right(runs, tag, lo=front, key=first_tag_of) - 1]
        return run if run.holds(tag - run.first_tag) else None

    @staticmethod
    def _known_until(run: DeliveryBatch, start: int, stop: int) -> int:
        return next((index for index in range(start, stop) if not run.holds(index)), stop)

    def _sweep(self, run: DeliveryBatch) -> None:
        """Let go of settled runs once they are many, so that each costs a constant."""
        if not run.is_settled:
            return
        runs = self._runs
        self._settled_runs += 1
        self.pass_settled()
        if self._keeps:
            return
        if self._front == len(runs):
            self._reset([])
        elif self._front > FRONT_RUNS_MAX:
            del runs[: self._front]
            self._settled_runs -= self._front
            self._front = 0
        elif self._settled_runs > COMPACT_AT and self._settled_runs * 2 > len(runs):
            self._reset([other for other in runs if not other.is_settled])

    def _reset(self, runs: list[DeliveryBatch]) -> None:
        self._runs = runs
        self._front = self._settled_runs = 0


class Settlements:
    """Ledger of what one client was given and has not settled, and settling at the queues."""

    __slots__ = ("_session", "observer", "pending", "ticket", "unacked")

    def __init__(self, session: SettlingSession) -> None:
        self._session = session
        self.unacked = Unacked()
        self.observer: SettlementObserver | None = None
        """Sees what is settled before the queues act on it, so that what follows from it, as a dead
        letter, is seen after it."""
        self.ticket = 0
        """Ticket of the last commit that makes a settlement safe."""
        self.pending: dict[QueueHandle, SettlementStatus] = {}
        """Queues led elsewhere that may not know yet what was settled here, or never will."""

    def settle(self, stretches: list[Stretch], outcome: Outcome) -> None:
        """Settle released messages in their queues."""
        if self.observer is not None:
            self.observer.settled(stretches, outcome)
        session, count, of_quorum_queues = self._session, 0, 0
        gives_back = outcome not in FINAL  # a queue with a limit keeps to it after each of these
        if (session.has_put or gives_back) and outcome in BY_CLIENT:
            for queue in dict.fromkeys(each.delivery_batch.holder.queue for each in stretches):
                queue.deliver_ready()  # mutant: CO3
        for delivery_batch, start, stop in stretches:
            count += stop - start
            queue = delivery_batch.holder.queue
            settling = queue.settle(delivery_batch, start, stop, outcome)
            if settling is not None:
                if (before := self.pending.get(queue)) is None or before.error is None:
                    self.pending[queue] = settling
                if queue.spec.queue_type is QueueType.QUORUM:
                    of_quorum_queues += stop - start
            if delivery_batch.is_recorded:
                self.ticket = session.commits.ticket
        if outcome is Outcome.ACKED:
            traffic = session.traffic
            traffic.from_quorum_queues.acknowledged += of_quorum_queues
            traffic.from_queues.acknowledged += count - of_quorum_queues

    def settle_rest(self, outcome: Outcome) -> Steps[None]:
        """Settle what the ledger has left to be taken, too; if it is much, some at a time."""
        while self.unacked.rest:
            yield
            self.settle(self.unacked.take_rest(SETTLED_AT_ONCE), outcome)

    def settle_all(self, outcome: Outcome) -> Steps[None]:
        """Settle all that is unacknowledged; if it is much, some at a time."""
        if self.observer is None and self.unacked.next_tag == 1:
            return  # nothing was given
        self.settle(self.unacked.take_up_to(0, SETTLED_AT_ONCE)[0], outcome)
        yield from self.settle_rest(outcome)

    def forget_pending_of(self, queue_name: str) -> None:
        """Forget settlements that a queue led elsewhere may not know yet: it answers all that is
        asked from now on after them."""
        self.pending = {
            queue: settling
            for queue, settling in self.pending.items()
            if queue.name != queue_name or settling.error is not None
        }
