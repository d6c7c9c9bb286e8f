"""Delivery counts that dead letters bring along from their source queue."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.queue_view import messages_from
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import (
    CARRIES,
    REMEMBERS,
    VERSION,
    FactBatch,
    encode,
    version_of,
)
from fluffle.broker.queues.quorum.facts import InvalidEntry, Published
from fluffle.broker.queues.quorum.holders import Terms
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.protocol.headers import DeathReason
from tests.broker.queues.quorum.delayed_queue_harness import DelayedQueueHarness, message
from tests.broker.queues.quorum.entry_harness import EntryHarness, bodies
from tests.broker.queues.quorum.leader_harness import PLAIN, full, quorum
from tests.broker.queues.quorum.sample_facts import ORIGIN

BROUGHT = Counts(3, 2)


class Next(EntryHarness):
    """A queue to which dead letters come."""

    def __init__(self, spec: QueueSpec = PLAIN, reads: int = VERSION) -> None:
        super().__init__(spec)
        self.readers = {"a": reads}
        self.key = self.session()
        self.next = 1
        self.is_touched = True
        self.settle_down()

    def put(self, count: int, counts: Counts) -> None:
        self.led.publish(self.key, self.next, *bodies(count), counts=counts)
        self.next += count
        self.settle_down()

    def consume(self, *, no_ack: bool = False) -> int:
        self.led.attach(self.key, self.next, Terms(1, "tag", no_ack=no_ack))
        self.next += 1
        self.settle_down()
        [holder] = [each.answer for _, each in self.reported if isinstance(each, m.AnswerReply)]
        return holder

    def delivered(self) -> list[tuple[int, bool, Counts]]:
        """How many together, and what is said of them."""
        return [
            (len(each.contents), each.redelivered, Counts(each.ordinal, each.failed))
            for each in self.take_messages()
            if isinstance(each, m.Deliver)
        ]


@pytest.mark.parametrize("no_ack", [False, True])
def test_each_is_handed_out_with_what_it_brought(no_ack: bool) -> None:
    harness = Next()
    for count, counts in ((2, NEW), (3, BROUGHT), (1, Counts(3, 3)), (2, NEW)):
        harness.put(count, counts)
    harness.consume(no_ack=no_ack)
    assert harness.delivered() == [
        (2, False, NEW),
        (3, True, BROUGHT),
        (1, True, Counts(3, 3)),
        (2, False, NEW),
    ]


def test_the_limit_of_the_queue_counts_on() -> None:
    harness = Next(quorum(delivery_limit=3, dead_letter_exchange="dlx"))
    harness.put(1, BROUGHT)
    holder = harness.consume()
    for ordinal, outcome in (
        (3, Outcome.NACK_REQUEUED),
        (4, Outcome.REJECT_REQUEUED),
        (5, Outcome.REJECT_REQUEUED),
    ):
        tokens = [(ordinal, range(1, 2))]
        harness.led.settle(harness.key, harness.next, holder, tokens, outcome=outcome)
        harness.next += 1
        harness.settle_down()
    assert [counts for _count, _is_again, counts in harness.delivered()] == [(3, 2), (4, 2), (5, 3)]
    [dead] = harness.died
    assert (dead.reason, dead.counts) == (DeathReason.DELIVERY_LIMIT, (6, 4))


def test_who_looks_sees_it_and_a_purge_forgets_it() -> None:
    harness = Next()
    harness.put(1, NEW)
    harness.put(2, BROUGHT)
    seen = messages_from(harness.led.queue.ready_view.stocks, 0)
    assert [(each.redelivered, each.counts) for each in seen] == [
        (False, NEW),
        (True, BROUGHT),
        (True, BROUGHT),
    ]
    harness.led.purge(harness.key, harness.next)
    harness.next += 1
    harness.settle_down()
    assert (
        harness.image.state.delivery_counts.runs == harness.led._contents.delivery_counts.runs == []
    )


def test_what_does_not_fit_leaves_nothing_to_what_does() -> None:
    harness = Next(full(2))
    harness.put(5, BROUGHT)
    assert harness.image.state.entries.ready_count == 3, "a soft limit"
    harness.led.get(harness.key, harness.next, 1, no_ack=True)
    harness.led.get(harness.key, harness.next + 1, 1, no_ack=True)
    harness.led.get(harness.key, harness.next + 2, 1, no_ack=True)
    harness.next += 3
    harness.settle_down()
    harness.put(1, NEW)
    harness.take()
    harness.consume()
    assert harness.delivered() == [(1, False, NEW)]


def test_who_knows_nothing_of_it_gets_nothing() -> None:
    harness = Next(reads=REMEMBERS)
    harness.put(2, BROUGHT)
    assert version_of(harness.log[-1]) == REMEMBERS
    harness.consume()
    assert harness.delivered() == [(2, False, NEW)]


def test_who_was_added_since_and_knows_nothing_of_it_does_not_take_it() -> None:
    """That member would deliver them as new, and the others could not follow."""
    harness = Next()
    harness.led.publish(harness.key, harness.next, *bodies(1), counts=BROUGHT)
    harness.readers = {"a": VERSION, "b": REMEMBERS}
    harness.settle_down()
    assert version_of(harness.log[-1]) == CARRIES
    with pytest.raises(InvalidEntry, match="run the one that the other members run"):
        QueueImage(reads=REMEMBERS).apply(1, harness.log[-1])


def test_many_that_were_rejected_once_are_one_row_of_a_snapshot() -> None:
    harness = Next()
    for _ in range(300):
        harness.put(2, Counts(1, 1))
    assert harness.image.state.delivery_counts.runs == [(1, 601, (1, 1))]
    taken = take_snapshot(harness.image)[1]
    assert restored_image(taken).state.delivery_counts.runs == [(1, 601, (1, 1))]
    assert len(taken) < 500


def test_a_delayed_queue_wants_to_know_nothing() -> None:
    harness = DelayedQueueHarness()
    harness.readers = {"a": VERSION}
    harness.settle_down()
    harness.led.publish(harness.key, 1, [ORIGIN], [message(1, 5)], counts=BROUGHT)
    harness.asked[1], harness.sent = message(1, 5), 1
    harness.touch()
    harness.settle_down()
    harness.at(5)
    harness.settle_down()
    assert harness.came == [(1, 5)]


def test_an_entry_without_any_is_of_the_version_that_is_asked_for() -> None:
    batch = FactBatch(1, 0, [Published(1, 1, 1)])
    assert version_of(encode(batch, REMEMBERS)) == REMEMBERS
