"""x-message-ttl and expiration, as clients see them."""

from __future__ import annotations

import pytest

from fluffle.protocol.methods import Basic, Queue, Tx, encode_method, make, pamqp_table
from fluffle.protocol.properties import Properties, decode_properties
from fluffle.protocol.wire import PlainValue, to_table
from tests.support.edge import Client, Edge, publish_frames

PROPERTIES_AT = 12
"""In the payload of a content header."""


def declare(client: Client, name: str, **arguments: PlainValue) -> None:
    table = to_table({key.replace("_", "-"): value for key, value in arguments.items()})
    client.send(encode_method(1, make(Queue.Declare, queue=name, arguments=pamqp_table(table))))
    client.expect(Queue.DeclareOk)


class Harness:
    """A queue whose messages expire, and one where they go then."""

    def __init__(self) -> None:
        self.edge = Edge()
        self.client = self.edge.connect()
        self.client.declare("dead")

    def declare(self, **arguments: PlainValue) -> None:
        declare(
            self.client,
            "q",
            x_dead_letter_exchange="",
            x_dead_letter_routing_key="dead",
            **arguments,
        )

    def counts(self) -> tuple[int, int]:
        """Ready in the queue, and dead."""
        queues = self.edge.vhost.queues
        return queues["q"].ready_count, queues["dead"].ready_count


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_messages_expire_and_are_dead_lettered(harness: Harness) -> None:
    harness.declare(x_message_ttl=5_000)
    harness.client.publish(b"a", b"b")
    harness.edge.advance(4.99)
    assert harness.counts() == (2, 0)
    harness.edge.advance(0.02)
    assert harness.counts() == (0, 2)


def test_an_expiration_is_kept_in_the_death_and_gone_from_the_properties(harness: Harness) -> None:
    harness.declare()
    harness.client.publish(b"a", properties=Properties(expiration="3000"))
    harness.client.publish(b"b", properties=Properties(expiration="+9000"))
    harness.edge.advance(3.01)
    assert harness.counts() == (1, 1)
    harness.client.consume("dead", no_ack=True)
    arrival = harness.client.take()
    properties = decode_properties(arrival.header[PROPERTIES_AT:])
    assert properties.expiration is None
    _tag, deaths = (properties.headers or {})["x-death"]
    assert isinstance(deaths, list)
    [(_, death)] = deaths
    assert isinstance(death, dict)
    assert death["reason"] == ("S", b"expired")
    assert death["original-expiration"] == ("S", b"3000")
    harness.edge.advance(10)
    assert harness.client.take().body == b"b"


def test_a_batch_with_expirations_of_its_own_is_not_one_with_others(harness: Harness) -> None:
    harness.declare()
    expirations = ("1000", None, "1000", "5000")
    harness.client.send(
        *(publish_frames(b"m", properties=Properties(expiration=each)) for each in expirations)
    )
    harness.edge.advance(2)
    assert harness.counts() == (3, 1)


def test_each_message_of_a_batch_has_its_own_expiration(harness: Harness) -> None:
    harness.declare()
    expirations = ("5000", "1000", "+01000", "200", "9000")
    harness.client.send(
        *(publish_frames(b"m", properties=Properties(expiration=each)) for each in expirations)
    )
    harness.edge.advance(4)
    assert harness.counts() == (5, 0)  # what is behind another goes with it
    harness.edge.advance(2)
    assert harness.counts() == (1, 4)


def test_what_stands_before_an_expiration_that_is_none_is_published(harness: Harness) -> None:
    harness.declare()
    expirations = ("60000", "70000", "soon", "80000")
    harness.client.send(
        *(publish_frames(b"m", properties=Properties(expiration=each)) for each in expirations)
    )
    harness.client.expect_channel_closed(406, "invalid expiration 'soon': no_integer")
    assert harness.counts() == (2, 0)


def test_a_transaction_counts_from_its_commit(harness: Harness) -> None:
    harness.declare(x_message_ttl=1_000)
    harness.client.call(Tx.Select(), Tx.SelectOk)
    harness.client.publish(b"a", properties=Properties(expiration="500"))
    harness.edge.advance(5)
    harness.client.call(Tx.Commit(), Tx.CommitOk)
    assert harness.counts() == (1, 0)
    harness.edge.advance(0.6)
    assert harness.counts() == (0, 1)


def test_without_a_time_to_live_it_is_delivered_at_once_or_never(harness: Harness) -> None:
    harness.declare(x_message_ttl=0)
    harness.client.publish(b"a")
    assert harness.counts() == (0, 1)
    harness.client.consume("q", prefetch=1)
    harness.client.publish(b"b", b"c")
    harness.client.take()
    assert harness.counts() == (0, 2)
    harness.client.call(make(Basic.Get, queue="q"), Basic.GetEmpty)
