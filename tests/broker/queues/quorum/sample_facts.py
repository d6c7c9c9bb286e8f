"""Short ways to make what tests of a replicated queue need."""

from __future__ import annotations

from collections.abc import Callable

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import Enqueued, FactBatch, encode, pack_enqueued
from fluffle.broker.queues.quorum.state import QueueImage
from tests.broker.queues.quorum.history import version_for

ORIGIN = Origin("ex", "key")


def new(first: int, count: int) -> Enqueued:
    contents = [b"message %d" % number for number in range(first, first + count)]
    return pack_enqueued(first, [ORIGIN] * count, contents)


def consumer(key: int, *, session: int = 1, no_ack: bool = False) -> f.ConsumerAttached:
    return f.ConsumerAttached(key, session, 1, 0, 300, no_ack, False, f"tag {key}", b"")


def applied(image: QueueImage, *facts: f.Fact, messages: Enqueued | None = None) -> list[int]:
    """An entry more; which have died by it."""
    state = image.state
    batch = FactBatch(state.queue_time_ms, state.revision, list(facts), messages)
    return image.apply(state.index + 1, encode(batch, version_for(facts)))


def busy() -> QueueImage:
    """A queue with messages everywhere.

    Session 1; consumer 2 holds 1 to 3, consumer 3 does not acknowledge, getter 4 holds 4 for the
    second time; 5 has been requeued, 6 is delayed, 7 is dead and kept, 8 to 10 are ready.
    """
    image = QueueImage()
    applied(image, f.SessionOpened(1, 1, 7, 1, "a"), consumer(2), consumer(3, no_ack=True))
    applied(image, f.GetterAttached(4, 1, 1), f.Published(1, 1, 10), messages=new(1, 10))
    applied(
        image,
        f.Delivered(0, [2], [range(1, 8)]),
        f.Requeued(2, 0, 0, f.RequeueReason.NACKED, 0, [range(4, 6)]),
        f.Requeued(2, 0, 1, f.RequeueReason.REJECTED, 500, [range(6, 7)]),
        f.DeadLettering(f.RemovalReason.REJECTED, 0, 2, 0, [range(7, 8)]),
        f.Delivered(1, [4], [range(4, 5)]),
    )
    return image


class Count:
    """Counter of a machine: it advances by as much as its clock does, and never goes back."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._last_ms = clock_ms()
        self._count_ms = 0

    def __call__(self) -> int:
        before_ms, self._last_ms = self._last_ms, self._clock_ms()
        self._count_ms += max(0, self._last_ms - before_ms)
        return self._count_ms
