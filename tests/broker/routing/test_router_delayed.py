"""Where the walk ends for messages that are to be routed later, and where it begins again.

Source: src/rabbit_exchange_type_delayed_message.erl of RabbitMQ's plugin (4.2).
"""

from __future__ import annotations

import pytest

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.metadata.change import Fact, Kind
from fluffle.broker.routing import changes
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.router import RouteInputs, Router
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.properties import Properties
from fluffle.protocol.steps import whole
from fluffle.protocol.wire import FieldTable
from tests.broker.routing.topologies import FakeExchangeHost, bind, declare, to_exchange, to_queue

LATER = Properties(headers={"x-delay": ("I", 5)})
NOW = Properties(headers={"x-delay": ("I", -5)})


def delayed(name: str, inner: str = "direct", **more: bytes) -> ExchangeSpec:
    arguments: FieldTable = {"x-delayed-type": ("S", inner.encode())}
    arguments |= {key.replace("_", "-"): ("S", value) for key, value in more.items()}
    return ExchangeSpec(name, "x-delayed-message", arguments=arguments)


def delayed_queue_fact(queue: str) -> Fact:
    return Fact(Kind.QUEUE, ("v", queue))


@pytest.fixture
def topology() -> Topology:
    return Topology("v", host=FakeExchangeHost(queue_fact=delayed_queue_fact))


def routes(topology: Topology, exchange: str, properties: Properties | None) -> tuple[str, ...]:
    return Router(topology, lambda _name: False).route(exchange, ["k"], properties)


def test_it_waits_or_goes_where_the_inner_type_says(topology: Topology) -> None:
    declare(topology, delayed("x"))
    bind(topology, to_queue("x", "q", "k"))
    bind(topology, to_queue("x", "other", "other"))
    assert routes(topology, "x", LATER) == ("amq.delayed.x",)
    assert routes(topology, "x", NOW) == routes(topology, "x", Properties()) == ("q",)


def test_others_on_its_way_get_it_at_once(topology: Topology) -> None:
    declare(topology, ExchangeSpec("first", "fanout"))
    for name in ("x", "y"):
        declare(topology, delayed(name, "fanout"))
        bind(topology, to_exchange("first", name))
    bind(topology, to_queue("first", "q"))
    assert {*routes(topology, "first", LATER)} == {"q", "amq.delayed.x", "amq.delayed.y"}


def test_the_alternate_exchange_has_to_wait_too(topology: Topology) -> None:
    declare(topology, ExchangeSpec("other", "fanout"))
    bind(topology, to_queue("other", "q"))
    declare(topology, delayed("x", alternate_exchange=b"other"))
    assert routes(topology, "x", LATER) == ("amq.delayed.x",)
    assert routes(topology, "x", NOW) == ("q",)


def test_recent_messages_are_kept_when_they_are_routed(topology: Topology) -> None:
    declare(topology, delayed("x", "x-recent-history"))
    router = Router(topology, lambda _name: False)
    assert whole(router.route_in_steps("x", ["k"], LATER)).histories == ()
    assert len(whole(router.route_in_steps("x", ["k"], NOW)).histories) == 1


def test_properties_are_asked_for(topology: Topology) -> None:
    declare(topology, delayed("x"))
    assert Router(topology, lambda _name: False).needs("x") == RouteInputs(property_bindings=1)


def test_bindings_are_those_of_the_inner_type(topology: Topology) -> None:
    declare(topology, delayed("x", "x-consistent-hash"))
    with pytest.raises(PreconditionFailed, match="The binding key must be an integer"):
        bind(topology, to_queue("x", "q", "k"))


def test_what_holds_its_messages_goes_with_it(topology: Topology) -> None:
    declare(topology, delayed("x"))
    alone = changes.delete_exchange(topology, "x")
    assert {fact.name for fact in alone.removes} == {
        (Kind.EXCHANGE, ("v", "x")),
        (Kind.QUEUE, ("v", "amq.delayed.x")),
    }
    bind(topology, to_queue("x", "q", "k"))
    with_bindings = changes.delete_exchange(topology, "x")
    assert (Kind.QUEUE, ("v", "amq.delayed.x")) in {fact.name for fact in with_bindings.removes}
    for change in (alone, with_bindings):
        assert (Kind.QUEUE, ("v", "amq.delayed.x")) in change.rests_on
