"""When messages of one queue expire, by what is enqueued, and whether what the log says fits it.

G10 for expiry, which is never of a held message: that is for the image to refuse.
"""

from __future__ import annotations

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.expiry_times import INSTANT_MS
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import FactBatch
from fluffle.broker.queues.ready_list import NO_MESSAGE
from fluffle.broker.queues.settings import settings_of
from fluffle.raft.log import GroupId
from tests.simulation.facts import Violation
from tests.simulation.queues.settings_checks import said


class MessageTtlChecks:
    """Checks of the expiries of one queue."""

    def __init__(self, spec: QueueSpec) -> None:
        self._spec = spec
        self._ttl_ms = settings_of(spec).message_ttl_ms
        """Nothing lives longer that comes now."""
        self._expires_at_ms: dict[int, int] = {}
        """Expiry by sequence number, of messages that have one."""
        self._before_ms = 0
        """Queue time of the entry before."""
        self.expired = 0

    def of(self, sequence: int) -> int:
        """0: never."""
        return self._expires_at_ms.get(sequence, 0)

    def apply(self, batch: FactBatch, group: GroupId) -> None:
        """Check that expired messages were due, and that those due before the entry was begun were
        not delivered."""
        changes = [fact for fact in batch.facts if isinstance(fact, f.SpecChanged)]
        if (new := batch.enqueued) is not None:
            columns = new.columns
            for place in range(new.count):
                at_ms = columns.expiries[place] if columns.expiries else columns.expires_at_ms
                if at_ms:
                    self._expires_at_ms[new.first + place] = at_ms
                if not changes and self._ttl_ms is not None:
                    self._check_lifetime(at_ms, batch.stamp_ms + self._ttl_ms, group)
        if changes:
            self._ttl_ms = said(changes[-1], self._spec).message_ttl_ms
        for fact in batch.facts:
            if isinstance(fact, f.Delivered | f.DeliveredWithoutAck):
                came = new.first if new is not None else NO_MESSAGE
                numbers = [n for run in fact.runs for n in run]
                late = [n for n in numbers if self._is_late(n, fact.ordinal, came)]
                if late:
                    raise Violation(f"rule 7: {late} of group {group} had expired")
            elif (
                isinstance(fact, f.Dropped | f.DeadLettering)
                and fact.reason is f.RemovalReason.EXPIRED
            ):
                self._check_due([n for run in fact.runs for n in run], batch.stamp_ms, group)
        self._before_ms = batch.stamp_ms

    def _check_lifetime(self, at_ms: int, latest_ms: int, group: GroupId) -> None:
        if not 0 < at_ms <= latest_ms:
            raise Violation(f"rule 17: in {group} one lives until {at_ms}, and may to {latest_ms}")

    def _is_late(self, sequence: int, ordinal: int, came: int) -> bool:
        """True if a delivery is late.  A message without time to live is delivered all the same, in
        the entry in which it comes: those from `came` on have come in this one."""
        at_ms = self.of(sequence)
        is_new = at_ms == INSTANT_MS and (not ordinal or sequence >= came)
        return 0 < at_ms <= self._before_ms and not is_new

    def _check_due(self, sequences: list[int], stamp_ms: int, group: GroupId) -> None:
        self.expired += len(sequences)
        early = [n for n in sequences if not 0 < self.of(n) <= stamp_ms]
        if early:
            raise Violation(f"rule 7: {early} of group {group} were not due at {stamp_ms}")
