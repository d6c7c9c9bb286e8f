"""A prefetch that the consumers of a channel share, of queues that are led elsewhere."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queues.session_consumers import TURN_S
from fluffle.broker.queues.arguments import QueueType
from fluffle.protocol.methods import Basic, encode_method
from tests.broker.cluster.queues.session_queue_harness import QueueHarness


@pytest.fixture(params=[QueueType.CLASSIC, QueueType.QUORUM])
def harness(request: pytest.FixtureRequest) -> QueueHarness:
    """Consumers of quorum queues have a part in it on request."""
    harness = QueueHarness(request.param)
    session = harness.client.connection.session
    assert session is not None
    session.quorum_global_qos = True
    return harness


def share(harness: QueueHarness, limit: int) -> None:
    harness.client.call(Basic.Qos(prefetch_count=limit, global_=True), Basic.QosOk)


def consume(harness: QueueHarness) -> None:
    for tag in ("first", "second"):
        harness.client.consume(tag=tag)


def nack_all(harness: QueueHarness) -> None:
    harness.client.send(encode_method(1, Basic.Nack(0, True, True)))


def came(harness: QueueHarness) -> list[bytes]:
    """Bodies delivered by now."""
    harness.run()
    harness.node.advance(TURN_S)
    return [
        each.body for each in harness.client.arrivals() if isinstance(each.method, Basic.Deliver)
    ]


def test_no_more_is_delivered_than_all_may_have_together(harness: QueueHarness) -> None:
    share(harness, 3)
    consume(harness)
    harness.client.publish(*(b"%d" % number for number in range(9)))
    assert len(came(harness)) == 3
    for last in range(1, 7):
        harness.client.ack(last)
        assert len(came(harness)) == 1
    harness.client.ack(0, multiple=True)
    assert harness.counts() == (0, 0, 2)


def test_each_message_comes_once_and_in_order_to_each(harness: QueueHarness) -> None:
    share(harness, 2)
    consume(harness)
    harness.client.publish(*(b"%02d" % number for number in range(20)))
    by_tag: dict[object, list[bytes]] = {"first": [], "second": []}
    for last in range(1, 21):
        for arrival in harness.client.arrivals():
            by_tag[arrival.method["consumer_tag"]].append(arrival.body)
        harness.client.ack(last)
        harness.node.advance(TURN_S)
        harness.run()
    assert sorted(by_tag["first"] + by_tag["second"]) == [b"%02d" % n for n in range(20)]
    for bodies in by_tag.values():
        assert bodies == sorted(bodies)
        assert len(bodies) > 5


def test_a_limit_that_is_raised_counts_at_once(harness: QueueHarness) -> None:
    share(harness, 1)
    consume(harness)
    harness.client.publish(b"1", b"2", b"3", b"4")
    assert came(harness) == [b"1"]
    for limit, count in ((3, 2), (0, 1)):
        harness.client.send(encode_method(1, Basic.Qos(prefetch_count=limit, global_=True)))
        assert len(came(harness)) == count


def test_what_waits_for_a_consumer_comes_back_when_it_is_cancelled(
    harness: QueueHarness,
) -> None:
    share(harness, 2)
    consume(harness)
    harness.client.publish(b"1", b"2", b"3", b"4")
    assert len(came(harness)) == 2
    assert harness.counts() == (0, 4, 2)
    harness.client.call(Basic.Cancel("second"), Basic.CancelOk)
    assert harness.counts() == (2, 2, 1)
    harness.client.ack(2, multiple=True)
    assert len(came(harness)) == 2


def test_what_waits_for_a_channel_comes_back_when_it_is_closed(
    harness: QueueHarness,
) -> None:
    share(harness, 1)
    consume(harness)
    harness.client.publish(b"1", b"2")
    harness.client.transport.abort()
    assert harness.counts() == (2, 0, 0)
    other = harness.node.connect()
    other.consume()
    assert sorted(other.bodies()) == [b"1", b"2"]


def test_what_waits_is_not_delivered_when_it_has_come_back(harness: QueueHarness) -> None:
    share(harness, 1)
    consume(harness)
    harness.client.publish(b"1", b"2")
    assert harness.client.bodies() == [b"1"]
    harness.far.forget_node()
    harness.node.run()
    harness.client.expect(Basic.Cancel)
    harness.client.expect(Basic.Cancel)
    nack_all(harness)
    harness.run()
    harness.client.expect_nothing()
    assert harness.counts() == (2, 0, 0)


def test_queues_of_several_nodes_take_turns(harness: QueueHarness) -> None:
    share(harness, 1)
    harness.client.declare("near")
    harness.client.consume(tag="far")
    harness.client.consume("near", "near")
    for number in range(6):
        harness.client.publish(b"far %d" % number)
        harness.client.publish(b"near %d" % number, queue="near")
    bodies: list[bytes] = []
    for last in range(1, 13):
        bodies += came(harness)
        assert len(bodies) == last
        harness.client.ack(last)
    firsts = [body.partition(b" ")[0] for body in bodies[:6]]
    assert firsts.count(b"near") in (2, 3, 4)
