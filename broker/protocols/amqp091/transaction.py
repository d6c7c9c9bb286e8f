"""Transaction of a channel, as RabbitMQ has them.

Routes are decided when a message is published; queues, or what has their place by then, see it at
the commit, which then settles what was acknowledged.  A rollback forgets the messages and puts what
was acknowledged back into the ledger under the tags it had: nothing is redelivered.

A transaction that is small is committed in one go, and what it records is in one commit of the
disk.  The others are committed in steps: first all messages, in order, then all settlements.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fluffle.broker.base.errors import ResourceError
from fluffle.broker.core.publisher import (
    TARGETS_AT_ONCE,
    Publisher,
    current_target,
    enqueue_in_steps,
    waits_for_commit,
)
from fluffle.broker.core.route_lookup import PendingEnqueue, RoutedBatch
from fluffle.broker.core.settlement import Settlements, Stretch
from fluffle.broker.queues.publish_target import EnqueueResult, PartialResult, PublishReceipt
from fluffle.broker.queues.queue_api import FINAL, Deferred, DeliveryBatch, Outcome
from fluffle.protocol.steps import Steps

MESSAGE_OVERHEAD_BYTES = 64
"""Memory that a message costs beside its content."""

COST_AT_ONCE = 64
"""So much of a commit is done without a stop, which takes a millisecond.  To put messages into a
queue costs 1, and 1 more for each `MESSAGES_PER_COST`; so does a stretch that is settled, and to
return messages, 1 more for each `RETURNED_PER_COST`."""

COST_IN_ONE_GO = 512
"""A transaction that costs no more is committed without any."""

MESSAGES_PER_COST = 16

RETURNED_PER_COST = 4

UNDONE_AT_ONCE = 256
"""So much of what was kept together is undone without a stop, for about a millisecond.  A batch
costs 1, and so does a stretch; each 1 more for each `UNDONE_PER_COST` of its messages."""

UNDONE_PER_COST = 64


class TransactionPublish(NamedTuple):
    """Messages that have passed all checks."""

    routed: RoutedBatch
    persistent: bool


Settled = tuple[list[Stretch], Outcome]


@dataclass(slots=True, eq=False)
class Transaction:
    """All that a channel has published and settled since its last commit or rollback: the mode of
    its publisher.

    It holds what is yet to be done while it is committed or rolled back.
    """

    is_immediate = False
    confirms = None

    _publisher: Publisher
    _settlements: Settlements
    _bytes: int = field(default=0, init=False)
    """Bytes of the messages that it holds."""
    _publishes: deque[TransactionPublish] = field(default_factory=deque, init=False)
    _settled: deque[Settled] = field(default_factory=deque, init=False)
    """Messages that are settled for good."""
    _requeued: deque[Settled] = field(default_factory=deque, init=False)
    """Messages that are to be delivered again."""
    message_count: int = 0
    """Messages that are to be published."""
    settled_count: int = 0
    """Deliveries that are to be settled."""
    ticket: int = 0
    """Ticket of the last commit that makes its publishes durable; 0 if none has to."""

    def publish(
        self, publisher: Publisher, routed_batches: Sequence[RoutedBatch], *, persistent: bool
    ) -> None:
        """Keep messages for the commit.  ResourceError when they are too many."""
        del publisher
        session = self._publisher.session
        bytes_max = session.limits.uncommitted_bytes_max
        for routed in routed_batches:
            size_bytes = held_bytes(routed)
            if session.uncommitted_bytes + size_bytes > bytes_max:
                raise ResourceError(f"transactions exceed {bytes_max} bytes on this connection")
            session.uncommitted_bytes += size_bytes
            self._bytes += size_bytes
            self._publishes.append(TransactionPublish(routed, persistent=persistent))
            self.message_count += len(routed.contents)

    def end(self) -> None:
        """Do nothing: the channel commits what is left, or rolls it back."""

    def settle(self, stretches: list[Stretch], outcome: Outcome) -> None:
        """Keep what is to be settled at the commit."""
        (self._settled if outcome in FINAL else self._requeued).append((stretches, outcome))
        self.settled_count += message_count(stretches)

    def _stretches(self) -> Iterator[Stretch]:
        """All that is to be settled."""
        for stretches, _outcome in (*self._settled, *self._requeued):
            yield from stretches

    @property
    def _cost_at_once(self) -> int:
        """The cost that may be done without a stop: that of all if it is little."""
        entries = len(self._publishes), len(self._settled), len(self._requeued)
        if max(entries) <= COST_IN_ONE_GO:
            put_cost = sum(cost_of(routed) for routed, _persistent in self._publishes)
            settled = self._settled + self._requeued
            settle_cost = sum(len(stretches) for stretches, _outcome in settled)
            if put_cost + settle_cost <= COST_IN_ONE_GO:
                return COST_IN_ONE_GO
        return COST_AT_ONCE

    def give_back(self) -> Steps[None]:
        """Give back what is to be delivered again, which would come again if this failed, too."""
        yield from self._settle(self._requeued, self._cost_at_once)

    def commit(self, taken: PendingTransactionPublishes) -> Steps[None]:
        """Publish, then settle for good; `taken` hears of all that is published."""
        cost, cost_max = 0, self._cost_at_once
        self._let_go_of_bytes()
        while self._publishes:
            routed, persistent = self._publishes.popleft()
            self.message_count -= len(routed.contents)
            cost += cost_of(routed)
            if (yield from publish_now(self._publisher, routed, taken, persistent=persistent)):
                self.ticket = self._publisher.session.commits.ticket
            if cost >= cost_max:
                cost = 0
                yield
        yield from self._settle(self._settled, cost_max)
        yield from self._settlements.unacked.sweep()

    def _settle(self, settled: deque[Settled], cost_max: int) -> Steps[None]:
        """Settle all of it at the queues, so much at a time."""
        cost = 0
        while settled:
            stretches, outcome = settled.popleft()
            some, rest = stretches[: cost_max - cost], stretches[cost_max - cost :]
            if rest:
                settled.appendleft((rest, outcome))
            self.settled_count -= message_count(some)
            self._settlements.settle(some, outcome)
            cost += len(some)
            if cost >= cost_max:
                cost = 0
                yield

    def roll_back(self) -> Steps[None]:
        """Forget what was published, and have the ledger as if nothing had been settled."""
        self._let_go_of_bytes()
        unacked, cost = self._settlements.unacked, 0
        while self._publishes:
            count = len(self._publishes.popleft().routed.contents)
            self.message_count -= count
            cost += 1 + count // UNDONE_PER_COST
            if cost >= UNDONE_AT_ONCE:
                cost = 0
                yield
        while settled := self._settled or self._requeued:
            stretches, _outcome = settled[0]
            while stretches:
                run, start, stop = stretches.pop()
                self.settled_count -= stop - start
                cost += 1 + (max(run.head, stop) - start) // UNDONE_PER_COST
                unacked.unsettle(run, start, stop)
                if cost >= UNDONE_AT_ONCE:
                    cost = 0
                    yield
            settled.popleft()

    def settled_of(self, delivery_batch: DeliveryBatch) -> list[tuple[int, int]]:
        """The stretches of a run that are to be settled."""
        return [(start, stop) for run, start, stop in self._stretches() if run is delivery_batch]

    def _let_go_of_bytes(self) -> None:
        """Release the bytes of published messages: others may be published in their place."""
        self._publisher.session.uncommitted_bytes -= self._bytes
        self._bytes = 0


class PendingTransactionPublishes:
    """Messages of a transaction: whether all of them were taken."""

    __slots__ = ("_answer", "_left", "are_all")

    def __init__(self) -> None:
        self.are_all = True
        """True if all have been taken, as far as that is known."""
        self._left = 0
        """Messages that have no answer yet."""
        self._answer: Deferred[bool] | None = None

    def wait(self, receipt: PublishReceipt) -> None:
        """Some of them are taken only if a queue says so, which it has not yet."""
        self._left += receipt.count
        receipt.then(self._known)

    def answer(self) -> bool | Deferred[bool]:
        """Outcome: True if all were accepted; deferred while unknown.  No more publishes may
        follow."""
        if not (self.are_all and self._left):
            return self.are_all
        self._answer = Deferred()
        return self._answer

    def _known(self, start: int, stop: int, *, is_accepted: bool) -> None:
        self._left -= stop - start
        self.are_all &= is_accepted
        if self._answer is not None and not self._left:
            self._answer.answer(self.are_all)


def publish_now(
    publisher: Publisher,
    routed: RoutedBatch,
    taken: PendingTransactionPublishes,
    *,
    persistent: bool,
) -> Steps[bool]:
    """Put messages into those of their queues that are still there, or return them; whether they
    are safe only once the disk has them."""
    client, vhost = publisher.session.client, publisher.session.vhost
    found = [current_target(vhost, target) for target in routed.targets]
    routed.targets = routed.targets_left = tuple(one for one in found if one is not None)
    taken.are_all &= len(routed.targets) == len(found)
    if found and not routed.targets:
        return False
    if len(routed.targets) > TARGETS_AT_ONCE:
        are_there = yield from enqueue_in_steps(client, vhost, [routed], persistent=persistent)
        taken.are_all &= are_there
    if not publisher.is_open:
        routed.mandatory = False  # basic.return has no channel any more
    answer = publisher.enqueue(routed, persistent=persistent)
    if isinstance(answer, PendingEnqueue):
        for receipt in answer.receipts:
            if isinstance(receipt, PublishReceipt):
                taken.wait(receipt)
            taken.are_all &= not isinstance(receipt, PartialResult)
    taken.are_all &= answer is not EnqueueResult.REJECTED
    return waits_for_commit(answer)


def cost_of(routed: RoutedBatch) -> int:
    """The cost of putting it into its queues, or returning it: see `COST_AT_ONCE`."""
    if not routed.targets:
        return 1 + (len(routed.contents) // RETURNED_PER_COST if routed.mandatory else 0)
    return len(routed.targets) * (1 + len(routed.contents) // MESSAGES_PER_COST)


def message_count(stretches: list[Stretch]) -> int:
    return sum(stop - start for _run, start, stop in stretches)


def held_bytes(routed: RoutedBatch) -> int:
    """Return what a kept batch costs, which for messages without a body is more than they are."""
    return routed.content_bytes + MESSAGE_OVERHEAD_BYTES * len(routed.contents)
