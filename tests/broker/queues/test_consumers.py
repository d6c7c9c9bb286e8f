"""One consumer at a time: who is active, who is next, and who gives way."""

from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.delivery import Outcome
from tests.broker.queues.make import Bench

CLASSIC = QueueSpec("q", single_active_consumer=True)
QUORUM = QueueSpec("q", queue_type=QueueType.QUORUM, single_active_consumer=True)


def active(bench: Bench) -> list[str]:
    return [tag for tag, consumer in bench.consumers.items() if consumer.is_active]


def test_the_first_alone_is_served() -> None:
    for spec in (CLASSIC, QUORUM):
        bench = Bench(spec)
        for tag in "ab":
            bench.consume(tag, prefetch=1)
        bench.enqueue("1", "2")
        (delivery_batch,) = bench.pump()
        assert (bench.got("a"), bench.got("b"), active(bench)) == ("1", "", ["a"])
        bench.queue.settle(delivery_batch, 0, 1, Outcome.ACKED)
        bench.pump()
        assert (bench.got("a"), bench.got("b")) == ("12", "")


def test_the_next_takes_over_though_the_former_holds_messages() -> None:
    bench = Bench(CLASSIC)
    for tag in "abc":
        bench.consume(tag, prefetch=1)
    bench.enqueue("1", "2", "3")
    bench.pump()
    bench.queue.detach(bench.consumers.pop("a"))
    bench.pump()
    assert (bench.got("b"), active(bench)) == ("2", ["b"])
    bench.queue.detach(bench.consumers.pop("c"))
    assert (active(bench), bench.queue.consumer_count) == (["b"], 1)


def test_a_classic_queue_keeps_its_active_consumer_and_asks_for_priorities_then() -> None:
    bench = Bench(CLASSIC)
    for tag, priority in (("a", 0), ("b", 0), ("c", 5), ("d", 9), ("e", 9)):
        bench.consume(tag, priority=priority)
    assert active(bench) == ["a"]
    for tag, then in (("a", "d"), ("b", "d"), ("d", "e"), ("e", "c")):
        bench.queue.detach(bench.consumers.pop(tag))
        assert active(bench) == [then]


def test_a_quorum_queue_changes_over_once_nothing_is_held() -> None:
    bench = Bench(QUORUM)
    bench.consume("low", prefetch=3)
    bench.enqueue("1", "2", "3", "4")
    (delivery_batch,) = bench.pump()
    bench.consume("high", priority=1)
    bench.queue.settle(delivery_batch, 0, 2, Outcome.ACKED)
    bench.pump()
    assert (bench.got("low"), bench.got("high"), active(bench)) == ("123", "", ["low"])
    bench.queue.settle(delivery_batch, 2, 3, Outcome.NACK_REQUEUED)
    bench.pump()
    assert (bench.got("low"), bench.got("high"), active(bench)) == ("123", "34", ["high"])


def test_who_holds_nothing_gives_way_at_once_and_waits_in_its_old_place() -> None:
    bench = Bench(QUORUM)
    for tag in "abc":
        bench.consume(tag)
    bench.consume("high", priority=1)
    assert active(bench) == ["high"]
    bench.queue.detach(bench.consumers.pop("high"))
    assert active(bench) == ["a"]


def test_who_gives_way_goes_on_at_once_if_the_last_of_those_goes_for_whom() -> None:
    bench = Bench(QUORUM)
    bench.consume("low", prefetch=10)
    bench.enqueue("1", "2")
    bench.pump()
    for tag in ("high", "higher"):
        bench.consume(tag, priority=1)
    bench.enqueue("3")
    for tag, then in (("high", "12"), ("higher", "123")):
        bench.queue.detach(bench.consumers.pop(tag))
        bench.pump()
        assert bench.got("low") == then


def test_who_waits_is_not_woken_by_its_socket() -> None:
    bench = Bench(QUORUM)
    bench.consume("a", prefetch=1)
    waits = bench.consume("b")
    bench.sinks["b"].left = 0
    bench.enqueue("1", "2")
    bench.pump()
    bench.sinks["b"].open()
    bench.queue.wake(waits)
    bench.pump()
    assert bench.got("b") == ""
