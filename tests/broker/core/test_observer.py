"""Observers see each batch of a channel once, in the order in which it moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluffle.broker.core.observer import ChannelObservers
from fluffle.protocol.methods import Basic, Channel, Connection, Tx, encode_method
from fluffle.protocol.spec import PROTOCOL_HEADER
from tests.support.edge import Client, Edge, start_ok
from tests.support.observers import ChannelRecorder, FailingObserver, NodeRecorder

ALL_STEPS = ["opened", "channel opened", "channel closed", "closed"]


def observed(*observers: NodeRecorder) -> Client:
    """A client of a node that has these observers, with a queue."""
    edge = Edge()
    edge.services = replace(edge.services, observers=observers)
    client = edge.connect()
    client.declare()
    return client


def observer_of(client: Client) -> object:
    (channel,) = client.connection.channels
    return channel.observer


def test_each_batch_is_seen_once_from_its_publish_to_its_settlement() -> None:
    recorder = ChannelRecorder()
    client = observed(NodeRecorder(recorder))
    client.consume()
    client.publish(b"a", b"b", b"c")
    client.ack(2, multiple=True)
    client.send(encode_method(1, Basic.Reject(3, requeue=False)))
    assert recorder.seen == [
        ("enqueued", 3),
        ("delivered", 3),
        ("ACKED", 2),
        ("REJECTED", 1),
    ]


def test_what_is_got_is_seen_and_that_there_is_nothing() -> None:
    recorder = ChannelRecorder()
    client = observed(NodeRecorder(recorder))
    client.publish(b"a")
    for _ in range(2):
        client.send(encode_method(1, Basic.Get(queue="q", no_ack=True)))
    assert recorder.seen == [("enqueued", 1), ("got", "q"), ("got", None)]


def test_the_end_of_a_channel_settles_what_was_left() -> None:
    recorder = ChannelRecorder()
    client = observed(NodeRecorder(recorder))
    client.consume()
    client.publish(b"a", b"b")
    client.transport.lose()
    assert recorder.seen[-1] == ("LOST", 2)


def test_messages_of_a_transaction_are_put_into_queues_at_its_commit() -> None:
    recorder = ChannelRecorder()
    client = observed(NodeRecorder(recorder))
    client.call(Tx.Select(), Tx.SelectOk)
    client.publish(b"a", b"b")
    assert recorder.seen == []
    client.call(Tx.Commit(), Tx.CommitOk)
    assert recorder.seen == [("enqueued", 2)]


def test_several_observers_see_the_same_in_their_order() -> None:
    seen: list[tuple[str, object]] = []
    one, other = ChannelRecorder(seen), ChannelRecorder(seen)
    client = observed(NodeRecorder(one), NodeRecorder(None), NodeRecorder(other))
    assert isinstance(observer_of(client), ChannelObservers)
    client.publish(b"a")
    client.send(encode_method(1, Basic.Get(queue="q")))
    client.ack(1)
    assert seen == [
        each for event in (("enqueued", 1), ("got", "q"), ("ACKED", 1)) for each in (event, event)
    ]


def test_one_observer_is_asked_without_another_in_between() -> None:
    recorder = ChannelRecorder()
    assert observer_of(observed(NodeRecorder(None), NodeRecorder(recorder))) is recorder


def test_where_none_wants_to_see_messages_there_is_no_observer() -> None:
    assert observer_of(observed(NodeRecorder(None))) is None


@pytest.mark.parametrize(
    ("step", "before", "behind"),
    [
        ("opened", ["opened", "closed"], ["opened"]),
        (
            "channel opened",
            ["opened", "channel opened", "channel closed", "closed"],
            ["opened", "channel opened", "closed"],
        ),
        ("channel closed", ALL_STEPS, ALL_STEPS),
        ("closed", ALL_STEPS, ALL_STEPS),
    ],
)
def test_an_observer_that_fails_leaves_no_connection_counted(
    step: str, before: list[str], behind: list[str]
) -> None:
    """Nor an observer that was shown a beginning and no end, or an end and no beginning."""
    edge, first, failing = Edge(), FailingObserver(""), FailingObserver(step)
    edge.services = replace(edge.services, observers=(first, failing))
    client = edge.accept()
    client.send(PROTOCOL_HEADER)
    for method in (
        start_ok("\0guest\0guest"),
        Connection.TuneOk(9, 9_000, 0),
        Connection.Open("/"),
    ):
        client.send(encode_method(0, method))
    client.send(encode_method(1, Channel.Open()))
    client.transport.lose()
    edge.run()
    usage, traffic = edge.access.usage, edge.services.runtime.traffic
    assert sum(map(len, usage.here.values())) == 0
    assert traffic.connections_opened == traffic.connections_closed == 1
    assert traffic.channels_opened == traffic.channels_closed == (step != "opened")
    assert (first.steps, failing.steps) == (before, behind)
    assert list(edge.services.connections) == []


def test_an_observer_that_fails_at_the_end_of_a_channel_keeps_nothing_from_the_others() -> None:
    """Unsettled messages of another channel are requeued, and exclusive queues are deleted."""
    edge = Edge()
    edge.services = replace(edge.services, observers=(FailingObserver("channel closed"),))
    other = edge.accept()
    other.log_in()
    other.open_channel()
    other.declare("q")
    client = edge.accept()
    client.log_in()
    for number in (1, 2):
        client.open_channel(number)
    client.declare("own", exclusive=True)
    client.publish(b"a")
    client.send(encode_method(2, Basic.Get(queue="q")))
    assert other.ready_count("q") == 0
    client.transport.lose()
    edge.run()
    assert other.ready_count("q") == 1
    assert "own" not in edge.vhost.queues
