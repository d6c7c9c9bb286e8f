"""Messages that are held for too long, as their leader and the next one have it.

There is no oracle: RabbitMQ 4.0.5 closes channels, looking once a minute.  What is expected is what
consumer_timeouts.md in the sources of 4.3 says: the messages go back, which is no failure, and the
consumer gets nothing more.
"""

from __future__ import annotations

import pytest

from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum.entry_codec import FIRST_VERSION, VERSION, version_of
from fluffle.broker.queues.quorum.facts import Detached, Requeued, RequeueReason
from fluffle.broker.queues.quorum.holders import TIMEOUT, timeout_of
from fluffle.broker.queues.quorum.messages import TimeoutNotice
from fluffle.broker.queues.quorum.proposals import EntryVersions
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from fluffle.protocol.wire import encode_table
from tests.broker.queues.quorum.leader_harness import LeaderHarness, quorum
from tests.broker.queues.quorum.session_clients import SessionClients
from tests.broker.queues.quorum.test_settlement_delayed_retry import at, facts

TIMEOUT_MS = 1_000


class Timing(LeaderHarness):
    """In which time is limited, and members read entries of some version."""

    def __init__(self, **readers: int) -> None:
        self.readers = readers
        super().__init__(quorum(consumer_timeout=TIMEOUT_MS))

    def lead(self) -> None:
        super().lead()
        self.led._versions = EntryVersions(self.image, self.led._builder, lambda: self.readers)


def holding(count: int = 3, **readers: int) -> tuple[Timing, SessionClients]:
    """A queue whose one consumer holds messages since 100."""
    harness = Timing(**readers)
    edge = harness.open_edge()
    harness.attach(edge)
    at(harness, 100)
    harness.publish(edge, count)
    harness.settle_down()
    assert sorted(edge.holds) == list(range(1, count + 1))
    return harness, edge


def held_of(notice: TimeoutNotice) -> list[tuple[int, range]]:
    """Ordinals and runs of the messages that were taken back."""
    return [(ordinal, run) for _holder, ordinal, run in notice.tokens]


def test_what_is_held_for_too_long_goes_back_and_its_consumer_is_gone() -> None:
    harness, edge = holding()
    at(harness, 100 + TIMEOUT_MS - 1)
    assert harness.timed_out == []
    at(harness, 100 + TIMEOUT_MS)
    (overdue,) = harness.timed_out
    assert (held_of(overdue), overdue.held_ms, overdue.timeout_ms) == (
        [(0, range(1, 4))],
        1_000,
        1_000,
    )
    (returned,) = facts(harness, Requeued)
    assert isinstance(returned, Requeued)
    assert (returned.how, returned.delivery_count) == (RequeueReason.TIMED_OUT, 0)
    assert facts(harness, Detached) == [Detached(overdue.holder)]
    assert harness.image.state.holders == {}
    harness.attach(edge)
    harness.settle_down()
    assert sorted(edge.holds) == [1, 2, 3], "the next one gets it"
    harness.check()


def test_who_does_not_hear_that_time_is_up_learns_it_from_the_next_leader() -> None:
    harness, edge = holding()
    harness.now_ms = 100 + TIMEOUT_MS
    harness.is_touched = True
    harness.turn()
    harness.change_leader(len(harness.proposals), is_elsewhere=True)
    assert facts(harness, Requeued), "it is kept"
    assert (harness.timed_out, edge.holds) == ([], {})
    other = harness.open_edge()
    harness.attach(other)
    harness.settle_down()
    assert sorted(other.holds) == [1, 2, 3]
    harness.check()


def test_what_is_settled_then_is_done_for_nobody() -> None:
    harness, edge = holding()
    harness.now_ms = 100 + TIMEOUT_MS
    harness.is_touched = True
    harness.turn()
    harness.end(edge, [2], Outcome.ACKED)
    harness.settle_down()
    assert (harness.settled, harness.image.state.waiting_count) == (set(), 3)
    harness.check()


def test_only_what_was_handed_out_long_enough_ago_goes_back() -> None:
    harness, edge = holding()
    at(harness, 600)
    harness.publish(edge, 2)
    harness.settle_down()
    harness.end(edge, [2], Outcome.ACKED)
    harness.settle_down()
    at(harness, 100 + TIMEOUT_MS)
    assert [held_of(overdue) for overdue in harness.timed_out] == [
        [(0, range(1, 2)), (0, range(3, 4))]
    ]
    assert sorted(edge.holds) == [4, 5]
    harness.check()
    at(harness, 600 + TIMEOUT_MS)
    assert held_of(harness.timed_out[1]) == [(0, range(4, 6))]
    harness.check()


