"""A queue that cannot answer at once, as a client sees it: its channel waits, and no other."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from fluffle.broker.errors import InternalError
from fluffle.broker.message import Origin
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.consumers import Consumer
from fluffle.broker.queues.handout import Handout, Holder, Outcome
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.served import Admission, Debtor, Later, ServedQueue, Tally
from fluffle.protocol.methods import Basic, Channel, Queue, encode_method, make
from tests.support.edge import Edge, publish_frames


class SlowQueue:
    """A queue whose answers come when a test says so."""

    damage = owner = None
    in_exclusive_use = is_behind = False

    def __init__(self, name: str) -> None:
        self.spec = QueueSpec(name)
        self.name = name
        self.definition = QueueDefinition(self.spec)
        self.debtors: list[Debtor] = []
        self.ready_count = self.in_flight = self.consumer_count = 0
        self.consumers: tuple[Consumer, ...] = ()
        self.asked: deque[Later[Any]] = deque()
        self.settled: list[tuple[int, int, Outcome]] = []

    def _ask(self) -> Later[Any]:
        self.asked.append(Later())
        return self.asked[-1]

    def answer(self, value: Any) -> None:
        self.asked.popleft().answer(value)

    @property
    def tally(self) -> Later[Tally]:
        return self._ask()

    def enqueue(
        self, origins: list[Origin], contents: list[bytes], content_bytes: int, *, persistent: bool
    ) -> Admission:
        del origins, content_bytes, persistent
        self.ready_count += len(contents)
        return Admission.ACCEPTED

    def get(self, holder: Holder) -> Later[Handout | None]:
        del holder
        return self._ask()

    def settle(self, handout: Handout, start: int, stop: int, outcome: Outcome) -> None:
        del handout
        self.settled.append((start, stop, outcome))

    def purge(self) -> Later[int]:
        return self._ask()

    def attach(self, consumer: Consumer) -> Later[None]:
        self.consumers += (consumer,)
        return self._ask()

    def detach(self, consumer: Consumer) -> None:
        self.consumers = tuple(each for each in self.consumers if each is not consumer)

    def wake(self, consumer: Consumer) -> None:
        del consumer


class Getter:
    no_ack = False

    def __init__(self, queue: SlowQueue) -> None:
        self.queue: ServedQueue = queue

    def deliver(self, handout: Handout) -> None:
        raise AssertionError

    def took(self, handout: Handout) -> None:
        raise AssertionError

    def settled(self, count: int) -> None:
        raise AssertionError


class Rig:
    def __init__(self) -> None:
        self.edge = Edge()
        self.queue = SlowQueue("q")
        self.edge.vhost.queues["q"] = self.queue
        self.client = self.edge.connect()

    def send(self, *methods: Any, channel: int = 1) -> None:
        self.client.send(*(encode_method(channel, method) for method in methods))

    def answer(self, value: Any) -> None:
        self.queue.answer(value)
        self.edge.run()

    def fail(self) -> None:
        self.queue.asked.popleft().fail(InternalError("nobody leads it"))
        self.edge.run()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_came_behind_a_question_waits_for_its_answer(rig: Rig) -> None:
    rig.client.send(
        encode_method(1, make(Queue.Purge, queue="q")),
        publish_frames(b"1"),
        encode_method(1, make(Queue.Purge, queue="q")),
    )
    rig.client.expect_nothing()
    assert (len(rig.queue.asked), rig.queue.ready_count) == (1, 0)
    rig.answer(5)
    assert rig.client.expect(Queue.PurgeOk).message_count == 5
    assert (len(rig.queue.asked), rig.queue.ready_count) == (1, 1)
    rig.answer(1)
    assert rig.client.expect(Queue.PurgeOk).message_count == 1


def test_other_channels_go_on(rig: Rig) -> None:
    rig.client.open_channel(2)
    rig.send(make(Queue.Purge, queue="q"))
    rig.client.declare("r", channel=2)
    rig.answer(0)
    rig.client.expect(Queue.PurgeOk)


def test_a_passive_declaration_asks_for_counts(rig: Rig) -> None:
    rig.send(make(Queue.Declare, queue="q", passive=True))
    rig.client.expect_nothing()
    rig.answer(Tally(3, 4, 5))
    declared = rig.client.expect(Queue.DeclareOk)
    assert (declared.message_count, declared.consumer_count) == (3, 5)


def test_a_deletion_asks_first_and_waits_twice(rig: Rig) -> None:
    """What came behind it waits for both."""
    rig.send(make(Queue.Delete, queue="q", if_empty=True), make(Queue.Purge, queue="q"))
    rig.queue.ready_count = 7
    rig.answer(Tally(7, 0, 0))
    rig.client.expect_channel_closed(406, "not empty")
    assert not rig.queue.asked


def test_a_consumer_is_told_before_it_is_delivered(rig: Rig) -> None:
    rig.send(make(Basic.Consume, queue="q", consumer_tag="c"))
    rig.client.expect_nothing()
    assert [consumer.tag for consumer in rig.queue.consumers] == ["c"]
    rig.answer(None)
    assert rig.client.expect(Basic.ConsumeOk).consumer_tag == "c"


def test_a_consumer_whose_channel_ends_meanwhile_is_detached(rig: Rig) -> None:
    rig.send(make(Basic.Consume, queue="q", consumer_tag="c"))
    rig.client.transport.lose()
    rig.edge.run()
    assert rig.queue.consumers == ()
    rig.answer(None)


def test_what_is_got_too_late_goes_back(rig: Rig) -> None:
    rig.send(make(Basic.Get, queue="q"))
    rig.client.transport.lose()
    rig.answer(Handout(Getter(rig.queue), [Origin("", "q")], [b"m"], [1], redelivered=False))
    assert rig.queue.settled == [(0, 1, Outcome.UNSENT)]


def test_a_question_that_fails_closes_as_its_error_says(rig: Rig) -> None:
    rig.send(make(Basic.Get, queue="q"))
    rig.fail()
    rig.client.expect_closed(541, "nobody leads it", (60, 70))


def test_a_close_of_the_channel_waits_too(rig: Rig) -> None:
    """What is asked is bounded in time, and so is this."""
    rig.send(make(Basic.Get, queue="q"), Channel.Close(200, "", 0, 0))
    rig.client.expect_nothing()
    rig.answer(None)
    rig.client.expect(Basic.GetEmpty)
    rig.client.expect(Channel.CloseOk)
