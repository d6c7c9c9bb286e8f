"""Redelivery of messages that the log has as delivered and that never arrived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fluffle.broker.queues.delivery_counts import Counts
from fluffle.broker.queues.expiry_times import Expiries
from fluffle.broker.queues.journal import UnreadableMessages
from fluffle.broker.queues.queue_api import DeliveryBatch, Holder
from fluffle.broker.queues.quorum.effect_buffer import EffectBuffer
from fluffle.broker.queues.quorum.effects import Effect
from fluffle.broker.queues.quorum.facts import Key
from fluffle.broker.queues.quorum.holders import Holders
from fluffle.broker.queues.quorum.message_reader import LogJournal
from fluffle.broker.queues.quorum.runs import runs_of
from fluffle.broker.queues.quorum.state import Hold, State


class RecordedDeliveries:
    """Deliveries on record before one leadership began."""

    __slots__ = ("_contents", "_delivery", "_effects", "_holders", "_state")

    def __init__(
        self,
        state: State,
        holders: Holders,
        contents: LogJournal,
        gate: EffectBuffer,
        delivery: Callable[[Key, DeliveryBatch], list[Effect]],
    ) -> None:
        """`delivery`: how messages leave for whoever holds them."""
        self._state = state
        self._holders = holders
        self._contents = contents
        self._effects = gate
        self._delivery = delivery

    def holds(self, session: Key) -> list[tuple[Key, int, range]]:
        """What the consumers of a session have in hands: whose, with which ordinal, which messages.

        What is applied, without what is ended meanwhile: so all of it has left through the gate.
        """
        return [
            (key, hold.counts.acquired, piece)
            for key in self._holders.of_session(session)
            for run, hold in self._of(key)
            for piece, _handout in self._held_too(key, run, hold.counts.acquired)
        ]

    def deliver_again(self, holder: Key, tokens: Sequence[tuple[int, range]]) -> None:
        """It is delivered as if for the first time."""
        for ordinal, run in tokens:
            for piece, delivery_batch in self._held_too(holder, run, ordinal):
                try:
                    again = self._read_again(piece, delivery_batch)
                except UnreadableMessages:
                    return  # whoever owns this has been told that it is damaged
                self._effects.keep_known(partial(self._repeated, holder, again))

    def _of(self, key: Key) -> list[tuple[range, Hold]]:
        row = self._state.holders.get(key)
        return list(row.held) if row is not None else []

    def _held_too(self, key: Key, run: range, ordinal: int) -> list[tuple[range, DeliveryBatch]]:
        """What of a run is in somebody's hands by the image and by what is decided since."""
        row, held = self._state.holders.get(key), self._holders.get(key)
        if row is None or held is None:
            return []
        return [
            part
            for piece, hold in row.held.found(run)
            if hold.counts.acquired == ordinal
            for part in held.holding(piece, ordinal)
        ]

    def _read_again(self, run: range, delivery_batch: DeliveryBatch) -> DeliveryBatch:
        origins, contents = self._contents.fetch(run)
        return DeliveryBatch(
            delivery_batch.holder,
            origins,
            contents,
            run,
            redelivered=delivery_batch.redelivered,
            is_recorded=True,
            counts=delivery_batch.counts,
        )

    def _repeated(self, key: Key, again: DeliveryBatch) -> list[Effect]:
        """Nothing, if any of it has been settled or has come back before this could leave."""
        runs = runs_of(again.sequences)
        held = [piece for run in runs for piece in self._held_too(key, run, again.counts.acquired)]
        if sum(len(piece) for piece, _handout in held) < len(again.sequences):
            return []
        return self._delivery(key, again)


def on_record_before(
    holder: Holder, run: range, counts: Counts, since_ms: int, expiries: Expiries | None
) -> DeliveryBatch:
    """What was in hands when this leadership began: it has left, or is delivered again."""
    return DeliveryBatch(
        holder,
        [],
        [b""] * len(run),
        run,
        redelivered=counts.acquired > 0,
        is_recorded=True,
        counts=counts,
        expiries=expiries,
        delivered_at_ms=since_ms,
    )
