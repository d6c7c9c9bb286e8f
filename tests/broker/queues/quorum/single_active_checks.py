"""G11: between two facts that say who is the single active consumer, nobody else is served."""

from __future__ import annotations

from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import FactBatch
from fluffle.broker.queues.quorum.state import QueueState


class SingleActiveChecks:
    """Checks of a queue that has single active consumers."""

    def __init__(self) -> None:
        self.active = f.NO_HOLDER
        self._priorities: dict[int, int] = {}
        """Priorities of attached consumers, by key."""
        self._held: dict[int, set[int]] = {}
        """Held messages by consumer."""

    def apply(self, batch: FactBatch) -> None:
        going = {fact.key for fact in batch.facts if isinstance(fact, f.Detached)}
        for fact in batch.facts:
            match fact:
                case f.ConsumerAttached():
                    self._priorities[fact.key] = fact.priority
                    self._held[fact.key] = set()
                case f.Detached():
                    self._priorities.pop(fact.key, None)
                case f.SacActive():
                    self._changes(fact.key, going)
                case f.Delivered() | f.DeliveredWithoutAck():
                    assert {*fact.holders} == {self.active}, f"{fact}; {self.active} is active"
                    if isinstance(fact, f.Delivered):
                        self._held[self.active].update(n for run in fact.runs for n in run)
                case f.Settled() | f.Requeued() | f.Dropped() | f.DeadLettering():
                    for run in fact.runs:
                        self._held.get(fact.holder, set()).difference_update(run)

    def _changes(self, key: int, going: set[int]) -> None:
        """The next is first in line, but for those that go with the same entry, before or after;
        who gives way, and is not going, holds nothing."""
        before, self.active = self.active, key
        if key in (f.NO_HOLDER, before):
            return  # who was next went with the same entry
        line = sorted((-priority, each) for each, priority in self._priorities.items())
        waiting = [each for _, each in line]
        ahead = {*waiting[: waiting.index(key)]}
        assert ahead <= going, f"{key} is active, and {line} wait"
        if before in self._priorities and before not in going:
            assert not self._held[before], f"{before} gives way with {self._held[before]}"


def check_line(state: QueueState, *, is_alone: bool) -> None:
    """Check that the first in line is active, or a former one that still holds messages."""
    line = [
        (-row.attached.priority, key)
        for key, row in state.holders.items()
        if isinstance(row.attached, f.ConsumerAttached) and not row.is_detached
    ]
    if not (is_alone and line):
        assert state.sac_active == f.NO_HOLDER
    elif state.sac_active != min(line)[1]:
        assert state.holders[state.sac_active].held.count
