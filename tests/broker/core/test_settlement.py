"""Settling at the queues, for a client of any protocol: no channel is needed for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluffle.broker.base.errors import BrokerError, ResourceError
from fluffle.broker.base.traffic import ClientTraffic
from fluffle.broker.core import settlement
from fluffle.broker.core.settlement import COMPACT_AT, FRONT_RUNS_MAX, Settlements, Stretch, Unacked
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.queue_api import DeliveryBatch, Outcome, QueueHandle, SettlementStatus
from fluffle.broker.runtime.commits import Commits
from fluffle.protocol.steps import whole
from tests.broker.queues.queue_harness import ORIGIN, QueueHarness, numbered
from tests.support.no_timeout import NoTimeoutHolder
from tests.support.observers import ChannelRecorder


class Holder(NoTimeoutHolder):
    """Holder of the messages: only its acknowledgement mode counts here."""

    queue = QueueHarness().queue

    def __init__(self, *, no_ack: bool = False) -> None:
        self.no_ack = no_ack

    def took(self, delivery_batch: DeliveryBatch) -> None: ...

    def settled(self, count: int) -> None: ...

    def deliver(self, delivery_batch: DeliveryBatch) -> None: ...


HOLDER, NO_ACK = Holder(), Holder(no_ack=True)


def deliver_ready(unacked: Unacked, count: int, holder: Holder = HOLDER) -> int:
    """Number a run of `count` messages whose contents are their tags; the first tag."""
    contents = [b""] * count
    first = unacked.number(
        DeliveryBatch(holder, [ORIGIN] * count, contents, range(count), redelivered=False)
    )
    contents[:] = numbered(first, count)
    return first


def tags_of(stretches: Iterable[Stretch]) -> list[int]:
    """The tags of messages, as their contents say."""
    return [int(content) for run, start, stop in stretches for content in run.contents[start:stop]]


def take(unacked: Unacked, first: int, last: int | None = None) -> list[int]:
    stretches, unknown_tag = unacked.take(first, last or first)
    assert unknown_tag is None
    return tags_of(stretches)


def take_up_to(unacked: Unacked, last: int) -> list[int]:
    stretches, unknown_tag = unacked.take_up_to(last)
    assert unknown_tag is None
    return tags_of(stretches)


@pytest.fixture
def unacked() -> Unacked:
    """Tags 1 to 3, 4 and 5, 6."""
    unacked = Unacked()
    assert [deliver_ready(unacked, count) for count in (3, 2, 1)] == [1, 4, 6]
    return unacked


def test_in_order_across_runs(unacked: Unacked) -> None:
    assert take(unacked, 1, 4) == [1, 2, 3, 4]
    assert take(unacked, 5, 6) == [5, 6]
    assert len(unacked) == 0


def test_out_of_order(unacked: Unacked) -> None:
    assert [take(unacked, tag) for tag in (5, 2, 6, 1, 4, 3)] == [[5], [2], [6], [1], [4], [3]]
    assert len(unacked) == 0


def test_up_to_a_tag_skips_what_is_settled(unacked: Unacked) -> None:
    take(unacked, 2)
    take(unacked, 4)
    assert take_up_to(unacked, 5) == [1, 3, 5]
    assert take_up_to(unacked, 0) == [6]


def test_all_of_nothing_is_nothing(unacked: Unacked) -> None:
    assert Unacked().take_up_to(0) == ([], None)
    take(unacked, 1, 6)
    assert unacked.take_up_to(0) == ([], None)


@pytest.mark.parametrize("tag", [2, 7, 1000])
def test_a_tag_that_is_not_held_settles_nothing(unacked: Unacked, tag: int) -> None:
    take(unacked, 2)
    assert unacked.take(tag, tag) == ([], tag)
    assert unacked.take_up_to(tag) == ([], tag)
    assert unacked.take(0, 0) == ([], 0)
    assert len(unacked) == 5


def test_a_run_of_acks_ends_at_the_first_unknown_tag(unacked: Unacked) -> None:
    take(unacked, 4)
    stretches, unknown_tag = unacked.take(2, 6)
    assert (tags_of(stretches), unknown_tag) == ([2, 3], 4)
    stretches, unknown_tag = unacked.take(5, 9)
    assert (tags_of(stretches), unknown_tag) == ([5, 6], 7)
    assert take_up_to(unacked, 0) == [1]


def test_no_ack_takes_tags_but_leaves_nothing_to_settle() -> None:
    unacked = Unacked()
    firsts = [deliver_ready(unacked, 2, holder) for holder in (NO_ACK, HOLDER, NO_ACK, HOLDER)]
    assert firsts == [1, 3, 5, 7]
    for tag in (1, 2, 5, 6):
        assert unacked.take(tag, tag) == ([], tag)
        assert unacked.take_up_to(tag) == ([], tag)
    assert take_up_to(unacked, 0) == [3, 4, 7, 8]


def unsettle(unacked: Unacked, stretches: Iterable[Stretch]) -> None:
    for stretch in stretches:
        unacked.unsettle(*stretch)


def test_restored_tags_are_held_again(unacked: Unacked) -> None:
    unacked.keep()
    stretches, _ = unacked.take(2, 6)
    more, _ = unacked.take(1, 1)
    unsettle(unacked, stretches + more)
    assert len(unacked) == 6
    assert [take(unacked, tag) for tag in (4, 1)] == [[4], [1]]
    assert take_up_to(unacked, 0) == [2, 3, 5, 6]


def test_restoring_costs_no_more_than_settling() -> None:
    """Each tag was acknowledged alone: quadratic work would take minutes."""
    unacked = Unacked()
    unacked.keep()
    for count in (1, 1_000) * 40:
        deliver_ready(unacked, count)
    stretches = [stretch for tag in range(1, 40_041) for stretch in unacked.take(tag, tag)[0]]
    unsettle(unacked, stretches)
    assert take_up_to(unacked, 0) == list(range(1, 40_041))


@pytest.mark.parametrize("order", [1, -1])
def test_what_a_transaction_has_settled_is_swept_out_some_at_a_time(order: int) -> None:
    """A third of the messages stays, and more come meanwhile."""
    unacked = Unacked()
    unacked.keep()
    for _ in range(10_000):
        deliver_ready(unacked, 1)
    for tag in range(1, 10_001)[::order]:
        if tag % 3:
            assert take(unacked, tag) == [tag]
    assert len(unacked._runs) == 10_000, "it may be rolled back"
    steps = 0
    for _ in unacked.sweep():
        steps += 1
        deliver_ready(unacked, 1)
        assert unacked.oldest_tag == 3
        assert len(unacked) == 3_333 + steps
    assert steps > 10
    assert len(unacked._runs) <= 3_333 + steps
    assert take_up_to(unacked, 9_999) == list(range(3, 10_001, 3))
    whole(unacked.sweep())
    assert len(unacked._runs) <= 2 * steps


def test_few_that_are_settled_among_many_are_not_looked_for() -> None:
    """Each of many small transactions would look at all."""
    unacked = Unacked()
    unacked.keep()
    for _ in range(10_000):
        deliver_ready(unacked, 1)
    assert take(unacked, 5_000) == [5_000]
    assert [*unacked.sweep()] == []
    assert len(unacked._runs) == 10_000


@pytest.mark.parametrize("run", [1, 100])
def test_one_message_that_stays_does_not_keep_the_others(run: int) -> None:
    unacked = Unacked()
    deliver_ready(unacked, 1)
    for first in range(2, 100_002, run):
        deliver_ready(unacked, run)
        assert take(unacked, first, first + run - 1) == list(range(first, first + run))
    assert len(unacked) == 1
    assert len(unacked._runs) <= 2 * COMPACT_AT
    assert take(unacked, 1) == [1]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hand out"), st.integers(1, 4), st.integers(0, 3)),
        st.tuples(st.just("take"), st.integers(0, 40), st.integers(0, 3)),
        st.tuples(st.just("take up to"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("restore"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("commit"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@pytest.fixture(params=[1, FRONT_RUNS_MAX])
def passed_at_once(request: pytest.FixtureRequest) -> Iterator[int]:
    """Number of settled runs that are passed at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settlement, "FRONT_RUNS_MAX", request.param)
        yield request.param


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, most=st.integers(1, 9), keeps=st.booleans())
def test_the_ledger_equals_a_set(
    passed_at_once: int, steps: list[tuple[str, int, int]], most: int, *, keeps: bool
) -> None:
    unacked, naive, next_tag = Unacked(), set[int](), 1
    settled: list[list[Stretch]] = []
    if keeps:
        unacked.keep()
    for verb, number, more in steps:
        if verb == "hand out":
            assert deliver_ready(unacked, number, HOLDER if more else NO_ACK) == next_tag
            naive |= set(range(next_tag, next_tag + number)) if more else set()
            next_tag += number
        elif verb == "take":
            wanted = range(number, number + more + 1)
            unknown = next((tag for tag in wanted if tag not in naive), None)
            stretches, unknown_tag = unacked.take(number, number + more)
            assert unknown_tag == unknown
            assert tags_of(stretches) == [tag for tag in wanted if unknown is None or tag < unknown]
            naive -= set(tags_of(stretches))
            settled.append(stretches)
        elif verb == "take up to":
            stretches, unknown_tag = unacked.take_up_to(number, most)
            while unacked.rest:
                stretches += unacked.take_rest(most)
            if number and number not in naive:
                assert (stretches, unknown_tag) == ([], number)
            else:
                assert unknown_tag is None
                assert tags_of(stretches) == sorted(
                    tag for tag in naive if tag <= number or not number
                )
            naive -= set(tags_of(stretches))
            settled.append(stretches)
        elif verb == "commit":
            settled.clear()
            whole(unacked.sweep())
        elif settled and keeps:
            stretches = settled.pop(number % len(settled))
            unsettle(unacked, stretches)
            naive |= set(tags_of(stretches))
        assert len(unacked) == len(naive)
        if passed_at_once > 1:  # to look for the oldest one passes all
            assert unacked.oldest_tag == min(naive, default=None)
    assert unacked.oldest_tag == min(naive, default=None)


