"""Queues hear why each message has left its holder's hands."""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import DeliveryBatch, Outcome
from fluffle.protocol.methods import Basic, Channel, Method, Tx, encode_method
from tests.support.edge import Client, Edge
from tests.support.queue_host import FakeQueueHost


class NotingQueue(Queue):
    """Notes what became of messages: the outcome and the bodies' last bytes."""

    def __init__(self, edge: Edge) -> None:
        super().__init__(QueueSpec("q"), FakeQueueHost(edge.turn.touch_queue))
        self.outcomes: list[tuple[Outcome, str]] = []

    def settle(
        self, delivery_batch: DeliveryBatch, start: int, stop: int, outcome: Outcome
    ) -> None:
        bodies = b"".join(content[-2:-1] for content in delivery_batch.contents[start:stop])
        self.outcomes.append((outcome, bodies.decode()))
        super().settle(delivery_batch, start, stop, outcome)


def consuming(*bodies: bytes) -> tuple[Client, NotingQueue]:
    """A client that has been delivered messages."""
    edge = Edge()
    queue = edge.vhost.queues["q"] = NotingQueue(edge)
    client = edge.connect()
    client.publish(*bodies)
    client.consume(prefetch=len(bodies))
    assert client.bodies() == list(bodies)
    return client, queue


@pytest.mark.parametrize(
    ("method", "outcome", "bodies"),
    [
        (Basic.Ack(2), Outcome.ACKED, "b"),
        (Basic.Ack(2, multiple=True), Outcome.ACKED, "ab"),
        (Basic.Reject(1, requeue=False), Outcome.REJECTED, "a"),
        (Basic.Reject(1, requeue=True), Outcome.REJECT_REQUEUED, "a"),
        (Basic.Nack(2, multiple=True, requeue=False), Outcome.REJECTED, "ab"),
        (Basic.Nack(0, multiple=True, requeue=True), Outcome.NACK_REQUEUED, "abc"),
        (Basic.Recover(requeue=True), Outcome.NACK_REQUEUED, "abc"),
        (Channel.Close(200, "", 0, 0), Outcome.LOST, "abc"),
    ],
)
def test_each_way_to_settle_has_its_outcome(method: Method, outcome: Outcome, bodies: str) -> None:
    client, queue = consuming(b"a", b"b", b"c")
    client.send(encode_method(1, method))
    assert queue.outcomes == [(outcome, bodies)]


def test_messages_of_a_lost_connection_are_lost() -> None:
    client, queue = consuming(b"a", b"b")
    client.ack(1)
    client.transport.lose()
    assert queue.outcomes == [(Outcome.ACKED, "a"), (Outcome.LOST, "b")]
    assert queue.ready_count == 1


def test_a_commit_tells_what_was_settled_how_in_the_order_of_the_client() -> None:
    """But what goes back does so before the rest."""
    client, queue = consuming(b"a", b"b", b"c", b"d")
    client.call(Tx.Select(), Tx.SelectOk)
    client.ack(2)
    client.send(
        encode_method(1, Basic.Reject(3, requeue=False)),
        encode_method(1, Basic.Reject(1, requeue=True)),
    )
    client.ack(4)
    assert queue.outcomes == []
    client.call(Tx.Commit(), Tx.CommitOk)
    assert queue.outcomes == [
        (Outcome.REJECT_REQUEUED, "a"),
        (Outcome.ACKED, "b"),
        (Outcome.REJECTED, "c"),
        (Outcome.ACKED, "d"),
    ]
