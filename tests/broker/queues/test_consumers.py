"""One consumer at a time: who is active, who is next, and who gives way."""

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.delivery import Outcome
from tests.broker.queues.queue_harness import QueueHarness

CLASSIC = QueueSpec("q", single_active_consumer=True)
QUORUM = QueueSpec("q", queue_type=QueueType.QUORUM, single_active_consumer=True)


def active(harness: QueueHarness) -> list[str]:
    return [tag for tag, consumer in harness.consumers.items() if consumer.is_active]


def test_the_first_alone_is_served() -> None:
    for spec in (CLASSIC, QUORUM):
        harness = QueueHarness(spec)
        for tag in "ab":
            harness.consume(tag, prefetch=1)
        harness.enqueue("1", "2")
        (delivery_batch,) = harness.pump()
        assert (harness.got("a"), harness.got("b"), active(harness)) == ("1", "", ["a"])
        harness.queue.settle(delivery_batch, 0, 1, Outcome.ACKED)
        harness.pump()
        assert (harness.got("a"), harness.got("b")) == ("12", "")


def test_the_next_takes_over_though_the_former_holds_messages() -> None:
    harness = QueueHarness(CLASSIC)
    for tag in "abc":
        harness.consume(tag, prefetch=1)
    harness.enqueue("1", "2", "3")
    harness.pump()
    harness.queue.detach(harness.consumers.pop("a"))
    harness.pump()
    assert (harness.got("b"), active(harness)) == ("2", ["b"])
    harness.queue.detach(harness.consumers.pop("c"))
    assert (active(harness), harness.queue.consumer_count) == (["b"], 1)


def test_a_classic_queue_keeps_its_active_consumer_and_asks_for_priorities_then() -> None:
    harness = QueueHarness(CLASSIC)
    for tag, priority in (("a", 0), ("b", 0), ("c", 5), ("d", 9), ("e", 9)):
        harness.consume(tag, priority=priority)
    assert active(harness) == ["a"]
    for tag, then in (("a", "d"), ("b", "d"), ("d", "e"), ("e", "c")):
        harness.queue.detach(harness.consumers.pop(tag))
        assert active(harness) == [then]


def test_a_quorum_queue_changes_over_once_nothing_is_held() -> None:
    harness = QueueHarness(QUORUM)
    harness.consume("low", prefetch=3)
    harness.enqueue("1", "2", "3", "4")
    (delivery_batch,) = harness.pump()
    harness.consume("high", priority=1)
    harness.queue.settle(delivery_batch, 0, 2, Outcome.ACKED)
    harness.pump()
    assert (harness.got("low"), harness.got("high"), active(harness)) == ("123", "", ["low"])
    harness.queue.settle(delivery_batch, 2, 3, Outcome.NACK_REQUEUED)
    harness.pump()
    assert (harness.got("low"), harness.got("high"), active(harness)) == ("123", "34", ["high"])


def test_who_holds_nothing_gives_way_at_once_and_waits_in_its_old_place() -> None:
    harness = QueueHarness(QUORUM)
    for tag in "abc":
        harness.consume(tag)
    harness.consume("high", priority=1)
    assert active(harness) == ["high"]
    harness.queue.detach(harness.consumers.pop("high"))
    assert active(harness) == ["a"]


def test_who_gives_way_goes_on_at_once_if_the_last_of_those_goes_for_whom() -> None:
    harness = QueueHarness(QUORUM)
    harness.consume("low", prefetch=10)
    harness.enqueue("1", "2")
    harness.pump()
    for tag in ("high", "higher"):
        harness.consume(tag, priority=1)
    harness.enqueue("3")
    for tag, then in (("high", "12"), ("higher", "123")):
        harness.queue.detach(harness.consumers.pop(tag))
        harness.pump()
        assert harness.got("low") == then


def test_who_waits_is_not_woken_by_its_socket() -> None:
    harness = QueueHarness(QUORUM)
    harness.consume("a", prefetch=1)
    waits = harness.consume("b")
    harness.sinks["b"].left = 0
    harness.enqueue("1", "2")
    harness.pump()
    harness.sinks["b"].open()
    harness.queue.wake(waits)
    harness.pump()
    assert harness.got("b") == ""
