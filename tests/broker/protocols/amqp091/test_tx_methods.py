"""tx.*: nothing is seen before the commit, and nothing is left of what is rolled back."""

from __future__ import annotations

import pytest

from fluffle.broker.config.config import Limits
from fluffle.broker.testing.faults.publishes import NackQueue, NackQuota
from fluffle.protocol.methods import Basic, Channel, Confirm, Method, Tx, encode_method
from tests.support.edge import Client, Edge


def transactional(*bodies: bytes) -> Client:
    """A client in a transaction, whose queue `q` holds messages that it has been delivered."""
    client = Edge().connect()
    client.declare()
    client.publish(*bodies)
    client.call(Tx.Select(), Tx.SelectOk)
    client.consume()
    assert client.bodies() == list(bodies)
    return client


def commit(client: Client) -> None:
    client.call(Tx.Commit(), Tx.CommitOk)


def rollback(client: Client) -> None:
    client.call(Tx.Rollback(), Tx.RollbackOk)


def in_flight(client: Client) -> int:
    return client.edge.vhost.queues["q"].in_flight


def test_messages_are_seen_at_the_commit() -> None:
    client = transactional()
    client.publish(b"1", b"2")
    client.expect_nothing()
    commit(client)
    assert client.bodies() == [b"1", b"2"]
    commit(client)
    client.expect_nothing()


def test_what_is_never_committed_is_bounded_together() -> None:
    edge = Edge(Limits(uncommitted_bytes_max=10_000))
    client = edge.connect()
    for channel in (1, 2):
        if channel == 2:
            client.open_channel(2)
        client.call(Tx.Select(), Tx.SelectOk, channel)
        client.publish(bytes(4_000), channel=channel)
    client.call(Tx.Commit(), Tx.CommitOk)
    client.publish(bytes(4_000))
    client.call(Tx.Rollback(), Tx.RollbackOk)
    client.publish(bytes(4_000))
    client.expect_nothing()
    client.publish(bytes(4_000))
    client.expect_closed(506, "transactions exceed 10000 bytes on this connection")


def test_messages_that_are_rolled_back_are_never_seen() -> None:
    client = transactional()
    client.publish(b"1")
    rollback(client)
    commit(client)
    client.expect_nothing()


def test_acks_count_at_the_commit() -> None:
    client = transactional(b"1", b"2", b"3")
    client.ack(2, multiple=True)
    assert in_flight(client) == 3
    commit(client)
    assert in_flight(client) == 1


def test_acks_that_are_rolled_back_can_be_made_again() -> None:
    client = transactional(b"1", b"2", b"3")
    client.ack(2)
    client.ack(1)
    rollback(client)
    client.expect_nothing()
    client.ack(3, multiple=True)
    commit(client)
    assert in_flight(client) == 0


def test_an_ack_counts_once_in_a_transaction() -> None:
    client = transactional(b"1")
    client.ack(1)
    client.ack(1)
    client.expect_channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1")


@pytest.mark.parametrize("settle", [Basic.Nack(0, True, True), Basic.Reject(1, True)])
def test_what_is_given_back_comes_again_after_the_commit(settle: Method) -> None:
    client = transactional(b"1")
    client.send(encode_method(1, settle))
    client.expect_nothing()
    commit(client)
    arrival = client.take()
    assert (arrival.body, arrival.method["redelivered"]) == (b"1", True)


def test_what_is_rejected_is_gone_after_the_commit() -> None:
    client = transactional(b"1")
    client.send(encode_method(1, Basic.Reject(1, False)))
    assert in_flight(client) == 1
    commit(client)
    assert (in_flight(client), client.ready_count()) == (0, 0)


def test_a_channel_that_closes_gives_back_what_it_had_acknowledged() -> None:
    client = transactional(b"1", b"2", b"3")
    client.ack(2)
    client.publish(b"never")
    client.send(encode_method(1, Basic.Nack(3, False, True)))
    client.call(Channel.Close(200, "", 0, 0), Channel.CloseOk)
    client.open_channel()
    client.consume()
    assert client.bodies() == [b"1", b"2", b"3"]


def test_a_return_comes_before_commit_ok() -> None:
    client = transactional()
    client.publish(b"1", queue="none", mandatory=True)
    client.expect_nothing()
    client.send(encode_method(1, Tx.Commit()))
    assert client.names() == ["Basic.Return", "Tx.CommitOk"]


def test_a_commit_for_a_queue_that_is_gone_fails() -> None:
    client = transactional(b"settled")
    client.declare("gone")
    client.publish(b"1", queue="gone")
    client.publish(b"2")
    client.ack(1)
    client.delete("gone")
    client.send(encode_method(1, Tx.Commit()))
    client.expect(Basic.Deliver)  # what is published comes before what is settled
    client.expect_channel_closed(406, "PRECONDITION_FAILED - partial tx completion")
    assert (in_flight(client), client.edge.vhost.queues["q"].ready_count) == (0, 1)


def test_a_queue_that_is_gone_takes_nothing_from_a_commit() -> None:
    """Dropped messages would be dead-lettered."""
    client = transactional()
    client.declare("gone")
    gone = client.edge.vhost.queues["gone"]
    client.publish(b"1", queue="gone")
    client.delete("gone")
    client.send(encode_method(1, Tx.Commit()))
    client.expect_channel_closed(406, "PRECONDITION_FAILED - partial tx completion")
    assert gone.ready_count == 0


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_commit_goes_to_what_is_in_the_place_of_a_queue(*, is_gone: bool) -> None:
    client = transactional()
    vhost = client.edge.vhost
    client.declare("late")
    vhost.redirect("late", NackQueue("late", vhost, NackQuota(0, None, lambda: None)))
    client.publish(b"1", queue="late")
    if is_gone:
        client.delete("late")
        client.send(encode_method(1, Tx.Commit()))
        client.expect_channel_closed(406, "PRECONDITION_FAILED - partial tx completion")
        return
    commit(client)
    assert vhost.queues["late"].ready_count == 1


def test_selecting_again_keeps_the_transaction() -> None:
    client = transactional()
    client.publish(b"1")
    client.call(Tx.Select(), Tx.SelectOk)
    commit(client)
    assert client.bodies() == [b"1"]


def test_refused_messages_close_the_channel_at_once() -> None:
    client = transactional()
    client.publish(b"1", exchange="none")
    client.expect_channel_closed(404, "NOT_FOUND - no exchange 'none'")


@pytest.mark.parametrize("method", [Tx.Commit(), Tx.Rollback()])
def test_a_channel_without_a_transaction(method: Method) -> None:
    client = Edge().connect()
    client.send(encode_method(1, method))
    client.expect_channel_closed(406, "PRECONDITION_FAILED - channel is not transactional")


def test_tx_and_confirms_exclude_each_other() -> None:
    client = Edge().connect()
    client.call(Confirm.Select(), Confirm.SelectOk)
    client.send(encode_method(1, Tx.Select()))
    client.expect_channel_closed(406, "cannot switch from confirm to tx mode")
