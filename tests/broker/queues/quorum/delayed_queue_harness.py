"""The led queue of an x-delayed-message exchange, one publisher, and a queue where all goes.

The model is a list: who was taken, when he is due, and who has come out, in which order.
"""

from __future__ import annotations

from fluffle.broker.queues.arguments import delayed_queue_spec
from fluffle.broker.queues.dead_letters import DeadMessages, PendingDeadLetter
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.facts import SessionId
from fluffle.broker.queues.settings import QueueSettings
from fluffle.protocol.headers import DeathReason
from fluffle.protocol.properties import Properties, body_of, build_content, encode_properties
from tests.broker.queues.quorum.entry_harness import EntryHarness
from tests.broker.queues.quorum.sample_facts import ORIGIN

SPEC = delayed_queue_spec("x", "/", durable=True)


def message(number: int, delay_ms: int) -> bytes:
    headers = {"x-delay": ("l", delay_ms)} if delay_ms else {}
    return build_content(encode_properties(Properties(headers=headers)), b"%d" % number)  # type: ignore[arg-type]


class DelayedQueueHarness(EntryHarness):
    """With one publisher, who asks again what he has not heard of, and one queue where all goes."""

    def __init__(self) -> None:
        self.came: list[tuple[int, int]] = []
        """Messages that came out, with their times."""
        self.due_ms: dict[int, int] = {}
        """When each message is due that was taken, if no leader was changed."""
        self.asked: dict[int, bytes] = {}
        """Unconfirmed messages by number."""
        self.safe: set[int] = set()
        self.sent = 0
        self.parcels: list[PendingDeadLetter] = []
        """Pending messages, while they are not accepted at once."""
        self.takes_at_once = True
        self.purges = 0
        super().__init__(SPEC)
        self.key = self.session()
        self.settle_down()

    def on_dead(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        assert (queue, settings.dead_letter_exchange) == ("amq.delayed.x", "x")
        assert dead.reason is DeathReason.EXPIRED
        assert dead.parcels is not None
        for content, parcel in zip(dead.contents, dead.parcels, strict=True):
            self.came.append((int(body_of(content)), self.now_ms))
            parcel.lead(["target"])
            parcel.finish()
            if self.takes_at_once:
                parcel.known("target", is_accepted=True)
            else:
                self.parcels.append(parcel)

    def publish_all(self, *delays_ms: int) -> None:
        first = self.sent + 1
        for delay_ms in delays_ms:
            self.sent += 1
            self.asked[self.sent] = message(self.sent, delay_ms)
            self.due_ms[self.sent] = self.now_ms + delay_ms
        self.ask_from(first)

    def ask_from(self, first: int) -> None:
        contents = [content for number, content in self.asked.items() if number >= first]
        if contents:
            self.led.publish(self.key, first, [ORIGIN] * len(contents), contents)
            self.touch()

    def purged(self) -> int:
        """Purge by another client; returns the number of messages purged."""
        self.purges += 1
        waiting = self.led.queue.ready_count
        self.led.purge(self.led.sessions.open(SessionId("b", 1, 1, self.purges)), 1)
        assert self.led.queue.ready_count == 0
        self.touch()
        return waiting

    def hear(self) -> None:
        for message in self.take_messages():
            if isinstance(message, m.DoneReply):
                for number in range(message.first, message.first + message.count):
                    self.asked.pop(number, None)
                    self.safe.add(number)

    def at(self, now_ms: int) -> None:
        """Set the time, and run the queue if it has asked for that."""
        left_ms = [wish_ms - (now_ms - self.now_ms) for wish_ms in self.wakes]
        self.now_ms, self.wakes[:] = now_ms, [left for left in left_ms if left > 0]
        self.is_touched = self.is_touched or len(self.wakes) < len(left_ms)

    @property
    def order(self) -> list[int]:
        return [number for number, _at_ms in self.came]
