"""Routes over one exchange and many: duplicates, loops, alternates, headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.errors import AccessRefused, NotFound
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import FieldTable
from tests.broker.routing.topologies import (
    bind,
    to_exchange,
    to_queue,
    topology,
    unbind,
    with_alternate,
)


def route(
    made: Topology, exchange: str, *keys: str, headers: FieldTable | None = None
) -> tuple[str, ...]:
    properties = Properties(headers=headers)
    return Router(made, {"q", "r"}.__contains__).route(exchange, keys or ("",), properties)


def property_bindings(made: Topology, exchange: str) -> int:
    needs = Router(made, bool).needs(exchange)
    assert not needs.is_drawn
    return needs.property_bindings


def test_the_default_exchange_leads_to_the_queue_of_that_name() -> None:
    made = Topology("/")
    assert route(made, "", "q") == ("q",)
    assert route(made, "", "nope") == ()
    assert route(made, "", "r", "nope", "q", "r") == ("r", "q")


def test_a_queue_gets_one_copy_however_many_bindings_and_keys_match() -> None:
    made = topology(
        to_queue("amq.topic", "q", "#"),
        to_queue("amq.topic", "q", "a.*"),
        to_queue("amq.topic", "r", "a.b"),
        to_exchange("amq.topic", "amq.fanout", "a.#"),
        to_queue("amq.fanout", "q"),
    )
    assert sorted(route(made, "amq.topic", "a.b", "a.c", "a.b")) == ["q", "r"]


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.topic"])
def test_every_key_of_the_message_counts(exchange: str) -> None:
    made = topology(to_queue(exchange, "q", "a"), to_queue(exchange, "r", "b"))
    assert route(made, exchange, "a") == ("q",)
    assert route(made, exchange, "b", "a") == ("r", "q")


def test_queues_come_in_the_order_of_their_bindings() -> None:
    made = topology(*[to_queue("amq.fanout", f"q{number}") for number in range(20)])
    assert route(made, "amq.fanout") == tuple(f"q{number}" for number in range(20))


def test_an_exchange_that_is_not_there_leads_nowhere() -> None:
    assert route(Topology("/"), "nope", "q") == ()


def test_headers_are_looked_at_by_headers_exchanges() -> None:
    made = topology(to_queue("amq.match", "q", "", {"a": ("I", 1)}))
    assert route(made, "amq.match", headers={"a": ("s", 1)}) == ("q",)
    assert route(made, "amq.match", headers=None) == ()


def test_keys_and_headers_are_the_same_for_every_exchange_of_the_walk() -> None:
    made = topology(
        to_exchange("amq.fanout", "amq.topic", "not looked at"),
        to_queue("amq.topic", "q", "a.#"),
        to_exchange("amq.topic", "amq.headers", "a.*"),
        to_queue("amq.headers", "r", ""),
    )
    assert route(made, "amq.fanout", "a") == ("q",)
    assert route(made, "amq.fanout", "a.b") == ("q", "r")
    assert route(made, "amq.fanout", "b") == ()


def test_loops_end() -> None:
    made = topology(
        ExchangeSpec("a", "fanout"),
        ExchangeSpec("b", "fanout"),
        to_exchange("a", "b"),
        to_exchange("b", "a"),
        to_exchange("a", "a"),
        to_queue("b", "q"),
        to_queue("a", "r"),
    )
    assert set(route(made, "a")) == set(route(made, "b")) == {"q", "r"}


def test_a_long_chain_of_exchanges() -> None:
    specs = [ExchangeSpec(str(number), "fanout") for number in range(2000)]
    links = [to_exchange(str(number), str(number + 1)) for number in range(1999)]
    made = topology(*specs, *links, to_queue("1999", "q"))
    assert route(made, "0") == ("q",)
    assert property_bindings(made, "0") == 0


def test_the_alternate_gets_what_matches_nothing() -> None:
    made = topology(
        with_alternate("x", "amq.fanout", "direct"),
        to_queue("x", "q", "k"),
        to_queue("amq.fanout", "r"),
    )
    assert route(made, "x", "k") == ("q",)
    assert route(made, "x", "other") == ("r",)
    assert route(made, "x", "other", "k") == ("q",)


def test_alternates_form_chains_and_loops() -> None:
    made = topology(
        with_alternate("a", "b"),
        with_alternate("b", "c"),
        with_alternate("c", "a", "direct"),
        to_queue("c", "q", "k"),
    )
    assert route(made, "a", "k") == ("q",)
    assert route(made, "a", "other") == ()


def test_a_match_that_leads_nowhere_is_a_match() -> None:
    made = topology(
        with_alternate("x", "amq.fanout"),
        ExchangeSpec("empty"),
        to_exchange("x", "empty"),
        to_queue("amq.fanout", "q"),
    )
    assert route(made, "x") == ()


def test_the_alternate_of_an_exchange_further_on() -> None:
    made = topology(
        ExchangeSpec("a", "fanout"),
        with_alternate("b", "amq.fanout"),
        to_exchange("a", "b"),
        to_queue("a", "q"),
        to_queue("amq.fanout", "r"),
    )
    assert route(made, "a") == ("q", "r")


@pytest.mark.parametrize("alternate", ["nope", ""])
def test_an_alternate_that_leads_nowhere_is_no_error(alternate: str) -> None:
    """RabbitMQ: as an alternate the default exchange has no bindings, explicit or implied."""
    assert route(topology(with_alternate("x", alternate)), "x", "q") == ()


def test_internal_exchanges_are_reached_but_not_published_to() -> None:
    made = topology(
        ExchangeSpec("in", "fanout", internal=True),
        to_exchange("amq.fanout", "in"),
        to_queue("in", "q"),
    )
    router = Router(made, bool)
    assert route(made, "amq.fanout") == ("q",)
    router.publishable("amq.fanout")
    router.publishable("")
    with pytest.raises(AccessRefused) as refused:
        router.publishable("in")
    assert refused.value.explanation == "cannot publish to internal exchange 'in' in vhost '/'"
    with pytest.raises(NotFound) as missing:
        router.publishable("nope")
    assert missing.value.explanation == "no exchange 'nope' in vhost '/'"


def test_headers_matter_if_a_headers_exchange_can_be_reached() -> None:
    made = topology(
        with_alternate("a", "b"),
        ExchangeSpec("b", "topic"),
        ExchangeSpec("c", "headers"),
        to_queue("b", "c", "k"),
        to_queue("c", "b", ""),
    )
    assert property_bindings(made, "c") == 1
    assert property_bindings(made, "a") == 0
    assert property_bindings(made, "") == 0
    assert property_bindings(made, "nope") == 0
    for key in ("k", "l"):
        bind(made, to_exchange("b", "c", key))
    assert property_bindings(made, "a") == 1
    unbind(made, to_exchange("b", "c", "k"))
    bind(made, to_queue("c", "q", ""))
    assert property_bindings(made, "b") == 2
    unbind(made, to_exchange("b", "c", "l"))
    assert property_bindings(made, "b") == 0


NAMES = st.sampled_from("abcde")
LINKS = st.sets(st.tuples(NAMES, NAMES))


@given(links=LINKS, queues=st.sets(st.tuples(NAMES, st.sampled_from("qrs"))), alternates=st.data())
def test_a_graph_of_fanouts_leads_to_all_queues_that_can_be_reached(
    links: set[tuple[str, str]], queues: set[tuple[str, str]], alternates: st.DataObject
) -> None:
    """With alternates: an edge that is there only where no other leaves the exchange."""
    chosen = alternates.draw(st.dictionaries(NAMES, NAMES))
    made = topology(
        *[with_alternate(source, end) for source, end in chosen.items()],
        *[ExchangeSpec(name, "fanout") for name in "abcde" if name not in chosen],
        *[to_exchange(source, end) for source, end in sorted(links)],
        *[to_queue(source, queue) for source, queue in sorted(queues)],
    )
    served = {source for source, _ in links | queues}
    edges = links | {(n, end) for n, end in chosen.items() if n not in served}
    reached = {"a"}
    for _ in "abcde":
        reached |= {end for source, end in edges if source in reached}
    found = route(made, "a")
    assert set(found) == {queue for source, queue in queues if source in reached}
    assert len(found) == len(set(found))
