"""Explanations agree with the router, and their reasons with the matchers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.errors import NotFound
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.exchange import EXCHANGE_TYPES, ExchangeSpec
from fluffle.broker.routing.explain import (
    REASONS,
    UNMATCHED_SHOWN_MAX,
    Explanation,
    explain,
    of_pattern,
)
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import Field, FieldTable
from tests.broker.routing.topologies import to_exchange, to_queue, topology, with_alternate

QUEUES = ("q", "r", "s")


def explained(
    made: Topology, exchange: str, *keys: str, headers: FieldTable | None = None
) -> Explanation:
    explanation = Properties(headers=headers)
    return explain(made, QUEUES.__contains__, exchange, keys or ("",), explanation)


def reasons(
    made: Topology, exchange: str, *keys: str, headers: FieldTable | None = None
) -> list[str]:
    """Reasons of the exchange's own bindings that do not match."""
    first = explained(made, exchange, *keys, headers=headers).visits[0]
    return [verdict.reason for verdict in first.verdicts if not verdict.is_match]


def test_a_route_reads_as_text() -> None:
    made = topology(
        with_alternate("events", "unrouted", "topic"),
        ExchangeSpec("eu", "headers"),
        to_queue("events", "q", "#"),
        to_exchange("events", "eu", "order.*"),
        to_queue("events", "r", "bill.#"),
        to_queue("eu", "s", "", {"region": ("S", b"de"), "size": ("I", 2)}),
    )
    explanation = explained(made, "events", "order.created", headers={"region": ("S", b"fr")})
    assert str(explanation) == (
        "published to exchange 'events' (topic) with routing key 'order.created'\n"
        "  + exchange 'eu' by 'order.*'\n"
        "  + queue 'q' by '#'\n"
        "  - queue 'r' by 'bill.#': where 'bill' should be there is 'order'\n"
        "from exchange 'events' to exchange 'eu' (headers)\n"
        "  - queue 's' by '' with region='de', size=2: "
        "header 'region' is 'fr', not 'de'; header 'size' is absent\n"
        "goes to: 'q'"
    )


def test_an_internal_exchange_is_for_no_client() -> None:
    made = topology(
        ExchangeSpec("inner", "fanout", internal=True),
        ExchangeSpec("outer", "fanout"),
        to_exchange("outer", "inner", ""),
        to_queue("inner", "q", ""),
    )
    (note,) = explained(made, "inner").visits[0].notes
    assert note == "is internal: a client that publishes to it is refused (ACCESS_REFUSED)"
    assert [visit.notes for visit in explained(made, "outer").visits] == [(), ()]


def test_an_alternate_is_reported_when_it_is_used_and_when_it_is_not_there() -> None:
    made = topology(
        with_alternate("x", "y", "direct"),
        with_alternate("y", "nope", "direct"),
        to_queue("x", "q", "k"),
        to_queue("y", "r", "l"),
    )
    assert len(explained(made, "x", "k").visits) == 1
    assert str(explained(made, "x", "other")).splitlines() == [
        "published to exchange 'x' (direct) with routing key 'other'",
        "  - queue 'q' by 'k': the routing key is 'other'",
        "  nothing matches: it goes to the alternate exchange 'y'",
        "unmatched by exchange 'x', on to its alternate exchange 'y' (direct)",
        "  - queue 'r' by 'l': the routing key is 'other'",
        "  its alternate exchange 'nope' is not there",
        "goes nowhere",
    ]


def test_what_would_go_round_is_reported() -> None:
    made = topology(
        ExchangeSpec("a", "fanout"),
        ExchangeSpec("b", "fanout"),
        to_exchange("a", "b"),
        to_exchange("b", "a"),
    )
    _first, second = explained(made, "a").visits
    assert second.notes == ("exchange 'a' has been asked: nothing goes round",)
    looped = topology(with_alternate("c", "d"), with_alternate("d", "c"))
    _first, second = explained(looped, "c").visits
    assert second.notes[-1] == "its alternate exchange 'c' has been asked: nothing goes round"


def test_the_default_exchange_knows_queues_by_name() -> None:
    assert str(explained(Topology("/"), "", "q", "nope")).splitlines() == [
        "published to exchange '' (direct) with routing key 'q', 'nope'",
        "  + queue 'q' by 'q'",
        "  - queue 'nope' by 'nope': there is no queue of that name",
        "goes to: 'q'",
    ]
    with pytest.raises(NotFound, match="no exchange 'x'"):
        explained(Topology("/"), "x")


def test_an_exchange_without_bindings_says_so() -> None:
    assert explained(Topology("/"), "amq.topic").visits[0].notes == ("has no bindings",)


@pytest.mark.parametrize(
    ("pattern", "key", "reason"),
    [
        ("a.b", "a.c", "where 'b' should be there is 'c'"),
        ("a.b", "a", "where 'b' should be there is the end of the key"),
        ("a.*", "a", "where '*' should be there is the end of the key"),
        ("a", "a.b.c", "'b.c' is left over at the end"),
        ("#.c", "a.b", "where 'c' should be there is 'a' or 'b'"),
        ("#.z", "a.b.c.d", "where 'z' should be there is 'a' or 'b' or 'c' and so on"),
        ("", "a", "'a' is left over at the end"),
        ("a.#.b.c", "a.b.b.x", "where 'c' should be there is 'b' or 'x'"),
        ("#", "", ""),
        ("a.#", "a", ""),
    ],
)
def test_a_topic_says_where_the_key_leaves_the_pattern(pattern: str, key: str, reason: str) -> None:
    assert of_pattern(pattern, key) == reason


