"""A client that floods us holds up the others for a moment only."""

from __future__ import annotations

import pytest

from fluffle.broker.core.input_queue import EVENT_COST, TURN_COST_MAX
from fluffle.broker.core.publisher import ROUTE_COST
from fluffle.protocol.methods import Basic, Connection, Queue, encode_method, make, pamqp_table
from fluffle.protocol.mqtt.codes import MQTT_3_1_1, MQTT_5
from fluffle.protocol.mqtt.packets import Connect, encode
from fluffle.protocol.properties import Properties
from fluffle.protocol.spec import PROTOCOL_HEADER
from fluffle.protocol.wire import to_table
from tests.support.edge import Client, Edge, publish_frames

CLOSE = encode_method(0, Connection.Close(200, "bye", 0, 0))


def test_a_flood_of_methods_is_cut_into_turns() -> None:
    edge = Edge()
    flooder, other = edge.connect(), edge.connect()
    methods = [encode_method(1, Queue.Declare(queue=f"q{number}")) for number in range(1_000)]
    flooder.feed(*methods)
    other.feed(encode_method(1, Queue.Declare(queue="mine")))
    assert not flooder.transport.is_reading()
    done_by_turn = [len(flooder.names())]
    edge.scheduler.turn()
    assert other.names() == ["Queue.DeclareOk"]
    done_by_turn.append(len(flooder.names()))
    while edge.scheduler.turn():
        done_by_turn.append(len(flooder.names()))
    assert sum(done_by_turn) == 1_000
    assert max(done_by_turn) == TURN_COST_MAX // EVENT_COST
    assert flooder.transport.is_reading()


def test_many_floods_share_what_one_may_do() -> None:
    edge = Edge()
    flooders, other = [edge.connect() for _ in range(16)], edge.connect()
    methods = [encode_method(1, Queue.Declare(queue=f"q{number}")) for number in range(200)]
    for flooder in flooders:
        flooder.feed(*methods)
    for flooder in flooders:
        flooder.arrivals()
    for _ in range(3):
        edge.scheduler.turn()
    done_in_a_turn = sum(len(flooder.names()) for flooder in flooders) / 3
    assert done_in_a_turn <= 2 * TURN_COST_MAX // EVENT_COST
    other.declare("mine")
    edge.run()
    assert all(flooder.transport.is_reading() for flooder in flooders)
    assert edge.services.connections.busy == set()


def turns_of_a_flood(edge: Edge, flooder: Client, *sent: bytes) -> int:
    """How many turns a flood takes, in each of which another client is served."""
    other = edge.connect()
    flooder.feed(*sent)
    count = 0
    while not flooder.transport.is_reading():
        count += 1
        other.feed(encode_method(1, Queue.Declare(queue="mine")))
        edge.scheduler.turn()
        edge.scheduler.turn()
        assert other.names() == ["Queue.DeclareOk"]
    edge.run()
    return count


def test_a_flood_that_fans_out_is_cut_by_the_queues_it_fills() -> None:
    edge = Edge()
    flooder = edge.connect()
    for number in range(200):
        flooder.declare(f"q{number}")
        flooder.bind(f"q{number}", "amq.fanout")
    to_all, to_one = publish_frames(b"x", exchange="amq.fanout"), publish_frames(b"x", "q0")
    sent = [to_all, to_one] * 50
    assert turns_of_a_flood(edge, flooder, *sent) >= 50 * 203 // (2 * TURN_COST_MAX + 2 * 201)
    assert (flooder.ready_count("q0"), flooder.ready_count("q199")) == (100, 50)


def test_a_fan_out_with_many_routing_keys_asks_each_queue_once() -> None:
    edge = Edge()
    flooder = edge.connect()
    for number in range(200):
        flooder.declare(f"q{number}")
        flooder.bind(f"q{number}", "amq.fanout")
    sent = [publish_frames(b"x", "ab"[number % 2], exchange="amq.fanout") for number in range(100)]
    assert turns_of_a_flood(edge, flooder, *sent) == 0
    assert flooder.ready_count("q199") == 100


