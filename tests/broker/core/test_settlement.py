"""Settling at the queues, for a client of any protocol: no channel is needed for it."""

from __future__ import annotations

from typing import cast

import pytest

from fluffle.broker.base.errors import BrokerError, ResourceError
from fluffle.broker.base.traffic import Traffic
from fluffle.broker.core import settlement
from fluffle.broker.core.session import Session
from fluffle.broker.core.settlement import Settlements
from fluffle.broker.core.unacked import Stretch
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.queue_api import DeliveryBatch, Outcome, QueueHandle, SettlementStatus
from fluffle.protocol.steps import whole
from tests.broker.queues.queue_harness import ORIGIN, numbered
from tests.support.no_timeout import NoTimeoutHolder
from tests.support.observers import ChannelRecorder


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
    """As much of a session as settling needs."""

    def __init__(self) -> None:
        self.has_put = False
        self.traffic = Traffic()
        self.commits = FakeCommits()


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def settlements(session: FakeSession) -> Settlements:
    return Settlements(cast(Session, session))


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


def test_an_observer_sees_it_once_the_queue_knows(settlements: Settlements) -> None:
    queue = FakeQueue("a")
    heard_before: list[list[tuple[str, int]]] = []

    class Recorder(ChannelRecorder):
        def settled(self, stretches: list[Stretch], outcome: Outcome) -> None:
            heard_before.append([*queue.heard])
            super().settled(stretches, outcome)

    settlements.observer = observer = Recorder()
    give(settlements, queue, 2)
    settle(settlements, 1, 2, Outcome.ACKED)
    assert (heard_before, observer.seen) == ([[("ACKED", 2)]], [("ACKED", 2)])
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
