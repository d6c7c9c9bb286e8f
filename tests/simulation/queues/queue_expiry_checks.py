"""Since when nobody has used a queue, by its log: whether it goes no sooner than it may."""

from __future__ import annotations

from collections.abc import Sequence

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import FactBatch
from fluffle.broker.queues.settings import settings_of
from fluffle.raft.log import GroupId
from tests.simulation.facts import Violation
from tests.simulation.queues.settings_checks import said

APART = 0.5
"""Share by which queue time and the machines' time differ, at most."""


class QueueExpiryChecks:
    """Checks of the expiry of one queue."""

    def __init__(self, spec: QueueSpec, counts: Sequence[int]) -> None:
        """`counts`: what all machines count when it is declared."""
        self._born = counts
        self._spec = spec
        self._expires_ms = settings_of(spec).expires_ms
        self._may_get = not spec.single_active_consumer
        """Else edges ask for no message, and leaders would give none."""
        self._consumers: set[f.Key] = set()
        self._used_ms: int | None = None
        """No sooner than this: its leader looked at its clock before it stamped the entry."""
        self._before_ms: int | None = None
        """Queue time of the entry before."""
        self.ended = 0
        """Number of expiries of the queue."""

    def apply(self, batch: FactBatch) -> None:
        for fact in batch.facts:
            if isinstance(fact, f.ConsumerAttached):
                self._consumers.add(fact.key)
            elif isinstance(fact, f.Detached) and fact.key in self._consumers:
                self._consumers.remove(fact.key)
                self._used_ms = self._before_ms
            elif isinstance(fact, f.GetterAttached) and self._may_get:
                self._used_ms = self._before_ms
            elif isinstance(fact, f.SpecChanged):
                self._go_by(said(fact, self._spec).expires_ms)
        self._before_ms = batch.stamp_ms

    def _go_by(self, expires_ms: int | None) -> None:
        """Time that has passed counts for nothing under another limit of it."""
        if expires_ms != self._expires_ms:
            self._expires_ms, self._used_ms = expires_ms, self._before_ms

    @property
    def ends(self) -> bool:
        """True if it goes once nobody uses it any more."""
        return self._expires_ms is not None

    @property
    def has_consumers(self) -> bool:
        return bool(self._consumers)

    def go(
        self, now_ms: int, counts: Sequence[int], group: GroupId, *, expires_ms: int | None
    ) -> None:
        """A leader has it deleted, by queue time now, when machines count this; it goes by
        `expires_ms`, which may not be on record yet."""
        self.ended += 1
        if expires_ms != self._expires_ms:
            return
        if not self.ends or self._consumers:
            raise Violation(f"x-expires: {self._consumers} are there, and {group} goes")
        assert self._expires_ms is not None
        passed_ms = max(counts) - min(self._born)  # a time that is behind may be put right
        if passed_ms < self._expires_ms * (1 - APART):
            raise Violation(f"x-expires: {group} was declared {passed_ms} ms before")
        if self._used_ms is not None and now_ms < self._used_ms + self._expires_ms:
            raise Violation(f"x-expires: {group} was used at {self._used_ms}, it is {now_ms}")
