"""PendingGets of the clients of this node from one queue that is led elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.base.clock import CallLater
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cluster.queue_sessions.requests import QueueRequests
from fluffle.broker.cluster.queues.pending_replies import PendingReplies
from fluffle.broker.queues.delivery import DeliveryBatch, Holder
from fluffle.broker.queues.queue_api import Deferred


class PendingGets:
    """PendingGets without an answer yet, by the numbers of their operations."""

    __slots__ = ("_answers", "_asking", "_begun", "_slots", "_unanswered")

    def __init__(
        self, asking: QueueRequests, call_later: CallLater, unanswered: Callable[[], BrokerError]
    ) -> None:
        self._asking = asking
        self._unanswered = unanswered
        self._slots: list[int] = []
        """Channels of the stream that have had a get, and have none now.  Clients share them."""
        self._begun: dict[int, tuple[Holder, int]] = {}
        """For whom, and in which slot."""
        self._answers: PendingReplies[DeliveryBatch | None] = PendingReplies(
            call_later, self._give_up
        )

    def ask(self, holder: Holder) -> Deferred[DeliveryBatch | None]:
        """For the next message, or none."""
        slot = self._slots.pop() if self._slots else len(self._begun) + 1
        number = self._asking.get(slot, no_ack=False)
        self._begun[number] = holder, slot
        return self._answers.ask(number)

    def end(self, number: int) -> Holder:
        """There is an answer: for whom."""
        holder, slot = self._begun.pop(number)
        self._slots.append(slot)
        return holder

    def answer(self, number: int, delivery_batch: DeliveryBatch | None) -> None:
        self._answers.answer(number, delivery_batch)

    def fail(self, number: int, error: BrokerError) -> None:
        """Nothing, if nobody waits for it any more."""
        if number in self._answers:
            self._answers.fail(number, error)

    def unanswered(self, number: int) -> None:
        """Nobody can say what became of it."""
        self._answers.fail(number, self._give_up(number))

    def _give_up(self, number: int) -> BrokerError:
        self.end(number)
        self._asking.give_up(number)
        return self._unanswered()
