"""Short ways to make what queue tests need: messages, a sink that can be shut, a queue."""

from __future__ import annotations

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.consumers import UNLIMITED, Consumer, SharedCredit
from fluffle.broker.queues.dead_letter_port import DeadMessages
from fluffle.broker.queues.delivery import Handout
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import Expiries, Lifetimes
from fluffle.broker.queues.journal import Spill, Spilled
from fluffle.broker.queues.queue_context import Ports, Stores
from fluffle.broker.queues.ready_list import Lane
from fluffle.broker.queues.requeue import Returns
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.deaths import DeathReason
from tests.support.patience import PatientSink

ORIGIN = Origin("ex", "key")
OTHER_ORIGIN = Origin("ex", "other")
PLAIN = QueueSpec("q")


def lane_of(queue: Queue) -> Lane:
    """Of a queue that has one."""
    assert isinstance(queue._lane, Lane)
    return queue._lane


def messages(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


def numbered(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


class MemorySpill:
    """A disk that is always wanted, and keeps up."""

    is_wanted = True
    is_behind = False

    def __init__(self) -> None:
        self.commits = self
        self.ticket = self.durable = 1
        self.held: dict[int, Spilled] = {}
        self.reads = 0

    def write(self, origins: list[Origin], contents: list[bytes], expiries: Expiries | None) -> int:
        index = len(self.held) + 1
        self.held[index] = Spilled(origins, contents, expiries)
        return index

    def read(self, index: int) -> Spilled:
        self.reads += 1
        return self.held[index]

    def forget(self, index: int) -> None:
        self.held[index] = Spilled([], [], None)


class FakeSink(PatientSink):
    """A client that notes what it gets, and wakes its consumers when it is opened again."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        """What it got: a run forgets what is settled."""
        self.left = UNLIMITED
        """How many more messages it takes."""
        self._waiting: list[Consumer] = []

    def room(self, consumer: Consumer) -> int:
        if not self.left:
            self._waiting.append(consumer)
        return self.left

    def reserve(self, handout: Handout) -> None:
        self.left -= len(handout.contents)

    def deliver(self, handout: Handout) -> None:
        self.contents += handout.contents

    def cancelled(self, consumer: Consumer) -> None:
        raise AssertionError(f"{consumer.tag} was cancelled, and no queue was deleted")

    def activity_changed(self, consumer: Consumer) -> None:
        """It sees by what it is served."""

    def open(self, left: int = UNLIMITED) -> None:
        self.left = left
        waiting, self._waiting = self._waiting, []
        for consumer in waiting:
            if consumer.parked:
                consumer.queue.wake(consumer)


class Bench:
    """A queue with its consumers, and a pump for when the queue asks for it."""

    def __init__(self, spec: QueueSpec = PLAIN) -> None:
        self.touched = False
        self.queue = Queue(spec, Ports(self.touch))
        self.consumers: dict[str, Consumer] = {}
        self.sinks: dict[str, FakeSink] = {}
        self.shared = SharedCredit()

    def touch(self, queue: Queue) -> None:
        assert queue is self.queue
        self.touched = True

    def consume(
        self,
        tag: str,
        *,
        prefetch: int = 0,
        priority: int = 0,
        no_ack: bool = False,
        exclusive: bool = False,
    ) -> Consumer:
        self.sinks[tag] = FakeSink()
        consumer = self.consumers[tag] = Consumer(
            tag,
            self.queue,
            self.sinks[tag],
            shared=self.shared,
            prefetch=prefetch,
            priority=priority,
            no_ack=no_ack,
            exclusive=exclusive,
        )
        self.queue.attach(consumer)
        return consumer

    def enqueue(
        self, *texts: str, origin: Origin = ORIGIN, expiration_ms: Lifetimes = None
    ) -> None:
        contents = messages(*texts)
        self.queue.enqueue(
            [origin] * len(contents),
            contents,
            sum(map(len, contents)),
            expiration_ms=expiration_ms,
        )

    def pump(self) -> list[Handout]:
        """Deliver until the queue asks for no more."""
        handouts = []
        while self.touched:
            self.touched = False
            for handout in self.queue.pump():
                assert isinstance(handout.holder, Consumer)
                handout.holder.deliver(handout)
                handouts.append(handout)
        return handouts

    def got(self, tag: str) -> str:
        """What a consumer has got, in a word."""
        return b"".join(self.sinks[tag].contents).decode()


class Aging(Bench):
    """A queue in which time passes, and that is pumped at the moments for which it asks."""

    def __init__(
        self, spec: QueueSpec, spill: Spill | None = None, returned: Returns | None = None
    ) -> None:
        super().__init__()
        self.now = 1_000
        self.wakes: list[int] = []
        self.disused: list[int] = []
        """When it was said that nobody uses it."""
        self.dead: list[bytes] = []
        self.unwanted = 0
        """Those that nobody wanted to have."""
        """What has expired, if somebody wants to know."""
        ports = Ports(self.touch, self, dead_letter=self.on_dead, on_disused=self.on_disused)
        self.queue = Queue(spec, ports, Stores(spill=spill, returned=returned))

    def on_disused(self, queue: Queue) -> None:
        assert queue.is_disused
        self.disused.append(self.now)

    def on_dead(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        assert (queue, settings) == ("q", self.queue.settings)
        self.unwanted += dead.unwanted
        assert dead.reason is DeathReason.EXPIRED
        self.dead += dead.contents

    def now_ms(self) -> int:
        return self.now

    def wake(self, _queue: Queue, at_ms: int) -> None:
        self.wakes.append(at_ms)

    def advance(self, by_ms: int) -> None:
        until = self.now + by_ms
        while due := [at for at in self.wakes if at <= until]:
            self.now = max(self.now, min(due))
            self.wakes = [at for at in self.wakes if at > self.now]
            self.touched = True
            self.pump()
        self.now = until
