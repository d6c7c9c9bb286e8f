"""Counters of the edge after a conversation."""

from __future__ import annotations

from fluffle.broker.access.access import Permission
from fluffle.broker.base.traffic import AMQP_091, ClientTraffic, Deliveries, Logins, Traffic
from fluffle.broker.core.confirms import Confirms
from fluffle.protocol.methods import Basic, Tx, encode_method, make
from fluffle.protocol.methods import Channel as ChannelMethods
from fluffle.protocol.properties import Properties
from fluffle.protocol.spec import PROTOCOL_HEADER
from tests.support.edge import Client, Edge, publish_frames, start_ok


def counts(counter: Traffic | ClientTraffic | Deliveries | Logins) -> dict[str, int]:
    """Counters that are not 0."""
    values = ((name, getattr(counter, name)) for name in counter.__slots__)
    return {name: value for name, value in values if isinstance(value, int) and value}


def start() -> tuple[Edge, Client, ClientTraffic]:
    edge = Edge()
    client = edge.connect()
    return edge, client, edge.services.runtime.traffic.of(AMQP_091)


def test_publishes_are_counted_by_where_they_went() -> None:
    edge, client, traffic = start()
    for name in ("a", "b"):
        client.declare(name)
        client.bind(name, "amq.fanout")
    client.publish(b"1", b"2", queue="a")
    client.publish(b"3", exchange="amq.fanout")
    client.publish(b"4", b"5", b"6", queue="nowhere")
    client.publish(b"7", queue="nowhere", mandatory=True)
    of_node = edge.services.runtime.traffic
    assert counts(of_node) == {"connections_opened": 1, "channels_opened": 1}
    assert counts(of_node.logins_of(AMQP_091)) == {"succeeded": 1}
    assert of_node.routed == 4
    assert counts(traffic) == {
        "received": 7,
        "routed": 4,
        "unroutable_dropped": 3,
        "unroutable_returned": 1,
    }


def test_what_is_refused_has_not_been_received() -> None:
    _edge, client, traffic = start()
    client.send(publish_frames(b"x", properties=Properties(user_id="mallory")))
    client.expect_channel_closed(406, "user_id property set to 'mallory'")
    assert traffic.received == 0


def test_deliveries_are_counted_by_how_they_are_acknowledged() -> None:
    _edge, client, traffic = start()
    client.declare()
    client.publish(b"1", b"2", b"3", b"4", b"5", b"6")
    client.call(make(Basic.Get, queue="q", no_ack=True), Basic.GetOk)
    client.call(make(Basic.Get, queue="q"), Basic.GetOk)
    client.consume(prefetch=2)
    client.ack(2)
    client.ack(4, multiple=True)
    client.send(encode_method(1, Basic.Reject(5, True)))
    client.send(encode_method(1, Basic.Reject(6, False)))
    client.send(encode_method(1, Basic.Get(0, "q", False)))
    assert counts(traffic.from_queues) == {
        "got_auto_ack": 1,
        "got_manual_ack": 1,
        "consumed_manual_ack": 5,
        "redelivered": 1,
        "acknowledged": 3,
        "get_empty": 1,
    }
    assert traffic.from_queues.delivered == 7
    assert counts(traffic.replies) == {}


def test_confirms_are_in_the_ledger_of_the_channel_and_then_in_the_total() -> None:
    edge, client, traffic = start()
    client.declare()
    client.confirm_select()
    client.publish(b"1", b"2")
    (channel,) = client.connection.channels
    assert channel.confirms is not None
    assert (channel.confirms.assigned_count, channel.confirms.accepted_count) == (2, 2)
    assert (traffic.received_confirm, traffic.confirmed) == (0, 0)
    client.arrivals()
    client.call(ChannelMethods.Close(200, "", 0, 0), ChannelMethods.CloseOk)
    assert (traffic.received_confirm, traffic.confirmed) == (2, 2)
    assert edge.services.runtime.traffic.channels_closed == 1
    assert list(client.connection.channels) == []


def test_what_a_transaction_does_counts_at_its_commit() -> None:
    _edge, client, traffic = start()
    client.declare()
    client.call(Tx.Select(), Tx.SelectOk)
    client.publish(b"1")
    client.call(Tx.Rollback(), Tx.RollbackOk)
    client.publish(b"2")
    assert (traffic.received, traffic.routed) == (2, 0)
    client.call(Tx.Commit(), Tx.CommitOk)
    assert (traffic.received, traffic.routed) == (2, 1)
    client.call(make(Basic.Get, queue="q"), Basic.GetOk)
    client.ack(1)
    assert traffic.from_queues.acknowledged == 0
    client.call(Tx.Commit(), Tx.CommitOk)
    assert traffic.from_queues.acknowledged == 1


def test_connections_count_once_they_are_open_and_until_they_end() -> None:
    edge, client, _traffic = start()
    traffic = edge.services.runtime.traffic
    silent = edge.accept()
    assert (traffic.connections_opened, traffic.connections_closed) == (1, 0)
    assert not client.connection.is_publisher
    client.send(publish_frames(b"1"))
    assert client.connection.is_publisher
    edge.editor.put_permission("guest", "/", Permission())
    assert client.connection.is_publisher, "it has published, even if it may no more"
    client.close()
    silent.transport.lose()
    client.transport.lose()
    assert (traffic.connections_opened, traffic.connections_closed) == (1, 1)
    assert (traffic.channels_opened, traffic.channels_closed) == (1, 1)
    assert not client.connection.is_publisher


def test_queues_are_counted_when_they_come_and_go() -> None:
    edge, client, _traffic = start()
    client.declare("a")
    client.declare("a")
    client.declare("b")
    client.delete("a")
    counts = edge.vhost.counts
    assert (counts.declared, counts.created, counts.deleted) == (3, 2, 1)


def test_replies_are_counted_apart() -> None:
    _edge, client, traffic = start()
    consume = make(Basic.Consume, queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True)
    client.call(consume, Basic.ConsumeOk)
    (channel,) = client.connection.channels
    client.publish(b"answer", queue=channel.publisher.reply_to)
    assert counts(traffic.replies) == {"consumed_auto_ack": 1}
    assert counts(traffic.from_queues) == {}


def test_refused_publishes_are_neither_accepted_nor_open() -> None:
    confirms = Confirms()
    confirms.assign_accepted(2)
    confirms.refuse(confirms.assign(3))
    confirms.assign(4)
    assert (confirms.assigned_count, confirms.accepted_count, confirms.open_count) == (9, 2, 4)


def test_failed_logins_are_counted() -> None:
    edge = Edge()
    client = edge.accept()
    client.send(PROTOCOL_HEADER)
    client.arrivals()
    client.send(encode_method(0, start_ok("\0guest\0wrong")))
    logins = edge.services.runtime.traffic.logins_of(AMQP_091)
    assert (logins.succeeded, logins.failed, logins.attempted) == (0, 1, 1)
