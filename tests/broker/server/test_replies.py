"""Direct reply-to: names reach requesters while they are there, and nobody afterwards."""

from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.handout import Handout
from fluffle.broker.server.replies import PREFIX, ReplyTargets
from tests.broker.queues.make import ORIGIN, messages

NAME = PREFIX + "somebody"


class Requester:
    """Notes the answers it gets."""

    no_ack = True

    def __init__(self) -> None:
        self.got: list[Handout] = []

    @property
    def queue(self) -> Queue:
        raise AssertionError("answers come from no queue")

    def deliver(self, handout: Handout) -> None:
        self.got.append(handout)

    def took(self, count: int) -> None: ...

    def settled(self, count: int) -> None: ...


def test_answers_reach_the_requester_at_once() -> None:
    targets, requester = ReplyTargets(), Requester()
    targets.add(NAME, requester)
    target = targets.target(NAME)
    target.enqueue(ORIGIN, messages("a", "b"), 2)
    (handout,) = requester.got
    assert (handout.holder, handout.origins) == (requester, [ORIGIN, ORIGIN])
    assert (handout.contents, handout.redelivered) == ([b"a", b"b"], False)
    assert len(handout.sequences) == 2
    assert (targets.is_alive(NAME), target.is_behind, target.debtors) == (True, False, [])


def test_a_name_that_reaches_nobody_swallows_answers() -> None:
    targets = ReplyTargets()
    targets.target(NAME).enqueue(ORIGIN, messages("a"), 1)
    assert not targets.is_alive(NAME)


def test_routes_that_are_remembered_fall_silent_with_their_requester() -> None:
    targets, requester = ReplyTargets(), Requester()
    targets.add(NAME, requester)
    remembered = targets.target(NAME)
    targets.remove(NAME)
    targets.remove(NAME)
    remembered.enqueue(ORIGIN, messages("late"), 4)
    targets.target(NAME).enqueue(ORIGIN, messages("late"), 4)
    assert requester.got == []
    assert not targets.is_alive(NAME)
