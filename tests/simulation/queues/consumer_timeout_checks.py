"""Consumer timeouts of one queue: for how long messages are held, by the log, and when that was
enough.

A message goes back for that not before its time, and no later than the entry behind the first with
which its leader could see it: also if another leader has handed it out.
"""

from __future__ import annotations

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.consumers import GAP_MS
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import DATED_HOLDS, FactBatch
from fluffle.broker.queues.quorum.holders import timeout_of
from fluffle.broker.queues.quorum.runs import dealt
from fluffle.broker.queues.settings import settings_of
from fluffle.raft.log import GroupId
from tests.simulation.facts import Violation


class ConsumerTimeoutChecks:
    """With the holders of one queue."""

    def __init__(self, spec: QueueSpec) -> None:
        self._timeout_ms = settings_of(spec).consumer_timeout_ms
        self._own_ms: dict[f.Key, int] = {}
        self._due_ms: dict[int, int] = {}
        """Due times by sequence number, of messages that are held and have a timeout."""
        self._earliest_ms: dict[int, int] = {}
        """The same, if it was decided as soon as the entry before it was written."""
        self._before = 0, 0
        """Term and stamp of the entry before."""
        self.timed_out = 0

    def _timeout_of(self, holder: f.Key) -> int:
        timeout_ms = self._own_ms.get(holder, self._timeout_ms)
        return NEVER_MS if timeout_ms is None else timeout_ms

    def apply(self, batch: FactBatch, term: int, group: GroupId) -> None:
        for fact in batch.facts:
            if isinstance(fact, f.ConsumerAttached):
                own_ms = timeout_of(fact.arguments)
                if own_ms is not None:
                    self._own_ms[fact.key] = own_ms
            elif isinstance(fact, f.Requeued) and fact.how is f.RequeueReason.TIMED_OUT:
                self._check_due([n for run in fact.runs for n in run], batch.stamp_ms, group)
            if isinstance(fact, f.Requeued | f.Settled | f.Dropped | f.DeadLettering):
                for run in fact.runs:
                    for sequence in run:
                        self._due_ms.pop(sequence, None)
            elif isinstance(fact, f.Delivered):
                self._hand_out(fact, batch)
        self._check_none_late(term, group)
        self._before = term, batch.stamp_ms

    def _hand_out(self, fact: f.Delivered, batch: FactBatch) -> None:
        """Record deliveries; undated ones may be dated anew by each leader."""
        count, before = len(fact.holders), 0
        for run in fact.runs:
            for place, holder in enumerate(fact.holders):
                timeout_ms = self._timeout_of(holder)
                for sequence in dealt(run, place, count, before):
                    is_dated = batch.version >= DATED_HOLDS and timeout_ms < NEVER_MS
                    if is_dated:
                        self._due_ms[sequence] = batch.stamp_ms + timeout_ms
                        self._earliest_ms[sequence] = self._before[1] + timeout_ms
            before += len(run)

    def _check_due(self, sequences: list[int], stamp_ms: int, group: GroupId) -> None:
        """The time of a leader begins with its decision, before the stamp of the entry."""
        self.timed_out += len(sequences)
        early = [n for n in sequences if n in self._due_ms and self._earliest_ms[n] > stamp_ms]
        if early:
            raise Violation(f"rule 7: {early} of group {group} had more time at {stamp_ms}")

    def _check_none_late(self, term: int, group: GroupId) -> None:
        before_term, before_ms = self._before
        if before_term != term:
            return
        late = [n for n, due_ms in self._due_ms.items() if due_ms + 2 * GAP_MS < before_ms]
        if late:
            raise Violation(f"rule 16: {late} of group {group} are held too long at {before_ms}")
