"""Cost of a message in the queue engine: enqueued, delivered and acknowledged, by run length.

The queue is one of this process, without a journal.  Where messages expire none does in time, and
no limit is reached.
"""

from collections.abc import Callable, Sequence
from itertools import count

from benchmarks.micro.hot import content, ns_per_message
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import (
    UNLIMITED,
    Consumer,
    DeliveryBatch,
    DeliverySource,
    Outcome,
    OverdueDeliveries,
    SharedCredit,
    TimedOutDeliveries,
)
from fluffle.broker.runtime.timers import Timers
from fluffle.protocol.properties import Properties, build_content, encode_properties
from fluffle.protocol.wire import to_table
from tests.support.queue_host import FakeQueueHost, ignore

BODY_BYTES = 16
ORIGIN = Origin("", "measurements")
RUNS = 100
"""Put in, one after the other, before all of it is handed out."""
LIFETIME_MS = 60_000
TTL = to_table({"x-message-ttl": LIFETIME_MS})
LENGTH = to_table({"x-max-length": 1 << 30})
BYTES = to_table({"x-max-length-bytes": 1 << 40})
REFUSING = to_table({"x-max-length-bytes": 1 << 40, "x-overflow": "reject-publish"})
ALL = to_table(
    {
        "x-message-ttl": LIFETIME_MS,
        "x-max-length": 1 << 30,
        "x-max-length-bytes": 1 << 40,
        "x-overflow": "reject-publish",
    }
)


class Taker:
    """A client that takes everything."""

    def room(self, consumer: Consumer) -> int:
        del consumer
        return UNLIMITED

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        """Do nothing: there is always room."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Do nothing: the caller of `pump` looks at what it returns."""

    def cancelled(self, consumer: Consumer) -> None:
        raise AssertionError(f"{consumer.tag} was cancelled")

    def overdue(self, consumer: Consumer, late: OverdueDeliveries) -> None:
        raise AssertionError(f"{consumer.tag} has had {late} for too long")

    def timed_out(self, consumer: Consumer, lost: TimedOutDeliveries) -> None:
        raise AssertionError(f"{consumer.tag} has had {lost} for too long")

    def activity_changed(self, consumer: Consumer) -> None:
        raise AssertionError(f"{consumer.tag} is not alone")


class Passing:
    """A `QueueClock` in which a millisecond passes whenever somebody looks."""

    def __init__(self) -> None:
        self._now_ms = count(1_000)
        self._timers = Timers(self, lambda _seconds, _act: Never(), self._fail)
        self._timers.start()

    def now_ms(self) -> int:
        return next(self._now_ms)

    def wake(self, queue: DeliverySource, at_ms: int) -> None:
        self._timers.wake(queue, at_ms - self.now_ms(), lambda _queue: None)

    def _fail(self, error: Exception) -> None:
        raise error


class Never:
    """A timer of a loop that does not run."""

    def cancel(self) -> None:
        """Do nothing: the timer never fires."""


def no_lifetime(_run: int) -> None:
    """Messages wait as long as it takes."""


def urgent(priority: int) -> bytes:
    """A message with a priority."""
    return build_content(encode_properties(Properties(priority=priority)), bytes(BODY_BYTES))


def rounds(
    spec: QueueSpec,
    lifetimes_ms: Callable[[int], int | None] = no_lifetime,
    kinds: Sequence[bytes] = (content(1, BODY_BYTES),),
) -> Callable[[int], float]:
    """`lifetimes_ms` says of each run for how long its messages may wait; its messages are those of
    one kind after the other."""

    def measure(run_messages: int) -> float:
        queue = Queue(spec, FakeQueueHost(ignore, Passing()))
        queue.attach(Consumer("c", queue, Taker(), shared=SharedCredit()))
        runs = [[kind] * run_messages for kind in kinds]
        origins = [ORIGIN] * run_messages

        def call() -> int:
            for run in range(RUNS):
                contents = runs[run % len(runs)]
                size_bytes = run_messages * len(contents[0])
                queue.enqueue(origins, contents, size_bytes, expiration_ms=lifetimes_ms(run))
            taken = 0
            for delivery_batch in queue.pump():
                taken += len(delivery_batch.contents)
                queue.settle(delivery_batch, 0, len(delivery_batch.contents), Outcome.ACKED)
            if taken != RUNS * run_messages:
                raise AssertionError("messages are missing")
            return taken

        return ns_per_message(call)

    return measure


BENCHES: dict[str, Callable[[int], float]] = {
    "a queue": rounds(QueueSpec("q")),
    "x-message-ttl": rounds(QueueSpec("q", arguments=TTL)),
    "x-max-priority 9, of each run another": rounds(
        QueueSpec("q", max_priority=9), kinds=[urgent(priority) for priority in range(10)]
    ),
    "x-max-priority 255, of each run another": rounds(
        QueueSpec("q", max_priority=255),
        kinds=[urgent(priority * 71 % 256) for priority in range(256)],
    ),
    "expiration, of each run another": rounds(QueueSpec("q"), lambda run: LIFETIME_MS + run % 97),
    "x-max-length": rounds(QueueSpec("q", arguments=LENGTH), lambda _run: None),
    "x-max-length-bytes": rounds(QueueSpec("q", arguments=BYTES), lambda _run: None),
    "the same, reject-publish": rounds(QueueSpec("q", arguments=REFUSING), lambda _run: None),
    "TTL, both limits and priorities, all of one": rounds(
        QueueSpec("q", arguments=ALL, max_priority=9)
    ),
}
RUN_MESSAGES = (1, 10, 100)
