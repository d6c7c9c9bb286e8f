"""What a replicated queue costs its members: facts into an entry, and an entry into the image.

An entry is that of a busy turn: new messages that are handed out at once, and the settlement of
those of the turn before.
"""

import gc
import tracemalloc
from collections.abc import Callable

from benchmarks.micro.hot import content, ns_per_message
from fluffle.broker.message import Origin
from fluffle.broker.queues.replicated.encoding import FactBatch, encode
from fluffle.broker.queues.replicated.facts import (
    ConsumerAttached,
    Fact,
    HandedOut,
    Published,
    SessionOpened,
    Settled,
)
from fluffle.broker.queues.replicated.image import Image
from fluffle.broker.queues.replicated.messages import enqueued

TURNS = 50
BACKLOG_MESSAGES = 100_000
BODY_BYTES = {"16 B": 16, "1 KiB": 1_024}
ORIGIN = Origin("", "measurements")
SESSION, CONSUMER = 1, 2

WHO_IS_THERE: list[Fact] = [
    SessionOpened(SESSION, 1, 1, 1, "a"),
    ConsumerAttached(CONSUMER, SESSION, 1, 0, 0, False, False, "c", b""),
]


def busy_turn(turn: int, contents: list[bytes], origins: list[Origin]) -> bytes:
    """The entry of turn 0, 1, ..."""
    count = len(contents)
    first = turn * count + 1
    facts: list[Fact] = [
        Published(SESSION, first, count),
        HandedOut(0, [CONSUMER], [range(first, first + count)]),
    ]
    if turn:
        facts.append(Settled(CONSUMER, 0, [range(first - count, first)]))
    return encode(FactBatch(turn, 0, facts, enqueued(first, origins, contents)))


def encoding(body_bytes: int) -> Callable[[int], float]:
    def measure(batch: int) -> float:
        contents, origins = [content(1, body_bytes)] * batch, [ORIGIN] * batch

        def call() -> int:
            for turn in range(TURNS):
                if not busy_turn(turn, contents, origins).endswith(contents[-1]):
                    raise AssertionError("the last message is missing")
            return TURNS * batch

        return ns_per_message(call)

    return measure


def applying(body_bytes: int) -> Callable[[int], float]:
    def measure(batch: int) -> float:
        contents, origins = [content(1, body_bytes)] * batch, [ORIGIN] * batch
        entries = [encode(FactBatch(0, 0, WHO_IS_THERE))]
        entries += [busy_turn(turn, contents, origins) for turn in range(TURNS)]

        def call() -> int:
            image = Image()
            for index, entry in enumerate(entries, 1):
                image.apply(index, entry)
            if image.state.live_count != batch:
                raise AssertionError("not all but the last batch is settled")
            return TURNS * batch

        return ns_per_message(call)

    return measure


def backlog(batch: int) -> Image:
    image = Image()
    image.apply(1, encode(FactBatch(0, 0, WHO_IS_THERE)))
    contents, origins = [content(1, 16)] * batch, [ORIGIN] * batch
    for turn in range(BACKLOG_MESSAGES // batch):
        first = turn * batch + 1
        new = enqueued(first, origins, contents)
        image.apply(turn + 2, encode(FactBatch(0, 0, [Published(SESSION, first, batch)], new)))
    return image


def memory(batch: int) -> float:
    """Bytes a backlogged message."""
    gc.collect()
    tracemalloc.start()
    try:
        image = backlog(batch)
        gc.collect()
        used, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return used / image.state.waiting_count


def snapshots(batch: int) -> float:
    """Nanoseconds a backlogged message."""
    image = backlog(batch)

    def call() -> int:
        live, taken = image.snapshot()
        if not live or not taken:
            raise AssertionError("nothing is live")
        return BACKLOG_MESSAGES

    return ns_per_message(call)


BENCHES: dict[str, Callable[[int], float]] = {
    **{f"encode, {name}": encoding(size) for name, size in BODY_BYTES.items()},
    **{f"Image.apply, {name}": applying(size) for name, size in BODY_BYTES.items()},
    "Image.snapshot of a backlog": snapshots,
    "memory of a backlog, bytes": memory,
}
BATCH_MESSAGES = (1, 100, 1_000)