def test_each_of_several_keys_has_its_reason() -> None:
    made = topology(to_queue("amq.topic", "q", "a"))
    assert reasons(made, "amq.topic", "b", "a.b") == [
        "with 'b', where 'a' should be there is 'b'; with 'a.b', 'b' is left over at the end"
    ]
    assert reasons(made, "amq.topic", "b", "a") == []


def test_headers_of_which_any_is_enough_and_of_which_there_is_none() -> None:
    any_of: FieldTable = {"x-match": ("S", b"any"), "a": ("I", 1), "b": ("S", b"1")}
    made = topology(
        to_queue("amq.match", "q", "", any_of),
        to_queue("amq.match", "r", "", {"x-match": ("S", b"any")}),
    )
    assert reasons(made, "amq.match", headers={"b": ("I", 1)}) == [
        "header 'a' is absent; header 'b' is 1, not '1'",
        "x-match is any, and there is nothing to match",
    ]


def test_what_is_drawn_and_what_waits_is_reported() -> None:
    made = topology(ExchangeSpec("dice", "x-random"), *(to_queue("dice", each) for each in "qr"))
    (visit,) = explained(made, "dice").visits
    assert [each.reason for each in visit.verdicts] == ["", "another one was drawn"]
    assert visit.notes == ("chance has a say: another message may go elsewhere",)
    late = ExchangeSpec("late", "x-delayed-message", arguments={"x-delayed-type": ("S", b"topic")})
    waiting = Topology("/", exchanges=[late], bindings=[to_queue("late", "q", "a")])
    (visit,) = explained(waiting, "late", "a", headers={"x-delay": ("I", 50)}).visits
    assert visit.notes == ("waits there for 50 ms, and then goes on without x-delay",)
    assert reasons(waiting, "late", "b") == ["where 'a' should be there is 'b'"]


def test_a_text_does_not_tell_thousands() -> None:
    many = [to_queue("amq.direct", "q", str(number)) for number in range(200)]
    explanation = str(explained(topology(*many), "amq.direct", "199")).splitlines()
    assert len(explanation) == 4 + UNMATCHED_SHOWN_MAX
    assert "  + queue 'q' by '199'" in explanation
    assert explanation[-2] == f"  and {199 - UNMATCHED_SHOWN_MAX} more that do not match"


def test_there_are_reasons_for_every_type() -> None:
    assert REASONS.keys() == EXCHANGE_TYPES.keys() - {"x-delayed-message"}


NAMES = st.sampled_from("abcd")
WORDS = st.sampled_from(["x", "y", "*", "#", ""])
PATTERNS = st.lists(WORDS, max_size=4).map(".".join).filter(lambda key: key.count("#") <= 2)
KEYS = st.lists(st.sampled_from(["x", "y", ""]), max_size=4).map(".".join)
VALUES: st.SearchStrategy[Field] = st.sampled_from(
    [("I", 1), ("S", b"1"), ("V", None), ("t", True)]
)
HEADERS = st.dictionaries(st.sampled_from(["h", "i", "x-j"]), VALUES)
SPECS = st.tuples(
    st.sampled_from(["direct", "fanout", "topic", "headers", "x-modulus-hash", "late"]),
    st.none() | NAMES,
)
MATCHES = st.sampled_from([b"all", b"any", b"all-with-x", b"any-with-x"])


def exchange(name: str, kind: str, alternate: str | None) -> ExchangeSpec:
    arguments: FieldTable = {}
    if kind == "late":
        kind, arguments = "x-delayed-message", {"x-delayed-type": ("S", b"headers")}
    if alternate is not None:
        arguments = {**arguments, "alternate-exchange": ("S", alternate.encode())}
    return ExchangeSpec(name, kind, arguments=arguments)


@st.composite
def bindings(draw: st.DrawFn) -> Binding:
    arguments: FieldTable = draw(HEADERS) | {"x-match": ("S", draw(MATCHES))}
    to = draw(st.sampled_from([to_queue, to_exchange]))
    end = draw(st.sampled_from(QUEUES) if to is to_queue else NAMES)
    return to(draw(NAMES), end, draw(PATTERNS), arguments)


@given(
    specs=st.fixed_dictionaries(dict.fromkeys("abcd", SPECS)),
    bound=st.lists(bindings(), max_size=12, unique=True),
    keys=st.lists(KEYS, min_size=1, max_size=3),
    headers=st.tuples(HEADERS, st.sampled_from([{}, {"x-delay": ("I", 5)}])),
    start=NAMES | st.just(""),
)
def test_what_is_explained_is_what_the_router_does(
    specs: dict[str, tuple[str, str | None]],
    bound: list[Binding],
    keys: list[str],
    headers: tuple[FieldTable, FieldTable],
    start: str,
) -> None:
    made = Topology(
        "/",
        exchanges=[exchange(name, *each) for name, each in specs.items()],
        bindings=bound,
    )
    properties = Properties(headers=headers[0] | headers[1])
    explanation = explain(made, QUEUES.__contains__, start, keys, properties)
    assert explanation.queues == Router(made, QUEUES.__contains__).route(start, keys, properties)
    assert str(explanation)
    for visit in explanation.visits:
        if visit.type == "x-modulus-hash" or visit.exchange == "":
            continue
        kind = "headers" if visit.type == "x-delayed-message" else visit.type
        for verdict in visit.verdicts:
            assert verdict.is_match == (not REASONS[kind](verdict.binding, keys, properties))
