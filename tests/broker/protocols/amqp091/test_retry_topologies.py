"""Topologies that frameworks build of dead letters and expiry, with clocks that the test moves.

Spring:       work --rejected--> retry (x-message-ttl) --expired--> work; consumers count x-death.
NServiceBus:  a queue for each bit of a delay in seconds, 28 of them; the bits are words of the
              routing key, and each level sends a message on that does not wait in it.
Celery:       tasks that are rejected go to a queue of their own.
"""

from __future__ import annotations

import pytest

from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.protocol.headers import deaths_of
from fluffle.protocol.methods import Basic, encode_method
from fluffle.protocol.properties import Properties, decode_properties
from fluffle.protocol.wire import FieldTable, PlainValue, to_table
from tests.support.definitions import VhostEditor
from tests.support.edge import Arrival, Client, Edge

PROPERTIES_AT = 12
"""In the payload of a content header."""

QUEUE, EXCHANGE = DestinationKind.QUEUE, DestinationKind.EXCHANGE


def declare(edge: Edge, name: str, **arguments: PlainValue) -> None:
    table = to_table({key.replace("_", "-"): value for key, value in arguments.items()})
    VhostEditor(edge.vhost).declare_queue(Declaration(name, arguments=table), None)


def reject(client: Client, arrival: Arrival) -> None:
    assert isinstance(arrival.method, Basic.Deliver)
    client.send(encode_method(1, Basic.Reject(arrival.method.delivery_tag, requeue=False)))


def headers_of(arrival: Arrival) -> FieldTable:
    return decode_properties(arrival.header[PROPERTIES_AT:]).headers or {}


# Spring


def times_rejected(arrival: Arrival) -> int:
    """In the queue of the work, as Spring's consumers find it out."""
    headers = headers_of(arrival)
    deaths = deaths_of(headers) if "x-death" in headers else []
    counts = [
        death["count"][1]
        for death in deaths
        if death["reason"][1] == b"rejected" and death["queue"][1] == b"work"
    ]
    assert len(counts) < 2
    return int(str(counts[0])) if counts else 0


def test_work_is_tried_again_after_a_while_and_not_for_ever() -> None:
    edge = Edge()
    declare(edge, "work", x_dead_letter_exchange="", x_dead_letter_routing_key="retry")
    declare(
        edge,
        "retry",
        x_message_ttl=5_000,
        x_dead_letter_exchange="",
        x_dead_letter_routing_key="work",
    )
    declare(edge, "parking lot")
    client = edge.connect()
    client.publish(b"task", queue="work", properties=Properties(message_id="1"))
    client.consume("work")
    for times in range(3):
        arrival = client.take()
        assert times_rejected(arrival) == times
        reject(client, arrival)
        edge.advance(4.9)
        client.expect_nothing()
        edge.advance(0.2)
    last = client.take()
    assert times_rejected(last) == 3
    assert [death["reason"][1] for death in deaths_of(headers_of(last))] == [
        b"expired",
        b"rejected",
    ]
    client.publish(last.body, queue="parking lot")
    assert isinstance(last.method, Basic.Deliver)
    client.ack(last.method.delivery_tag or 0)
    assert [edge.vhost.queues[name].ready_count for name in ("work", "retry", "parking lot")] == [
        *(0, 0, 1)
    ]


# NServiceBus

LEVELS = 28
DELIVERY = "nsb.v2.delay-delivery"


def level_name(level: int) -> str:
    return f"nsb.v2.delay-level-{level:02}"


def build_delays(edge: Edge) -> None:
    """Its infrastructure for delays: a level waits for so many seconds as its bit is worth."""
    topology = edge.vhost.topology
    topology.put_exchange(ExchangeSpec(DELIVERY, "topic"))
    for level in range(LEVELS):
        topology.put_exchange(ExchangeSpec(level_name(level), "topic"))
    for level in reversed(range(LEVELS)):
        name, lower = level_name(level), level_name(level - 1) if level else DELIVERY
        declare(edge, name, x_message_ttl=1_000 << level, x_dead_letter_exchange=lower)
        before = "*." * (LEVELS - 1 - level)
        topology.put_binding(Binding(name, name, QUEUE, f"{before}1.#"))
        topology.put_binding(Binding(name, lower, EXCHANGE, f"{before}0.#"))


def send_later(edge: Edge, client: Client, body: bytes, address: str, delay_s: int) -> None:
    bits = f"{delay_s:0{LEVELS}b}"
    key = ".".join([*bits, address])
    client.publish(body, exchange=level_name(delay_s.bit_length() - 1), queue=key)


@pytest.mark.parametrize("delay_s", [1, 2, 5, 6, 1_000, 5_000])
def test_levels_of_queues_delay_by_any_number_of_seconds(delay_s: int) -> None:
    edge = Edge()
    build_delays(edge)
    declare(edge, "endpoint")
    edge.vhost.topology.put_binding(Binding(DELIVERY, "endpoint", QUEUE, "#.endpoint"))
    client = edge.connect()
    client.consume("endpoint", no_ack=True)
    send_later(edge, client, b"later", "endpoint", delay_s)
    bits = [1 << level for level in reversed(range(LEVELS)) if delay_s & 1 << level]
    for wait_s in bits[:-1]:
        edge.advance(wait_s)
        client.expect_nothing()
    edge.advance(bits[-1] - 0.1)
    client.expect_nothing()
    edge.advance(0.2)
    arrival = client.take()
    assert arrival.body == b"later"
    deaths = deaths_of(headers_of(arrival))
    assert [death["queue"][1] for death in deaths] == [
        level_name(bit.bit_length() - 1).encode() for bit in reversed(bits)
    ]


def test_two_delays_do_not_wait_for_each_other() -> None:
    edge = Edge()
    build_delays(edge)
    declare(edge, "endpoint")
    edge.vhost.topology.put_binding(Binding(DELIVERY, "endpoint", QUEUE, "#.endpoint"))
    client = edge.connect()
    client.consume("endpoint", no_ack=True)
    send_later(edge, client, b"in 5", "endpoint", 5)
    send_later(edge, client, b"in 2", "endpoint", 2)
    for _ in range(6):
        edge.advance(1.01)
    assert client.bodies() == [b"in 2", b"in 5"]


# Celery


def test_tasks_that_are_rejected_are_kept_apart() -> None:
    edge = Edge()
    topology = edge.vhost.topology
    topology.put_exchange(ExchangeSpec("dlx", "direct"))
    declare(edge, "celery.dead")
    topology.put_binding(Binding("dlx", "celery.dead", QUEUE, "celery"))
    declare(edge, "celery", x_dead_letter_exchange="dlx", x_dead_letter_routing_key="celery")
    client = edge.connect()
    task = Properties(headers=to_table({"task": "tasks.add", "id": "1", "retries": 0}))
    client.publish(b"[[], {}, {}]", queue="celery", properties=task)
    client.consume("celery", tag="worker")
    reject(client, client.take())
    client.consume("celery.dead", tag="dead", no_ack=True)
    dead = client.take()
    headers = headers_of(dead)
    assert dead.body == b"[[], {}, {}]"
    assert headers["task"] == ("S", b"tasks.add")
    assert headers["x-first-death-queue"] == ("S", b"celery")
    [death] = deaths_of(headers)
    assert death["reason"] == ("S", b"rejected")
