"""What messages have brought along from the queue where they died."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.queue_view import messages_from
from fluffle.broker.queues.quorum import effects as e
from fluffle.broker.queues.quorum.consumer_terms import Terms
from fluffle.broker.queues.quorum.encoding import (
    CARRIES,
    REMEMBERS,
    VERSION,
    FactBatch,
    encode,
    version_of,
)
from fluffle.broker.queues.quorum.errors import InvalidEntry
from fluffle.broker.queues.quorum.facts import Published
from fluffle.broker.queues.quorum.image import Image
from fluffle.protocol.deaths import DeathReason
from tests.broker.queues.quorum.delaying import Calendar, message
from tests.broker.queues.quorum.leading import PLAIN, full, quorum
from tests.broker.queues.quorum.make import ORIGIN
from tests.broker.queues.quorum.telling import Told, bodies

BROUGHT = Counts(3, 2)


class Next(Told):
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
        [holder] = [each.answer for each in self.told if isinstance(each, e.Answer)]
        return holder

    def delivered(self) -> list[tuple[int, bool, Counts]]:
        """How many together, and what is said of them."""
        delivery_batches = [
            each.delivery_batch for each in self.take() if isinstance(each, e.Delivery)
        ]
        return [(len(each.sequences), each.redelivered, each.counts) for each in delivery_batches]


@pytest.mark.parametrize("no_ack", [False, True])
def test_each_is_handed_out_with_what_it_brought(no_ack: bool) -> None:
    bench = Next()
    for count, counts in ((2, NEW), (3, BROUGHT), (1, Counts(3, 3)), (2, NEW)):
        bench.put(count, counts)
    bench.consume(no_ack=no_ack)
    assert bench.delivered() == [
        (2, False, NEW),
        (3, True, BROUGHT),
        (1, True, Counts(3, 3)),
        (2, False, NEW),
    ]


def test_the_limit_of_the_queue_counts_on() -> None:
    bench = Next(quorum(delivery_limit=3, dead_letter_exchange="dlx"))
    bench.put(1, BROUGHT)
    holder = bench.consume()
    for ordinal, outcome in (
        (3, Outcome.NACK_REQUEUED),
        (4, Outcome.REJECT_REQUEUED),
        (5, Outcome.REJECT_REQUEUED),
    ):
        tokens = [(ordinal, range(1, 2))]
        bench.led.settle(bench.key, bench.next, holder, tokens, outcome=outcome)
        bench.next += 1
        bench.settle_down()
    assert [counts for _count, _is_again, counts in bench.delivered()] == [(3, 2), (4, 2), (5, 3)]
    [dead] = bench.died
    assert (dead.reason, dead.counts) == (DeathReason.DELIVERY_LIMIT, (6, 4))


def test_who_looks_sees_it_and_a_purge_forgets_it() -> None:
    bench = Next()
    bench.put(1, NEW)
    bench.put(2, BROUGHT)
    seen = messages_from(bench.led.queue.shelf.stocks, 0)
    assert [(each.redelivered, each.counts) for each in seen] == [
        (False, NEW),
        (True, BROUGHT),
        (True, BROUGHT),
    ]
    bench.led.purge(bench.key, bench.next)
    bench.next += 1
    bench.settle_down()
    assert bench.image.state.carried.runs == bench.led._contents.carried.runs == []


def test_what_does_not_fit_leaves_nothing_to_what_does() -> None:
    bench = Next(full(2))
    bench.put(5, BROUGHT)
    assert bench.image.state.entries.ready_count == 3, "a soft limit"
    bench.led.get(bench.key, bench.next, 1, no_ack=True)
    bench.led.get(bench.key, bench.next + 1, 1, no_ack=True)
    bench.led.get(bench.key, bench.next + 2, 1, no_ack=True)
    bench.next += 3
    bench.settle_down()
    bench.put(1, NEW)
    bench.take()
    bench.consume()
    assert bench.delivered() == [(1, False, NEW)]


def test_who_knows_nothing_of_it_is_told_nothing() -> None:
    bench = Next(reads=REMEMBERS)
    bench.put(2, BROUGHT)
    assert version_of(bench.log[-1]) == REMEMBERS
    bench.consume()
    assert bench.delivered() == [(2, False, NEW)]


def test_who_was_added_since_and_knows_nothing_of_it_does_not_take_it() -> None:
    """It would hand them out as new, and nobody could go on behind that."""
    bench = Next()
    bench.led.publish(bench.key, bench.next, *bodies(1), counts=BROUGHT)
    bench.readers = {"a": VERSION, "b": REMEMBERS}
    bench.settle_down()
    assert version_of(bench.log[-1]) == CARRIES
    with pytest.raises(InvalidEntry, match="run the one that the other members run"):
        Image(reads=REMEMBERS).apply(1, bench.log[-1])


def test_many_that_were_rejected_once_are_one_row_of_a_snapshot() -> None:
    bench = Next()
    for _ in range(300):
        bench.put(2, Counts(1, 1))
    assert bench.image.state.carried.runs == [(1, 601, (1, 1))]
    taken = bench.image.snapshot()[1]
    assert Image.restored(taken).state.carried.runs == [(1, 601, (1, 1))]
    assert len(taken) < 500


def test_a_calendar_wants_to_know_nothing() -> None:
    bench = Calendar()
    bench.readers = {"a": VERSION}
    bench.settle_down()
    bench.led.publish(bench.key, 1, [ORIGIN], [message(1, 5)], counts=BROUGHT)
    bench.asked[1], bench.sent = message(1, 5), 1
    bench.touch()
    bench.settle_down()
    bench.at(5)
    bench.settle_down()
    assert bench.came == [(1, 5)]


def test_an_entry_without_any_is_of_the_version_that_is_asked_for() -> None:
    batch = FactBatch(1, 0, [Published(1, 1, 1)])
    assert version_of(encode(batch, REMEMBERS)) == REMEMBERS
