"""exchange.*, queue.* and access.request, as a client sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluffle.broker.config.config import QuorumConfig
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.routing.bindings import DestinationKind
from fluffle.broker.routing.topic import TopicMatcher
from fluffle.protocol.methods import (
    Access,
    Basic,
    Exchange,
    Method,
    Queue,
    encode_method,
    make,
    pamqp_table,
)
from fluffle.protocol.wire import to_table
from tests.support.edge import Client, Edge
from tests.support.topologies import bindings_from


def send(client: Client, *methods: Method) -> None:
    client.send(*(encode_method(1, method) for method in methods))


# Queues


def test_declaring_says_what_is_there() -> None:
    client = Edge().connect()
    ok = client.declare()
    assert (ok.queue, ok.message_count, ok.consumer_count) == ("q", 0, 0)
    client.publish(b"1", b"2")
    client.consume(prefetch=1)
    client.take()
    ok = client.declare(passive=True)
    assert (ok.message_count, ok.consumer_count) == (1, 1)
    assert client.declare().message_count == 1


def test_a_queue_without_a_name_gets_one() -> None:
    client = Edge().connect()
    names = {client.declare("").queue for _ in range(2)}
    assert len(names) == 2
    assert all(str(name).startswith("amq.gen-") for name in names)


def test_only_a_classic_queue_gets_a_name() -> None:
    client = Edge().connect()
    quorum = pamqp_table(to_table({"x-queue-type": "quorum"}))
    send(client, make(Queue.Declare, durable=True, arguments=quorum))
    text = "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue"
    client.expect_channel_closed(406, text)


def test_a_passive_declare_does_not_mean_the_last_queue() -> None:
    client = Edge().connect()
    client.declare()
    send(client, make(Queue.Declare, passive=True))
    client.expect_channel_closed(404, "NOT_FOUND - no queue '' in vhost '/'")


def test_line_breaks_are_no_part_of_a_name() -> None:
    client = Edge().connect()
    assert client.declare("a\r\nb").queue == "ab"
    send(client, make(Exchange.Declare, exchange="x\n", exchange_type="fanout"))
    client.expect(Exchange.DeclareOk)
    client.bind("a\nb", "x\r")
    client.publish(b"1", exchange="x")
    assert client.ready_count("ab") == 1


def test_reserved_names_are_refused() -> None:
    client = Edge().connect()
    send(client, make(Queue.Declare, queue="amq.mine"))
    client.expect_channel_closed(
        403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"
    )


def test_a_queue_cannot_be_declared_as_another() -> None:
    client = Edge().connect()
    client.declare(durable=True)
    send(client, make(Queue.Declare, queue="q"))
    close = client.expect_channel_closed(
        406,
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': "
        "received 'false' but current is 'true'",
    )
    assert (close.class_id, close.method_id) == (50, 10)


@pytest.mark.parametrize(
    "method",
    [
        make(Queue.Declare, queue="q", exclusive=True),
        make(Queue.Declare, queue="q", passive=True),
        make(Queue.Purge, queue="q"),
        make(Queue.Delete, queue="q"),
        make(Queue.Bind, queue="q", exchange="amq.fanout"),
        make(Basic.Get, queue="q"),
        make(Basic.Consume, queue="q"),
    ],
)
def test_an_exclusive_queue_is_for_its_connection(method: Method) -> None:
    edge = Edge()
    owner, other = edge.connect(), edge.connect()
    owner.declare(exclusive=True)
    owner.open_channel(2)
    owner.declare(exclusive=True, channel=2)
    send(other, method)
    other.expect_channel_closed(
        405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'."
    )


def test_anybody_may_publish_to_an_exclusive_queue() -> None:
    edge = Edge()
    owner, other = edge.connect(), edge.connect()
    owner.declare(exclusive=True)
    other.publish(b"1", mandatory=True)
    other.expect_nothing()
    assert owner.ready_count() == 1


def test_new_queues_are_announced_once() -> None:
    edge = Edge()
    client = edge.connect()
    client.declare()
    client.declare()
    client.declare(passive=True)
    assert edge.new_queues == [("q", "/")]


def test_purging_drops_what_is_ready_and_not_what_is_held() -> None:
    client = Edge().connect()
    client.declare()
    client.publish(b"1", b"2", b"3")
    client.call(Basic.Get(queue="q"), Basic.GetOk)
    assert client.call(Queue.Purge(queue="q"), Queue.PurgeOk).message_count == 2
    send(client, Basic.Nack(1, False, True))
    assert client.ready_count() == 1


def test_deleting_counts_what_goes_and_forgives_what_is_not_there() -> None:
    client = Edge().connect()
    client.declare()
    client.publish(b"1", b"2")
    assert client.delete().message_count == 2
    assert client.delete().message_count == 0


def test_deleting_under_conditions() -> None:
    client = Edge().connect()
    client.declare()
    client.publish(b"1")
    send(client, Queue.Delete(queue="q", if_empty=True))
    client.expect_channel_closed(406, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty")
    other = client.edge.connect()
    other.consume(no_ack=True)
    assert other.bodies() == [b"1"]
    third = client.edge.connect()
    send(third, Queue.Delete(queue="q", if_unused=True))
    third.expect_channel_closed(406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use")
    send(other, Queue.Delete(queue="q", if_empty=True))
    assert other.names() == ["Queue.DeleteOk", "Basic.Cancel"]


@pytest.mark.parametrize(
    "method",
    [
        make(Queue.Declare, queue="new", nowait=True),
        make(Queue.Bind, queue="q", exchange="amq.fanout", nowait=True),
        make(Queue.Purge, queue="q", nowait=True),
        make(Queue.Delete, queue="q", nowait=True),
        make(Exchange.Declare, exchange="new", nowait=True),
        make(Exchange.Bind, source="amq.fanout", destination="amq.direct", nowait=True),
        make(Exchange.Unbind, source="amq.fanout", destination="amq.direct", nowait=True),
        make(Exchange.Delete, exchange="x", nowait=True),
    ],
    ids=lambda method: method.name,
)
def test_nowait_is_silent(method: Method) -> None:
    client = Edge().connect()
    client.declare()
    client.declare_exchange("x")
    send(client, method)
    client.expect_nothing()
    client.declare("next")


# Bindings


def test_without_a_queue_the_last_one_is_bound_under_its_name() -> None:
    client = Edge().connect()
    client.declare("last")
    client.call(Queue.Bind(exchange="amq.direct"), Queue.BindOk)
    client.publish(b"1", queue="last", exchange="amq.direct")
    client.call(Queue.Unbind(exchange="amq.direct"), Queue.UnbindOk)
    client.publish(b"2", queue="last", exchange="amq.direct")
    assert client.ready_count("last") == 1


@pytest.mark.parametrize(
    ("queue", "exchange", "text"),
    [
        ("none", "nowhere", "no exchange 'nowhere' in vhost '/'"),
        ("none", "amq.direct", "no queue 'none' in vhost '/'"),
        ("q", "nowhere", "no exchange 'nowhere' in vhost '/'"),
    ],
)
def test_both_ends_of_a_binding_have_to_be_there(queue: str, exchange: str, text: str) -> None:
    client = Edge().connect()
    client.declare()
    send(client, Queue.Bind(queue=queue, exchange=exchange))
    client.expect_channel_closed(404, f"NOT_FOUND - {text}")


def test_the_default_exchange_is_not_bound_by_hand() -> None:
    for method in (
        make(Queue.Bind, queue="q", exchange=""),
        make(Queue.Unbind, queue="q", exchange=""),
        make(Exchange.Bind, source="", destination="amq.direct"),
        make(Exchange.Declare, exchange=""),
        make(Exchange.Delete, exchange=""),
    ):
        client = Edge().connect()
        client.declare()
        send(client, method)
        client.expect_channel_closed(403, "operation not permitted on the default exchange")


def test_exchanges_are_bound_to_exchanges() -> None:
    client = Edge().connect()
    client.declare()
    for name in ("a", "b"):
        client.declare_exchange(name)
    client.bind("q", "b")
    client.call(Exchange.Bind(destination="b", source="a"), Exchange.BindOk)
    client.publish(b"1", exchange="a")
    client.call(Exchange.Unbind(destination="b", source="a"), Exchange.UnbindOk)
    client.publish(b"2", exchange="a")
    assert client.ready_count() == 1


def test_arguments_tell_bindings_apart() -> None:
    client = Edge().connect()
    client.declare()
    for number in (1, 2):
        arguments = pamqp_table(to_table({"n": number}))
        bind = make(Queue.Bind, queue="q", exchange="amq.headers", arguments=arguments)
        client.call(bind, Queue.BindOk)
    bound = bindings_from(client.edge.vhost.topology, "amq.headers")
    assert len(bound) == 2


# Exchanges


def test_an_exchange_cannot_be_declared_as_another() -> None:
    client = Edge().connect()
    client.declare_exchange("x", "fanout")
    send(client, Exchange.Declare(exchange="x", exchange_type="direct"))
    client.expect_channel_closed(
        406, "inequivalent arg 'type' for exchange 'x' in vhost '/': received 'direct' but current"
    )


def test_a_passive_declare_asks_only_for_the_name() -> None:
    client = Edge().connect()
    client.declare_exchange("x", "fanout")
    ask = make(Exchange.Declare, exchange="x", exchange_type="nonsense", passive=True)
    client.call(ask, Exchange.DeclareOk)
    send(client, make(Exchange.Declare, exchange="y", passive=True))
    client.expect_channel_closed(404, "NOT_FOUND - no exchange 'y' in vhost '/'")


def test_an_exchange_in_use_stays_if_that_is_asked() -> None:
    client = Edge().connect()
    client.declare()
    client.declare_exchange("x")
    client.bind("q", "x")
    send(client, Exchange.Delete(exchange="x", if_unused=True))
    client.expect_channel_closed(406, "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use")


# Access


def test_a_ticket_is_handed_out_to_who_asks() -> None:
    client = Edge().connect()
    assert client.call(Access.Request(), Access.RequestOk).ticket == 1


def test_the_default_type_of_a_virtual_host_is_taken_for_what_names_none() -> None:
    edge = Edge()
    edge.editor.vhost("/", metadata={"default_queue_type": "quorum"})
    client = edge.connect()
    client.declare("transient")
    assert edge.vhost.queues["transient"].spec.arguments == {"x-queue-type": ("S", b"classic")}
    client.declare("transient")
    send(client, make(Queue.Declare, queue="", durable=True))
    client.expect_channel_closed(406, "Cannot declare a server-named queue for type rabbit_quorum")
    edge.connect().declare("durable", durable=True)
    assert edge.vhost.queues["durable"].spec.queue_type is QueueType.QUORUM


@pytest.mark.parametrize("is_relaxed", [False, True])
def test_a_quorum_queue_may_be_declared_again_as_a_classic_one_if_that_is_let_pass(
    is_relaxed: bool,
) -> None:
    edge = Edge()
    quorum = QuorumConfig(relaxed_redeclare=is_relaxed)
    edge.services = replace(edge.services, quorum=quorum)
    tables = [
        pamqp_table(to_table({"x-queue-type": kind, "x-max-length": 5, **more}))
        for kind, more in (
            ("quorum", {"x-delivery-limit": 3}),
            ("classic", {"x-max-priority": 9}),
        )
    ]
    edge.connect().declare("q", durable=True, arguments=tables[0])
    for flags in ({"durable": True}, {"exclusive": True}, {"auto_delete": True}):
        client = edge.connect()
        if is_relaxed:
            client.declare("q", arguments=tables[1], **flags)
            continue
        send(client, make(Queue.Declare, queue="q", arguments=tables[1], **flags))
        client.expect_channel_closed(405 if "exclusive" in flags else 406)
    client = edge.connect()
    longer = pamqp_table(to_table({"x-max-length": 6}))
    send(client, make(Queue.Declare, queue="q", durable=True, arguments=longer))
    client.expect_channel_closed(406, "'x-max-length'")
    spec = edge.vhost.queues["q"].spec
    assert (spec.queue_type, spec.durable) == (QueueType.QUORUM, True)


def test_in_an_exchange_that_goes_no_binding_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exchange may have tens of thousands of bindings, and all other work waits."""
    edge = Edge()
    client = edge.connect()
    client.declare()
    client.declare_exchange("x", "topic")
    client.bind("q", "x", "a.#")
    looked_for: list[object] = []
    monkeypatch.setattr(TopicMatcher, "discard", lambda _matcher, each: looked_for.append(each))
    client.call(Exchange.Delete(exchange="x"), Exchange.DeleteOk)
    assert looked_for == []
    assert not edge.vhost.topology.bindings_to(DestinationKind.QUEUE, "q")
