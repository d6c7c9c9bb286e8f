"""Short ways to make what queue tests need: messages, a sink that can be shut, a queue."""

from __future__ import annotations

from fluffle.broker.base.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.engine import Queue, QueueStores
from fluffle.broker.queues.expiry_times import Expiries, Lifetimes
from fluffle.broker.queues.journal import PagedOutMessages, PageStore
from fluffle.broker.queues.queue_api import (
    UNLIMITED,
    Consumer,
    DeliveryBatch,
    DeliverySource,
    SharedCredit,
)
from fluffle.broker.queues.ready_list import ReadyList
from fluffle.broker.queues.requeue import RequeueOrder
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.headers import DeathReason
from tests.support.no_timeout import NoTimeoutSink
from tests.support.queue_host import FakeQueueHost

ORIGIN = Origin("ex", "key")
OTHER_ORIGIN = Origin("ex", "other")
PLAIN = QueueSpec("q")


def lane_of(queue: Queue) -> ReadyList:
    """Ready list of a queue that has only one."""
    assert isinstance(queue._ready_list, ReadyList)
    return queue._ready_list


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
        self.held: dict[int, PagedOutMessages] = {}
        self.reads = 0

    def write(self, origins: list[Origin], contents: list[bytes], expiries: Expiries | None) -> int:
        index = len(self.held) + 1
        self.held[index] = PagedOutMessages(origins, contents, expiries)
        return index

    def read(self, index: int) -> PagedOutMessages:
        self.reads += 1
        return self.held[index]

    def forget(self, index: int) -> None:
        self.held[index] = PagedOutMessages([], [], None)


class FakeSink(NoTimeoutSink):
    """A client that notes what it gets, and wakes its consumers when it is opened again."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        """Contents received: a run forgets what is settled."""
        self.left = UNLIMITED
        """How many more messages it takes."""
        self._waiting: list[Consumer] = []

    def room(self, consumer: Consumer) -> int:
        if not self.left:
            self._waiting.append(consumer)
        return self.left

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        self.left -= len(delivery_batch.contents)

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self.contents += delivery_batch.contents

    def cancelled(self, consumer: Consumer) -> None:
        raise AssertionError(f"{consumer.tag} was cancelled, and no queue was deleted")

    def activity_changed(self, consumer: Consumer) -> None:
        """Ignore the change: deliveries show it."""

    def open(self, left: int = UNLIMITED) -> None:
        self.left = left
        waiting, self._waiting = self._waiting, []
        for consumer in waiting:
            if consumer.parked:
                consumer.queue.wake(consumer)


class QueueHarness:
    """A queue with its consumers, and a pump for when the queue asks for it."""

    def __init__(self, spec: QueueSpec = PLAIN) -> None:
        self.touched = False
        self.queue = Queue(spec, FakeQueueHost(self.touch))
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

    def pump(self) -> list[DeliveryBatch]:
        """Deliver until the queue asks for no more."""
        delivery_batches = []
        while self.touched:
            self.touched = False
            for delivery_batch in self.queue.pump():
                assert isinstance(delivery_batch.holder, Consumer)
                delivery_batch.holder.deliver(delivery_batch)
                delivery_batches.append(delivery_batch)
        return delivery_batches

    def got(self, tag: str) -> str:
        """Contents that a consumer has received, joined."""
        return b"".join(self.sinks[tag].contents).decode()


class ExpiryHarness(QueueHarness):
    """A queue in which time passes, and that is pumped at the moments for which it asks."""

    def __init__(
        self, spec: QueueSpec, spill: PageStore | None = None, requeued: RequeueOrder | None = None
    ) -> None:
        super().__init__()
        self.now = 1_000
        self.wakes: list[int] = []
        self.queue_expired: list[int] = []
        """Times at which the queue was reported as unused."""
        self.dead: list[bytes] = []
        """Dead letters, where an exchange is configured."""
        self.unwanted = 0
        """Number of messages that died without a dead letter exchange."""
        ports = FakeQueueHost(
            self.touch, self, dead_letter=self.on_dead, on_queue_expired=self.on_queue_expired
        )
        self.queue = Queue(spec, ports, QueueStores(spill=spill, requeued=requeued))

    def on_queue_expired(self, queue: Queue) -> None:
        assert queue.is_queue_expired
        self.queue_expired.append(self.now)

    def on_dead(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        assert (queue, settings) == ("q", self.queue.settings)
        self.unwanted += dead.unwanted
        assert dead.reason is DeathReason.EXPIRED
        self.dead += dead.contents

    def now_ms(self) -> int:
        return self.now

    def wake(self, _queue: DeliverySource, at_ms: int) -> None:
        self.wakes.append(at_ms)

    def advance(self, by_ms: int) -> None:
        until = self.now + by_ms
        while due := [at for at in self.wakes if at <= until]:
            self.now = max(self.now, min(due))
            self.wakes = [at for at in self.wakes if at > self.now]
            self.touched = True
            self.pump()
        self.now = until
