"""Answers about what is not there, by a node that must ask whether it knows all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluffle.broker.core import pending_requests
from fluffle.protocol.methods import Basic, Channel, Connection, Method, Queue, encode_method, make
from fluffle.protocol.spec import PROTOCOL_HEADER
from tests.broker.cluster.queues.session_queue_harness import QueueHarness, get
from tests.support.definitions import EVERYTHING
from tests.support.edge import Edge, publish_frames, start_ok
from tests.support.read_barrier import ManualReadBarrier

PASSIVE = make(Queue.Declare, queue="elsewhere", passive=True)
DELETE = make(Queue.Delete, queue="elsewhere")


@pytest.fixture
def read_barrier() -> ManualReadBarrier:
    return ManualReadBarrier()


@pytest.fixture
def edge(read_barrier: ManualReadBarrier) -> Edge:
    edge = Edge()
    edge.services = replace(edge.services, read_barrier=read_barrier)
    return edge


def test_a_queue_that_is_not_there_yet_is_found_once_it_is(
    edge: Edge, read_barrier: ManualReadBarrier
) -> None:
    client, other = edge.connect(), edge.connect()
    client.send(encode_method(1, PASSIVE))
    client.expect_nothing()
    other.declare("elsewhere")
    read_barrier.confirm()
    edge.run()
    client.expect(Queue.DeclareOk)


def test_what_came_behind_a_question_is_answered_behind_it(
    edge: Edge, read_barrier: ManualReadBarrier
) -> None:
    client = edge.connect()
    client.confirm_select()
    client.send(
        publish_frames(b"1", "elsewhere", mandatory=True),
        publish_frames(b"2", "elsewhere"),
        encode_method(1, Basic.Qos(prefetch_count=1)),
    )
    client.expect_nothing()
    read_barrier.confirm()
    edge.run()
    assert sorted(client.names()) == ["Basic.Ack", "Basic.QosOk", "Basic.Return"]


@pytest.mark.parametrize("method", [PASSIVE, DELETE])
def test_a_question_behind_an_ack_that_is_under_way_is_no_less_in_doubt(
    edge: Edge, read_barrier: ManualReadBarrier, method: Method
) -> None:
    rig = QueueHarness(node=edge)
    rig.client.publish(b"1")
    assert get(rig.client) is not None
    rig.client.ack(1)
    rig.client.send(encode_method(1, method), encode_method(1, Basic.Qos(prefetch_count=1)))
    rig.run()
    rig.client.expect_nothing()
    assert len(read_barrier) == 1
    read_barrier.confirm()
    rig.run()
    if method is PASSIVE:
        rig.client.expect_channel_closed(404, "no queue 'elsewhere'")
    else:
        assert rig.client.names() == ["Queue.DeleteOk", "Basic.QosOk"]


def test_who_hears_that_it_cannot_be_known_hears_it_in_the_place_of_an_answer(
    edge: Edge, read_barrier: ManualReadBarrier
) -> None:
    client = edge.connect()
    client.send(encode_method(1, PASSIVE))
    read_barrier.fail()
    edge.run()
    client.expect_closed(541, "nobody has confirmed it", (50, 10))


def test_a_client_is_read_on_whose_virtual_host_was_not_known_at_first(
    edge: Edge, read_barrier: ManualReadBarrier
) -> None:
    client = edge.accept()
    client.send(PROTOCOL_HEADER)
    client.expect(Connection.Start, channel=0)
    client.call(start_ok("\0guest\0guest"), Connection.Tune, channel=0)
    tune_ok = Connection.TuneOk(2047, 131_072, 0)
    client.send(encode_method(0, tune_ok), encode_method(0, Connection.Open("new")))
    open_channel = encode_method(1, Channel.Open())
    client.send(open_channel[:4])
    client.expect_nothing()
    edge.editor.vhost("new")
    edge.editor.put_permission("guest", "new", EVERYTHING)
    read_barrier.confirm()
    edge.run()
    client.expect(Connection.OpenOk, channel=0)
    client.send(open_channel[4:])
    client.expect(Channel.OpenOk)


@pytest.mark.parametrize(("user", "vhost"), [("guest", "elsewhere"), ("elsewhere", "/")])
def test_who_comes_in_is_not_hung_up_on_while_it_waits_for_the_node(
    edge: Edge, read_barrier: ManualReadBarrier, user: str, vhost: str
) -> None:
    client = edge.accept()
    client.send(PROTOCOL_HEADER)
    client.expect(Connection.Start, channel=0)
    client.send(encode_method(0, start_ok(f"\0{user}\0guest")))
    if user == "guest":
        client.expect(Connection.Tune, channel=0)
        tune_ok = Connection.TuneOk(2047, 131_072, 0)
        client.send(encode_method(0, tune_ok), encode_method(0, Connection.Open(vhost)))
    edge.advance(29)
    client.expect_nothing()
    read_barrier.fail()
    edge.run()
    client.expect_closed(541, "nobody has confirmed it")


def test_who_comes_in_has_its_own_time_behind_that_of_the_node(
    edge: Edge, read_barrier: ManualReadBarrier
) -> None:
    client = edge.accept()
    client.send(PROTOCOL_HEADER)
    client.expect(Connection.Start, channel=0)
    client.send(encode_method(0, start_ok("\0carol\0secret")))
    edge.advance(29)
    edge.editor.grant_everything("carol", b"secret", ["/"])
    read_barrier.confirm()
    edge.run()
    client.expect(Connection.Tune, channel=0)
    edge.advance(9)
    assert not client.transport.is_closing()
    edge.advance(2)
    assert client.transport.is_closing()


def test_a_channel_that_waits_no_more_lets_no_other_keep_more(
    edge: Edge, read_barrier: ManualReadBarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_requests, "KEPT_BYTES_MAX", 10_000)
    rig = QueueHarness(node=edge)
    client = rig.client
    client.open_channel(2)
    rig.far.is_committing = False
    client.publish(b"1", channel=1)
    client.send(encode_method(1, Basic.Get(queue="q")))  # until it is committed
    client.send(encode_method(2, DELETE))
    for _ in range(20):
        client.publish(bytes(1_000))
    assert not client.transport.is_reading()
    read_barrier.confirm()
    edge.run()
    assert not client.transport.is_reading()
    client.expect_nothing()
    rig.far.is_committing = True
    rig.run()
    assert client.transport.is_reading()
    assert sorted(client.names()) == ["Basic.GetOk", "Queue.DeleteOk"]