@given(order=st.permutations(range(1, 199)), keep=st.integers(1, 198))
def test_sweeping_loses_nothing(order: list[int], keep: int) -> None:
    """Many short runs, settled in any order, but for one message."""
    unacked = Unacked()
    for count in (1, 2) * 66:
        deliver_ready(unacked, count)
    for tag in order:
        if tag != keep:
            assert take(unacked, tag) == [tag]
    assert take_up_to(unacked, 0) == [keep]


def test_very_many_that_are_settled_are_passed_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transaction keeps them, and the first one is settled last."""
    unacked, count = Unacked(), 20 * FRONT_RUNS_MAX
    unacked.keep()
    for _ in range(count):
        deliver_ready(unacked, 1)
    assert len(take(unacked, 2, count)) == count - 1
    looked_at: list[int] = []
    was_settled = vars(DeliveryBatch)["is_settled"].fget

    def is_settled(run: DeliveryBatch) -> bool:
        looked_at.append(run.first_tag)
        return bool(was_settled(run))

    monkeypatch.setattr(DeliveryBatch, "is_settled", property(is_settled))
    stretches, _unknown = unacked.take(1, 1)
    assert len(looked_at) < 2 * FRONT_RUNS_MAX
    assert unacked.take(1, 1) == ([], 1)
    last = deliver_ready(unacked, 1)
    looked_at.clear()
    assert unacked.take_up_to(0, 1) == ([], None)
    assert unacked.rest > 0
    assert len(looked_at) < 2 * FRONT_RUNS_MAX
    taken: list[int] = []
    while unacked.rest:
        looked_at.clear()
        taken += tags_of(unacked.take_rest(1))
        assert len(looked_at) < 2 * FRONT_RUNS_MAX
    assert taken == [last]
    assert unacked.oldest_tag is None
    unsettle(unacked, stretches)
    assert unacked.oldest_tag == 1
    assert [run.first_tag for run in unacked.open_runs()] == [1]
    whole(unacked.sweep())
    assert len(unacked) == len(unacked._runs) == 1
    assert take_up_to(unacked, 1) == [1]


def test_few_are_taken_together_where_no_two_follow_one_another() -> None:
    apart, short = Unacked(), Unacked()
    deliver_ready(apart, 1_000)
    for tag in range(2, 1_001, 2):
        apart.take(tag, tag)
    for _ in range(500):
        deliver_ready(short, 1)
    for unacked in (apart, short):
        stretches, _ = unacked.take_up_to(0, 400)
        assert 40 < len(stretches) < 110
        while unacked.rest:
            more = unacked.take_rest(400)
            assert len(more) < 110
            stretches += more
        assert len(stretches) == 500


class FakeQueue:
    """A queue that keeps what it hears; one that is led elsewhere has a status."""

    def __init__(
        self,
        name: str,
        queue_type: QueueType = QueueType.CLASSIC,
        status: SettlementStatus | None = None,
    ) -> None:
        self.name = name
        self.spec = QueueSpec(name, queue_type=queue_type)
        self.status = status
        self.heard: list[tuple[str, int]] = []

    def settle(
        self, _batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> SettlementStatus | None:
        self.heard.append((outcome.name, stop - start))
        return self.status

    def deliver_ready(self) -> None:
        self.heard.append(("deliver_ready", 0))


class FakeHolder(NoTimeoutHolder):
    """A client that was given messages of one queue."""

    no_ack = False

    def __init__(self, queue: FakeQueue) -> None:
        self.queue = cast(QueueHandle, queue)

    def took(self, delivery_batch: DeliveryBatch) -> None: ...

    def settled(self, count: int) -> None: ...

    def deliver(self, delivery_batch: DeliveryBatch) -> None: ...


class FakeCommits:
    """Commits of which the seventh collects."""

    ticket = 7


class FakeSession:
    """Fake of a session, as far as settling needs it."""

    def __init__(self) -> None:
        self.has_put = False
        self.traffic = ClientTraffic()
        self.commits = cast(Commits, FakeCommits())


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def settlements(session: FakeSession) -> Settlements:
    return Settlements(session)


def give(
    settlements: Settlements, queue: FakeQueue, count: int, *, is_recorded: bool = False
) -> None:
    batch = DeliveryBatch(
        FakeHolder(queue),
        [ORIGIN] * count,
        numbered(1, count),
        range(count),
        redelivered=False,
        is_recorded=is_recorded,
    )
    settlements.unacked.number(batch)


def settle(settlements: Settlements, first: int, last: int, outcome: Outcome) -> list[Stretch]:
    stretches, unknown = settlements.unacked.take(first, last)
    assert unknown is None
    settlements.settle(stretches, outcome)
    return stretches


def test_each_queue_hears_what_became_of_its_messages(settlements: Settlements) -> None:
    a, b = FakeQueue("a"), FakeQueue("b")
    give(settlements, a, 3)
    give(settlements, b, 2)
    settle(settlements, 2, 4, Outcome.ACKED)
    assert (a.heard, b.heard, len(settlements.unacked)) == ([("ACKED", 2)], [("ACKED", 1)], 2)
    assert (settlements.pending, settlements.ticket) == ({}, 0)


def test_what_is_recorded_is_safe_with_the_commit_that_collects(settlements: Settlements) -> None:
    give(settlements, FakeQueue("a"), 1, is_recorded=True)
    settle(settlements, 1, 1, Outcome.REJECTED)
    assert settlements.ticket == FakeCommits.ticket


def test_acknowledgements_count_by_the_type_of_queue_that_hears_them_later(
    settlements: Settlements, session: FakeSession
) -> None:
    give(settlements, FakeQueue("a"), 3)
    give(settlements, FakeQueue("q", QueueType.QUORUM, SettlementStatus()), 2)
    settle(settlements, 1, 5, Outcome.ACKED)
    traffic = session.traffic
    assert (traffic.from_queues.acknowledged, traffic.from_quorum_queues.acknowledged) == (3, 2)


def test_queues_hand_out_first_what_was_published_before(
    settlements: Settlements, session: FakeSession
) -> None:
    queue = FakeQueue("a")
    give(settlements, queue, 2)
    session.has_put = True
    settle(settlements, 1, 1, Outcome.ACKED)
    settle(settlements, 2, 2, Outcome.LOST)  # no client has asked for that
    assert queue.heard == [("deliver_ready", 0), ("ACKED", 1), ("LOST", 1)]


def test_what_is_given_back_at_once_is_apart_from_what_comes_after_it(
    settlements: Settlements,
) -> None:
    """A queue with a limit keeps to it in between."""
    queue = FakeQueue("a")
    for _ in range(3):
        give(settlements, queue, 1)
    settle(settlements, 1, 2, Outcome.NACK_REQUEUED)
    settle(settlements, 3, 3, Outcome.NACK_REQUEUED)
    before, back = ("deliver_ready", 0), ("NACK_REQUEUED", 1)
    assert queue.heard == [before, back, back, before, back]


def test_an_observer_sees_it_before_the_queue_acts_on_it(settlements: Settlements) -> None:
    queue = FakeQueue("a")
    heard_before: list[list[tuple[str, int]]] = []

    class Recorder(ChannelRecorder):
        def settled(self, stretches: list[Stretch], outcome: Outcome) -> None:
            heard_before.append([*queue.heard])
            super().settled(stretches, outcome)

    settlements.observer = observer = Recorder()
    give(settlements, queue, 2)
    settle(settlements, 1, 2, Outcome.ACKED)
    assert (heard_before, observer.seen) == ([[]], [("ACKED", 2)])
    assert queue.heard == [("ACKED", 2)]
    whole(settlements.settle_all(Outcome.LOST))
    assert observer.seen[1:] == [("LOST", 0)]  # the end is seen though nothing is left


def test_a_queue_led_elsewhere_is_pending_until_it_is_asked(settlements: Settlements) -> None:
    status = SettlementStatus()
    queue = FakeQueue("q", QueueType.QUORUM, status)
    give(settlements, queue, 3)
    settle(settlements, 1, 1, Outcome.ACKED)
    assert list(settlements.pending.values()) == [status]
    queue.status = later = SettlementStatus()
    settle(settlements, 2, 2, Outcome.ACKED)
    assert settlements.pending[cast(QueueHandle, queue)] is later
    settlements.forget_pending_of("q")
    assert settlements.pending == {}


def test_what_has_not_come_true_stays_pending(settlements: Settlements) -> None:
    status = SettlementStatus()
    status.error = error = ResourceError("full")
    queue = FakeQueue("q", QueueType.QUORUM, status)
    give(settlements, queue, 2)
    settle(settlements, 1, 1, Outcome.ACKED)
    queue.status = SettlementStatus()
    settle(settlements, 2, 2, Outcome.ACKED)
    settlements.forget_pending_of("q")
    kept: list[BrokerError | None] = [each.error for each in settlements.pending.values()]
    assert kept == [error]


def test_very_many_are_settled_in_steps(
    settlements: Settlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "SETTLED_AT_ONCE", 50)
    queue = FakeQueue("a")
    for _ in range(10):
        give(settlements, queue, 20)
    steps = sum(1 for _ in settlements.settle_all(Outcome.LOST))
    assert steps > 2
    assert (sum(count for _name, count in queue.heard), len(settlements.unacked)) == (200, 0)
