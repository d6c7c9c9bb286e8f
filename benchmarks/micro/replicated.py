"""Cost of a replicated queue for its members: facts into an entry, an entry into the image, and all
that the leader does.

An entry is that of a busy turn: new messages that are handed out at once, and the settlement of
those of the turn before.
"""

import gc
import tracemalloc
from collections.abc import Callable

from benchmarks.micro.hot import content, ns_per_message
from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum.entry_codec import FactBatch, encode, pack_enqueued
from fluffle.broker.queues.quorum.facts import (
    ConsumerAttached,
    Delivered,
    Fact,
    Published,
    SessionId,
    SessionOpened,
    Settled,
)
from fluffle.broker.queues.quorum.holders import Terms
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.broker.queues.quorum.messages import Deliver, Effect
from fluffle.broker.queues.quorum.snapshot import take_snapshot
from fluffle.broker.queues.quorum.state import QueueImage
from tests.support.leader_services import FakeLeaderServices

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
        Delivered(0, [CONSUMER], [range(first, first + count)]),
    ]
    if turn:
        facts.append(Settled(CONSUMER, 0, [range(first - count, first)]))
    return encode(FactBatch(turn, 0, facts, pack_enqueued(first, origins, contents)))


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
            image = QueueImage()
            for index, entry in enumerate(entries, 1):
                image.apply(index, entry)
            if image.state.live_count != batch:
                raise AssertionError("not all but the last batch is settled")
            return TURNS * batch

        return ns_per_message(call)

    return measure


class Alone(FakeLeaderServices):
    """A leader whose entries are applied as soon as they are proposed, and its only client."""

    def __init__(self) -> None:
        super().__init__(QueueSpec("measurements"), [])
        self.image = QueueImage()
        self.deliveries: list[Deliver] = []
        self.led = Leadership(self.image, self, self, term=1)
        self.session = self.led.sessions.open(SessionId("a", 1, 1, 1))
        self.led.attach(self.session, 1, Terms(1, "c"))
        self.led.pump()
        self.next = 2

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        self.image.apply(self.image.state.index + 1, payload)
        on_outcome(True)

    def release(self, effects: list[Effect]) -> None:
        self.deliveries += [each for _session, each in effects if isinstance(each, Deliver)]

    def turn(self, origins: list[Origin], contents: list[bytes]) -> int:
        """Publish; acknowledge what came of the turn before.  How many messages that was."""
        settled = 0
        for delivery in self.deliveries:
            (run,) = delivery.runs
            tokens = [(0, run)]
            self.led.settle(self.session, self.next, delivery.holder, tokens, outcome=Outcome.ACKED)
            self.next += 1
            settled += len(run)
        self.deliveries.clear()
        self.led.publish(self.session, self.next, origins, contents)
        self.next += len(contents)
        self.led.pump()
        return settled


def leading(body_bytes: int) -> Callable[[int], float]:
    """All that a leader does for a message but consensus, applying included."""

    def measure(batch: int) -> float:
        contents, origins = [content(1, body_bytes)] * batch, [ORIGIN] * batch
        alone = Alone()
        alone.turn(origins, contents)

        def call() -> int:
            settled = sum(alone.turn(origins, contents) for _ in range(TURNS))
            if settled != TURNS * batch:
                raise AssertionError(f"{settled} messages were acknowledged")
            return settled

        return ns_per_message(call)

    return measure


def backlog(batch: int) -> QueueImage:
    image = QueueImage()
    image.apply(1, encode(FactBatch(0, 0, WHO_IS_THERE)))
    contents, origins = [content(1, 16)] * batch, [ORIGIN] * batch
    for turn in range(BACKLOG_MESSAGES // batch):
        first = turn * batch + 1
        new = pack_enqueued(first, origins, contents)
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
        live, taken = take_snapshot(image)
        if not live or not taken:
            raise AssertionError("nothing is live")
        return BACKLOG_MESSAGES

    return ns_per_message(call)


BENCHES: dict[str, Callable[[int], float]] = {
    **{f"encode, {name}": encoding(size) for name, size in BODY_BYTES.items()},
    **{f"Image.apply, {name}": applying(size) for name, size in BODY_BYTES.items()},
    **{f"Leadership, {name}": leading(size) for name, size in BODY_BYTES.items()},
    "snapshot of a backlog": snapshots,
    "memory of a backlog, bytes": memory,
}
BATCH_MESSAGES = (1, 100, 1_000)
