"""How much may wait in one queue, and how often a message may fail, by its log: rule 7."""

from __future__ import annotations

from collections import Counter

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import FactBatch
from fluffle.broker.queues.quorum.state import QueueState
from fluffle.broker.queues.settings import Overflow, QueueSettings, settings_of
from fluffle.raft.log import GroupId
from tests.simulation.facts import Violation
from tests.simulation.queues.settings_checks import said

LEAVES = f.Delivered | f.DeliveredWithoutAck | f.Purged | f.Dropped | f.DeadLettering
"""After these messages do not wait any more, those apart that somebody held."""


class LimitChecks:
    """Checks of the limits of one queue."""

    def __init__(self, spec: QueueSpec) -> None:
        self._spec = spec
        self._go_by(settings_of(spec))
        self._waiting = 0
        """Messages, after the entry before."""
        self.gone: Counter[f.RemovalReason] = Counter()
        """Messages removed for a limit, by reason."""

    def _go_by(self, settings: QueueSettings) -> None:
        self._max_length = settings.max_length
        self._pushes_out = settings.overflow is Overflow.DROP_HEAD
        self._delivery_limit = settings.delivery_limit

    @property
    def _limit(self) -> tuple[int | None, bool]:
        return self._max_length, self._pushes_out

    def are_reached(self, state: QueueState) -> bool:
        """True if a queue that pushes nothing out takes no more, the dead that it keeps counted."""
        most = self._max_length
        return not self._pushes_out and most is not None and state.live_count > most

    def apply(self, batch: FactBatch, state: QueueState, group: GroupId) -> None:
        """`state` is that of the queue behind the entry."""
        left, before = 0, self._limit
        failed: dict[int, int] = {}
        for fact in batch.facts:
            if isinstance(fact, f.SpecChanged):
                self._go_by(said(fact, self._spec))
            count = sum(map(len, fact.runs)) if isinstance(fact, LEAVES) else 0
            left += count
            if isinstance(fact, f.Requeued) and self._delivery_limit is not None:
                counts = dict.fromkeys(_messages(fact), fact.delivery_count)
                failed |= {n: times for n, times in counts.items() if times > self._delivery_limit}
            if isinstance(fact, f.Dropped | f.DeadLettering):
                self.gone[fact.reason] += count
                if fact.reason is f.RemovalReason.DELIVERY_LIMIT:
                    self._have_failed(fact, failed, group)
        if failed:
            raise Violation(f"rule 7: {failed} of {group} have failed too often, and live")
        if before == self._limit:  # else who can tell which messages came under which
            self._is_kept(batch, state, left, group)
        self._waiting = state.waiting_count + state.delayed.count

    def _have_failed(
        self, fact: f.Dropped | f.DeadLettering, failed: dict[int, int], group: GroupId
    ) -> None:
        for sequence in _messages(fact):
            if failed.pop(sequence, None) is None:
                raise Violation(f"rule 7: {sequence} of {group} has not failed too often, and dies")

    def _is_kept(self, batch: FactBatch, state: QueueState, left: int, group: GroupId) -> None:
        """No more waits than may, or no more has come than there was room for."""
        most = self._max_length
        if most is None:
            return
        waiting = state.waiting_count + state.delayed.count
        is_expiring = any(
            isinstance(fact, f.Dropped | f.DeadLettering) and fact.reason is f.RemovalReason.EXPIRED
            for fact in batch.facts
        )  # only so much of that is done in one turn, and the rest of the turn is put off then
        if self._pushes_out and state.waiting_count and waiting > most and not is_expiring:
            raise Violation(f"rule 7: {waiting} wait in {group}, of {most}")
        new = batch.enqueued.count if batch.enqueued is not None else 0
        room = max(0, most + 1 - self._waiting) + left
        if not self._pushes_out and new > room:
            raise Violation(f"rule 7: {new} have come to {group}, where {room} had room")


def _messages(fact: f.Requeued | f.Dropped | f.DeadLettering) -> list[int]:
    return [sequence for run in fact.runs for sequence in run]
