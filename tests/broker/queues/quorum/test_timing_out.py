"""Messages that are held for too long, as their leader and the next one have it.

There is no oracle: RabbitMQ 4.0.5 closes channels, looking once a minute.  What is expected is what
consumer_timeouts.md in the sources of 4.3 says: the messages go back, which is no failure, and the
consumer gets nothing more.
"""

from __future__ import annotations

import pytest

from fluffle.broker.queues.delivery import Outcome
from fluffle.broker.queues.quorum.consumer_terms import TIMEOUT, timeout_of
from fluffle.broker.queues.quorum.encoding import FIRST_VERSION, VERSION, version_of
from fluffle.broker.queues.quorum.entry_version import EntryVersions
from fluffle.broker.queues.quorum.facts import Detached, Requeued, RequeueReason
from fluffle.broker.queues.quorum.image import Image
from fluffle.protocol.wire import encode_table
from tests.broker.queues.quorum.edges import Edge
from tests.broker.queues.quorum.leading import Bench, quorum
from tests.broker.queues.quorum.test_delayed_retry import at, facts

TIMEOUT_MS = 1_000


class Timing(Bench):
    """In which time is limited, and members read entries of some version."""

    def __init__(self, **readers: int) -> None:
        self.readers = readers
        super().__init__(quorum(consumer_timeout=TIMEOUT_MS))

    def lead(self) -> None:
        super().lead()
        self.led._versions = EntryVersions(self.image, self.led._builder, lambda: self.readers)


def holding(count: int = 3, **readers: int) -> tuple[Timing, Edge]:
    """A queue whose one consumer holds messages since 100."""
    bench = Timing(**readers)
    edge = bench.open_edge()
    bench.attach(edge)
    at(bench, 100)
    bench.publish(edge, count)
    bench.settle_down()
    assert sorted(edge.holds) == list(range(1, count + 1))
    return bench, edge


def test_what_is_held_for_too_long_goes_back_and_its_consumer_is_gone() -> None:
    bench, edge = holding()
    at(bench, 100 + TIMEOUT_MS - 1)
    assert bench.timed_out == []
    at(bench, 100 + TIMEOUT_MS)
    (told,) = bench.timed_out
    assert (told.tokens, told.held_ms, told.timeout_ms) == ([(0, range(1, 4))], 1_000, 1_000)
    (returned,) = facts(bench, Requeued)
    assert isinstance(returned, Requeued)
    assert (returned.how, returned.delivery_count) == (RequeueReason.TIMED_OUT, 0)
    assert facts(bench, Detached) == [Detached(told.holder)]
    assert bench.image.state.holders == {}
    bench.attach(edge)
    bench.settle_down()
    assert sorted(edge.holds) == [1, 2, 3], "the next one gets it"
    bench.check()


def test_who_does_not_hear_that_time_is_up_learns_it_from_the_next_leader() -> None:
    bench, edge = holding()
    bench.now_ms = 100 + TIMEOUT_MS
    bench.is_touched = True
    bench.turn()
    bench.change_leader(len(bench.proposals), is_elsewhere=True)
    assert facts(bench, Requeued), "it is kept"
    assert (bench.timed_out, edge.holds) == ([], {})
    other = bench.open_edge()
    bench.attach(other)
    bench.settle_down()
    assert sorted(other.holds) == [1, 2, 3]
    bench.check()


def test_what_is_settled_then_is_done_for_nobody() -> None:
    bench, edge = holding()
    bench.now_ms = 100 + TIMEOUT_MS
    bench.is_touched = True
    bench.turn()
    bench.end(edge, [2], Outcome.ACKED)
    bench.settle_down()
    assert (bench.settled, bench.image.state.waiting_count) == (set(), 3)
    bench.check()


def test_only_what_was_handed_out_long_enough_ago_goes_back() -> None:
    bench, edge = holding()
    at(bench, 600)
    bench.publish(edge, 2)
    bench.settle_down()
    bench.end(edge, [2], Outcome.ACKED)
    bench.settle_down()
    at(bench, 100 + TIMEOUT_MS)
    assert [told.tokens for told in bench.timed_out] == [[(0, range(1, 2)), (0, range(3, 4))]]
    assert sorted(edge.holds) == [4, 5]
    bench.check()
    at(bench, 600 + TIMEOUT_MS)
    assert bench.timed_out[1].tokens == [(0, range(4, 6))]
    bench.check()


def test_who_got_a_message_loses_it_too() -> None:
    bench = Timing()
    edge = bench.open_edge()
    bench.publish(edge, 1)
    bench.get(edge, no_ack=False)
    bench.settle_down()
    at(bench, TIMEOUT_MS)
    assert [told.tokens for told in bench.timed_out] == [[(0, range(1, 2))]]
    bench.get(edge, no_ack=False)
    bench.settle_down()
    assert sorted(edge.holds) == [1], "the channel may get more"
    bench.check()