def test_a_flood_of_routing_keys_is_cut_by_the_routes_to_find() -> None:
    edge = Edge()
    flooder = edge.connect()
    flooder.declare_exchange("ex", "topic")
    flooder.declare("q")
    flooder.bind("q", "ex", "#")
    sent = [publish_frames(b"%d" % key, str(key), exchange="ex") for key in range(2_000)]
    assert turns_of_a_flood(edge, flooder, *sent) >= 2_000 * ROUTE_COST // (2 * TURN_COST_MAX)
    flooder.send(encode_method(1, Basic.Get(queue="q", no_ack=True)) * 2_000)
    edge.run()
    assert [int(arrival.body) for arrival in flooder.arrivals()] == [*range(2_000)]


def test_a_flood_that_asks_many_bindings_is_cut_by_their_number() -> None:
    edge = Edge()
    flooder = edge.connect()
    flooder.declare()
    arguments = [to_table({"n": number}) for number in range(400)]
    flooder.send(
        *(
            encode_method(
                1,
                make(
                    Queue.Bind,
                    queue="q",
                    exchange="amq.headers",
                    arguments=pamqp_table(table),
                    nowait=True,
                ),
            )
            for table in arguments
        )
    )
    properties = Properties(headers=to_table({"n": 399}))
    runs = [
        publish_frames(b"x", "ab"[number % 2], exchange="amq.headers", properties=properties)
        for number in range(200)
    ]
    assert turns_of_a_flood(edge, flooder, *runs) >= 2
    assert flooder.ready_count() == 200


def test_a_flood_keeps_its_order_over_turns() -> None:
    client = Edge().connect()
    client.declare()
    rounds = [
        publish_frames(b"%d" % number) + encode_method(1, Basic.Get(queue="q", no_ack=True))
        for number in range(500)
    ]
    client.send(*rounds)
    assert client.bodies(Basic.GetOk) == [b"%d" % number for number in range(500)]


def test_a_close_in_a_flood_ends_it() -> None:
    edge = Edge()
    client = edge.connect()
    declare = encode_method(1, Queue.Declare(queue="q"))
    client.send(*([declare] * 300), CLOSE, *([declare] * 300))
    assert client.names() == ["Queue.DeclareOk"] * 300 + ["Connection.CloseOk"]
    assert not client.connection.input.events
    assert client.transport.is_reading()


MQTT_CONNECT = encode(Connect(MQTT_5, "meter"), MQTT_5)
LONG_CONNECT = encode(Connect(MQTT_3_1_1, "x" * 20_000), MQTT_3_1_1)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (MQTT_CONNECT, "a client of MQTT at a port for AMQP 0-9-1"),
        (LONG_CONNECT, "a client of MQTT at a port for AMQP 0-9-1"),
        (b"\x10\x0e\x00\x06MQIsdp\x03\x02\0\0\0\0", "a client of MQTT at a port for AMQP 0-9-1"),
        (b"GET / HTTP/1.1\r\n", "a client of HTTP at a port for AMQP 0-9-1"),
        (b"\x16\x03\x01\0\0\0\0\0", "a client of TLS at a port for AMQP 0-9-1 without TLS"),
        (b"AMQP\x03\x01\0\0", "a client of AMQP 1.0 at a port for AMQP 0-9-1"),
        (b"AMQP\0\0\x09\x02", "bad protocol header at a port for AMQP 0-9-1"),
        (b"\x10\x0e\x00\x04AMQP", "bad protocol header at a port for AMQP 0-9-1"),
    ],
)
def test_the_log_says_whose_client_has_come_to_a_port_for_amqp(sent: bytes, reason: str) -> None:
    client = Edge().accept()
    client.feed(sent)
    assert b"".join(client.transport.writes) == PROTOCOL_HEADER
    assert client.connection.close_reason == reason
