"""Direct reply-to: names reach requesters while they are there, and nobody afterwards."""

from fluffle.broker.core.direct_reply_to import (
    PREFIX,
    UNREAD_BYTES_MAX,
    ReplyInbox,
    ReplyTargets,
)
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import DeliveryBatch
from tests.broker.queues.queue_harness import ORIGIN, messages
from tests.support.no_timeout import NoTimeoutHolder

NAME = PREFIX + "somebody"


class Requester(NoTimeoutHolder):
    """Notes the answers it gets."""

    no_ack = True

    def __init__(self) -> None:
        self.got: list[DeliveryBatch] = []

    @property
    def queue(self) -> Queue:
        raise AssertionError("answers come from no queue")

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        self.got.append(delivery_batch)

    def took(self, delivery_batch: DeliveryBatch) -> None: ...

    def settled(self, count: int) -> None: ...


def test_answers_reach_the_requester_at_once() -> None:
    targets, requester = ReplyTargets(), Requester()
    targets.add(NAME, requester, ReplyInbox())
    target = targets.target(NAME)
    target.enqueue([ORIGIN] * 2, messages("a", "b"), 2, persistent=False)
    (delivery_batch,) = requester.got
    assert (delivery_batch.holder, delivery_batch.origins) == (requester, [ORIGIN, ORIGIN])
    assert (delivery_batch.contents, delivery_batch.redelivered) == ([b"a", b"b"], False)
    assert len(delivery_batch.sequences) == 2
    assert (targets.is_alive(NAME), target.is_behind, target.blocked_publishers) == (
        True,
        False,
        [],
    )


def test_a_name_that_reaches_nobody_swallows_answers() -> None:
    targets = ReplyTargets()
    targets.target(NAME).enqueue([ORIGIN], messages("a"), 1, persistent=False)
    assert not targets.is_alive(NAME)


def test_routes_that_are_remembered_fall_silent_with_their_requester() -> None:
    targets, requester = ReplyTargets(), Requester()
    targets.add(NAME, requester, ReplyInbox())
    remembered = targets.target(NAME)
    targets.remove(NAME)
    targets.remove(NAME)
    remembered.enqueue([ORIGIN], messages("late"), 4, persistent=False)
    targets.target(NAME).enqueue([ORIGIN], messages("late"), 4, persistent=False)
    assert requester.got == []
    assert not targets.is_alive(NAME)


def test_answers_to_who_does_not_read_are_dropped_once_they_are_many() -> None:
    targets, requester, inbox = ReplyTargets(), Requester(), ReplyInbox()
    targets.add(NAME, requester, inbox)
    target = targets.target(NAME)
    target.enqueue([ORIGIN], messages("whole"), 2 * UNREAD_BYTES_MAX, persistent=False)
    inbox.filled()
    assert target.is_behind
    for body, size_bytes in (("last", UNREAD_BYTES_MAX + 1), ("dropped", 1), ("dropped", 0)):
        target.enqueue([ORIGIN], messages(body), size_bytes, persistent=False)
    inbox.drained()
    assert not target.is_behind
    target.enqueue([ORIGIN], messages("again"), UNREAD_BYTES_MAX, persistent=False)
    assert [delivery_batch.contents for delivery_batch in requester.got] == [
        [b"whole"],
        [b"last"],
        [b"again"],
    ]


def test_all_requesters_of_a_connection_share_its_bound() -> None:
    targets, first, second, inbox = ReplyTargets(), Requester(), Requester(), ReplyInbox()
    targets.add(NAME, first, inbox)
    targets.add(NAME + "2", second, inbox)
    inbox.filled()
    targets.target(NAME).enqueue([ORIGIN], messages("last"), UNREAD_BYTES_MAX + 1, persistent=False)
    targets.target(NAME + "2").enqueue([ORIGIN], messages("dropped"), 1, persistent=False)
    assert (len(first.got), second.got) == (1, [])


def test_nobody_is_never_behind() -> None:
    targets, inbox = ReplyTargets(), ReplyInbox()
    targets.add(NAME, Requester(), inbox)
    target = targets.target(NAME)
    inbox.filled()
    targets.remove(NAME)
    assert not target.is_behind
