"""Queues elsewhere that answer while others are yet to be asked: a publisher hears of all."""

from __future__ import annotations

from itertools import count

import pytest

from fluffle.broker.core.publisher import TARGETS_AT_ONCE
from fluffle.broker.queues.publish_target import PublishReceipt
from fluffle.broker.runtime.turn import SHARE_S
from fluffle.protocol.methods import Basic, Queue, Tx, encode_method, make
from tests.broker.protocols.amqp091.test_deferred_answers import SlowQueue
from tests.mutants.mutant import Mutant
from tests.mutants.registry import FAMILIES
from tests.support.edge import Client, Edge, publish_frames

QUEUES = TARGETS_AT_ONCE + 8
"""Number of queues that takes two steps."""


class Fanout:
    """A publisher whose messages are for very many queues, of which the first are led elsewhere."""

    def __init__(self, *, far: int) -> None:
        self.edge = Edge()
        passed = count()
        self.edge.services.connections.shares.now_s = lambda: next(passed) * SHARE_S
        self.client = self.edge.connect()
        declared = (make(Queue.Declare, queue=f"q{at}", nowait=True) for at in range(QUEUES))
        self.client.send(*(encode_method(1, method) for method in declared))
        self.edge.run()
        self.far = [SlowQueue(f"q{at}") for at in range(far)]
        for queue in self.far:
            self.edge.vhost.queues[queue.name] = queue
        for at in range(QUEUES):
            self.client.bind(f"q{at}", "amq.fanout")
        self.last = self.edge.vhost.queues[f"q{QUEUES - 1}"]

    def begin(self, *frames: bytes) -> None:
        """Until the first step has been done, and not the second."""
        self.client.feed(*frames)
        while not any(queue.receipts for queue in self.far):
            self.edge.scheduler.turn()
        assert self.last.ready_count == 0

    def know(self, at: int, *, is_accepted: bool) -> None:
        """A queue elsewhere answers."""
        receipt = self.far[at].receipts.popleft()
        receipt.on_outcome(0, receipt.count, is_accepted=is_accepted)

    def end(self) -> Client:
        self.edge.run()
        assert self.last.ready_count == 1
        return self.client


MESSAGE = publish_frames(b"x", exchange="amq.fanout")


def test_a_message_is_confirmed_that_the_first_queues_took_before_the_last_was_asked() -> None:
    fanout = Fanout(far=2)
    fanout.client.confirm_select()
    fanout.begin(MESSAGE)
    fanout.know(0, is_accepted=True)
    fanout.end().expect_nothing()
    fanout.know(1, is_accepted=True)
    assert fanout.end().expect(Basic.Ack).delivery_tag == 1


def test_a_message_is_refused_that_the_first_queue_refused_before_the_last_was_asked() -> None:
    fanout = Fanout(far=1)
    fanout.client.confirm_select()
    fanout.begin(MESSAGE)
    fanout.know(0, is_accepted=False)
    assert fanout.end().expect(Basic.Nack).delivery_tag == 1


def test_a_commit_is_answered_that_the_first_queues_took_before_the_last_was_asked() -> None:
    fanout = Fanout(far=2)
    fanout.client.call(Tx.Select(), Tx.SelectOk)
    fanout.begin(MESSAGE, encode_method(1, Tx.Commit()))
    fanout.know(1, is_accepted=True)
    fanout.end().expect_nothing()
    fanout.know(0, is_accepted=True)
    fanout.end().expect(Tx.CommitOk)


def test_a_commit_is_partial_that_the_first_queue_refused_before_the_last_was_asked() -> None:
    fanout = Fanout(far=1)
    fanout.client.call(Tx.Select(), Tx.SelectOk)
    fanout.begin(MESSAGE, encode_method(1, Tx.Commit()))
    fanout.know(0, is_accepted=False)
    fanout.end().expect_channel_closed(406, "PRECONDITION_FAILED - partial tx completion")


def test_a_receipt_tells_each_outcome_once_whenever_it_is_asked() -> None:
    receipt, reported = PublishReceipt(6), list[tuple[int, int, bool]]()
    receipt.on_outcome(0, 2, is_accepted=True)
    receipt.on_outcome(4, 5, is_accepted=False)
    receipt.then(lambda start, stop, *, is_accepted: reported.append((start, stop, is_accepted)))
    assert reported == [(0, 2, True), (4, 5, False)]
    receipt.on_outcome(2, 4, is_accepted=True)
    assert reported == [(0, 2, True), (4, 5, False), (2, 4, True)]


@FAMILIES["putting"].each()
def test_who_forgets_what_came_early_is_found(mutant: Mutant) -> None:
    """The tests above are tested."""
    with mutant.in_place(), pytest.raises(AssertionError):
        test_a_message_is_confirmed_that_the_first_queues_took_before_the_last_was_asked()
    with mutant.in_place(), pytest.raises(AssertionError):
        test_a_commit_is_answered_that_the_first_queues_took_before_the_last_was_asked()
