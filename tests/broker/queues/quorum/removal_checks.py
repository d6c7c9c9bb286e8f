"""How messages go by an entry, against what its log says of them before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.priority_ready_list import PriorityReadyList
from fluffle.broker.queues.quorum.entries import LiveEntries, LiveEntry
from fluffle.broker.queues.quorum.entry_codec import decode
from fluffle.broker.queues.quorum.facts import (
    DeadLettering,
    Delivered,
    DeliveredWithoutAck,
    Dropped,
    Purged,
    RemovalReason,
)
from fluffle.broker.queues.quorum.state import QueueState
from fluffle.broker.queues.ready_list import ReadyList
from fluffle.broker.queues.settings import Overflow, QueueSettings
from fluffle.protocol.headers import DeathReason
from tests.broker.queues.priority_harness import with_priority


def check_expired(payload: bytes, entries: LiveEntries) -> None:
    """Nothing expires before its time."""
    batch = decode(payload)
    for fact in batch.facts:
        if isinstance(fact, Dropped | DeadLettering) and fact.reason is RemovalReason.EXPIRED:
            for run in fact.runs:
                if batch.enqueued is not None and run[-1] >= batch.enqueued.first:
                    continue  # it had no time to live at all
                expiries = entries.expiries_of(run)
                assert expiries is not None
                assert max(expiries) <= batch.stamp_ms


def priority_of(entry: LiveEntry, place: int) -> int:
    """Priority of the message at `place` of an entry, counted from 0."""
    own = entry.each.priorities if entry.each is not None else b""
    return own[place] if own else entry.priority


def check_order(payload: bytes, entries: LiveEntries) -> None:
    """Check the order of first deliveries, and of messages dropped at a limit: by priority, then by
    age, as in RabbitMQ 4.3.

    What comes in the same entry may have come after that.
    """
    levels = {
        number: priority_of(entry, number - entry.first)
        for entry in entries
        for run in entries.ready_of(entry)
        for number in run
    }
    handed, pushed_out = list[int](), list[int]()
    for fact in decode(payload).facts:
        if isinstance(fact, Delivered | DeliveredWithoutAck | Dropped | DeadLettering | Purged):
            found = [levels.pop(n) for run in fact.runs for n in run if n in levels]
            if isinstance(fact, Delivered | DeliveredWithoutAck):
                handed += found
            elif not isinstance(fact, Purged) and fact.reason is RemovalReason.MAXLEN:
                pushed_out += found
    for gone in (handed, pushed_out):
        assert not gone or min(gone) >= max(levels.values(), default=0), "more urgent ones wait"


def waiting_again(queue: Queue) -> Iterable[tuple[int, Counts]]:
    """Requeued messages in the order in which the engine delivers them."""
    ready_list = (
        queue._ready_list._front
        if isinstance(queue._ready_list, PriorityReadyList)
        else queue._ready_list
    )
    assert isinstance(ready_list, ReadyList)
    runs = ready_list._requeued.batches
    return ((number, run.counts) for run in runs for number in run.sequences[run.head :])


def check_counts(counts: Counts, brought: Counts, *, came_back: bool) -> None:
    """Check the delivery counts of a delivered message that brought `brought`."""
    assert came_back or counts == brought
    assert counts.failed >= brought.failed, "it hears of less than it did before"
    assert counts.acquired - brought.acquired >= counts.failed - brought.failed


def check_death(
    reason: DeathReason,
    content: bytes,
    counts: Counts,
    said: Sequence[QueueSettings],
    brought: Mapping[bytes, Counts],
) -> None:
    """Check a dead letter of a queue that had these settings in turn."""
    if reason is DeathReason.DELIVERY_LIMIT:
        assert counts.acquired >= counts.failed
        limits = {each.delivery_limit for each in said}
        above = [each for each in limits if each is not None and each < counts.failed]
        is_reported = counts.failed <= brought.get(content, NEW).failed + 1
        assert counts.failed - 1 in above or (above and (is_reported or len(limits) > 1))


def check_limits(state: QueueState, said: Sequence[QueueSettings]) -> None:
    """No more waits than may, by the last settings, or by any if these have none."""
    most = said[-1].max_length
    if most is None:
        has_limits = any(each.limits[:2] != (None, None) for each in said)
        assert has_limits or state.gone[RemovalReason.MAXLEN] == 0
    elif said[-1].overflow is Overflow.DROP_HEAD:
        assert not state.waiting_count or state.waiting_count + state.delayed.count <= most
    elif len(said) == 1:
        assert state.entries.ready_count <= most + 1, "a soft limit"


def body(number: int, priority: int | None) -> bytes:
    """Content of a published message, as the leader sees it."""
    return with_priority(f"body {number}", priority)