def test_a_consumer_is_not_delivered_what_goes_back_before_it_could_leave() -> None:
    """Its entry takes longer to be committed than it may be held; the consumer holds more."""
    bench = Timing()
    edge = bench.open_edge()
    bench.attach(edge)
    at(bench, 100)
    for now_ms in (100, 600):
        bench.now_ms = now_ms
        bench.publish(edge, 1)
        bench.turn()
    bench.now_ms = 100 + TIMEOUT_MS
    bench.is_touched = True
    bench.turn()
    assert bench.seen == {}, "neither has left"
    bench.settle_down()
    assert [told.tokens for told in bench.timed_out] == [[(0, range(1, 2))]]
    assert (sorted(edge.holds), sorted(bench.seen)) == ([2], [2])
    bench.check()


def test_who_asks_does_not_get_what_goes_back_before_it_could_leave() -> None:
    bench = Timing()
    edge = bench.open_edge()
    at(bench, 100)
    bench.publish(edge, 1)
    bench.settle_down()
    bench.get(edge, no_ack=False)
    bench.turn()
    bench.now_ms = 100 + TIMEOUT_MS
    bench.is_touched = True
    bench.turn()
    assert len(bench.proposals) == 2, "the message is in hands, and is back: neither is applied"
    bench.settle_down()
    assert (edge.pending, edge.holds, bench.seen) == ({}, {}, {})
    bench.get(edge, no_ack=False)
    bench.settle_down()
    assert sorted(edge.holds) == [1]
    bench.check()


def test_what_the_consumer_asks_for_comes_before_what_the_queue_has() -> None:
    bench = Timing()
    edge = bench.open_edge()
    bench.attach(edge, arguments=encode_table({TIMEOUT: ("l", 300)}))
    bench.publish(edge, 1)
    bench.settle_down()
    at(bench, 299)
    assert bench.timed_out == []
    at(bench, 300)
    assert [told.timeout_ms for told in bench.timed_out] == [300]


@pytest.mark.parametrize(
    ("arguments", "expected_ms"),
    [
        (b"", None),
        (encode_table({}), None),
        (encode_table({TIMEOUT: ("b", 5)}), 5),
        (encode_table({TIMEOUT: ("b", -5)}), None),
        (encode_table({TIMEOUT: ("S", b"5")}), None),
        (b"\x00\x00\x00\x05", None),
    ],
)
def test_what_arguments_on_record_say(arguments: bytes, expected_ms: int | None) -> None:
    assert timeout_of(arguments) == expected_ms


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_the_next_leader_goes_on_with_the_time(is_elsewhere: bool) -> None:
    """Also one that begins with a snapshot."""
    bench, edge = holding(2, a=VERSION)
    bench.publish(edge, 1)
    bench.settle_down()
    assert version_of(bench.log[-1]) == VERSION
    at(bench, 600)
    bench.image = Image.restored(bench.image.snapshot()[1])
    bench.change_leader(0, is_elsewhere=is_elsewhere)
    bench.settle_down()
    bench.check()
    (holder,) = bench.image.state.holders.values()
    since_ms = {number: hold.since_ms for run, hold in holder.held for number in run}
    assert since_ms == {1: 0, 2: 0, 3: 100}
    at(bench, 100 + TIMEOUT_MS)
    assert sorted(edge.holds) == [1, 2], "nobody knows since when: as if it was since then"
    at(bench, 600 + TIMEOUT_MS)
    assert edge.holds == {}
    bench.check()


def test_before_all_members_read_it_nobody_writes_down_since_when() -> None:
    """The next leader begins anew with what it finds."""
    bench, edge = holding(2, a=VERSION, b=FIRST_VERSION)
    assert {version_of(entry) for entry in bench.log} == {FIRST_VERSION}
    assert bench.image.snapshot()[1][0] == FIRST_VERSION
    at(bench, 600)
    bench.change_leader(0, is_elsewhere=True)
    bench.settle_down()
    at(bench, 600 + TIMEOUT_MS - 1)
    assert sorted(edge.holds) == [1, 2]
    at(bench, 600 + TIMEOUT_MS)
    assert edge.holds == {}
    bench.check()


def test_what_is_told_is_which_hand_outs_and_for_how_long() -> None:
    bench, edge = holding(1)
    bench.end(edge, [1], Outcome.NACK_REQUEUED)
    bench.settle_down()
    assert edge.holds[1].ordinal == 1
    at(bench, 170 + TIMEOUT_MS)
    (told,) = bench.timed_out
    assert told.tokens == [(1, range(1, 2))]
    assert (told.held_ms, told.timeout_ms) == (1_070, 1_000)
