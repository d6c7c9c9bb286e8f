"""Settlement of messages that a client was given: by what it says, or by its end.

What is unacknowledged is numbered in `unacked`; here is what its queues are told.  A queue that is
led elsewhere hears of it later, and what vouches for a settlement has to wait for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluffle.broker.core.unacked import Stretch, Unacked
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.queue_api import BY_CLIENT, Outcome
from fluffle.protocol.steps import Steps

if TYPE_CHECKING:
    from fluffle.broker.core.observer import ChannelObserver
    from fluffle.broker.core.session import Session
    from fluffle.broker.queues.queue_api import QueueHandle, SettlementStatus

SETTLED_AT_ONCE = 1024
"""So many messages are settled together, which takes a millisecond or two if no two that follow
one another are among them."""


class Settlements:
    """Ledger of what one client was given and has not settled, and settling at the queues."""

    __slots__ = ("_session", "observer", "pending", "ticket", "unacked")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.unacked = Unacked()
        self.observer: ChannelObserver | None = None
        """Sees what is settled, once the queues know."""
        self.ticket = 0
        """Of the last commit that makes a settlement safe."""
        self.pending: dict[QueueHandle, SettlementStatus] = {}
        """Queues led elsewhere that may not know yet what was settled here, or never will."""

    def settle(self, stretches: list[Stretch], outcome: Outcome) -> None:
        """Tell the queues what became of messages that the ledger has let go."""
        session, count, of_quorum_queues = self._session, 0, 0
        if session.has_put and outcome in BY_CLIENT:
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
        if self.observer is not None:
            self.observer.settled(stretches, outcome)

    def settle_rest(self, outcome: Outcome) -> Steps[None]:
        """Settle what the ledger has left to be taken, too; if it is much, some at a time."""
        while self.unacked.rest:
            yield
            self.settle(self.unacked.take_rest(SETTLED_AT_ONCE), outcome)

    def settle_all(self, outcome: Outcome) -> Steps[None]:
        """Settle all that is unacknowledged; if it is much, some at a time."""
        self.settle(self.unacked.take_up_to(0, SETTLED_AT_ONCE)[0], outcome)
        yield from self.settle_rest(outcome)

    def forget_pending_of(self, queue_name: str) -> None:
        """What is asked of that queue now, it answers behind what it was told before."""
        self.pending = {
            queue: settling
            for queue, settling in self.pending.items()
            if queue.name != queue_name or settling.error is not None
        }