def test_who_got_a_message_loses_it_too() -> None:
    harness = Timing()
    edge = harness.open_edge()
    harness.publish(edge, 1)
    harness.get(edge, no_ack=False)
    harness.settle_down()
    at(harness, TIMEOUT_MS)
    assert [held_of(overdue) for overdue in harness.timed_out] == [[(0, range(1, 2))]]
    harness.get(edge, no_ack=False)
    harness.settle_down()
    assert sorted(edge.holds) == [1], "the channel may get more"
    harness.check()


def test_a_consumer_is_not_delivered_what_goes_back_before_it_could_leave() -> None:
    """Its entry takes longer to be committed than it may be held; the consumer holds more."""
    harness = Timing()
    edge = harness.open_edge()
    harness.attach(edge)
    at(harness, 100)
    for now_ms in (100, 600):
        harness.now_ms = now_ms
        harness.publish(edge, 1)
        harness.turn()
    harness.now_ms = 100 + TIMEOUT_MS
    harness.is_touched = True
    harness.turn()
    assert harness.seen == {}, "neither has left"
    harness.settle_down()
    assert [held_of(overdue) for overdue in harness.timed_out] == [[(0, range(1, 2))]]
    assert (sorted(edge.holds), sorted(harness.seen)) == ([2], [2])
    harness.check()


def test_who_asks_does_not_get_what_goes_back_before_it_could_leave() -> None:
    harness = Timing()
    edge = harness.open_edge()
    at(harness, 100)
    harness.publish(edge, 1)
    harness.settle_down()
    harness.get(edge, no_ack=False)
    harness.turn()
    harness.now_ms = 100 + TIMEOUT_MS
    harness.is_touched = True
    harness.turn()
    assert len(harness.proposals) == 2, "the message is in hands, and is back: neither is applied"
    harness.settle_down()
    assert (edge.pending, edge.holds, harness.seen) == ({}, {}, {})
    harness.get(edge, no_ack=False)
    harness.settle_down()
    assert sorted(edge.holds) == [1]
    harness.check()


def test_what_the_consumer_asks_for_comes_before_what_the_queue_has() -> None:
    harness = Timing()
    edge = harness.open_edge()
    harness.attach(edge, arguments=encode_table({TIMEOUT: ("l", 300)}))
    harness.publish(edge, 1)
    harness.settle_down()
    at(harness, 299)
    assert harness.timed_out == []
    at(harness, 300)
    assert [overdue.timeout_ms for overdue in harness.timed_out] == [300]


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
    harness, edge = holding(2, a=VERSION)
    harness.publish(edge, 1)
    harness.settle_down()
    assert version_of(harness.log[-1]) == VERSION
    at(harness, 600)
    harness.image = restored_image(take_snapshot(harness.image)[1])
    harness.change_leader(0, is_elsewhere=is_elsewhere)
    harness.settle_down()
    harness.check()
    (holder,) = harness.image.state.holders.values()
    since_ms = {number: hold.since_ms for run, hold in holder.held for number in run}
    assert since_ms == {1: 0, 2: 0, 3: 100}
    at(harness, 100 + TIMEOUT_MS)
    assert sorted(edge.holds) == [1, 2], "nobody knows since when: as if it was since then"
    at(harness, 600 + TIMEOUT_MS)
    assert edge.holds == {}
    harness.check()


def test_before_all_members_read_it_nobody_writes_down_since_when() -> None:
    """The next leader begins anew with what it finds."""
    harness, edge = holding(2, a=VERSION, b=FIRST_VERSION)
    assert {version_of(entry) for entry in harness.log} == {FIRST_VERSION}
    assert take_snapshot(harness.image)[1][0] == FIRST_VERSION
    at(harness, 600)
    harness.change_leader(0, is_elsewhere=True)
    harness.settle_down()
    at(harness, 600 + TIMEOUT_MS - 1)
    assert sorted(edge.holds) == [1, 2]
    at(harness, 600 + TIMEOUT_MS)
    assert edge.holds == {}
    harness.check()


def test_what_is_reported_is_which_hand_outs_and_for_how_long() -> None:
    harness, edge = holding(1)
    harness.end(edge, [1], Outcome.NACK_REQUEUED)
    harness.settle_down()
    assert edge.holds[1].ordinal == 1
    at(harness, 170 + TIMEOUT_MS)
    (overdue,) = harness.timed_out
    assert held_of(overdue) == [(1, range(1, 2))]
    assert (overdue.held_ms, overdue.timeout_ms) == (1_070, 1_000)
