"""How long a queue did nothing: for publishers, for consumers, and what was wrong meanwhile."""

from fluffle.broker.torture.history import (
    Confirmed,
    Event,
    Fault,
    MessageId,
    Published,
    Received,
    Refused,
)
from fluffle.broker.torture.stalls import Stall, StallChecker

A, B = MessageId("p", 1), MessageId("p", 2)


def published(message: MessageId, queue: str = "q") -> Event:
    return Published(message, (queue,))


def received(message: MessageId, queue: str = "q") -> Event:
    return Received("c", queue, message, redelivered=False)


def read(*events: tuple[int, Event], end: int) -> StallChecker:
    stalls = StallChecker()
    for at_ns, event in events:
        stalls.read(at_ns, event)
    stalls.finish(end)
    return stalls


def test_publishers_wait_from_the_first_publish_and_from_each_confirm() -> None:
    stalls = read(
        (10, published(A)), (14, Confirmed(A)), (15, published(B)), (22, Confirmed(B)), end=23
    )
    assert stalls.queues["q"].to_publishers.longest == Stall(8, 14)
    assert stalls.overall.longest == Stall(8, 14)


def test_a_queue_that_never_answers_is_away_until_the_end() -> None:
    assert read((10, published(A)), end=100).queues["q"].to_publishers.longest == Stall(90, 10)


def test_another_queue_helps_only_the_whole() -> None:
    stalls = read((0, published(A)), (0, published(B, "r")), (50, Confirmed(B)), end=60)
    assert stalls.queues["q"].to_publishers.longest == Stall(60, 0)
    assert stalls.overall.longest == Stall(50, 0)


def test_consumers_wait_while_something_confirmed_is_there() -> None:
    events = [
        (0, published(A)), (1, published(B)), (5, Confirmed(A)), (6, Confirmed(B)),
        (9, received(A)), (30, received(B)),
    ]  # fmt: skip
    assert read(*events, end=99).queues["q"].to_consumers.longest == Stall(21, 9)


def test_what_was_received_before_its_confirm_is_not_waited_for() -> None:
    stalls = read((0, published(A)), (1, received(A)), (5, Confirmed(A)), end=99)
    assert stalls.queues["q"].to_consumers.longest == Stall()


def test_a_refused_message_is_due_to_nobody() -> None:
    stalls = read((0, published(A)), (5, Refused(A)), (6, received(A)), end=99)
    assert stalls.queues["q"].to_consumers.longest == Stall()


def test_faults_are_found_by_the_time_they_lasted() -> None:
    stalls = read(
        (0, Fault("early")), (4, Fault("early", is_over=True)), (5, published(A)),
        (6, Fault("meanwhile")), (7, Fault("meanwhile", is_over=True)), (8, Fault("open")),
        (20, Confirmed(A)), (30, Fault("late")), end=31,
    )  # fmt: skip
    assert [*stalls.faults_during(stalls.overall.longest)] == ["meanwhile", "open"]


def test_a_tester_that_was_late_is_named() -> None:
    """Nodes behind its proxies did not hear each other then."""
    stalls = read((0, published(A)), end=0)
    stalls.tester_was_late(6_000_000_000, for_ns=2_000_000_000)
    assert [*stalls.faults_during(Stall(5_000_000_000, 0))] == ["tester late for 2.0 s at 4.0 s"]
    assert [*stalls.faults_during(Stall(3_000_000_000, 0))] == []
