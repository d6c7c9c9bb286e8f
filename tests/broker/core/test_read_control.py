"""Read control: what makes a connection unread, and what a publisher owes to slow queues."""

import pytest

from fluffle.broker.core.input_queue import (
    OWED_MESSAGES_MAX,
    SECONDS_PER_MESSAGE,
    FlowCredit,
    ReadControl,
)
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.publish_target import BlockedPublisher
from fluffle.broker.queues.queue_api import Consumer, SharedCredit
from tests.broker.queues.queue_harness import ORIGIN, FakeSink
from tests.support.fakes import Scheduler
from tests.support.queue_host import FakeQueueHost


class Socket:
    """Is read or not, and is strict: neither is asked for twice."""

    def __init__(self) -> None:
        self.is_read = True

    def pause_reading(self) -> None:
        assert self.is_read
        self.is_read = False

    def resume_reading(self) -> None:
        assert not self.is_read
        self.is_read = True


class SlowQueue:
    """A queue, as far as those know it who put too much into it."""

    def __init__(self) -> None:
        self.blocked_publishers: list[BlockedPublisher] = []


class Scene:
    def __init__(self) -> None:
        self.socket = Socket()
        self.scheduler = Scheduler()
        self.read_control = ReadControl(self.socket)
        self.debt = FlowCredit(self.read_control, self.scheduler.call_later)
        self.queue, self.other = SlowQueue(), SlowQueue()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_connection_is_read_again_when_the_last_reason_is_over(scene: Scene) -> None:
    scene.read_control.hold("alarm")
    scene.read_control.hold("flow")
    scene.read_control.hold("flow")
    scene.read_control.release("alarm")
    assert (scene.read_control.holds("alarm"), scene.read_control.holds("flow")) == (False, True)
    assert not scene.socket.is_read
    scene.read_control.release("flow")
    assert scene.socket.is_read
    scene.read_control.release("flow")
    assert scene.socket.is_read


def test_a_debt_is_paid_by_as_many_messages(scene: Scene) -> None:
    scene.debt.owe(scene.queue, 1000)
    assert (scene.socket.is_read, scene.queue.blocked_publishers) == (False, [scene.debt])
    assert scene.debt.paid(scene.queue, 999) == 0
    assert not scene.socket.is_read
    assert scene.debt.paid(scene.queue, 3) == 2
    assert (scene.socket.is_read, scene.queue.blocked_publishers) == (True, [])


def test_a_publisher_is_read_until_it_owes_much(scene: Scene) -> None:
    scene.debt.owe(scene.queue, OWED_MESSAGES_MAX - 1)
    assert (scene.socket.is_read, scene.queue.blocked_publishers) == (True, [scene.debt])
    scene.debt.paid(scene.queue, 1)
    scene.debt.owe(scene.queue, 1)
    assert scene.socket.is_read
    scene.debt.owe(scene.queue, 1)
    assert not scene.socket.is_read


def test_what_is_paid_to_one_of_several_queues_is_owed_no_more(scene: Scene) -> None:
    scene.debt.owe(scene.queue, 600)
    scene.debt.owe(scene.other, 300)
    assert scene.debt.paid(scene.queue, 700) == 100
    scene.debt.owe(scene.other, 600)
    assert scene.socket.is_read
    scene.debt.owe(scene.queue, 100)
    assert not scene.socket.is_read


def test_a_small_debt_ends_with_its_connection(scene: Scene) -> None:
    scene.debt.owe(scene.queue, 1)
    scene.debt.forgive()
    assert scene.queue.blocked_publishers == []
    scene.debt.owe(scene.queue, OWED_MESSAGES_MAX - 1)
    assert scene.socket.is_read


def test_a_debt_to_several_queues_is_paid_by_each(scene: Scene) -> None:
    for queue in (scene.queue, scene.other, scene.queue):
        scene.debt.owe(queue, 500)
    assert scene.queue.blocked_publishers == scene.other.blocked_publishers == [scene.debt]
    assert scene.debt.paid(scene.queue, 1100) == 100
    assert (scene.socket.is_read, scene.queue.blocked_publishers) == (False, [])
    assert scene.debt.paid(scene.other, 500) == 0
    assert (scene.socket.is_read, scene.other.blocked_publishers) == (True, [])


def test_publishers_of_one_queue_are_read_one_after_the_other() -> None:
    queue = Queue(QueueSpec("q"), FakeQueueHost())
    scenes = [Scene() for _ in range(3)]
    for scene in scenes:
        queue.enqueue([ORIGIN] * 1000, [b""] * 1000, 0)
        scene.debt.owe(queue, 1000)
    holder = Consumer("c", queue, FakeSink(), shared=SharedCredit())
    read = []
    while queue.get(holder) is not None:
        read.append([scene.socket.is_read for scene in scenes])
    assert read[998:1000] == [[False, False, False], [True, False, False]]
    assert read[2998:] == [[True, True, False], [True, True, True]]


def test_time_forgives_a_debt(scene: Scene) -> None:
    scene.debt.owe(scene.queue, 1000)
    scene.debt.owe(scene.queue, 1000)
    scene.scheduler.advance(1999 * SECONDS_PER_MESSAGE)
    assert not scene.socket.is_read
    scene.scheduler.advance(2 * SECONDS_PER_MESSAGE)
    assert (scene.socket.is_read, scene.queue.blocked_publishers) == (True, [])


def test_a_debt_that_is_over_starts_from_nothing(scene: Scene) -> None:
    scene.debt.owe(scene.queue, 1000)
    scene.debt.paid(scene.queue, 9000)
    scene.debt.forgive()
    scene.debt.owe(scene.queue, 1001)
    scene.debt.paid(scene.queue, 1000)
    assert not scene.socket.is_read
    scene.debt.paid(scene.queue, 1)
    assert scene.socket.is_read
    scene.scheduler.advance(1)
    assert scene.socket.is_read


def test_a_debt_does_not_end_another_hold(scene: Scene) -> None:
    scene.read_control.hold("alarm")
    scene.debt.owe(scene.queue, 1000)
    scene.debt.paid(scene.queue, 1000)
    assert (scene.socket.is_read, scene.read_control.holds("alarm")) == (False, True)


def test_debts_to_many_queues_need_two_timers(scene: Scene) -> None:
    """A fan-out to thousands of queues that are behind owes thousands of times in one turn."""
    timers = scene.scheduler.timer_count
    for queue in [SlowQueue() for _ in range(3000)]:
        scene.debt.owe(queue, 1)
    assert scene.scheduler.timer_count == timers + 1
    scene.scheduler.advance(1000 * SECONDS_PER_MESSAGE)
    assert (scene.socket.is_read, scene.scheduler.timer_count) == (False, timers + 1)
    scene.scheduler.advance(2000 * SECONDS_PER_MESSAGE)
    assert scene.socket.is_read
