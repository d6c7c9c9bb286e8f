"""Whether a connection is read: what holds it, and what a publisher owes to slow queues."""

import pytest

from fluffle.broker.queues.engine import Debtor
from fluffle.broker.server.intake import SECONDS_PER_MESSAGE, Debt, Intake
from tests.support.fakes import Scheduler


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
        self.debtors: list[Debtor] = []


class Scene:
    def __init__(self) -> None:
        self.socket = Socket()
        self.scheduler = Scheduler()
        self.intake = Intake(self.socket)
        self.debt = Debt(self.intake, self.scheduler.call_later)
        self.queue, self.other = SlowQueue(), SlowQueue()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_connection_is_read_again_when_the_last_reason_is_over(scene: Scene) -> None:
    scene.intake.hold("alarm")
    scene.intake.hold("flow")
    scene.intake.hold("flow")
    scene.intake.release("alarm")
    assert (scene.intake.holds("alarm"), scene.intake.holds("flow")) == (False, True)
    assert not scene.socket.is_read
    scene.intake.release("flow")
    assert scene.socket.is_read
    scene.intake.release("flow")
    assert scene.socket.is_read


def test_a_debt_is_paid_by_as_many_messages(scene: Scene) -> None:
    scene.debt.owe(scene.queue, 10)
    assert (scene.socket.is_read, scene.queue.debtors) == (False, [scene.debt])
    scene.debt.paid(9)
    assert not scene.socket.is_read
    scene.debt.paid(1)
    assert (scene.socket.is_read, scene.queue.debtors) == (True, [])


def test_debts_to_several_queues_add_up(scene: Scene) -> None:
    for queue in (scene.queue, scene.other, scene.queue):
        scene.debt.owe(queue, 5)
    assert scene.queue.debtors == scene.other.debtors == [scene.debt]
    scene.debt.paid(14)
    assert not scene.socket.is_read
    scene.debt.paid(7)
    assert scene.socket.is_read
    assert scene.queue.debtors == scene.other.debtors == []


def test_time_forgives_a_debt(scene: Scene) -> None:
    scene.debt.owe(scene.queue, 1000)
    scene.debt.owe(scene.queue, 1000)
    scene.scheduler.advance(1999 * SECONDS_PER_MESSAGE)
    assert not scene.socket.is_read
    scene.scheduler.advance(2 * SECONDS_PER_MESSAGE)
    assert (scene.socket.is_read, scene.queue.debtors) == (True, [])


def test_a_debt_that_is_over_starts_from_nothing(scene: Scene) -> None:
    scene.debt.owe(scene.queue, 1)
    scene.debt.paid(100)
    scene.debt.forgive()
    scene.debt.owe(scene.queue, 2)
    scene.debt.paid(1)
    assert not scene.socket.is_read
    scene.debt.paid(1)
    assert scene.socket.is_read
    scene.scheduler.advance(1)
    assert scene.socket.is_read


def test_a_debt_does_not_end_another_hold(scene: Scene) -> None:
    scene.intake.hold("alarm")
    scene.debt.owe(scene.queue, 1)
    scene.debt.paid(1)
    assert (scene.socket.is_read, scene.intake.holds("alarm")) == (False, True)
