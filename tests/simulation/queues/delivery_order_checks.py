"""In which order the messages of one queue are handed out, by its log and by what they say: G9."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import FactBatch
from fluffle.protocol.properties import decode_properties, raw_properties
from fluffle.raft.log import GroupId
from tests.simulation.facts import Violation

HIGHEST, MISSING = 31, 4
"""Levels of a quorum queue: the last, and that of messages that name none."""


def level_of(content: bytes) -> int:
    """How urgent a message is, as its properties say."""
    priority = decode_properties(raw_properties(content)).priority
    return MISSING if priority is None else min(priority, HIGHEST)


class DeliveryOrderChecks:
    """Messages that may be handed out: what has come back, then the most urgent."""

    def __init__(self) -> None:
        self._requeued: dict[int, None] = {}
        self._ready: dict[int, int] = {}
        """The level of each."""

    def _in_order(self) -> list[int]:
        by_level = sorted(self._ready, key=lambda sequence: (-self._ready[sequence], sequence))
        return [*self._requeued, *by_level]

    def apply(self, batch: FactBatch, contents: list[bytes], group: GroupId) -> None:
        """Check that an entry delivers the first of the messages that were ready before it;
        `contents`: of those that come with it."""
        before = self._in_order()
        if batch.enqueued is not None:
            self._ready |= dict(enumerate(map(level_of, contents), batch.enqueued.first))
        handed: set[int] = set()
        gone: set[int] = set()
        for fact in batch.facts:
            if isinstance(fact, f.Delivered | f.DeliveredWithoutAck):
                handed.update(self._take(fact))
            elif isinstance(fact, f.Requeued | f.DelayElapsed):
                if isinstance(fact, f.Requeued) and fact.ready_at_ms:
                    continue
                self._requeued |= dict.fromkeys(n for run in fact.runs for n in run)
            elif isinstance(fact, f.Purged | f.Dropped | f.DeadLettering):
                gone.update(self._take(fact))
        candidates = [n for n in before if n not in gone]
        handed &= {*candidates}
        if handed != {*candidates[: len(handed)]}:
            raise Violation(
                f"G9: {sorted(handed)} are handed out of group {group}, {candidates} waited"
            )

    def _take(self, fact: Any) -> Iterator[int]:
        for run in fact.runs:
            for sequence in run:
                for place in (self._requeued, self._ready):
                    if sequence in place:
                        del place[sequence]
                        yield sequence
