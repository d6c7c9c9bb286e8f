"""A prefetch that the consumers of a channel share, of queues that are led elsewhere."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queues.remote_consumers import TURN_S
from fluffle.broker.queues.arguments import QueueType
from fluffle.protocol.methods import Basic, encode_method
from tests.broker.cluster.queues.far import Rig


@pytest.fixture(params=[QueueType.CLASSIC, QueueType.QUORUM])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Consumers of quorum queues have a part in it if they are told to."""
    rig = Rig(request.param)
    session = rig.client.connection.session
    assert session is not None
    session.quorum_global_qos = True
    return rig


def share(rig: Rig, limit: int) -> None:
    rig.client.call(Basic.Qos(prefetch_count=limit, global_=True), Basic.QosOk)


def consume(rig: Rig) -> None:
    for tag in ("first", "second"):
        rig.client.consume(tag=tag)


def nack_all(rig: Rig) -> None:
    rig.client.send(encode_method(1, Basic.Nack(0, True, True)))


def came(rig: Rig) -> list[bytes]:
    """What is delivered by now, and answers beside it."""
    rig.run()
    rig.node.advance(TURN_S)
    return [each.body for each in rig.client.arrivals() if isinstance(each.method, Basic.Deliver)]


def test_no_more_is_delivered_than_all_may_have_together(rig: Rig) -> None:
    share(rig, 3)
    consume(rig)
    rig.client.publish(*(b"%d" % number for number in range(9)))
    assert len(came(rig)) == 3
    for last in range(1, 7):
        rig.client.ack(last)
        assert len(came(rig)) == 1
    rig.client.ack(0, multiple=True)
    assert rig.counts() == (0, 0, 2)


def test_each_message_comes_once_and_in_order_to_each(rig: Rig) -> None:
    share(rig, 2)
    consume(rig)
    rig.client.publish(*(b"%02d" % number for number in range(20)))
    by_tag: dict[object, list[bytes]] = {"first": [], "second": []}
    for last in range(1, 21):
        for arrival in rig.client.arrivals():
            by_tag[arrival.method["consumer_tag"]].append(arrival.body)
        rig.client.ack(last)
        rig.node.advance(TURN_S)
        rig.run()
    assert sorted(by_tag["first"] + by_tag["second"]) == [b"%02d" % n for n in range(20)]
    for bodies in by_tag.values():
        assert bodies == sorted(bodies)
        assert len(bodies) > 5


def test_a_limit_that_is_raised_counts_at_once(rig: Rig) -> None:
    share(rig, 1)
    consume(rig)
    rig.client.publish(b"1", b"2", b"3", b"4")
    assert came(rig) == [b"1"]
    for limit, count in ((3, 2), (0, 1)):
        rig.client.send(encode_method(1, Basic.Qos(prefetch_count=limit, global_=True)))
        assert len(came(rig)) == count


def test_what_waits_for_a_consumer_comes_back_when_it_is_cancelled(rig: Rig) -> None:
    share(rig, 2)
    consume(rig)
    rig.client.publish(b"1", b"2", b"3", b"4")
    assert len(came(rig)) == 2
    assert rig.counts() == (0, 4, 2)
    rig.client.call(Basic.Cancel("second"), Basic.CancelOk)
    assert rig.counts() == (2, 2, 1)
    rig.client.ack(2, multiple=True)
    assert len(came(rig)) == 2


def test_what_waits_for_a_channel_comes_back_when_it_is_closed(rig: Rig) -> None:
    share(rig, 1)
    consume(rig)
    rig.client.publish(b"1", b"2")
    rig.client.transport.abort()
    assert rig.counts() == (2, 0, 0)
    other = rig.node.connect()
    other.consume()
    assert sorted(other.bodies()) == [b"1", b"2"]


def test_what_waits_is_not_delivered_when_it_has_come_back(rig: Rig) -> None:
    share(rig, 1)
    consume(rig)
    rig.client.publish(b"1", b"2")
    assert rig.client.bodies() == [b"1"]
    rig.far.forget_node()
    rig.node.run()
    rig.client.expect(Basic.Cancel)
    rig.client.expect(Basic.Cancel)
    nack_all(rig)
    rig.run()
    rig.client.expect_nothing()
    assert rig.counts() == (2, 0, 0)


def test_queues_of_several_nodes_take_turns(rig: Rig) -> None:
    share(rig, 1)
    rig.client.declare("near")
    rig.client.consume(tag="far")
    rig.client.consume("near", "near")
    for number in range(6):
        rig.client.publish(b"far %d" % number)
        rig.client.publish(b"near %d" % number, queue="near")
    bodies: list[bytes] = []
    for last in range(1, 13):
        bodies += came(rig)
        assert len(bodies) == last
        rig.client.ack(last)
    firsts = [body.partition(b" ")[0] for body in bodies[:6]]
    assert firsts.count(b"near") in (2, 3, 4)
