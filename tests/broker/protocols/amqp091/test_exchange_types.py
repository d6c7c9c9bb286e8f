"""Publishing through exchanges that draw, look at properties, or keep what has come."""

from collections import Counter
from collections.abc import Callable
from itertools import chain

import pytest

from fluffle.broker.protocols.amqp091 import event_handlers
from fluffle.protocol.methods import Basic, Exchange, Queue, encode_method, make, pamqp_table
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import to_table
from tests.support.edge import Client, Edge, publish_frames

QUEUES = ("q0", "q1", "q2")


def declare_exchange(client: Client, name: str, kind: str, **arguments: object) -> None:
    table = pamqp_table(to_table({key.replace("_", "-"): each for key, each in arguments.items()}))  # type: ignore[misc]
    declare = make(Exchange.Declare, exchange=name, exchange_type=kind, arguments=table)
    client.call(declare, Exchange.DeclareOk)


def with_queues(kind: str, key: str = "", **arguments: object) -> Client:
    client = Edge().connect()
    declare_exchange(client, "x", kind, **arguments)
    for queue in QUEUES:
        client.declare(queue)
        client.bind(queue, "x", key)
    return client


def drained(client: Client, queue: str) -> list[bytes]:
    """Take all messages of a queue."""
    bodies: list[bytes] = []
    while True:
        client.send(encode_method(1, Basic.Get(queue=queue, no_ack=True)))
        arrival = client.take()
        if not isinstance(arrival.method, Basic.GetOk):
            return bodies
        bodies.append(arrival.body)


def bind_exchange(client: Client, destination: str, source: str, key: str = "") -> None:
    bind = make(Exchange.Bind, destination=destination, source=source, routing_key=key)
    client.call(bind, Exchange.BindOk)


def bodies(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


@pytest.mark.parametrize("count", [1, 30, event_handlers.DRAWN_MAX + 50])
def test_each_message_of_a_batch_is_drawn_for_itself(count: int) -> None:
    client = with_queues("x-random")
    client.publish(*bodies(count), exchange="x", queue="k")
    found = [drained(client, queue) for queue in QUEUES]
    assert sorted(chain.from_iterable(found)) == sorted(bodies(count))
    for one in found:
        assert one == sorted(one, key=int)
        assert count < 30 or len(one) > count // 6


def test_queues_that_get_all_get_it_in_order_whatever_is_drawn() -> None:
    client = with_queues("x-random")
    client.declare("all")
    declare_exchange(client, "front", "fanout")
    bind_exchange(client, "x", "front")
    client.bind("all", "front")
    client.publish(*bodies(60), exchange="front", queue="")
    assert drained(client, "all") == bodies(60)
    assert sum(len(drained(client, queue)) for queue in QUEUES) == 60


def test_what_was_drawn_is_confirmed_once_and_comes_back_if_there_is_nobody() -> None:
    client = with_queues("x-random")
    client.confirm_select()
    client.publish(*bodies(40), exchange="x", queue="k", mandatory=True)
    ack = client.expect(Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (40, True)
    client.expect_nothing()
    for queue in QUEUES:
        client.call(make(Queue.Unbind, queue=queue, exchange="x"), Queue.UnbindOk)
    client.publish(*bodies(3), exchange="x", queue="k", mandatory=True)
    assert client.names() == [*["Basic.Return"] * 3, "Basic.Ack"]


def test_alternating_frames_are_drawn_too() -> None:
    client = with_queues("x-random")
    client.send(
        *(
            publish_frames(body, f"key {number % 2}", exchange="x")
            for number, body in enumerate(bodies(60))
        )
    )
    counts = [len(drained(client, queue)) for queue in QUEUES]
    assert sum(counts) == 60
    assert min(counts) > 8


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"hash_header": "h"}, lambda n: Properties(headers=to_table({"h": n}))),
        ({"hash_property": "message_id"}, lambda n: Properties(message_id=f"{n}")),
        ({"hash_property": "timestamp"}, lambda n: Properties(timestamp=n)),
    ],
)
def test_properties_of_each_message_are_hashed(
    arguments: dict[str, object], named: Callable[[int], Properties]
) -> None:
    client = with_queues("x-consistent-hash", "1", **arguments)
    frames = [
        publish_frames(str(n % 20).encode(), "same key", exchange="x", properties=named(n % 20))
        for n in range(60)
    ]
    client.send(*frames)
    found = [Counter(drained(client, queue)) for queue in QUEUES]
    assert sum(found, Counter()) == dict.fromkeys(bodies(20), 3)
    assert sum(len(one) for one in found) == 20
    assert all(found)


def test_only_messages_that_pass_are_kept() -> None:
    client = Edge().connect()
    declare_exchange(client, "front", "topic")
    declare_exchange(client, "recent", "x-recent-history", x_recent_history_length=2)
    bind_exchange(client, "recent", "front", "kept")
    client.declare()
    for key, body in (("kept", b"1"), ("other", b"2"), ("kept", b"3"), ("kept", b"4")):
        client.publish(body, exchange="front", queue=key)
    client.publish(
        b"5", exchange="front", queue="x", properties=Properties(headers=to_table({"CC": ["kept"]}))
    )
    client.bind("q", "recent")
    assert drained(client, "q") == [b"4", b"5"]
    client.bind("q", "recent")
    assert drained(client, "q") == []


def test_what_is_drawn_before_a_history_is_kept_where_it_went() -> None:
    client = Edge().connect()
    declare_exchange(client, "dice", "x-random")
    for number in range(3):
        declare_exchange(client, f"recent {number}", "x-recent-history", x_recent_history_length=90)
        bind_exchange(client, f"recent {number}", "dice")
    client.publish(*bodies(60), exchange="dice", queue="k")
    found = []
    for number in range(3):
        client.declare(f"q{number}")
        client.bind(f"q{number}", f"recent {number}")
        found.append(drained(client, f"q{number}"))
    assert sorted(chain.from_iterable(found)) == sorted(bodies(60))
    assert all(one == sorted(one, key=int) for one in found)
    assert min(map(len, found)) > 8
