"""Short ways to make what queue tests need: messages, a sink that can be shut, a queue."""

from fluffle.broker.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.consumers import UNLIMITED, Consumer, SharedCredit
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.handout import Handout

ORIGIN = Origin("ex", "key")
OTHER_ORIGIN = Origin("ex", "other")


def messages(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


def numbered(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


class FakeSink:
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

    def open(self, left: int = UNLIMITED) -> None:
        self.left = left
        waiting, self._waiting = self._waiting, []
        for consumer in waiting:
            if consumer.parked:
                consumer.queue.wake(consumer)


class Bench:
    """A queue with its consumers, and a pump for when the queue asks for it."""

    def __init__(self) -> None:
        self.touched = False
        self.queue = Queue(QueueSpec("q"), touch=self.touch)
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

    def enqueue(self, *texts: str, origin: Origin = ORIGIN) -> None:
        contents = messages(*texts)
        self.queue.enqueue([origin] * len(contents), contents, sum(map(len, contents)))

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
