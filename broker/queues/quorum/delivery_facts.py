"""Deliveries of an engine as facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fluffle.broker.queues.delivery import DeliveryBatch
from fluffle.broker.queues.quorum.facts import Delivered, DeliveredWithoutAck, Key
from fluffle.broker.queues.quorum.runs import runs_of


def facts_of(
    delivery_batches: Sequence[DeliveryBatch], key_of: Callable[[DeliveryBatch], Key]
) -> Iterator[Delivered | DeliveredWithoutAck]:
    """One fact for those between which one run was dealt out in turn, one for each other."""
    at = 0
    while at < len(delivery_batches):
        together = delivery_batches[at : at + dealt_together(delivery_batches, at)]
        first = together[0]
        runs = runs_of(first.sequences)
        if len(together) > 1:
            start = first.sequences[0]
            runs = [range(start, start + len(together) * len(first.sequences))]
        kind = DeliveredWithoutAck if first.holder.no_ack else Delivered
        # mutant: LE9
        yield kind(
            first.counts.acquired, [key_of(delivery_batch) for delivery_batch in together], runs
        )
        at += len(together)


def dealt_together(delivery_batches: Sequence[DeliveryBatch], at: int) -> int:
    """How many, from one on, are the shares of one run of consecutive messages."""
    first = delivery_batches[at]
    count = first.sequences.step if isinstance(first.sequences, range) else 1
    others = delivery_batches[at + 1 : at + count]
    if len(others) + 1 < count:
        return 1
    for place, other in enumerate(others, 1):
        share = range(first.sequences[0] + place, first.sequences[-1] + place + 1, count)
        is_alike = other.counts == first.counts and other.holder.no_ack == first.holder.no_ack
        if other.sequences != share or not is_alike:
            return 1
    return count
